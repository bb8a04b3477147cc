//! What a node and a witness say to each other.
//!
//! Only types and their limits: what may be said is checked here before anybody acts on it, what
//! it causes is decided by [`super::Arbiter`]. The first eight bytes of a Hello are the same in
//! every version.

use serde::{Deserialize, Serialize};

use super::record::ArbiterRecord;
use super::request::{Half, Operation, Refused, Reply, Request, RequestId};
use super::stored::{NAME_LEN_MAX, is_name};
use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};
use crate::wire::letter::{self, Head, LetterError, VERSION};
use crate::wire::{
    Checked, TEXT_LEN_MAX, check_epoch, check_generation, cut_text, list_at_most, text_at_most,
};

/// What a node says to a witness.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Ask {
    /// Who it is; the first letter, and only that.
    Hello(Hello),
    /// A request about one resource.
    Request {
        /// Letters of the witness that were heard over this connection, the Welcome included: it
        /// carries out nothing for a node that has missed one for long.
        heard: u64,
        /// What.
        asked: Box<Asked>,
    },
    /// [`Operation::Renew`] for every resource whose lease is due.
    Renew {
        /// As in a request.
        heard: u64,
        /// Each of them.
        #[serde(deserialize_with = "list_at_most::<_, _, RENEWALS_MAX>")]
        all: Vec<Asked>,
    },
    /// Are you there? Answered with the same number.
    Ping(u64),
}

/// Who a node is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// Oldest and newest version of the letters that it speaks.
    pub versions: (u16, u16),
    /// Name of its cluster.
    #[serde(deserialize_with = "text_at_most::<_, NAME_LEN_MAX>")]
    pub cluster: String,
    /// Its name, for people.
    #[serde(deserialize_with = "text_at_most::<_, NAME_LEN_MAX>")]
    pub node: String,
    /// Its place in the pair.
    pub side: Side,
    /// This run of its daemon.
    pub instance: Instance,
}

/// A request, and which resource of the cluster it is about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Asked {
    /// Name of the resource.
    #[serde(deserialize_with = "text_at_most::<_, NAME_LEN_MAX>")]
    pub resource: String,
    /// What is asked.
    pub request: Request,
}

/// What a witness says to a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Tell {
    /// It takes requests from here on.
    Welcome {
        /// Version of the letters from here on.
        version: u16,
        /// Its store.
        arbiter: ArbiterId,
    },
    /// The answer to a request.
    Answer {
        /// Name of the resource.
        #[serde(deserialize_with = "text_at_most::<_, NAME_LEN_MAX>")]
        resource: String,
        /// Of the request.
        id: RequestId,
        /// What it gets.
        reply: Reply,
    },
    /// The record of a resource of this node changed.
    Changed {
        /// Name of the resource.
        #[serde(deserialize_with = "text_at_most::<_, NAME_LEN_MAX>")]
        resource: String,
        /// The record.
        record: Box<ArbiterRecord>,
    },
    /// The answer to [`Ask::Ping`].
    Pong(u64),
    /// Why the witness closes the connection.
    Farewell(
        #[serde(deserialize_with = "text_at_most::<_, TEXT_LEN_MAX>", serialize_with = "cut_text")]
        String,
    ),
}

/// Most resources in an [`Ask::Renew`]; a pair has at most as many.
pub const RENEWALS_MAX: usize = 256;

/// Longest lease that can be asked for, in milliseconds: as long nobody is promoted after the
/// owner died, or after a witness was started.
pub const LEASE_MS_MAX: u32 = 600_000;

/// The versions at the start of a Hello, whichever version it is of.
const START_LEN: usize = 8;

