//! Carries one handshake over its socket, within its time.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::debug;

use super::exports::Exports;
use super::negotiation::{Negotiation, Opening, Step};
use super::protocol::{Terms, option};
use super::socket::LooseSocket;
use crate::units::Epoch;

/// Time for a whole handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Read at least this much at once; options are short.
const READ_LEN: usize = 4096;

/// A connection on which an export is open, for the data thread of its resource.
#[derive(Debug)]
pub struct Opened {
    pub(super) socket: LooseSocket,
    /// What the client sent behind its last option.
    pub(super) early: BytesMut,
    pub(super) terms: Terms,
    pub(super) epoch: Epoch,
    pub(super) seat: OwnedSemaphorePermit,
}

impl Opened {
    /// The epoch of the grant under which the export was offered.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Why a handshake ended without an open export.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A client flag that was not offered.
    #[error("the client answered with flags {flags:#010x}, of which some were not offered")]
    ClientFlags {
        /// All flags.
        flags: u32,
    },
    /// An option without its magic number.
    #[error("an option began with a wrong magic number")]
    Magic,
    /// An option other than `EXPORT_NAME` by a client that cannot read error replies.
    #[error("option {option} came from a client without fixed newstyle")]
    NotFixedNewstyle {
        /// Its number.
        option: u32,
    },
    /// `EXPORT_NAME` of an export that is not served here.
    #[error("the client asked for an export that is not served here")]
    NoSuchExport,
    /// All seats of the export are taken.
    #[error("the export has as many connections as it may have")]
    Crowded,
    /// Too many options.
    #[error("the client sent more options than a handshake may have")]
    TooManyOptions,
    /// Too much unknown data.
    #[error("the client sent more data of unknown options than is skipped")]
    SkippedTooMuch,
    /// It took too long.
    #[error("the handshake took longer than {HANDSHAKE_TIME:?}")]
    TimedOut,
    /// The client closed.
    #[error("the client left")]
    Left,
    /// The resource's data thread takes no connections.
    #[error("the resource takes no connections at the moment")]
    NotTaken,
    /// The socket failed.
    #[error("the socket failed")]
    Socket {
        /// How.
        source: io::Error,
    },
}

/// A socket just accepted.
pub(super) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Accepted {
    /// Haggles, and hands the connection to the data thread of the export that was opened.
    pub(super) async fn negotiate(
        self,
        exports: watch::Receiver<Exports>,
    ) -> Result<(), HandshakeError> {
        let (socket, opening, early) = match self {
            Self::Unix(mut stream) => {
                let (opening, early) = within_time(converse(&mut stream, &exports)).await?;
                let socket = stream.into_std().map_err(socket_failed)?;
                (LooseSocket::Unix(socket), opening, early)
            }
            Self::Tcp(mut stream) => {
                let (opening, early) = within_time(converse(&mut stream, &exports)).await?;
                let socket = stream.into_std().map_err(socket_failed)?;
                (LooseSocket::Tcp(socket), opening, early)
            }
        };
        let Opening { export, terms, seat } = *opening;
        debug!(export = %export.name, epoch = %export.epoch, "client connected");
        let opened = Opened { socket, early, terms, epoch: export.epoch, seat };
        export.clients.try_send(opened).map_err(|_| HandshakeError::NotTaken)
    }
}

async fn within_time<T>(
    conversation: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    match tokio::time::timeout(HANDSHAKE_TIME, conversation).await {
        Ok(result) => result,
        Err(_) => Err(HandshakeError::TimedOut),
    }
}

/// Speaks until an export is open; returns it and what was read behind the last option.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exports: &watch::Receiver<Exports>,
) -> Result<(Box<Opening>, BytesMut), HandshakeError> {
    stream.write_all(&option::greeting()).await.map_err(socket_failed)?;
    let mut negotiation = Negotiation::new();
    let mut input = BytesMut::new();
    let mut out = Vec::new();
    loop {
        let step = negotiation.step(&mut input, &exports.borrow(), &mut out);
        let sent = if out.is_empty() { Ok(()) } else { stream.write_all(&out).await };
        out.clear();
        // N9: a client that is gone before it hears about its ABORT did nothing wrong.
        match step? {
            Step::Leaves => return Err(HandshakeError::Left),
            Step::Opens(opening) => {
                sent.map_err(socket_failed)?;
                return Ok((opening, input));
            }
            Step::Goes => sent.map_err(socket_failed)?,
            Step::NeedsMore => {
                input.reserve(READ_LEN);
                let read = stream.read_buf(&mut input).await.map_err(socket_failed)?;
                if read == 0 {
                    return Err(HandshakeError::Left);
                }
            }
        }
    }
}

fn socket_failed(source: io::Error) -> HandshakeError {
    HandshakeError::Socket { source }
}
