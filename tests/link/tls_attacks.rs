//! What somebody achieves against an encrypted link: with a foreign key, between the nodes, with a
//! recording of an earlier connection, or with an older TLS.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hotpair::link::{Cause, LinkError, Mismatch, Security, Trouble, fingerprint_of};
use hotpair::wire::message::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::{
    Alpha, Beta, Pair, attach, bytes_of, exchange, flush, hello, join, receive, said, say, write,
};

fn hello_of_alpha() -> hotpair::wire::message::Frame {
    said(Message::Hello(Box::new(hello("alpha", "vm1"))))
}

/// Security of a node whose key nobody knows, trusting `peer`.
fn stranger(folder: &Path, peer: &str, fingerprint: &str) -> Security {
    fingerprint_of(folder).unwrap();
    Security::tls(folder, &[(peer.to_owned(), fingerprint.to_owned())]).unwrap()
}

#[tokio::test]
async fn a_dialler_with_an_unknown_key_is_refused_before_any_frame() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let beta_key = fingerprint_of(folders[0].path()).unwrap();
    let alpha_key = fingerprint_of(folders[1].path()).unwrap();
    let trusted = Security::tls(folders[0].path(), &[("alpha".to_owned(), alpha_key)]).unwrap();
    let beta = Beta::start(&trusted).await;
    let attacker_folder = tempfile::tempdir().unwrap();
    let attacker = stranger(attacker_folder.path(), "beta", &beta_key);
    let mut alpha = Alpha::start(&attacker, beta.address);
    // The client's side of the handshake ends before the server has looked at its key.
    let mut connection = alpha.connection().await;
    connection.send(&hello_of_alpha());
    let _ = flush(&mut connection).await;
    let error = receive(&mut connection, 1).await.unwrap_err();
    assert!(matches!(error, LinkError::Tls(_) | LinkError::Io { .. }), "{error}");
    assert!(beta.refusals.count(Cause::Handshake) > 0);
    assert!(beta.arrivals.is_empty());
}

/// What a stranger shows is in the log; it is no reason why the peer is away.
#[tokio::test]
async fn who_comes_from_elsewhere_is_not_taken_for_the_peer() {
    let pair = Pair::tls();
    let beta = Beta::start(&pair.beta).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let mut stranger = socket.connect(beta.address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stranger.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(beta.refusals.count(Cause::Handshake), 1);
    assert_eq!(*beta.trouble.borrow(), None);
}

#[tokio::test]
async fn a_listener_with_an_unknown_key_is_told_nothing() {
    let pair = Pair::tls();
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let alpha_key = fingerprint_of(other.path()).unwrap();
    let impostor = Beta::start(&stranger(folder.path(), "alpha", &alpha_key)).await;
    let mut alpha = Alpha::start(&pair.alpha, impostor.address);
    let trouble = alpha.trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let shown = fingerprint_of(folder.path()).unwrap();
    assert!(trouble.why.contains(&shown), "{trouble:?}");
    assert_eq!(trouble.mismatch, Some(Mismatch::TheirKey));
    // The other end is told that it is its key.
    let told = impostor.trouble.clone().wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(told.why.contains(&shown), "{told:?}");
    assert_eq!(told.mismatch, Some(Mismatch::OurKey));
    assert!(alpha.arrivals.is_empty() && impostor.arrivals.is_empty());
}

#[tokio::test]
async fn a_key_of_one_node_does_not_speak_for_another() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let keys = folders.each_ref().map(|folder| fingerprint_of(folder.path()).unwrap());
    let [alpha_key, beta_key, gamma_key] = keys;
    let pins = [("alpha".to_owned(), alpha_key), ("gamma".to_owned(), gamma_key)];
    let mut beta = Beta::start(&Security::tls(folders[1].path(), &pins).unwrap()).await;
    let gamma = Security::tls(folders[2].path(), &[("beta".to_owned(), beta_key.clone())]).unwrap();

    // Gamma is trusted, and says that it is alpha.
    let mut dialler = Alpha::start(&gamma, beta.address);
    let mut connection = dialler.connection().await;
    connection.send(&hello_of_alpha());
    flush(&mut connection).await.unwrap();
    let frames = receive(&mut connection, 1).await.unwrap();
    assert!(matches!(&frames[0].message, Message::Refusal(_)), "{frames:?}");
    assert_eq!(beta.refusals.count(Cause::OtherNode), 1);
    assert!(beta.arrivals.try_recv().is_err());

    // Beta is trusted where alpha looks for it under the name of gamma.
    let pins = [("gamma".to_owned(), beta_key)];
    let confused = Security::tls(folders[0].path(), &pins).unwrap();
    let mut dialler = Alpha::start(&confused, beta.address);
    let trouble = dialler.trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(trouble.why.contains("gamma") && trouble.why.contains("beta"), "{trouble:?}");
    assert!(dialler.arrivals.is_empty());
}

