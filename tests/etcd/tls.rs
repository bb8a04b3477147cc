//! A member that speaks TLS, and asks for a certificate.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use hotpair::arbiter::{EtcdSecurity, EtcdSettings};
use hotpair::link::{EtcdKeys, NoEtcdKeys, etcd_client};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::cluster::Cluster;
use crate::node::{A, B, Node, enroll, settings};

/// An authority, and one certificate for a member and for us, as files of PEM.
pub(crate) fn make(folder: &Path, host: Ipv4Addr) {
    let (mut authority, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let ca = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let (member, key) =
        (CertificateParams::new([host.to_string()]).unwrap(), KeyPair::generate().unwrap());
    let certificate = member.signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// Both ends show a certificate of the authority; a member with another one, and a node without one,
/// get nowhere.
pub(crate) fn both_ends_are_known() {
    let cluster = Cluster::start_tls();
    let read = |name: &str| fs::read(cluster.folder().join(name)).unwrap();
    let (ca, chain, key) = (read("ca.pem"), read("cert.pem"), read("key.pem"));
    let with = |ca: &[u8], identity| EtcdSettings {
        security: EtcdSecurity::Tls { config: etcd_client(EtcdKeys { ca, identity }).unwrap() },
        ..settings(&cluster)
    };
    let identity = Some((chain.as_slice(), key.as_slice()));
    let mut nodes = [Node::with(with(&ca, identity), A), Node::with(with(&ca, identity), B)];
    enroll(&mut nodes);
    nodes[0].lease();
    let nobody = Node::with(with(&ca, None), B);
    assert!(nobody.trouble.is_some(), "a node without a certificate was let in");
    let elsewhere = tempfile::tempdir().unwrap();
    make(elsewhere.path(), Ipv4Addr::LOCALHOST);
    let other = fs::read(elsewhere.path().join("ca.pem")).unwrap();
    let stranger = Node::with(with(&other, identity), B);
    let why = stranger.trouble.as_ref().expect("a member of another authority was trusted");
    assert!(why.contains("certificate"), "{why}");
    let plain = Node::start(&cluster, B);
    assert!(plain.trouble.is_some(), "without TLS");
    // What the files hold is looked at before anybody is asked.
    let no_ca = etcd_client(EtcdKeys { ca: b"garbage", identity: None });
    assert!(matches!(no_ca, Err(NoEtcdKeys::Ca { .. })));
    let no_key = etcd_client(EtcdKeys { ca: &ca, identity: Some((&chain, b"garbage")) });
    assert!(matches!(no_key, Err(NoEtcdKeys::Key { .. })));
    let no_chain = etcd_client(EtcdKeys { ca: &ca, identity: Some((b"", &key)) });
    assert!(matches!(no_chain, Err(NoEtcdKeys::Certificate { .. })));
}
