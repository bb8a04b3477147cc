//! How the two ends of a connection to a witness prove who they are.
//!
//! The configurations are made by `link`, which alone knows whom to trust; they come here as
//! values. Without encryption the key of zeroes counts as proved.

use std::time::Duration;

use tokio::net::TcpStream;

use super::error::ArbiterError;
use super::stream::Stream;

/// The fingerprint that a connection without encryption proves.
const NO_KEY: [u8; 32] = [0; 32];

/// How a witness protects its connections.
#[derive(Clone, Debug)]
pub enum ServerSecurity {
    /// `--encryption none`: whoever can reach the port can read, alter and pretend.
    Plain,
    /// Every node proves a key; which one may do what is up to the records.
    #[cfg(feature = "_tls")]
    Tls {
        /// Shows the key of the witness, asks for one of the node.
        config: std::sync::Arc<rustls::ServerConfig>,
        /// The fingerprint that the node proved, if it did.
        key_of: fn(&rustls::ServerConnection) -> Option<[u8; 32]>,
    },
}

/// How a node protects its connection to the witness.
#[derive(Clone, Debug)]
pub enum ClientSecurity {
    /// `encryption = "none"`.
    Plain,
    /// Both ends prove a key, and that of the witness is the configured one.
    #[cfg(feature = "_tls")]
    Tls {
        /// Trusts exactly the key of the witness.
        config: std::sync::Arc<rustls::ClientConfig>,
        /// Whether the witness proved it, for this protocol.
        is_witness: fn(&rustls::ClientConnection) -> bool,
        /// The key for which a handshake was given up, if that was why.
        other_key: fn(&std::io::Error) -> Option<String>,
    },
}

/// How a node protects its connections to etcd.
#[cfg(feature = "etcd")]
#[derive(Clone, Debug)]
pub enum EtcdSecurity {
    /// Every member is `http://`.
    Plain,
    /// Members at `https://` show a certificate of a configured authority, for their name.
    #[cfg(feature = "_tls")]
    Tls {
        /// Trusts these authorities only.
        config: std::sync::Arc<rustls::ClientConfig>,
    },
}

#[cfg(feature = "etcd")]
impl EtcdSecurity {
    /// The client's part of the handshake, if the member has TLS.
    #[cfg_attr(
        not(feature = "_tls"),
        expect(clippy::unused_async, reason = "only a handshake takes time")
    )]
    pub(super) async fn connect(
        &self,
        endpoint: &crate::config::EtcdEndpoint,
        socket: TcpStream,
    ) -> std::io::Result<Box<dyn Stream>> {
        if !endpoint.is_encrypted {
            return Ok(Box::new(socket));
        }
        match self {
            Self::Plain => Err(std::io::ErrorKind::Unsupported.into()),
            #[cfg(feature = "_tls")]
            Self::Tls { config } => {
                let name = rustls::pki_types::ServerName::try_from(endpoint.host.clone());
                let name = name.map_err(std::io::Error::other)?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                Ok(Box::new(connector.connect(name, socket).await?))
            }
        }
    }
}

impl ServerSecurity {
    /// Whether letters are encrypted.
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// The server's part of the handshake, and the key that the other end proved.
    #[cfg_attr(
        not(feature = "_tls"),
        expect(unused_variables, clippy::unused_async, reason = "only a handshake takes time")
    )]
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
        limit: Duration,
    ) -> Result<(Box<dyn Stream>, [u8; 32]), ArbiterError> {
        match self {
            Self::Plain => Ok((Box::new(socket), NO_KEY)),
            #[cfg(feature = "_tls")]
            Self::Tls { config, key_of } => {
                let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
                let stream = in_time(limit, acceptor.accept(socket)).await?;
                let key = key_of(stream.get_ref().1).ok_or(ArbiterError::NoKey)?;
                Ok((Box::new(stream), key))
            }
        }
    }
}

impl ClientSecurity {
    /// The client's part of the handshake.
    #[cfg_attr(
        not(feature = "_tls"),
        expect(unused_variables, clippy::unused_async, reason = "only a handshake takes time")
    )]
    pub(super) async fn connect(
        &self,
        socket: TcpStream,
        limit: Duration,
    ) -> Result<Box<dyn Stream>, ArbiterError> {
        match self {
            Self::Plain => Ok(Box::new(socket)),
            #[cfg(feature = "_tls")]
            Self::Tls { config, is_witness, other_key } => {
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let name = rustls::pki_types::ServerName::try_from("hotpair").expect("a host name");
                let stream = match in_time(limit, connector.connect(name, socket)).await {
                    Err(ArbiterError::Io { action, source }) => {
                        return Err(match other_key(&source) {
                            Some(shown) => ArbiterError::OtherWitness { shown },
                            None => ArbiterError::Io { action, source },
                        });
                    }
                    connected => connected?,
                };
                if !is_witness(stream.get_ref().1) {
                    return Err(ArbiterError::NoKey);
                }
                Ok(Box::new(stream))
            }
        }
    }
}

#[cfg(feature = "_tls")]
async fn in_time<T>(
    limit: Duration,
    handshake: impl Future<Output = std::io::Result<T>>,
) -> Result<T, ArbiterError> {
    match tokio::time::timeout(limit, handshake).await {
        Ok(done) => {
            done.map_err(|source| ArbiterError::Io { action: "do a TLS handshake with", source })
        }
        Err(_) => Err(ArbiterError::Slow { what: "done its TLS handshake", limit }),
    }
}
