//! Input that makes no sense: a clear answer, nothing changed, and the daemon lives.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::oracle::ledger::Floor;
use crate::real::nbd_client::{Command, NbdClient, Request};
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::record::Record;

/// More than the server's own limit on a handshake.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);

/// The drill: clients that break every rule of the protocol, beside one that keeps them.
pub(crate) fn malformed_clients_harm_nobody() {
    let plan = Plan::default();
    let mut record = Record::new(plan.size, 11);
    let mut pair = Pair::start(plan.clone(), &record.first_image());
    let id = pair.nodes[0].daemon().id();
    let load = pair.load(0, record);
    let export = pair.nodes[0].export.clone();
    for bytes in broken_handshakes() {
        let answer = converse(&export, &bytes);
        assert!(answer.len() < 1 << 20, "{} bytes for {bytes:02x?}", answer.len());
    }
    for request in broken_requests(plan.size) {
        let mut go = handshake();
        go.extend(request);
        drop(converse(&export, &go));
    }
    refused_requests_leave_the_connection_in_step(&export, plan.size);
    load.wait_for_answers(200);
    let ended = load.stop();
    record = ended.record;
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    record.check_errors("the honest client noticed");
    assert_eq!(pair.nodes[0].daemon().id(), id);
    assert!(pair.nodes[0].daemon().is_running());
    record.check_reads();
    pair.wait_in_sync();
    record.check_image("both data files", &pair.equal_image(), Floor::Acknowledged);
}

/// Says `bytes`, closes its own half, and returns the whole answer; the server must end it.
fn converse(export: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(export).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    // The server may close before it has heard everything.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    match stream.take(8 << 20).read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("no end after {ANSWER_LIMIT:?} for {bytes:02x?}")
        }
        Ok(_) | Err(_) => answer,
    }
}

/// The client's half of a handshake that succeeds.
fn handshake() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 3];
    bytes.extend(option(7, &go_body(RESOURCE.as_bytes(), 0, &[])));
    bytes
}

fn option(number: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [b"IHAVEOPT".as_slice(), &number.to_be_bytes(), &len.to_be_bytes(), body].concat()
}

fn go_body(name: &[u8], count: u16, requests: &[u8]) -> Vec<u8> {
    let len = u32::try_from(name.len()).unwrap();
    [&len.to_be_bytes()[..], name, &count.to_be_bytes(), requests].concat()
}

fn broken_handshakes() -> Vec<Vec<u8>> {
    let flags = [0, 0, 0, 3];
    let with_flags = |body: Vec<u8>| [&flags[..], &body].concat();
    let whole = handshake();
    // Cut at every byte.
    let mut all: Vec<Vec<u8>> = (0..whole.len()).map(|len| whole[..len].to_vec()).collect();
    all.extend([vec![0xff; 4], vec![0; 4], vec![0, 0, 0, 0x80]]);
    let bodies = [
        // A length without end.
        [b"IHAVEOPT".as_slice(), &7_u32.to_be_bytes(), &u32::MAX.to_be_bytes()].concat(),
        [b"IHAVEOPT".as_slice(), &99_u32.to_be_bytes(), &u32::MAX.to_be_bytes()].concat(),
        b"IHAVEOPS\0\0\0\x07\0\0\0\0".to_vec(),
        // A name longer than its option, too long, with NUL, not UTF-8, and a path.
        option(7, &[0, 0, 0x10, 0, b'r', 0, 0]),
        option(7, &go_body(&[b'a'; 4096], 0, &[])),
        option(7, &go_body(&[b'a'; 4097], 0, &[])),
        option(7, &go_body(b"r\0r", 0, &[])),
        option(7, &go_body(&[0xff, 0xfe], 0, &[])),
        option(7, &go_body(b"../../etc/shadow", 0, &[])),
        // More requests than there are, and bytes behind them.
        option(7, &go_body(b"r", 9, &[0, 3])),
        option(7, &go_body(b"r", 0, &[1, 2, 3])),
        // STARTTLS with something pipelined behind it; contexts before structured replies.
        [option(5, &[]), handshake()[4..].to_vec()].concat(),
        option(10, &[0, 0, 0, 1, b'r', 0xff, 0xff, 0xff, 0xff]),
        option(8, &[1]),
        option(3, &[1, 2, 3]),
        // Many options.
        option(99, &[7; 64]).repeat(5_000),
    ];
    all.extend(bodies.map(with_flags));
    all
}