impl Ask {
    /// Reads the first letter of a node.
    ///
    /// # Errors
    /// [`LetterError::Version`] if there is no common version; else as [`Ask::open`].
    pub fn open_hello(head: Head, body: &[u8]) -> Result<Hello, LetterError> {
        let (kind, versions): (u32, (u16, u16)) = letter::open_start(head, body, START_LEN)?;
        if kind != 0 {
            return Err(LetterError::Value { what: "something before its Hello" });
        }
        let (their_oldest, their_newest) = versions;
        if !(their_oldest..=their_newest).contains(&VERSION) {
            return Err(LetterError::Version { their_oldest, their_newest });
        }
        match Self::open(head, body)? {
            Self::Hello(hello) => Ok(hello),
            Self::Request { .. } | Self::Renew { .. } | Self::Ping(_) => Err(LetterError::Body),
        }
    }

    /// Reads a letter of a node.
    ///
    /// # Errors
    /// [`LetterError`] if it is none, or says what cannot be.
    pub fn open(head: Head, body: &[u8]) -> Result<Self, LetterError> {
        let ask: Self = letter::open_body(head, body)?;
        ask.check().map_err(|what| LetterError::Value { what })?;
        Ok(ask)
    }

    fn check(&self) -> Checked {
        match self {
            Self::Hello(hello) => {
                check_name(&hello.cluster)?;
                check_name(&hello.node)?;
                check_instance(hello.instance)
            }
            Self::Request { asked, .. } => check_asked(asked),
            Self::Renew { all, .. } => all.iter().try_for_each(|asked| {
                if asked.request.operation != Operation::Renew {
                    return Err("another operation among renewals");
                }
                check_asked(asked)
            }),
            Self::Ping(_) => Ok(()),
        }
    }
}

impl Tell {
    /// Reads a letter of a witness.
    ///
    /// # Errors
    /// [`LetterError`] if it is none, or says what cannot be.
    pub fn open(head: Head, body: &[u8]) -> Result<Self, LetterError> {
        let tell: Self = letter::open_body(head, body)?;
        tell.check().map_err(|what| LetterError::Value { what })?;
        Ok(tell)
    }

    fn check(&self) -> Checked {
        match self {
            Self::Welcome { version: VERSION, .. } | Self::Pong(_) | Self::Farewell(_) => Ok(()),
            Self::Welcome { .. } => Err("a version that was not offered"),
            Self::Changed { resource, record } => check_name(resource).and(check_record(record)),
            Self::Answer { resource, reply, .. } => check_name(resource).and(match reply {
                Reply::Done(record) | Reply::Conflict(record) | Reply::Lease { record, .. } => {
                    check_record(record)
                }
                Reply::View(view) => check_record(&view.record),
                Reply::Refused(
                    Refused::MayMove { store: ArbiterId(0) }
                    | Refused::PeerMoved { store: ArbiterId(0) },
                ) => Err("a change to no store"),
                Reply::Refused(_) => Ok(()),
            }),
        }
    }
}

fn check_asked(asked: &Asked) -> Checked {
    let Asked { resource, request } = asked;
    check_name(resource)?;
    check_instance(request.id.instance)?;
    if request.id.number == 0 {
        return Err("a request without a number");
    }
    check_epoch(request.arbiter_epoch)?;
    check_epoch(request.epoch)?;
    check_lease(request.lease_ms)?;
    match &request.operation {
        Operation::PreVote { history } => check_history(history),
        Operation::Promote { history, dead, .. } => {
            dead.map_or(Ok(()), check_instance)?;
            check_history(history)
        }
        Operation::Pair { generation, history } => {
            check_generation(*generation)?;
            check_history(history)
        }
        Operation::Enroll(half) => check_half(half),
        Operation::Solo { generation } => check_generation(*generation),
        Operation::Release { instance } => check_instance(*instance),
        Operation::Force { floor } => check_epoch(*floor),
        Operation::Read
        | Operation::Renew
        | Operation::Handover
        | Operation::Keep
        | Operation::Stop => Ok(()),
    }
}

/// Whether a half can be what a node says.
///
/// # Errors
/// What cannot be.
pub fn check_half(half: &Half) -> Checked {
    check_epoch(half.epoch)?;
    check_generation(half.generation)
}

