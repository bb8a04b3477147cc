//! What is said to etcd's JSON gateway, and what it says.
//!
//! Keys and values are base64, 64-bit numbers are strings, and a field that is 0, false or empty is
//! absent. Source: etcd documentation, "gRPC gateway", and `rpc.proto` of etcd 3.4.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Something that must be so for a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Guard {
    /// Nobody has made this key.
    Absent { key: String },
    /// The key was changed last by this revision.
    Unchanged { key: String, revision: u64 },
    /// The key has this value.
    Is { key: String, value: Vec<u8> },
}

/// A change of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// It gets a value, on a lease of that number; 0 for none.
    Put { key: String, value: Vec<u8>, lease: i64 },
    /// It goes.
    Delete { key: String },
}

/// All changes, if every guard holds; else what is under the keys of `looks`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Transaction {
    pub(super) guards: Vec<Guard>,
    pub(super) changes: Vec<Change>,
    pub(super) looks: Vec<String>,
}

impl Transaction {
    /// The body of the request. A comparison with a key that does not exist sees zeroes, and fails
    /// if it is of values.
    pub(super) fn body(&self) -> Value {
        let compare = self.guards.iter().map(|guard| match guard {
            Guard::Absent { key } => {
                json!({"target": "VERSION", "key": text(key), "version": "0", "result": "EQUAL"})
            }
            Guard::Unchanged { key, revision } => json!({
                "target": "MOD", "key": text(key), "modRevision": revision.to_string(),
                "result": "EQUAL",
            }),
            Guard::Is { key, value } => json!({
                "target": "VALUE", "key": text(key), "value": STANDARD.encode(value),
                "result": "EQUAL",
            }),
        });
        let success = self.changes.iter().map(|change| match change {
            Change::Put { key, value, lease } => json!({"requestPut": {
                "key": text(key), "value": STANDARD.encode(value), "lease": lease.to_string(),
            }}),
            Change::Delete { key } => json!({"requestDeleteRange": {"key": text(key)}}),
        });
        json!({
            "compare": compare.collect::<Vec<_>>(),
            "success": success.collect::<Vec<_>>(),
            "failure": looks(&self.looks),
        })
    }
}

/// A look at several keys at one moment. Without `serializable` it is linearizable: a member that
/// is cut off from the others does not answer it.
pub(super) fn look_body(keys: &[String]) -> Value {
    json!({"success": looks(keys)})
}

pub(super) fn grant_body(ttl_s: u64) -> Value {
    json!({"TTL": ttl_s.to_string()})
}

pub(super) fn keepalive_body(lease: i64) -> Value {
    json!({"ID": lease.to_string()})
}

pub(super) fn authenticate_body(user: &str, password: &str) -> Value {
    json!({"name": user, "password": password})
}

pub(super) fn watch_body(from: &str, to: &str) -> Value {
    json!({"create_request": {"key": text(from), "range_end": text(to)}})
}

fn looks(keys: &[String]) -> Vec<Value> {
    keys.iter().map(|key| json!({"requestRange": {"key": text(key)}})).collect()
}

fn text(key: &str) -> String {
    STANDARD.encode(key)
}

/// Who answers, and in which term of the members' own elections.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number", alias = "clusterId")]
    pub(super) cluster_id: u64,
    #[serde(default, deserialize_with = "number", alias = "memberId")]
    pub(super) member_id: u64,
    #[serde(default, deserialize_with = "number", alias = "raftTerm")]
    pub(super) raft_term: u64,
}

impl Header {
    /// Whether both answers are of one member and one term, in which there is at most one leader.
    pub(super) fn is_of_one_term(self, other: Self) -> bool {
        (self.cluster_id, self.member_id, self.raft_term)
            == (other.cluster_id, other.member_id, other.raft_term)
    }
}

/// One key as it is stored.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct Stored {
    #[serde(default, deserialize_with = "bytes")]
    key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(default, deserialize_with = "number", alias = "modRevision")]
    pub(super) mod_revision: u64,
    #[serde(default, deserialize_with = "signed")]
    pub(super) lease: i64,
}

/// The answer to a transaction or a look.
#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Response {
    #[serde(default, alias = "responseRange")]
    response_range: Option<Range>,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Stored>,
}

impl Outcome {
    /// What was found under `key`.
    pub(super) fn found(&self, key: &str) -> Option<&Stored> {
        let ranges = self.responses.iter().filter_map(|it| it.response_range.as_ref());
        ranges.flat_map(|range| &range.kvs).find(|stored| stored.key == key.as_bytes())
    }

    /// Whether every look was answered: `found` says nothing otherwise.
    pub(super) fn has_looked(&self, keys: &[String]) -> bool {
        self.responses.iter().filter(|it| it.response_range.is_some()).count() == keys.len()
    }
}

/// The answer to a request for a lease.
#[derive(Debug, Deserialize)]
pub(super) struct Granted {
    #[serde(default, rename = "ID", deserialize_with = "signed")]
    pub(super) id: i64,
    #[serde(default, rename = "TTL", deserialize_with = "signed")]
    pub(super) ttl_s: i64,
}

