//! Whether and how connections between the nodes are protected.
//!
//! `encryption = "tls"` is the default; `"none"` sends the same frames as they are. A build
//! without TLS has only the latter and says so.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::TcpStream;

use super::error::HandshakeError;
use super::transport::Transport;

/// How connections are protected, and who is trusted.
#[derive(Clone, Debug)]
pub enum Security {
    /// `encryption = "none"`: whoever can reach the port can read, alter and inject.
    Plain,
    /// Both ends prove a configured key.
    #[cfg(feature = "_tls")]
    Tls(super::tls::TlsConfigs),
}

impl Security {
    /// TLS with the identity kept in `state_dir`, trusting the keys of `peers`: names of nodes and
    /// their fingerprints as `hotpair identity` prints them.
    ///
    /// # Errors
    /// If the identity or a fingerprint cannot be used; the error says how to mend it.
    #[cfg(feature = "_tls")]
    pub fn tls(state_dir: &Path, peers: &[(String, String)]) -> Result<Self, IdentityError> {
        let identity = super::identity::Identity::load(state_dir)?;
        let mut pins = std::collections::BTreeMap::new();
        for (node, text) in peers {
            let pin: super::identity::Fingerprint = text.parse()?;
            if pin == identity.fingerprint() {
                return Err(IdentityError::Mine {
                    node: node.clone(),
                    state_dir: state_dir.into(),
                });
            }
            if let Some(other) = pins.insert(pin, node.clone()) {
                return Err(IdentityError::Shared { nodes: [other, node.clone()] });
            }
        }
        let configs = super::tls::TlsConfigs::new(identity, pins, ALPN)
            .map_err(|error| IdentityError::Draw { reason: error.to_string() })?;
        Ok(Self::Tls(configs))
    }

    /// Refuses: this build cannot encrypt.
    ///
    /// # Errors
    /// Always [`IdentityError::NoTls`].
    #[cfg(not(feature = "_tls"))]
    pub fn tls(_state_dir: &Path, _peers: &[(String, String)]) -> Result<Self, IdentityError> {
        Err(IdentityError::NoTls)
    }

    /// The fingerprint of this node's key; `None` without TLS.
    pub fn fingerprint(&self) -> Option<String> {
        match self {
            Self::Plain => None,
            #[cfg(feature = "_tls")]
            Self::Tls(configs) => Some(configs.mine().to_string()),
        }
    }

    /// Whether frames are encrypted.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Plain => false,
            #[cfg(feature = "_tls")]
            Self::Tls(_) => true,
        }
    }

    /// The server's part of the handshake.
    #[cfg_attr(
        not(feature = "_tls"),
        expect(unused_variables, clippy::unused_async, reason = "only a handshake takes time")
    )]
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
        address: &str,
    ) -> Result<(Transport, Proof), HandshakeError> {
        match self {
            Self::Plain => Ok((Transport::plain(socket), Proof::none())),
            #[cfg(feature = "_tls")]
            Self::Tls(configs) => {
                let acceptor = tokio_rustls::TlsAcceptor::from(configs.server.clone());
                let stream = acceptor.accept(socket).await.map_err(refused(
                    configs,
                    "accept a TLS connection from",
                    address,
                ))?;
                let (socket, session) = stream.into_inner();
                let session = session.into();
                let proof = Proof::of(configs, &session, address)?;
                Ok((Transport::tls(socket, session), proof))
            }
        }
    }

    /// The client's part of the handshake.
    #[cfg_attr(
        not(feature = "_tls"),
        expect(unused_variables, clippy::unused_async, reason = "only a handshake takes time")
    )]
    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        address: &str,
    ) -> Result<(Transport, Proof), HandshakeError> {
        match self {
            Self::Plain => Ok((Transport::plain(socket), Proof::none())),
            #[cfg(feature = "_tls")]
            Self::Tls(configs) => {
                let connector = tokio_rustls::TlsConnector::from(configs.client.clone());
                let stream = connector
                    .connect(super::tls::any_name(), socket)
                    .await
                    .map_err(refused(configs, "open a TLS connection to", address))?;
                let (socket, session) = stream.into_inner();
                let session = session.into();
                let proof = Proof::of(configs, &session, address)?;
                Ok((Transport::tls(socket, session), proof))
            }
        }
    }
}

/// What both nodes must speak inside TLS.
#[cfg(feature = "_tls")]
const ALPN: &[u8] = b"hotpair/1";

/// This node's fingerprint, for `hotpair identity`: made once, then always the same.
///
/// # Errors
/// If the key cannot be made, read or trusted; the error names the file and the way out.
#[cfg(feature = "_tls")]
pub fn fingerprint_of(state_dir: &Path) -> Result<String, IdentityError> {
    Ok(super::identity::Identity::load_or_make(state_dir)?.fingerprint().to_string())
}