/// Whether a record can be what an arbiter has.
///
/// # Errors
/// What cannot be.
pub fn check_record(record: &ArbiterRecord) -> Checked {
    // A forced promotion may have made it a little higher than anybody may ask for.
    check_epoch(Epoch(record.epoch.0 / 2))?;
    check_generation(record.generation)?;
    check_lease(record.lease_ms)
}

fn check_name(name: &str) -> Checked {
    if is_name(name) { Ok(()) } else { Err("a cluster, node or resource that cannot be named so") }
}

fn check_instance(instance: Instance) -> Checked {
    if instance == Instance(0) { Err("a run that cannot be") } else { Ok(()) }
}

fn check_lease(lease_ms: u32) -> Checked {
    if (1..=LEASE_MS_MAX).contains(&lease_ms) {
        Ok(())
    } else {
        Err("a lease that is not between 1 ms and 10 minutes")
    }
}

fn check_history(history: &[Generation]) -> Checked {
    history.iter().try_for_each(|generation| check_generation(*generation))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::super::{Eligible, View};
    use super::*;
    use crate::wire::letter::{HEAD_LEN, LETTER_LEN_MAX, open_head, seal};

    fn hello() -> Hello {
        Hello {
            versions: (VERSION, VERSION),
            cluster: "office".to_owned(),
            node: "alpha".to_owned(),
            side: Side::First,
            instance: Instance(77),
        }
    }

    fn request(operation: Operation) -> Request {
        Request {
            from: Side::First,
            id: RequestId { instance: Instance(77), number: 3 },
            arbiter: ArbiterId(5),
            arbiter_epoch: Epoch(40),
            epoch: Epoch(44),
            lease_ms: 3_000,
            operation,
        }
    }

    fn generation(number: u64) -> Generation {
        Generation { number, id: u128::from(number) }
    }

    fn operations() -> Vec<Operation> {
        let half = Half {
            identities: [[1; 32], [2; 32]],
            epoch: Epoch(9),
            owner: Side::Second,
            in_sync: true,
            generation: generation(3),
            alone: false,
            stopped: true,
            store: ArbiterId(0),
        };
        let history = vec![generation(4), generation(3)];
        let dead = Some(Instance(6));
        vec![
            Operation::Read,
            Operation::PreVote { history: history.clone() },
            Operation::Enroll(half),
            Operation::Renew,
            Operation::Solo { generation: generation(4) },
            Operation::Promote { history: history.clone(), dead, by_operator: true },
            Operation::Pair { generation: generation(4), history },
            Operation::Handover,
            Operation::Keep,
            Operation::Stop,
            Operation::Release { instance: Instance(6) },
            Operation::Force { floor: Epoch(99) },
        ]
    }

    fn asked(operation: Operation) -> Asked {
        Asked { resource: "vm1".to_owned(), request: request(operation) }
    }

    fn ask(asked: Asked) -> Ask {
        Ask::Request { heard: 9, asked: Box::new(asked) }
    }

    fn renew(all: Vec<Asked>) -> Ask {
        Ask::Renew { heard: 9, all }
    }

    fn asks() -> Vec<Ask> {
        let mut all = vec![Ask::Hello(hello()), Ask::Ping(u64::MAX), renew(Vec::new())];
        all.push(renew(vec![asked(Operation::Renew), asked(Operation::Renew)]));
        all.extend(operations().into_iter().map(|it| ask(asked(it))));
        all
    }

    fn record() -> Box<ArbiterRecord> {
        Box::new(ArbiterRecord {
            arbiter: ArbiterId(5),
            epoch: Epoch(44),
            owner: Side::Second,
            eligible: Eligible::Both,
            generation: generation(3),
            lease_ms: 3_000,
            stopped: false,
            forced: true,
            identities: [[1; 32], [2; 32]],
            requests: [RequestId::default(); 2],
            changed_by: Side::First,
        })
    }

    fn tells() -> Vec<Tell> {
        let view = View {
            promotion: Err(Refused::LeaseHeld),
            lease_remaining_ms: 7,
            owner_last_seen_ms: Some(8),
            record: *record(),
        };
        let replies = [
            Reply::Done(record()),
            Reply::Lease { lease_ms: 3_000, record: record() },
            Reply::View(Box::new(View { promotion: Ok(()), ..view.clone() })),
            Reply::View(Box::new(view)),
            Reply::Conflict(record()),
            Reply::Refused(Refused::DiskFailed),
            Reply::Refused(Refused::MayMove { store: ArbiterId(77) }),
        ];
        let resource = || "vm1".to_owned();
        let id = RequestId { instance: Instance(77), number: 3 };
        let mut all = vec![
            Tell::Welcome { version: VERSION, arbiter: ArbiterId(5) },
            Tell::Changed { resource: resource(), record: record() },
            Tell::Pong(3),
            Tell::Farewell("no room".to_owned()),
        ];
        all.extend(replies.map(|reply| Tell::Answer { resource: resource(), id, reply }));
        all
    }

    fn parts(bytes: &[u8]) -> Result<(Head, &[u8]), LetterError> {
        let (head, body) = bytes.split_first_chunk::<HEAD_LEN>().ok_or(LetterError::Body)?;
        Ok((open_head(head)?, body))
    }

    fn open_ask(bytes: &[u8]) -> Result<Ask, LetterError> {
        let (head, body) = parts(bytes)?;
        Ask::open(head, body)
    }

    fn open_tell(bytes: &[u8]) -> Result<Tell, LetterError> {
        let (head, body) = parts(bytes)?;
        Tell::open(head, body)
    }

    #[test]
    fn letters_survive_and_no_truncation_does() {
        for ask in asks() {
            let bytes = seal(&ask);
            assert_eq!(open_ask(&bytes).as_ref(), Ok(&ask));
            assert!((0..bytes.len()).all(|len| open_ask(&bytes[..len]).is_err()), "{ask:?}");
        }
        for tell in tells() {
            let bytes = seal(&tell);
            assert_eq!(open_tell(&bytes).as_ref(), Ok(&tell));
            assert!((0..bytes.len()).all(|len| open_tell(&bytes[..len]).is_err()), "{tell:?}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_version_1() {
        let bytes = seal(&Ask::Hello(hello()));
        assert_eq!(bytes[..8], *b"HPW1\x2f\0\0\0");
        let words: [&[u8]; 7] = [
            &[0, 0, 0, 0, 1, 0, 1, 0],
            &[6, 0, 0, 0, 0, 0, 0, 0],
            b"office",
            &[5, 0, 0, 0, 0, 0, 0, 0],
            b"alpha",
            &[0, 0, 0, 0],
            &[77, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes[HEAD_LEN..], words.concat());
        let refused = Reply::Refused(Refused::DiskFailed);
        let id = RequestId { instance: Instance(77), number: 3 };
        let answer = Tell::Answer { resource: "vm1".to_owned(), id, reply: refused };
        let words: [&[u8]; 7] = [
            &[1, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            b"vm1",
            &[77, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0],
            &[17, 0, 0, 0],
        ];
        assert_eq!(seal(&answer)[HEAD_LEN..], words.concat());
        // A letter's numbers count from 0 in the order of their types, which only grow.
        let first = |ask: &Ask| seal(ask)[HEAD_LEN];
        assert_eq!(asks().iter().map(first).collect::<Vec<_>>()[..4], [0, 3, 2, 2]);
        let number = |it: Operation| seal(&ask(asked(it)))[OPERATION_AT];
        let numbers: Vec<u8> = operations().into_iter().map(number).collect();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    }

    /// Where the operation of a request about `vm1` begins: behind the number, what was heard, the
    /// name, and what every request has.
    const OPERATION_AT: usize = HEAD_LEN + 4 + 8 + 11 + 4 + 16 + 16 + 8 + 8 + 4;

    #[test]
    fn a_hello_of_a_later_version_is_refused_by_its_versions() {
        let bytes = seal(&(0_u32, (7_u16, 9_u16), "whatever that version says"));
        let (head, body) = parts(&bytes).unwrap();
        let error = Ask::open_hello(head, body).unwrap_err();
        assert_eq!(error, LetterError::Version { their_oldest: 7, their_newest: 9 });
        assert!(error.to_string().contains('9'), "{error}");
        let bytes = seal(&Ask::Ping(1));
        let (head, body) = parts(&bytes).unwrap();
        assert!(matches!(Ask::open_hello(head, body), Err(LetterError::Value { .. })));
    }

    #[test]
    fn what_cannot_be_is_refused_before_anybody_counts_on_it() {
        let bad = |change: &dyn Fn(&mut Asked)| {
            let mut asked = asked(Operation::Keep);
            change(&mut asked);
            open_ask(&seal(&ask(asked)))
        };
        let end = Epoch(u64::MAX);
        let cases: [&dyn Fn(&mut Asked); 10] = [
            &|asked| asked.resource = "../up".to_owned(),
            &|asked| asked.request.epoch = end,
            &|asked| asked.request.arbiter_epoch = end,
            &|asked| asked.request.lease_ms = 0,
            &|asked| asked.request.lease_ms = LEASE_MS_MAX + 1,
            &|asked| asked.request.id.instance = Instance(0),
            &|asked| asked.request.id.number = 0,
            &|asked| asked.request.operation = Operation::Force { floor: end },
            &|asked| asked.request.operation = Operation::Solo { generation: generation(0) },
            &|asked| {
                let history = vec![generation(u64::MAX)];
                asked.request.operation = Operation::PreVote { history };
            },
        ];
        for (number, case) in cases.iter().enumerate() {
            assert!(matches!(bad(case), Err(LetterError::Value { .. })), "case {number}");
        }
        let mixed = renew(vec![asked(Operation::Keep)]);
        assert!(matches!(open_ask(&seal(&mixed)), Err(LetterError::Value { .. })));
        let long = vec![generation(1); 66];
        let long = asked(Operation::PreVote { history: long });
        assert_eq!(open_ask(&seal(&ask(long))), Err(LetterError::Body));
    }

    #[test]
    fn as_many_renewals_as_a_pair_has_resources_are_one_letter() {
        let mut asked = asked(Operation::Renew);
        asked.resource = "n".repeat(64);
        let all = vec![asked.clone(); RENEWALS_MAX];
        assert!(seal(&renew(all)).len() <= LETTER_LEN_MAX);
        let more = seal(&renew(vec![asked; RENEWALS_MAX + 1]));
        assert_eq!(open_ask(&more), Err(LetterError::Body));
    }

    fn encodes_again<T>(body: &[u8], open: fn(&[u8]) -> Result<T, LetterError>)
    where
        T: serde::Serialize + DeserializeOwned,
    {
        let mut bytes = seal(&());
        bytes.extend_from_slice(body);
        bytes[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        let hash = blake3::Hasher::new().update(&bytes[4..8]).update(body).finalize();
        bytes[8..24].copy_from_slice(&hash.as_bytes()[..16]);
        if let Ok(letter) = open(&bytes) {
            assert_eq!(seal(&letter), bytes, "a letter has one encoding");
        }
    }

    proptest! {
        #[test]
        fn broken_letters_harm_nobody(
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            with in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let asks: Vec<_> = asks().iter().map(seal).collect();
            let tells: Vec<_> = tells().iter().map(seal).collect();
            for (bytes, is_ask) in [(which.get(&asks), true), (which.get(&tells), false)] {
                let mut body = bytes[HEAD_LEN..].to_vec();
                let start = at.index(body.len() + 1);
                let end = (start + with.len()).min(body.len());
                body.splice(start..end, with.iter().copied());
                if is_ask {
                    encodes_again(&body, open_ask);
                } else {
                    encodes_again(&body, open_tell);
                }
            }
        }
    }
}