#[tokio::test]
async fn nobody_is_let_in_with_our_own_key() {
    let pair = Pair::tls();
    let mut beta = Beta::start(&pair.alpha).await;
    let alpha = Alpha::start(&pair.alpha, beta.address);
    let mut trouble = alpha.trouble.clone();
    let reason = trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(reason.why.contains("is not the `identity`"), "{reason:?}");
    assert!(alpha.arrivals.is_empty() && beta.arrivals.try_recv().is_err());

    let folder = tempfile::tempdir().unwrap();
    let mine = fingerprint_of(folder.path()).unwrap();
    let error = Security::tls(folder.path(), &[("beta".to_owned(), mine)]).unwrap_err();
    assert!(error.to_string().contains("each node needs its own"), "{error}");
}

#[tokio::test]
async fn names_dates_and_purposes_of_a_certificate_mean_nothing() {
    for (from, to) in [(1975, 1976), (4000, 4096)] {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for folder in &folders {
            write_identity(folder.path(), from, to);
        }
        let [alpha_key, beta_key] =
            folders.each_ref().map(|folder| fingerprint_of(folder.path()).unwrap());
        let alpha = Security::tls(folders[0].path(), &[("beta".to_owned(), beta_key)]).unwrap();
        let beta = Security::tls(folders[1].path(), &[("alpha".to_owned(), alpha_key)]).unwrap();
        let mut node_beta = Beta::start(&beta).await;
        let mut node_alpha = Alpha::start(&alpha, node_beta.address);
        let mut connection = node_alpha.connection().await;
        connection.send(&hello_of_alpha());
        flush(&mut connection).await.unwrap();
        receive(&mut node_beta.connection().await, 1).await.unwrap();
    }
}

/// An identity valid from one year to another, for somebody else's purpose.
fn write_identity(folder: &Path, from: i32, to: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["wrong.example".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::EmailProtection];
    let certificate = parameters.self_signed(&key).unwrap();
    let path = folder.join("identity.pem");
    std::fs::write(&path, key.serialize_pem() + &certificate.pem()).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn both_ends_export_the_same_secret_and_no_two_connections_do() {
    let pair = Pair::tls();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut beta = Beta::start(&pair.beta).await;
        let mut alpha = Alpha::start(&pair.alpha, beta.address);
        let dialled = alpha.arrivals.recv().await.unwrap();
        let exporter = dialled.exporter;
        assert_eq!(dialled.peer.as_deref(), Some("beta"));
        let mut connection = attach(dialled);
        connection.send(&hello_of_alpha());
        flush(&mut connection).await.unwrap();
        let accepted = beta.arrivals.recv().await.unwrap();
        assert_eq!(accepted.peer.as_deref(), Some("alpha"));
        assert_eq!(accepted.exporter, exporter);
        seen.push(exporter);
    }
    assert_ne!(seen[0], seen[1]);
    assert_ne!(seen[0], [0; 32]);
}