fn request(flags: u16, command: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(7_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

fn broken_requests(size: u64) -> Vec<Vec<u8>> {
    let mut all = vec![
        vec![0xee; 28],
        request(0, 0, 0, u32::MAX),
        request(0, 1, 0, u32::MAX),
        request(0, 1, 0, 4096),
        request(0, 0, u64::MAX, 4096),
        request(0, 4, u64::MAX, u32::MAX),
        request(0, 6, size, 1),
        request(0, 0, 0, 4096)[..27].to_vec(),
        [request(0, 0, 0, 4096), vec![0xee; 28]].concat(),
        // The same cookie again and again, and an end with requests in flight.
        [request(0, 0, 0, 512).repeat(1_000), request(0, 2, 0, 0)].concat(),
        // Reads that nobody takes.
        request(0, 0, 0, 65_536).repeat(2_000),
    ];
    for command in [0, 3, 4, 5, 6, 7, 8, 99, u16::MAX] {
        all.push(request(0, command, 0, 0));
        all.push(request(0xffff, command, 0, 512));
    }
    all
}

/// Each of these gets its error, and what follows is still understood.
fn refused_requests_leave_the_connection_in_step(export: &Path, size: u64) {
    const EINVAL: i32 = 22;
    const ENOSPC: i32 = 28;
    let mut client = NbdClient::connect(export, RESOURCE).unwrap();
    let payload = [0xab; 4096];
    let cases: [(Command, u64, &[u8], i32); 5] = [
        (Command::Write, size - 1, &payload, ENOSPC),
        (Command::Write, u64::MAX - 1, &payload, ENOSPC),
        (Command::Read, size - 1, &[], EINVAL),
        (Command::Trim, size - 1, &[], EINVAL),
        (Command::WriteZeroes, size - 1, &[], ENOSPC),
    ];
    for (command, offset, payload, errno) in cases {
        let request = Request { command, is_fua: false, offset, len: 4096, payload };
        let error = client.call(request).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{command:?} at {offset}: {error}");
        assert_eq!(client.read(0, 512).unwrap().len(), 512);
    }
}

/// A node started on the metadata of another resource, or of another node, does not serve it.
pub(crate) fn foreign_metadata_is_refused() {
    let record = Record::new(Plan::default().size, 12);
    let mut pair = Pair::start(Plan::default(), &record.first_image());
    let mut other = Pair::start(Plan::default(), &record.first_image());
    for at in [0, 1] {
        pair.nodes[at].stop();
        other.nodes[at].stop();
    }
    // The sidecar of another resource, which has the same name and size.
    swap(&metadata_of(&pair, 1), &metadata_of(&other, 1));
    let before = pair.images();
    pair.nodes[0].run();
    pair.nodes[1].spawn();
    wait_until_refused(&mut pair, 1);
    assert!(pair.images() == before, "data moved");
    pair.nodes[0].stop();

    // The sidecars of the two nodes of one pair, exchanged.
    swap(&metadata_of(&pair, 1), &metadata_of(&other, 1));
    swap(&metadata_of(&pair, 0), &metadata_of(&pair, 1));
    pair.nodes[0].spawn();
    wait_until_refused(&mut pair, 0);
    assert!(pair.images() == before, "data moved");
}

fn metadata_of(pair: &Pair, at: usize) -> std::path::PathBuf {
    let found = fs::read_dir(&pair.nodes[at].state_dir).unwrap();
    let folders = found.map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    folders.expect("init makes a folder")
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    for (from, to) in [(one, aside.as_path()), (other, one), (aside.as_path(), other)] {
        let words = [from.to_str().unwrap(), to.to_str().unwrap()];
        crate::real::process::run_well("mv", &["-T", words[0], words[1]]);
    }
}

/// Either the daemon ends with a reason, or it runs and never gets in sync, and says why.
fn wait_until_refused(pair: &mut Pair, at: usize) {
    let news = pair.news.clone();
    news.wait_for("the node to be refused", || {
        let node = &mut pair.nodes[at];
        assert!(!node.is_in_sync(), "{} joined with metadata that is not its own", node.name);
        if !node.daemon().is_running() {
            let lines = node.daemon().lines().join("\n");
            assert!(!lines.contains("panicked"), "{lines}");
            return Some(());
        }
        let status = node.status()?;
        let is_apart = status["peer"]["link"] == "stand-alone" || status["disk"] == "failed";
        is_apart.then_some(())
    });
    if pair.nodes[at].daemon().is_running() {
        let text = pair.nodes[at].well(&["explain", RESOURCE]);
        assert!(!text.trim().is_empty());
        pair.nodes[at].stop();
    } else {
        pair.nodes[at].kill();
    }
}

/// Too short, absent, a folder: `init` and `run` say so and touch nothing.
pub(crate) fn a_file_that_does_not_fit_is_refused() {
    let plan = Plan::default();
    let record = Record::new(plan.size, 13);
    let mut pair = Pair::prepare(plan);
    let node = &pair.nodes[0];
    let text = node.refused(&["init", RESOURCE, "--from", "this"]);
    assert!(text.contains("data.img"), "an absent file is named: {text}");
    fs::write(&node.data, [1; 4096]).unwrap();
    let text = node.refused(&["init", RESOURCE, "--from", "this"]);
    assert!(text.contains("4096") || text.contains("4 KiB"), "its size is named: {text}");
    assert_eq!(fs::read(&node.data).unwrap(), [1; 4096]);
    fs::remove_file(&node.data).unwrap();
    fs::create_dir(&node.data).unwrap();
    let text = node.refused(&["init", RESOURCE, "--from", "this"]);
    assert!(text.contains("data.img"), "{text}");
    fs::remove_dir(&node.data).unwrap();
    fs::write(&node.data, [1; 4096]).unwrap();
    let text = node.refused(&["init", RESOURCE, "--from", "empty"]);
    assert!(text.contains("data.img"), "data is not thrown away: {text}");

    // It was fine at init, and is shorter at the start of the daemon.
    fs::write(&node.data, record.first_image()).unwrap();
    node.well(&["init", RESOURCE, "--from", "this"]);
    let file = fs::OpenOptions::new().write(true).open(&node.data).unwrap();
    file.set_len(4096).unwrap();
    pair.nodes[0].spawn();
    let news = pair.news.clone();
    news.wait_for("the short file to be noticed", || {
        let node = &mut pair.nodes[0];
        (!node.daemon().is_running() || node.field("/disk") == "failed").then_some(())
    });
    assert_eq!(fs::metadata(&pair.nodes[0].data).unwrap().len(), 4096, "it was extended");
}

/// Two nodes that were told the same file: the second one does not get it.
pub(crate) fn two_nodes_on_one_file_are_refused() {
    let record = Record::new(Plan::default().size, 14);
    let mut pair = Pair::start(Plan::default(), &record.first_image());
    pair.nodes[1].stop();
    let (mine, theirs) = (pair.nodes[0].data.clone(), pair.nodes[1].data.clone());
    fs::remove_file(&theirs).unwrap();
    fs::hard_link(&mine, &theirs).unwrap();
    pair.nodes[1].spawn();
    wait_until_refused(&mut pair, 1);
    assert_eq!(pair.nodes[0].field("/role"), "primary");
    let mut client = pair.nodes[0].connect();
    record.check_image("the export", &client.read_all().unwrap(), Floor::Acknowledged);
}
