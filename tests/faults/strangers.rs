//! Who is not the peer is sent away before anything it says counts, and the link stays as it is.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::oracle::ledger::Floor;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::process::{self, Process};
use crate::real::record::Record;

/// How long a stranger that says nothing more may keep its connection.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// Clear text to a TLS port and TLS to a clear one, noise, half a handshake, and silence.
pub(crate) fn strangers_are_refused() {
    for encryption in ["tls", "none"] {
        let plan = Plan { encryption, ..Plan::default() };
        let mut record = Record::new(plan.size, 8);
        let mut pair = Pair::start(plan, &record.first_image());
        let ids = [pair.nodes[0].daemon().id(), pair.nodes[1].daemon().id()];
        let load = pair.load(0, record);
        // The node that sorts first dials and lets nobody connect; the other one listens.
        let [dials, listens] = &pair.nodes;
        let refused = TcpStream::connect(dials.replication).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        for speech in speeches() {
            let mut stranger = TcpStream::connect(listens.replication).unwrap();
            stranger.set_read_timeout(Some(HANDSHAKE_LIMIT)).unwrap();
            // The node may have closed already; that is an answer too.
            drop(stranger.write_all(&speech));
            let mut answer = Vec::new();
            let result = stranger.take(1 << 20).read_to_end(&mut answer);
            let is_over = result.as_ref().map_or_else(|e| !is_timeout(e), |_| true);
            assert!(is_over, "a stranger that said {} bytes is kept", speech.len());
        }
        load.wait_for_answers(200);
        let ended = load.stop();
        record = ended.record;
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        record.check_errors("the client noticed the strangers");
        assert!(pair.nodes.iter_mut().all(|node| node.daemon().is_running()));
        assert_eq!(ids, [pair.nodes[0].daemon().id(), pair.nodes[1].daemon().id()]);
        pair.wait_in_sync();
        record.check_reads();
        record.check_image("both data files", &pair.equal_image(), Floor::Acknowledged);
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// What strangers say: one of each kind.
fn speeches() -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(9);
    let noise: Vec<u8> = (0..4096).map(|_| rng.u8(..)).collect();
    // The start of a TLS 1.2 record that holds a ClientHello of 512 bytes, and of one of 16 KiB.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise[..300]].concat();
    let long_hello = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &noise].concat();
    vec![
        b"GET / HTTP/1.1\r\nHost: alpha\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        noise,
        hello,
        long_hello,
        Vec::new(),
    ]
}

/// Somebody with the right configuration and another key takes the peer's place: never connected,
/// whichever of the two nodes it claims to be.
pub(crate) fn an_impostor_is_refused() {
    for claimed in [0, 1] {
        let record = Record::new(Plan::default().size, 10);
        let mut pair = Pair::start(Plan::default(), &record.first_image());
        let before = pair.images();
        let honest = 1 - claimed;
        pair.nodes[claimed].stop();

        // It has all that the node had, but for the key.
        let node = &pair.nodes[claimed];
        let key_folder = pair.folder().join("impostor");
        let folder = key_folder.to_str().unwrap();
        process::run_well("cp", &["-a", node.state_dir.to_str().unwrap(), folder]);
        replace_keys(folder);
        let text = fs::read_to_string(&node.config).unwrap();
        let own = format!("state_dir = \"{}\"", node.state_dir.display());
        assert!(text.contains(&own), "{text}");
        let config = pair.folder().join("impostor.toml");
        fs::copy(&node.config, &config).unwrap();
        fs::write(&config, text.replace(&own, &format!("state_dir = \"{folder}\""))).unwrap();

        let words = ["run", "--config", config.to_str().unwrap(), "--node", node.name];
        let binary = crate::real::pair::binary();
        let mut impostor = Process::start("impostor", &binary, &words, &pair.news);
        // Either it is refused for its own configuration, which names another key, or it runs and
        // is refused by the honest node.
        pair.news.wait_for("the impostor to be refused", || {
            let honest = &mut pair.nodes[honest];
            assert_ne!(honest.field("/peer/link"), "connected", "an impostor was let in");
            let lines = [honest.daemon().lines(), impostor.lines()].concat();
            let is_named = lines.iter().any(|line| {
                line.contains("identity") || line.contains("certificate") || line.contains("key")
            });
            (is_named || !impostor.is_running()).then_some(())
        });
        impostor.kill();
        assert!(pair.nodes[honest].daemon().is_running());
        assert!(pair.images() == before, "data moved");

        pair.nodes[claimed].run();
        pair.wait_in_sync();
        let image = pair.equal_image();
        record.check_image("both data files", &image, Floor::Acknowledged);
        assert_eq!(pair.nodes[honest].status().unwrap()["name"], RESOURCE);
    }
}

/// Gives a copied state folder keys of its own.
fn replace_keys(folder: &str) {
    let is_metadata = |name: &str| name == RESOURCE || name == "resources";
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && !is_metadata(entry.file_name().to_str().unwrap())
        {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let said = process::run(&crate::real::pair::binary(), &["identity", "--state-dir", folder]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}
