//! Letters between a node and a witness, one behind the other; each as either may have sent it.

use hotpair::promotion::arbiter::{Ask, Asked, Hello, Operation, Request, RequestId, Tell};
use hotpair::units::{ArbiterId, Epoch, Generation, Instance, Side};
use hotpair::wire::letter::{HEAD_LEN, LETTER_LEN_MAX, VERSION, open_head, seal};

pub(crate) fn run(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN>() {
        let Ok(head) = open_head(head) else { return };
        assert!(head.body_len() <= LETTER_LEN_MAX, "a body is limited before it is read");
        let Some((body, rest)) = rest.split_at_checked(head.body_len()) else { return };
        let read = &bytes[..HEAD_LEN + body.len()];
        if let Ok(ask) = Ask::open(head, body) {
            assert!(seal(&ask) == read, "{ask:?} encodes to other bytes");
        }
        if let Ok(tell) = Tell::open(head, body) {
            assert!(seal(&tell) == read, "{tell:?} encodes to other bytes");
        }
        let _ = Ask::open_hello(head, body);
        bytes = rest;
    }
}

/// Gives every letter the hash that whoever means harm would give it.
pub(crate) fn repair(mut bytes: &mut [u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk_mut::<HEAD_LEN>() {
        let len = u32::from_le_bytes(head[4..8].try_into().unwrap());
        let len = usize::try_from(len).unwrap();
        let body = rest.get(..len).unwrap_or(rest);
        let hash = blake3::Hasher::new().update(&head[4..8]).update(body).finalize();
        head[8..].copy_from_slice(&hash.as_bytes()[..16]);
        bytes = rest.split_at_mut_checked(len).map_or(&mut [], |(_, rest)| rest);
    }
}

pub(crate) fn made() -> Vec<Vec<u8>> {
    let hello = Hello {
        versions: (VERSION, VERSION),
        cluster: "office".to_owned(),
        node: "alpha".to_owned(),
        side: Side::First,
        instance: Instance(7),
    };
    let asked = |operation| {
        let request = Request {
            from: Side::First,
            id: RequestId { instance: Instance(7), number: 1 },
            arbiter: ArbiterId(5),
            arbiter_epoch: Epoch(40),
            epoch: Epoch(40),
            lease_ms: 3_000,
            operation,
        };
        Asked { resource: "vm1".to_owned(), request }
    };
    let history = vec![Generation { number: 2, id: 2 }, Generation { number: 1, id: 1 }];
    let promote = Operation::Promote { history, dead: Some(Instance(3)), by_operator: false };
    vec![
        seal(&Ask::Hello(hello)),
        seal(&Ask::Request { heard: 1, asked: Box::new(asked(promote)) }),
        seal(&Ask::Renew { heard: 2, all: vec![asked(Operation::Renew), asked(Operation::Renew)] }),
        seal(&Tell::Welcome { version: VERSION, arbiter: ArbiterId(5) }),
        seal(&Tell::Farewell("no room".to_owned())),
    ]
}