#[tokio::test]
async fn plain_text_to_the_tls_port_and_tls_to_a_plain_port_get_nowhere() {
    let pair = Pair::tls();
    let mut joined = join(&pair).await;
    let mismatch = |trouble: &Trouble| trouble.mismatch;
    let answer = say(joined.node_beta.address, &bytes_of(&hello_of_alpha())).await;
    assert_eq!(joined.node_beta.refusals.count(Cause::Handshake), 1);
    let trouble = joined.node_beta.trouble.borrow().as_ref().map(mismatch);
    assert_eq!(trouble, Some(Some(Mismatch::Encryption)));
    joined.check(1).await;
    // It answers as TLS does, in fewer bytes than a header has: whoever speaks plainly knows it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut dialler = Alpha::start(&Security::Plain, listener.local_addr().unwrap());
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.write_all(&answer).await.unwrap();
    drop(socket);
    let error = receive(&mut dialler.connection().await, 1).await.unwrap_err();
    assert_eq!(error.trouble("beta", None).mismatch, Some(Mismatch::Encryption), "{error}");

    let plain = Beta::start(&Security::Plain).await;
    let mut alpha = Alpha::start(&pair.alpha, plain.address);
    let trouble = alpha.trouble.wait_for(Option::is_some).await.unwrap().as_ref().map(mismatch);
    assert_eq!(trouble, Some(Some(Mismatch::Unsaid)));
    assert_eq!(plain.refusals.count(Cause::NotHello), 1);
    let trouble = plain.trouble.borrow().as_ref().map(mismatch);
    assert_eq!(trouble, Some(Some(Mismatch::Encryption)));
    assert!(plain.arrivals.is_empty() && alpha.arrivals.is_empty());
}

#[tokio::test]
async fn older_versions_of_tls_are_refused() {
    let mut joined = join(&Pair::tls()).await;
    for version in 0..=3 {
        let answer = say(joined.node_beta.address, &old_client_hello(version)).await;
        assert_eq!(answer.first(), Some(&21), "an alert, not {answer:?}");
        joined.check(u64::from(version)).await;
    }
    assert_eq!(joined.node_beta.refusals.count(Cause::Handshake), 4);
}

/// A first message of SSL 3.0 (`minor` 0) to TLS 1.2 (3), whole and well-formed.
fn old_client_hello(minor: u8) -> Vec<u8> {
    let mut extensions: Vec<u8> = Vec::new();
    let groups_and_signatures: [&[u8]; 2] =
        [&[0, 10, 0, 4, 0, 2, 0, 23], &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4]];
    for bytes in groups_and_signatures {
        extensions.extend(bytes);
    }
    let mut body = vec![3, minor];
    body.extend([5; 32]);
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0, 0]);
    body.push(u8::try_from(extensions.len()).unwrap());
    body.extend(extensions);
    let len = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, len + 4, 1, 0, 0, len][..], &body].concat()
}

/// Sits between two nodes and passes TLS records on, each client record as `alter` wants it.
struct Between {
    address: std::net::SocketAddr,
    records: mpsc::Receiver<Vec<u8>>,
}

async fn sit_between(
    target: std::net::SocketAddr,
    mut alter: impl FnMut(usize, Vec<u8>) -> Vec<u8> + Send + 'static,
) -> Between {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, records) = mpsc::channel(256);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(target).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        for number in 0.. {
            let Some(record) = read_record(&mut from_client).await else { return };
            let altered = alter(number, record.clone());
            let _ = sender.try_send(record);
            if to_server.write_all(&altered).await.is_err() {
                return;
            }
        }
    });
    Between { address, records }
}

async fn read_record(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record).await.ok()?;
    let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + len, 0);
    from.read_exact(&mut record[5..]).await.ok()?;
    Some(record)
}

