//! The values of our keys: JSON that people can read, and that is read strictly.
//!
//! Whoever may write to etcd may write anything there. What is taken must be exactly what this
//! release would write for it, byte by byte; everything else stops the resource, and is never
//! overwritten.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::promotion::arbiter::{
    ArbiterRecord, Eligible, Half, RequestId, check_half, check_record,
};
use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};

/// Why a value is none of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Garbage {
    #[error("it is not JSON of the form that this release writes")]
    Form,
    #[error("it has format {found}, and this release reads {FORMAT}")]
    Format { found: u32 },
    #[error("it has {what}")]
    Value { what: &'static str },
    #[error("it says the same in other words than this release does")]
    Words,
}

/// Version of all values. History: 1, the first.
const FORMAT: u32 = 1;

/// Which resource of whom a value is about; what is written out so that a value cannot stand under
/// another key by mistake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) cluster: &'a str,
    pub(super) resource: &'a str,
    /// Both nodes, in order of [`Side`].
    pub(super) nodes: &'a [String; 2],
}

/// Which run of the owner has a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Serving {
    pub(super) side: Side,
    pub(super) instance: Instance,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenRecord {
    format: u32,
    cluster: String,
    resource: String,
    arbiter: String,
    epoch: u64,
    owner: String,
    eligible: Vec<String>,
    generation: WrittenGeneration,
    lease_ms: u32,
    stopped: bool,
    forced: bool,
    identities: [String; 2],
    requests: [WrittenRequest; 2],
    changed_by: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenGeneration {
    number: u64,
    id: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenRequest {
    instance: String,
    number: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenServing {
    format: u32,
    node: String,
    instance: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenHalf {
    format: u32,
    node: String,
    request: WrittenRequest,
    identities: [String; 2],
    epoch: u64,
    owner: String,
    in_sync: bool,
    generation: WrittenGeneration,
    alone: bool,
    stopped: bool,
    store: String,
}

impl Place<'_> {
    fn name(self, side: Side) -> String {
        self.nodes[side.index()].clone()
    }

    fn side(self, name: &str) -> Result<Side, Garbage> {
        let is = |side: &Side| self.nodes[side.index()] == name;
        let found = [Side::First, Side::Second].into_iter().find(is);
        found.ok_or(Garbage::Value { what: "a node that this pair does not have" })
    }

    pub(super) fn encode_record(self, record: &ArbiterRecord) -> Vec<u8> {
        let owner = self.name(record.owner);
        let mut eligible = vec![owner.clone()];
        if record.eligible == Eligible::Both {
            eligible.push(self.name(record.owner.other()));
        }
        encode(&WrittenRecord {
            format: FORMAT,
            cluster: self.cluster.to_owned(),
            resource: self.resource.to_owned(),
            arbiter: hex(&record.arbiter.0.to_be_bytes()),
            epoch: record.epoch.0,
            owner,
            eligible,
            generation: written_generation(record.generation),
            lease_ms: record.lease_ms,
            stopped: record.stopped,
            forced: record.forced,
            identities: record.identities.each_ref().map(|key| hex(key)),
            requests: record.requests.map(written_request),
            changed_by: self.name(record.changed_by),
        })
    }

    pub(super) fn decode_record(self, value: &[u8]) -> Result<ArbiterRecord, Garbage> {
        let written: WrittenRecord = decode(value)?;
        if written.cluster != self.cluster || written.resource != self.resource {
            return Err(Garbage::Value { what: "the name of another cluster or resource" });
        }
        let record = ArbiterRecord {
            arbiter: ArbiterId(u128::from_be_bytes(unhex(&written.arbiter)?)),
            epoch: Epoch(written.epoch),
            owner: self.side(&written.owner)?,
            eligible: match written.eligible.len() {
                1 => Eligible::Owner,
                _ => Eligible::Both,
            },
            generation: read_generation(&written.generation)?,
            lease_ms: written.lease_ms,
            stopped: written.stopped,
            forced: written.forced,
            identities: [unhex(&written.identities[0])?, unhex(&written.identities[1])?],
            requests: [read_request(&written.requests[0])?, read_request(&written.requests[1])?],
            changed_by: self.side(&written.changed_by)?,
        };
        check_record(&record).map_err(|what| Garbage::Value { what })?;
        same_words(value, &self.encode_record(&record))?;
        Ok(record)
    }

    pub(super) fn encode_serving(self, serving: Serving) -> Vec<u8> {
        let node = self.name(serving.side);
        let instance = hex(&serving.instance.0.to_be_bytes());
        encode(&WrittenServing { format: FORMAT, node, instance })
    }

    pub(super) fn decode_serving(self, value: &[u8]) -> Result<Serving, Garbage> {
        let written: WrittenServing = decode(value)?;
        let side = self.side(&written.node)?;
        let instance = Instance(u64::from_be_bytes(unhex(&written.instance)?));
        let serving = Serving { side, instance };
        same_words(value, &self.encode_serving(serving))?;
        Ok(serving)
    }

    pub(super) fn encode_half(self, side: Side, half: &Half, request: RequestId) -> Vec<u8> {
        encode(&WrittenHalf {
            format: FORMAT,
            node: self.name(side),
            request: written_request(request),
            identities: half.identities.each_ref().map(|key| hex(key)),
            epoch: half.epoch.0,
            owner: self.name(half.owner),
            in_sync: half.in_sync,
            generation: written_generation(half.generation),
            alone: half.alone,
            stopped: half.stopped,
            store: hex(&half.store.0.to_be_bytes()),
        })
    }

    pub(super) fn decode_half(
        self,
        side: Side,
        value: &[u8],
    ) -> Result<(Half, RequestId), Garbage> {
        let written: WrittenHalf = decode(value)?;
        let half = Half {
            identities: [unhex(&written.identities[0])?, unhex(&written.identities[1])?],
            epoch: Epoch(written.epoch),
            owner: self.side(&written.owner)?,
            in_sync: written.in_sync,
            generation: read_generation(&written.generation)?,
            alone: written.alone,
            stopped: written.stopped,
            store: ArbiterId(u128::from_be_bytes(unhex(&written.store)?)),
        };
        check_half(&half).map_err(|what| Garbage::Value { what })?;
        let request = read_request(&written.request)?;
        same_words(value, &self.encode_half(side, &half, request))?;
        Ok((half, request))
    }
}

/// The value of the key `id`: 32 hexadecimal digits.
pub(super) fn encode_id(id: u128) -> Vec<u8> {
    hex(&id.to_be_bytes()).into_bytes()
}

/// Who the arbiter is: another one if etcd was made anew, or if our keys were.
pub(super) fn arbiter_of(cluster_id: u64, id: &[u8]) -> Result<ArbiterId, Garbage> {
    let text = str::from_utf8(id).map_err(|_| Garbage::Form)?;
    let number: [u8; 16] = unhex(text)?;
    same_words(id, &encode_id(u128::from_be_bytes(number)))?;
    let mut hash = blake3::Hasher::new_derive_key("hotpair etcd arbiter v1");
    hash.update(&cluster_id.to_le_bytes()).update(&number);
    let hash = hash.finalize();
    let first: [u8; 16] = hash.as_bytes()[..16].try_into().expect("a hash has 32 bytes");
    // Zero says that no arbiter is known.
    Ok(ArbiterId(u128::from_le_bytes(first).max(1)))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names, numbers and flags are fit for JSON")
}

fn decode<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, Garbage> {
    let AnyFormat { format } = serde_json::from_slice(value).map_err(|_| Garbage::Form)?;
    if format != FORMAT {
        return Err(Garbage::Format { found: format });
    }
    serde_json::from_slice(value).map_err(|_| Garbage::Form)
}

fn same_words(found: &[u8], ours: &[u8]) -> Result<(), Garbage> {
    if found == ours { Ok(()) } else { Err(Garbage::Words) }
}

fn written_generation(generation: Generation) -> WrittenGeneration {
    WrittenGeneration { number: generation.number, id: hex(&generation.id.to_be_bytes()) }
}

fn read_generation(written: &WrittenGeneration) -> Result<Generation, Garbage> {
    let id = u128::from_be_bytes(unhex(&written.id)?);
    Ok(Generation { number: written.number, id })
}

fn written_request(id: RequestId) -> WrittenRequest {
    WrittenRequest { instance: hex(&id.instance.0.to_be_bytes()), number: id.number }
}

fn read_request(written: &WrittenRequest) -> Result<RequestId, Garbage> {
    let instance = Instance(u64::from_be_bytes(unhex(&written.instance)?));
    Ok(RequestId { instance, number: written.number })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Result<[u8; N], Garbage> {
    let wrong = Garbage::Value { what: "something else where hexadecimal digits belong" };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(wrong);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16).ok_or(wrong)?;
        let low = char::from(pair[1]).to_digit(16).ok_or(wrong)?;
        *byte = u8::try_from(high << 4 | low).map_err(|_| wrong)?;
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::arbiter::etcd) fn nodes() -> [String; 2] {
        ["alpha".to_owned(), "beta".to_owned()]
    }

    pub(in crate::arbiter::etcd) fn place(nodes: &[String; 2]) -> Place<'_> {
        Place { cluster: "office", resource: "vm1", nodes }
    }

    pub(in crate::arbiter::etcd) fn record() -> ArbiterRecord {
        ArbiterRecord {
            arbiter: ArbiterId(5),
            epoch: Epoch(44),
            owner: Side::Second,
            eligible: Eligible::Both,
            generation: Generation { number: 3, id: 9 },
            lease_ms: 3_000,
            stopped: true,
            forced: false,
            identities: [[1; 32], [2; 32]],
            requests: [
                RequestId { instance: Instance(7), number: 2 },
                RequestId { instance: Instance(u64::MAX), number: 1 },
            ],
            changed_by: Side::First,
        }
    }

    pub(in crate::arbiter::etcd) fn half() -> Half {
        Half {
            identities: [[1; 32], [2; 32]],
            epoch: Epoch(9),
            owner: Side::Second,
            in_sync: true,
            generation: Generation { number: 3, id: 9 },
            alone: false,
            stopped: false,
            store: ArbiterId(0x1f),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let nodes = nodes();
        let place = place(&nodes);
        let text = place.encode_record(&record());
        let golden = concat!(
            r#"{"format":1,"cluster":"office","resource":"vm1","#,
            r#""arbiter":"00000000000000000000000000000005","epoch":44,"owner":"beta","#,
            r#""eligible":["beta","alpha"],"#,
            r#""generation":{"number":3,"id":"00000000000000000000000000000009"},"#,
            r#""lease_ms":3000,"stopped":true,"forced":false,"identities":["#,
            r#""0101010101010101010101010101010101010101010101010101010101010101","#,
            r#""0202020202020202020202020202020202020202020202020202020202020202"],"#,
            r#""requests":[{"instance":"0000000000000007","number":2},"#,
            r#"{"instance":"ffffffffffffffff","number":1}],"changed_by":"alpha"}"#,
        );
        assert_eq!(str::from_utf8(&text).unwrap(), golden);
        assert!(text.len() < 1024);
        assert_eq!(place.decode_record(&text), Ok(record()));
        let alone = ArbiterRecord { eligible: Eligible::Owner, ..record() };
        assert_eq!(place.decode_record(&place.encode_record(&alone)), Ok(alone));
    }

    #[test]
    fn runs_and_halves_are_read_as_they_were_written() {
        let nodes = nodes();
        let place = place(&nodes);
        let serving = Serving { side: Side::Second, instance: Instance(0xab) };
        let text = place.encode_serving(serving);
        let golden = r#"{"format":1,"node":"beta","instance":"00000000000000ab"}"#;
        assert_eq!(str::from_utf8(&text).unwrap(), golden);
        assert_eq!(place.decode_serving(&text), Ok(serving));
        let id = RequestId { instance: Instance(6), number: 4 };
        let text = place.encode_half(Side::First, &half(), id);
        assert_eq!(place.decode_half(Side::First, &text), Ok((half(), id)));
        assert_eq!(place.decode_half(Side::Second, &text), Err(Garbage::Words), "another's");
    }

    #[test]
    fn nothing_else_is_taken_for_a_record() {
        let nodes = nodes();
        let place = place(&nodes);
        let text = place.encode_record(&record());
        assert!((0..text.len()).all(|len| place.decode_record(&text[..len]).is_err()));
        for at in 0..text.len() * 8 {
            let mut other = text.clone();
            other[at / 8] ^= 1 << (at % 8);
            // A flipped bit may make another record, but never one that is written otherwise.
            if let Ok(read) = place.decode_record(&other) {
                assert_eq!(place.encode_record(&read), other);
            }
        }
        let with = |from: &str, to: &str| {
            let text = String::from_utf8(text.clone()).unwrap().replace(from, to);
            place.decode_record(text.as_bytes())
        };
        assert_eq!(with("\"format\":1", "\"format\":2"), Err(Garbage::Format { found: 2 }));
        assert_eq!(with("{\"format\"", "{ \"format\""), Err(Garbage::Words));
        assert_eq!(with("\"stopped\"", "\"more\":1,\"stopped\""), Err(Garbage::Form));
        assert_eq!(with("\"epoch\":44", "\"epoch\":-1"), Err(Garbage::Form));
        assert_eq!(with("\"epoch\":44", "\"epoch\":1e99"), Err(Garbage::Form));
        for (from, to) in [
            ("vm1", "vm2"),
            ("\"owner\":\"beta\"", "\"owner\":\"gamma\""),
            ("\"owner\":\"beta\"", "\"owner\":\"alpha\""),
            ("[\"beta\",\"alpha\"]", "[\"alpha\",\"beta\"]"),
            ("[\"beta\",\"alpha\"]", "[]"),
            ("\"epoch\":44", "\"epoch\":18446744073709551615"),
            ("\"lease_ms\":3000", "\"lease_ms\":0"),
            ("ffffffffffffffff", "FFFFFFFFFFFFFFFF"),
        ] {
            assert!(with(from, to).is_err(), "{from} as {to}");
        }
        let deep = "[".repeat(1 << 20);
        for garbage in ["", "null", "{}", "garbage", "\u{0}", "{\"format\":1}", deep.as_str()] {
            assert!(place.decode_record(garbage.as_bytes()).is_err());
            assert!(place.decode_serving(garbage.as_bytes()).is_err());
            assert!(place.decode_half(Side::First, garbage.as_bytes()).is_err());
            assert!(arbiter_of(1, garbage.as_bytes()).is_err());
        }
    }

    #[test]
    fn another_etcd_or_another_id_is_another_arbiter() {
        let id = encode_id(77);
        let this = arbiter_of(1, &id).unwrap();
        assert_eq!(arbiter_of(1, &id), Ok(this));
        assert_ne!(arbiter_of(2, &id), Ok(this));
        assert_ne!(arbiter_of(1, &encode_id(78)), Ok(this));
        assert!(arbiter_of(1, &id[1..]).is_err());
    }
}