/// The answer to a keepalive, which is the first of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct KeptAlive {
    pub(super) result: Kept,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kept {
    pub(super) header: Header,
    /// Absent if there is no such lease.
    #[serde(default, rename = "TTL", deserialize_with = "signed")]
    pub(super) ttl_s: i64,
}

#[derive(Deserialize)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// Why etcd did not do it.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    #[serde(default)]
    pub(super) message: String,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Watched {
    pub(super) result: WatchedResult,
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchedResult {
    /// Nothing more comes: what was watched was compacted, or the server ends.
    #[serde(default)]
    pub(super) canceled: bool,
}

/// A 64-bit number, which stands as a string; some gateways write it plainly.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(u64),
    Negative(i64),
}

fn wide<'de, D: Deserializer<'de>>(from: D) -> Result<i128, D::Error> {
    match Number::deserialize(from)? {
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Number::Plain(number) => Ok(number.into()),
        Number::Negative(number) => Ok(number.into()),
    }
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    wide(from)?.try_into().map_err(serde::de::Error::custom)
}

fn signed<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    wide(from)?.try_into().map_err(serde::de::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_said_as_etcd_reads_it() {
        let (key, value) = ("/k".to_owned(), b"v".to_vec());
        let transaction = Transaction {
            guards: vec![
                Guard::Unchanged { key: key.clone(), revision: u64::MAX },
                Guard::Absent { key: key.clone() },
                Guard::Is { key: key.clone(), value: value.clone() },
            ],
            changes: vec![
                Change::Put { key: key.clone(), value, lease: 7 },
                Change::Delete { key: key.clone() },
            ],
            looks: vec![key],
        };
        let said = json!({
            "compare": [
                {"target": "MOD", "key": "L2s=", "modRevision": "18446744073709551615", "result": "EQUAL"},
                {"target": "VERSION", "key": "L2s=", "version": "0", "result": "EQUAL"},
                {"target": "VALUE", "key": "L2s=", "value": "dg==", "result": "EQUAL"},
            ],
            "success": [
                {"requestPut": {"key": "L2s=", "value": "dg==", "lease": "7"}},
                {"requestDeleteRange": {"key": "L2s="}},
            ],
            "failure": [{"requestRange": {"key": "L2s="}}],
        });
        assert_eq!(transaction.body(), said);
        assert_eq!(
            look_body(&["/k".to_owned()]),
            json!({"success": [{"requestRange": {"key": "L2s="}}]})
        );
        assert!(!look_body(&["/k".to_owned()]).to_string().contains("serializable"));
    }

    /// As etcd 3.4.23 of Debian said it.
    #[test]
    fn answers_are_read_with_what_is_absent() {
        let text = concat!(
            r#"{"header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","#,
            r#""revision":"2","raft_term":"2"},"succeeded":true,"responses":[{"response_range":"#,
            r#"{"header":{"revision":"2"},"kvs":[{"key":"L2s=","create_revision":"2","#,
            r#""mod_revision":"2","version":"1","value":"eA==","lease":"2324035703409348360"}],"#,
            r#""count":"1"}},{"response_range":{"header":{"revision":"2"}}}]}"#,
        );
        let outcome: Outcome = serde_json::from_str(text).unwrap();
        assert_eq!(outcome.header.cluster_id, 324_952_591_200_643_719);
        assert!(outcome.succeeded && outcome.header.raft_term == 2);
        let found = outcome.found("/k").unwrap();
        assert_eq!((found.value.as_slice(), found.mod_revision), (b"x".as_slice(), 2));
        assert_eq!(found.lease, 2_324_035_703_409_348_360);
        assert_eq!(outcome.found("/other"), None);
        let two = ["/k".to_owned(), "/other".to_owned()];
        assert!(outcome.has_looked(&two) && !outcome.has_looked(&two[..1]));
        let failed: Outcome = serde_json::from_str(r#"{"header":{}}"#).unwrap();
        assert!(!failed.succeeded);
        let gone = r#"{"result":{"header":{"raft_term":"2"},"ID":"99"}}"#;
        assert_eq!(serde_json::from_str::<KeptAlive>(gone).unwrap().result.ttl_s, 0);
        let plain = r#"{"result":{"header":{},"ID":99,"TTL":3}}"#;
        assert_eq!(serde_json::from_str::<KeptAlive>(plain).unwrap().result.ttl_s, 3);
    }

    #[test]
    fn no_answer_is_taken_that_makes_no_sense() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"header":{"cluster_id":"x"}}"#,
            r#"{"header":{"cluster_id":"-1"}}"#,
            r#"{"header":{"cluster_id":"18446744073709551616"}}"#,
            r#"{"header":{},"responses":[{"response_range":{"kvs":[{"key":"?"}]}}]}"#,
        ] {
            assert!(serde_json::from_str::<Outcome>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<KeptAlive>(r#"{"error":{}}"#).is_err());
        let refused = r#"{"error":"etcdserver: a","message":"etcdserver: a","code":5}"#;
        assert_eq!(serde_json::from_str::<Failure>(refused).unwrap().message, "etcdserver: a");
    }
}