/// Refuses: this build has no keys.
///
/// # Errors
/// Always [`IdentityError::NoTls`].
#[cfg(not(feature = "_tls"))]
pub fn fingerprint_of(_state_dir: &Path) -> Result<String, IdentityError> {
    Err(IdentityError::NoTls)
}

/// What a handshake proved.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// Zeroes without TLS.
    pub(super) exporter: [u8; 32],
    /// The node whose key the other end proved; `None` without TLS.
    pub(super) peer: Option<String>,
}

impl Proof {
    fn none() -> Self {
        Self { exporter: [0; 32], peer: None }
    }

    #[cfg(feature = "_tls")]
    fn of(
        configs: &super::tls::TlsConfigs,
        session: &rustls::Connection,
        address: &str,
    ) -> Result<Self, HandshakeError> {
        let not_ours = || HandshakeError::NotOurs { address: address.to_owned() };
        let peer = configs.peer_of(session).ok_or_else(not_ours)?.to_owned();
        let exporter = super::tls::TlsConfigs::exporter_of(session).map_err(|_| not_ours())?;
        Ok(Self { exporter, peer: Some(peer) })
    }
}

/// Adds what was tried, and with whom, to an error of the network.
pub(super) fn failed(
    action: &'static str,
    address: &str,
) -> impl FnOnce(io::Error) -> HandshakeError {
    move |source| HandshakeError::Io { action, address: address.to_owned(), source }
}

/// As [`failed`], for a handshake: keys and settings that do not fit are the commonest mistakes.
#[cfg(feature = "_tls")]
fn refused(
    configs: &super::tls::TlsConfigs,
    action: &'static str,
    address: &str,
) -> impl FnOnce(io::Error) -> HandshakeError {
    use super::tls::HandshakeFailure;
    move |source| {
        let address = address.to_owned();
        match HandshakeFailure::of(&source) {
            Some(HandshakeFailure::UnknownKey(shown)) => HandshakeError::UnknownKey {
                address,
                shown: shown.to_string(),
                expected: configs.expected(),
            },
            Some(HandshakeFailure::OurKey) => {
                HandshakeError::OurKey { address, mine: configs.mine().to_string() }
            }
            Some(HandshakeFailure::NotTls) => HandshakeError::NotTls { address },
            Some(HandshakeFailure::HungUp) => HandshakeError::HungUp { address },
            None => failed(action, &address)(source),
        }
    }
}

/// Why a node has no usable identity, or trusts nobody.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// This build has no TLS.
    #[error(
        "this build of hotpair has no TLS: use a build with it, or write `encryption = \"none\"` \
         under [link] on both nodes if everyone who reaches the network may read and alter data"
    )]
    NoTls,
    /// There is no key yet.
    #[error("{path}: this node has no identity yet; make one with `hotpair identity`")]
    None {
        /// Where it would be.
        path: PathBuf,
    },
    /// A file or folder cannot be used.
    #[error("{path}: cannot {action}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else may have copied the key.
    #[error(
        "{path}: others can read or write this private key (mode {mode:03o}); if nobody did, \
         `chmod 600` it, else delete it and run `hotpair identity` again"
    )]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can change the key.
    #[error("{path}: this private key belongs to user {owner}, and this is user {me}; `chown` it")]
    Foreign {
        /// The key.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who wants to use it.
        me: u32,
    },
    /// The file is no identity.
    #[error(
        "{path}: not a usable identity ({reason}); restore it, or delete it, run `hotpair \
         identity` and give the peer the new fingerprint"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cryptography of this build failed.
    #[error("cannot use keys on this machine: {reason}")]
    Draw {
        /// What it said.
        reason: String,
    },
    /// Not what `hotpair identity` prints.
    #[error(
        "{text:?} is no fingerprint: it is `sha256//` and 44 more characters, as printed by \
             `hotpair identity` on that node"
    )]
    BadFingerprint {
        /// What was found instead.
        text: String,
    },
    /// The peer is said to have our own key.
    #[error(
        "node {node} is configured with the identity of this node ({state_dir}): each node needs \
         its own; run `hotpair identity` there and copy what it prints"
    )]
    Mine {
        /// Whose configuration.
        node: String,
        /// Where our key is.
        state_dir: PathBuf,
    },
    /// Two nodes are said to have one key.
    #[error("nodes {} and {} are configured with the same identity: each needs its own",
            nodes[0], nodes[1])]
    Shared {
        /// Which.
        nodes: [String; 2],
    },
}

impl IdentityError {
    #[cfg(feature = "_tls")]
    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}
