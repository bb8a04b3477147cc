//! Who may ask: the key that a connection proved must be that of the side for which it speaks.
//!
//! Without encryption no key is proved; it counts as the key of zeroes, which only records have
//! that were made so. So nobody reaches a record of encrypted nodes in plain text.

use super::record::ArbiterRecord;
use super::request::{Half, Operation, Refused, Request};
use super::stored::is_name;

/// Fingerprint of a key; zeroes without encryption.
type Key = [u8; 32];

const NO_KEY: Key = [0; 32];

/// Checks that whoever proved `key` may make `request` about a resource with that record.
///
/// # Errors
/// [`Refused::OtherIdentity`].
pub fn check_identity(
    record: Option<&ArbiterRecord>,
    request: &Request,
    key: &Key,
) -> Result<(), Refused> {
    let is_ours = |identities: &[Key; 2]| identities[request.from.index()] == *key;
    let may = match (record, &request.operation) {
        (Some(record), _) => is_ours(&record.identities),
        (None, Operation::Enroll(half)) => is_ours(&half.identities) && is_pair(half),
        // There is nothing that anybody could learn or change.
        (None, _) => true,
    };
    if may { Ok(()) } else { Err(Refused::OtherIdentity) }
}

/// Both nodes have a key, and not the same one; or none of them has.
fn is_pair(half: &Half) -> bool {
    let [first, second] = half.identities;
    match (first == NO_KEY, second == NO_KEY) {
        (true, true) => true,
        (false, false) => first != second,
        (true, false) | (false, true) => false,
    }
}

/// A line of the file `allow`: who may make records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allowed {
    /// Only in this cluster.
    cluster: Option<String>,
    /// Only with this key.
    key: Option<Key>,
}

impl Allowed {
    /// Whether somebody who proved `key` may enroll resources of `cluster` by this line.
    pub fn allows(&self, cluster: &str, key: &Key) -> bool {
        self.cluster.as_deref().is_none_or(|allowed| allowed == cluster)
            && self.key.as_ref().is_none_or(|allowed| allowed == key)
    }
}

/// Reads the file `allow`: on each line a cluster, a fingerprint, or a cluster and a fingerprint
/// that must both fit; `#` begins a comment. `key_of` reads a fingerprint.
///
/// # Errors
/// The number of the first line that is something else, from 1.
pub fn parse_allowed(
    text: &str,
    key_of: impl Fn(&str) -> Option<Key>,
) -> Result<Vec<Allowed>, usize> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let cluster = |word: &str| is_name(word).then(|| word.to_owned());
        let allowed = match words[..] {
            [] => continue,
            [word] => match key_of(word) {
                Some(key) => Some(Allowed { cluster: None, key: Some(key) }),
                None => cluster(word).map(|it| Allowed { cluster: Some(it), key: None }),
            },
            [word, key] => match (cluster(word), key_of(key)) {
                (Some(it), Some(key)) => Some(Allowed { cluster: Some(it), key: Some(key) }),
                _ => None,
            },
            _ => None,
        };
        lines.push(allowed.ok_or(number + 1)?);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::{Eligible, RequestId};
    use super::*;
    use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};

    const A: Key = [1; 32];
    const B: Key = [2; 32];
    const STRANGER: Key = [3; 32];

    fn request(from: Side, operation: Operation) -> Request {
        Request {
            from,
            id: RequestId { instance: Instance(1), number: 1 },
            arbiter: ArbiterId(1),
            arbiter_epoch: Epoch(4),
            epoch: Epoch(4),
            lease_ms: 1_000,
            operation,
        }
    }

    fn enroll(from: Side, identities: [Key; 2]) -> Request {
        let generation = Generation { number: 1, id: 1 };
        let half = Half {
            identities,
            epoch: Epoch(1),
            owner: Side::First,
            in_sync: true,
            generation,
            alone: false,
            stopped: false,
            store: ArbiterId(0),
        };
        request(from, Operation::Enroll(half))
    }

    fn record(identities: [Key; 2]) -> ArbiterRecord {
        ArbiterRecord {
            arbiter: ArbiterId(1),
            epoch: Epoch(4),
            owner: Side::First,
            eligible: Eligible::Both,
            generation: Generation { number: 1, id: 1 },
            lease_ms: 1_000,
            stopped: false,
            forced: false,
            identities,
            requests: [RequestId::default(); 2],
            changed_by: Side::First,
        }
    }

    #[test]
    fn each_key_speaks_for_its_own_side_only() {
        let record = record([A, B]);
        for (key, sides) in [(A, [true, false]), (B, [false, true]), (STRANGER, [false, false])] {
            for from in [Side::First, Side::Second] {
                for operation in [Operation::Read, Operation::Keep, Operation::Renew] {
                    let checked = check_identity(Some(&record), &request(from, operation), &key);
                    assert_eq!(checked.is_ok(), sides[from.index()], "{key:?} {from:?}");
                }
                let enroll = enroll(from, [A, B]);
                let checked = check_identity(None, &enroll, &key);
                assert_eq!(checked.is_ok(), sides[from.index()], "{key:?} {from:?}");
            }
        }
    }

    #[test]
    fn plain_text_reaches_no_record_of_encrypted_nodes_and_the_other_way_round() {
        let read = request(Side::First, Operation::Read);
        assert!(check_identity(Some(&record([A, B])), &read, &NO_KEY).is_err());
        assert!(check_identity(Some(&record([NO_KEY; 2])), &read, &A).is_err());
        assert!(check_identity(Some(&record([NO_KEY; 2])), &read, &NO_KEY).is_ok());
    }

    #[test]
    fn one_key_is_never_both_nodes_of_a_pair() {
        for (identities, is_good) in
            [([A, A], false), ([A, NO_KEY], false), ([NO_KEY, NO_KEY], true), ([A, B], true)]
        {
            let checked = check_identity(None, &enroll(Side::First, identities), &identities[0]);
            assert_eq!(checked.is_ok(), is_good, "{identities:?}");
        }
    }

    #[test]
    fn a_line_of_allow_names_a_cluster_a_key_or_both() {
        let key_of = |word: &str| match word {
            "sha256//A" => Some(A),
            "sha256//B" => Some(B),
            _ => None,
        };
        let text = "# who may\n\noffice\n  sha256//A # alpha\nlab sha256//B\n";
        let lines = parse_allowed(text, key_of).unwrap();
        let may = |cluster, key| lines.iter().any(|line| line.allows(cluster, &key));
        assert!(may("office", STRANGER) && may("shop", A) && may("lab", B));
        assert!(!may("shop", B) && !may("lab", STRANGER) && !may("offices", STRANGER));
        for (bad, line) in [("office\nsha256//x", 2), ("a b c", 1), ("lab A", 1), ("..", 1)] {
            assert_eq!(parse_allowed(bad, key_of), Err(line), "{bad}");
        }
        assert_eq!(parse_allowed("", key_of), Ok(Vec::new()));
    }
}
