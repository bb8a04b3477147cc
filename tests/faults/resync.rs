//! What an outage costs: only what differs is sent, and never twice.

use std::collections::BTreeSet;

use crate::oracle::ledger::Floor;
use crate::real::nbd_client::NbdClient;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::record::Record;
use crate::real::relay::Relay;

const BLOCK_LEN: u64 = 4096;
const CHUNK_LEN: u64 = 64 << 10;
/// Beside the payload a resync may cost this per chunk that is compared: a request, an answer with
/// the hashes of its blocks, the header of what is sent and its acknowledgement.
const TALK_PER_CHUNK: u64 = 2 * 128 + 16 * 32 + 512;
/// What joining costs: handshake, hello, pings.
const TALK_PER_SESSION: u64 = 64 << 10;
/// What may be under way when a connection breaks, in bytes.
const IN_FLIGHT_MAX: u64 = 4 << 20;

fn plan() -> Plan {
    // Without TLS the relay counts what the protocol sends, and nothing else.
    Plan { size: 64 << 20, encryption: "none", has_relays: true, ..Plan::default() }
}

/// One per cent of the blocks is written during an outage, at random; that much is sent after it.
/// What was written and is equal costs hashes only, and a reconnect without writes costs nothing.
pub(crate) fn resync_sends_only_differences() {
    let plan = plan();
    let mut record = Record::new(plan.size, 3);
    let pair = Pair::start(plan.clone(), &record.first_image());
    let blocks = plan.size / BLOCK_LEN / 100;

    pair.cut();
    let mut client = pair.nodes[0].connect();
    let mut offsets = BTreeSet::new();
    while offsets.len() < usize::try_from(blocks).unwrap() {
        let block = record.draw(plan.size / BLOCK_LEN - 4);
        offsets.insert(block * BLOCK_LEN);
    }
    for offset in &offsets {
        record.write(&mut client, *offset, BLOCK_LEN);
    }
    assert_eq!(pair.nodes[0].field("/out_of_sync_bytes"), blocks * BLOCK_LEN);
    let sent = sent_by_resync(&pair);
    let dirty = blocks * BLOCK_LEN;
    let limit = dirty + dirty / 50 + blocks * TALK_PER_CHUNK + TALK_PER_SESSION;
    assert!(sent >= dirty, "{sent} bytes cannot hold {dirty} that differ");
    assert!(sent <= limit, "{sent} bytes for {dirty} that differ; {limit} at most");
    check(&pair, &record);

    pair.cut();
    let sent = sent_by_resync(&pair);
    assert!(sent <= TALK_PER_SESSION, "{sent} bytes for nothing that differs");

    pair.cut();
    rewrite_what_is_there(&mut client, &offsets);
    let sent = sent_by_resync(&pair);
    let limit = blocks * TALK_PER_CHUNK + TALK_PER_SESSION;
    assert!(sent <= limit, "{sent} bytes for {blocks} equal blocks; {limit} at most");
    check(&pair, &record);
}

/// Each interruption of a resync costs what was in flight, not what was done.
pub(crate) fn an_interrupted_resync_goes_on() {
    let plan = plan();
    let mut record = Record::new(plan.size, 4);
    let pair = Pair::start(plan, &record.first_image());
    let dirty = 48 << 20;

    pair.cut();
    let mut client = pair.nodes[0].connect();
    for offset in (0..dirty).step_by(1 << 20) {
        record.write(&mut client, offset, 1 << 20);
    }
    let relays = pair.relays.as_ref().unwrap();
    let before = relays.each_ref().map(Relay::bytes);
    for _ in 0..3 {
        pair.heal();
        for relay in relays {
            relay.cut_after(12 << 20);
        }
        pair.news
            .wait_for("12 MiB of the resync", || relays.iter().any(Relay::is_cut).then_some(()));
        pair.cut();
        assert_ne!(pair.nodes[1].field("/disk"), "up-to-date", "it lacks most of it");
    }
    pair.heal();
    pair.wait_in_sync();
    let sent: u64 = relays.iter().zip(before).map(|(relay, bytes)| relay.bytes() - bytes).sum();
    let talk = 4 * (dirty / CHUNK_LEN * TALK_PER_CHUNK + TALK_PER_SESSION);
    let limit = dirty + dirty / 50 + 3 * IN_FLIGHT_MAX + talk;
    assert!(sent <= limit, "{sent} bytes for {dirty} that differ; {limit} at most");
    check(&pair, &record);
}

/// Bytes on the wire from healing the cable until both nodes are in sync.
fn sent_by_resync(pair: &Pair) -> u64 {
    let relays = pair.relays.as_ref().unwrap();
    let bytes = || relays.iter().map(Relay::bytes).sum::<u64>();
    let before = bytes();
    pair.heal();
    pair.wait_in_sync();
    bytes() - before
}

fn rewrite_what_is_there(client: &mut NbdClient, offsets: &BTreeSet<u64>) {
    for offset in offsets {
        let len = u32::try_from(BLOCK_LEN).unwrap();
        let bytes = client.read(*offset, len).unwrap();
        client.write(*offset, &bytes).unwrap();
    }
}

fn check(pair: &Pair, record: &Record) {
    record.check_reads();
    record.check_image("both data files", &pair.equal_image(), Floor::Acknowledged);
    assert_eq!(pair.nodes[0].field("/role"), "primary", "{RESOURCE} stays where it was");
}