/// The client's side of a connection as it went over the wire, record by record.
async fn recording(pair: &Pair) -> Vec<Vec<u8>> {
    let mut beta = Beta::start(&pair.beta).await;
    let mut between = sit_between(beta.address, |_, record| record).await;
    let mut alpha = Alpha::start(&pair.alpha, between.address);
    let mut connection = alpha.connection().await;
    connection.send(&hello_of_alpha());
    flush(&mut connection).await.unwrap();
    let mut other = beta.connection().await;
    receive(&mut other, 1).await.unwrap();
    exchange(&mut connection, &mut other, &write(1, 100)).await;
    let mut records = Vec::new();
    while let Ok(record) = between.records.try_recv() {
        records.push(record);
    }
    records
}

#[tokio::test]
async fn a_recorded_connection_cannot_be_played_again() {
    let pair = Pair::tls();
    let recorded = recording(&pair).await.concat();
    let mut joined = join(&pair).await;
    say(joined.node_beta.address, &recorded).await;
    assert_eq!(joined.node_beta.refusals.count(Cause::Handshake), 1);
    assert!(joined.node_beta.arrivals.is_empty());
    joined.check(1).await;
}

#[tokio::test]
async fn a_handshake_cut_anywhere_gets_nowhere_and_disturbs_nobody() {
    let pair = Pair::tls();
    let recorded = recording(&pair).await;
    let first = &recorded[0];
    let mut joined = join(&pair).await;
    let cuts = (0..first.len()).step_by(7).chain([first.len()]);
    let mut count = 0;
    for cut in cuts {
        say(joined.node_beta.address, &first[..cut]).await;
        count += 1;
    }
    assert_eq!(joined.node_beta.refusals.count(Cause::Handshake), count);
    assert!(joined.node_beta.arrivals.is_empty());
    joined.check(1).await;
}

#[tokio::test]
async fn no_record_that_was_changed_dropped_doubled_or_reordered_is_taken() {
    let pair = Pair::tls();
    let records = recording(&pair).await;
    // The write is the last; what is before it is the handshake and the Hello.
    let write_at = records.len() - 1;
    let write_len = records[write_at].len();
    // Type and version in front of a record are no longer looked at in TLS 1.3.
    for how in 3..(write_len + 3) {
        let mut held = Vec::new();
        let alter = move |number: usize, mut record: Vec<u8>| {
            if number == write_at && how < write_len {
                record[how] ^= 1;
            } else if number == write_at && how == write_len {
                record.clear();
            } else if number == write_at && how == write_len + 1 {
                record = record.repeat(2);
            } else if number == write_at && how == write_len + 2 {
                held = std::mem::take(&mut record);
            } else if number > write_at {
                record.append(&mut held);
            }
            record
        };
        let taken = writes_taken_through(&pair, alter).await;
        // Doubled, it is taken once, or not at all if the double is found first.
        assert!(taken <= usize::from(how == write_len + 1), "alteration {how}: {taken} taken");
    }
}

/// How many of two writes, each a record, are taken after `alter` had its way with them.
async fn writes_taken_through(
    pair: &Pair,
    alter: impl FnMut(usize, Vec<u8>) -> Vec<u8> + Send + 'static,
) -> usize {
    let mut beta = Beta::start(&pair.beta).await;
    let between = sit_between(beta.address, alter).await;
    let mut alpha = Alpha::start(&pair.alpha, between.address);
    let mut connection = alpha.connection().await;
    connection.send(&hello_of_alpha());
    flush(&mut connection).await.unwrap();
    let mut other = beta.connection().await;
    receive(&mut other, 1).await.unwrap();
    for number in 1..=2 {
        connection.send(&write(number, 100));
        flush(&mut connection).await.unwrap();
    }
    // A length that was made longer waits for bytes that never come.
    drop(connection);
    drop(alpha);
    let mut taken = 0;
    loop {
        match receive(&mut other, 1).await {
            Ok(frames) => taken += frames.len(),
            Err(_) => return taken,
        }
    }
}
