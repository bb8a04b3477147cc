//! Letters over a connection, encrypted or not.
//!
//! Reading can be given up at any moment and goes on where it was: what came of a letter is kept.
//! Nothing is reserved for a letter before its head was checked, and never more than one is.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::Serialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::ArbiterError;
use crate::wire::letter::{HEAD_LEN, Head, LetterError, open_head, seal};

/// Anything that bytes go through both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Sets what a connection to or from a witness needs.
pub(super) fn tune(socket: &TcpStream, dead_after: Duration) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(dead_after))?;
    let keepalive = TcpKeepalive::new()
        .with_time(dead_after.max(Duration::from_secs(1)))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// Both directions of a connection.
pub(super) fn split(stream: Box<dyn Stream>) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    (Reader { stream: read, unread: BytesMut::new() }, Writer { stream: write })
}

/// Letters that come in.
pub(super) struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    unread: BytesMut,
}

/// Bytes asked for at a time, beyond what is missing of a letter.
const READ_LEN: usize = 4 << 10;

impl Reader {
    /// The next letter, as `open` understands it. It may be dropped and called again.
    ///
    /// # Errors
    /// [`ArbiterError::Closed`], [`ArbiterError::Io`]; [`ArbiterError::Letter`] if it is none.
    pub(super) async fn next<T>(
        &mut self,
        open: impl Fn(Head, &[u8]) -> Result<T, LetterError>,
    ) -> Result<T, ArbiterError> {
        loop {
            let missing = match self.unread.split_first_chunk::<HEAD_LEN>() {
                None => HEAD_LEN,
                Some((head, rest)) => {
                    let head = open_head(head)?;
                    if let Some(body) = rest.get(..head.body_len()) {
                        let letter = open(head, body)?;
                        self.unread.advance(HEAD_LEN + head.body_len());
                        return Ok(letter);
                    }
                    head.body_len() - rest.len()
                }
            };
            self.unread.reserve(missing.max(READ_LEN));
            let failed = |source: io::Error| match source.kind() {
                // A process that was killed says no goodbye, and TLS calls that an error.
                io::ErrorKind::UnexpectedEof => ArbiterError::Closed,
                _ => ArbiterError::Io { action: "read from", source },
            };
            if self.stream.read_buf(&mut self.unread).await.map_err(failed)? == 0 {
                return Err(ArbiterError::Closed);
            }
        }
    }
}

/// Letters that go out.
pub(super) struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
}

impl Writer {
    /// Sends a letter.
    ///
    /// # Errors
    /// [`ArbiterError::Io`]; also if the other end takes nothing for `limit`.
    pub(super) async fn send<T: Serialize>(
        &mut self,
        letter: &T,
        limit: Duration,
    ) -> Result<(), ArbiterError> {
        let bytes = seal(letter);
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match timeout(limit, sent).await {
            Ok(sent) => sent.map_err(|source| ArbiterError::Io { action: "write to", source }),
            Err(_) => Err(ArbiterError::Slow { what: "taken a letter", limit }),
        }
    }

    /// Says that nothing follows.
    pub(super) async fn close(&mut self, limit: Duration) {
        // It is closed either way when this ends.
        let _ = timeout(limit, self.stream.shutdown()).await;
    }
}
