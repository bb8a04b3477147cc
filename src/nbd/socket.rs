//! A client's socket, of either family.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};
use std::{net, os::unix::net as unix};

use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A connected socket that belongs to no runtime.
#[derive(Debug)]
pub(super) enum LooseSocket {
    Unix(unix::UnixStream),
    Tcp(net::TcpStream),
}

/// A connected socket that the runtime of this thread watches.
#[derive(Debug)]
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Lets the runtime of this thread watch `socket`.
    pub(super) fn watch(socket: LooseSocket) -> io::Result<Self> {
        Ok(match socket {
            LooseSocket::Unix(socket) => Self::Unix(UnixStream::from_std(socket)?),
            LooseSocket::Tcp(socket) => Self::Tcp(TcpStream::from_std(socket)?),
        })
    }

    /// Reads as much as there is room for. Returns how much that was, zero at the end of the
    /// stream. After less than there was room for, the socket counts as empty: the next system
    /// call would only say so.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<Transferred>,
    ) -> Poll<io::Result<usize>> {
        self.poll_transfer(cx, Interest::READABLE, &mut read)
    }

    /// Writes as much as the socket takes. Returns how much that was.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<Transferred>,
    ) -> Poll<io::Result<usize>> {
        self.poll_transfer(cx, Interest::WRITABLE, &mut write)
    }

    fn poll_transfer(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        transfer: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<Transferred>,
    ) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.poll_ready(cx, interest))?;
            let mut count = None;
            let result = self.try_io(interest, || {
                let transferred = transfer(self.as_fd())?;
                count = Some(transferred.count);
                // Said to the runtime only: it forgets that the socket was ready.
                let is_spent = transferred.count > 0 && transferred.count < transferred.room;
                if is_spent { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (count, result) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if is_passing(&error) => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => unreachable!("success has a count"),
            }
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        match (self, interest.is_readable()) {
            (Self::Unix(socket), true) => socket.poll_read_ready(cx),
            (Self::Unix(socket), false) => socket.poll_write_ready(cx),
            (Self::Tcp(socket), true) => socket.poll_read_ready(cx),
            (Self::Tcp(socket), false) => socket.poll_write_ready(cx),
        }
    }

    fn try_io(
        &self,
        interest: Interest,
        transfer: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.try_io(interest, transfer),
            Self::Tcp(socket) => socket.try_io(interest, transfer),
        }
    }

    /// Ends the connection now, whoever else still holds the socket.
    pub(super) fn shut_down(&self) {
        // It fails when the other side was faster, which is as good.
        let _ = rustix::net::shutdown(self, Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

/// One system call's worth of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transferred {
    /// Bytes that passed.
    pub(super) count: usize,
    /// Bytes that could have.
    pub(super) room: usize,
}

/// Reads into `places`, one behind the other.
pub(super) fn read(fd: BorrowedFd<'_>, places: &mut [IoSliceMut<'_>]) -> io::Result<Transferred> {
    let room = places.iter().map(|place| place.len()).sum();
    Ok(Transferred { count: rustix::io::readv(fd, places)?, room })
}

/// Writes `pieces`, one behind the other.
pub(super) fn write(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<Transferred> {
    let room = pieces.iter().map(|piece| piece.len()).sum();
    Ok(Transferred { count: rustix::io::writev(fd, pieces)?, room })
}

/// Whether trying again is all there is to do.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
