//! How much memory a daemon takes when the resource is large and the peer is slow.

use std::fs;

use crate::real::nbd_client::{Command, Request};
use crate::real::pair::{Pair, Plan, RESOURCE};

const RESOURCE_LEN: u64 = 1 << 40;
/// Of one daemon, 32 MiB of it the mapped dirty map.
const RESIDENT_MAX: u64 = 256 << 20;
const WRITE_LEN: u32 = 1 << 20;
const WRITES: u64 = 400;
const IN_FLIGHT: usize = 64;

/// 1 TiB, sparse; writes all over it, with more in flight than may be held, while the second node
/// is sent everything, then while it stands still.
pub(crate) fn memory_stays_bounded() {
    let plan = Plan { size: RESOURCE_LEN, ..Plan::default() };
    let mut pair = Pair::prepare(plan);
    pair.nodes[0].well(&["init", RESOURCE, "--from", "empty"]);
    pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_connected();
    pair.nodes[0].well(&["promote", RESOURCE]);
    write_everywhere(&pair, 1);
    // A stopped process still has its sockets: the primary must not queue without end for it.
    pair.nodes[1].daemon().signal(rustix::process::Signal::STOP);
    write_everywhere(&pair, 2);
    pair.nodes[1].daemon().signal(rustix::process::Signal::CONT);
    for node in &mut pair.nodes {
        let peak = node.daemon().resident_peak();
        assert!(peak <= RESIDENT_MAX, "{}: {} MiB resident", node.name, peak >> 20);
        assert!(node.daemon().is_running());
    }
    let blocks = fs::metadata(&pair.nodes[0].data).unwrap();
    let allocated = std::os::unix::fs::MetadataExt::blocks(&blocks) * 512;
    assert!(allocated <= 4 * WRITES * u64::from(WRITE_LEN), "{allocated} bytes: not sparse");
}

fn write_everywhere(pair: &Pair, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut client = pair.nodes[0].connect();
    let payload = vec![0x5a; usize::try_from(WRITE_LEN).unwrap()];
    for _ in 0..WRITES {
        if client.in_flight() == IN_FLIGHT {
            assert_eq!(client.receive().unwrap().error, 0);
        }
        let offset = rng.u64(..RESOURCE_LEN / u64::from(WRITE_LEN)) * u64::from(WRITE_LEN);
        let command = Command::Write;
        let request = Request { command, is_fua: false, offset, len: WRITE_LEN, payload: &payload };
        client.send(request).unwrap();
    }
    while client.in_flight() > 0 {
        assert_eq!(client.receive().unwrap().error, 0);
    }
}
