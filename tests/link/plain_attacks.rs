//! What somebody can do who reaches the port and has no key, or sits on an unencrypted link.

use std::time::Duration;

use hotpair::link::{Cause, LinkError, Mismatch};
use hotpair::units::Applied;
use hotpair::wire::message::{Beat, Frame, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Beta, Pair, bytes_of, chunk, hello, join, receive, said, say, write};

fn first_words() -> Vec<u8> {
    bytes_of(&said(Message::Hello(Box::new(hello("alpha", "vm1")))))
}

#[tokio::test]
async fn whatever_is_cut_off_before_the_hello_is_complete_gets_nowhere() {
    let beta = Beta::start(&Pair::plain().beta).await;
    let whole = first_words();
    for len in 0..whole.len() {
        assert_eq!(say(beta.address, &whole[..len]).await, b"");
    }
    assert!(beta.arrivals.is_empty());
    assert_eq!(beta.refusals.count(Cause::Handshake), u64::try_from(whole.len()).unwrap());
}

#[tokio::test]
async fn no_changed_byte_of_a_hello_gets_through() {
    let beta = Beta::start(&Pair::plain().beta).await;
    let whole = first_words();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x40;
        assert_eq!(say(beta.address, &changed).await, b"");
    }
    assert!(beta.arrivals.is_empty());
    assert_eq!(beta.refusals.count(Cause::NotHello), u64::try_from(whole.len()).unwrap());
}

#[tokio::test]
async fn every_changed_byte_of_a_frame_ends_the_connection_and_changes_nothing() {
    let mut beta = Beta::start(&Pair::plain().beta).await;
    let beat = Beat { sent_at: 3, stable: Applied::default() };
    for frame in [said(Message::Ping(beat)), write(1, 50), said(Message::ResyncReady)] {
        let good = bytes_of(&frame);
        for at in 0..good.len() {
            let mut bytes = [first_words(), good.clone(), good.clone()].concat();
            bytes[first_words().len() + good.len() + at] ^= 1;
            let mut attacker = TcpStream::connect(beta.address).await.unwrap();
            attacker.write_all(&bytes).await.unwrap();
            let mut connection = beta.connection().await;
            // What came whole before counts, and then nothing does.
            assert_eq!(receive(&mut connection, 2).await.unwrap()[1], frame);
            let error = receive(&mut connection, 1).await.unwrap_err();
            assert!(matches!(error, LinkError::Protocol(_)), "byte {at}: {error}");
            assert_eq!(connection.counters().protocol_errors, 1);
        }
    }
}

/// A header that says something impossible, with the hash that belongs to it.
fn with_field(frame: &Frame, at: usize, value: u32) -> Vec<u8> {
    let mut bytes = bytes_of(frame);
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let hash = *blake3::hash(&bytes[..112]).as_bytes();
    bytes[112..128].copy_from_slice(&hash[..16]);
    bytes
}

#[tokio::test]
async fn impossible_lengths_are_refused_before_anything_is_reserved_or_read() {
    let mut beta = Beta::start(&Pair::plain().beta).await;
    let (count_at, body_at, payload_at) = (48, 52, 56);
    for frame in [write(1, 50), chunk(1), said(Message::ResyncReady)] {
        for at in [count_at, body_at, payload_at] {
            for value in [1 << 31, u32::MAX, (1 << 20) + 1, u32::MAX / 4096 + 1] {
                let mut attacker = TcpStream::connect(beta.address).await.unwrap();
                // Only the header follows: what it announces need not come for it to be refused.
                let bytes = [&first_words()[..], &with_field(&frame, at, value)[..128]].concat();
                attacker.write_all(&bytes).await.unwrap();
                let mut connection = beta.connection().await;
                receive(&mut connection, 1).await.unwrap();
                let error = receive(&mut connection, 1).await.unwrap_err();
                assert!(matches!(error, LinkError::Protocol(_)), "{at} = {value}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn who_begins_with_anything_but_a_hello_is_cut_off_at_its_header() {
    let beta = Beta::start(&Pair::plain().beta).await;
    let header = &bytes_of(&write(1, 1 << 20))[..128];
    let mut attacker = TcpStream::connect(beta.address).await.unwrap();
    attacker.write_all(header).await.unwrap();
    assert_eq!(attacker.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(beta.refusals.count(Cause::NotHello), 1);
    assert!(beta.arrivals.is_empty());
}

#[tokio::test]
async fn a_peer_that_encrypts_is_told_from_one_that_talks_nonsense() {
    let beta = Beta::start(&Pair::plain().beta).await;
    // The start of a ClientHello, and of something that begins like nothing of ours.
    for (start, mismatch) in [([22, 3, 1, 2], Mismatch::Encryption), (*b"GET ", Mismatch::Unsaid)] {
        let words = [&start[..], &[0; 200]].concat();
        assert!(say(beta.address, &words).await.is_empty());
        let trouble = beta.trouble.borrow().clone().unwrap();
        assert_eq!(trouble.mismatch, Some(mismatch), "{trouble:?}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_cut_off() {
    for pair in Pair::each() {
        let beta = Beta::start_with(&pair.beta, Duration::from_millis(50)).await;
        let mut quiet = TcpStream::connect(beta.address).await.unwrap();
        assert_eq!(quiet.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert_eq!(beta.refusals.count(Cause::Silent), 1);
    }
}

#[tokio::test]
async fn only_so_many_may_be_undecided_at_one_time() {
    for pair in Pair::each() {
        let beta = Beta::start(&pair.beta).await;
        let mut quiet = Vec::new();
        for _ in 0..40 {
            quiet.push(TcpStream::connect(beta.address).await.unwrap());
        }
        // Connections are accepted in order: once the last is closed, all were looked at.
        assert_eq!(quiet[39].read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert_eq!(beta.refusals.count(Cause::TooMany), 24);
        assert_eq!(beta.refusals.total(), 24);
    }
}

#[tokio::test]
async fn ten_thousand_handshakes_in_a_row_do_not_disturb_a_link_that_works() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        let address = joined.node_beta.address;
        for number in 0..10_000 {
            let stranger = TcpStream::connect(address).await.unwrap();
            // A reset leaves no port behind that waits.
            socket2::SockRef::from(&stranger).set_linger(Some(Duration::ZERO)).unwrap();
            if number % 3 > 0 {
                let _ = stranger.try_write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
            }
            drop(stranger);
            if number % 100 == 0 {
                joined.check(number).await;
            }
        }
        joined.check(10_000).await;
        assert!(joined.node_beta.arrivals.is_empty());
        assert!(joined.node_beta.refusals.total() > 0);
        assert_eq!(joined.beta.counters().protocol_errors, 0);
    }
}
