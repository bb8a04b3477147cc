//! Bytes to and from the other end, encrypted or not.
//!
//! Nothing here waits: what cannot go on now wakes the task when it can. On a plain socket reads
//! and writes gather slices without a copy. With TLS, whole socket buffers are read at once, since
//! rustls by itself would ask the kernel for 4 KiB at a time.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

/// A connection after its handshake, registered with the runtime that it was made in.
#[derive(Debug)]
pub(super) enum Transport {
    /// As it is.
    Plain(TcpStream),
    /// Inside TLS.
    #[cfg(feature = "_tls")]
    Tls(Box<tls::TlsStream>),
}

/// A connection between two runtimes.
#[derive(Debug)]
pub(super) enum Detached {
    /// As it is.
    Plain(std::net::TcpStream),
    /// Inside TLS.
    #[cfg(feature = "_tls")]
    Tls(std::net::TcpStream, Box<tls::Tls>),
}

impl Transport {
    /// Without protection.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }

    /// After a TLS handshake.
    #[cfg(feature = "_tls")]
    pub(super) fn tls(socket: TcpStream, session: rustls::Connection) -> Self {
        Self::Tls(Box::new(tls::TlsStream::new(socket, tls::Tls::new(session))))
    }

    /// The socket inside.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "_tls")]
            Self::Tls(stream) => stream.socket(),
        }
    }

    /// Takes it out of this runtime.
    pub(super) fn detach(self) -> io::Result<Detached> {
        match self {
            Self::Plain(socket) => Ok(Detached::Plain(socket.into_std()?)),
            #[cfg(feature = "_tls")]
            Self::Tls(stream) => {
                let (socket, session) = stream.into_parts();
                Ok(Detached::Tls(socket.into_std()?, Box::new(session)))
            }
        }
    }

    /// Reads what is there into `room`; zero bytes mean that the other end closed.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => loop {
                ready!(socket.poll_read_ready(cx))?;
                match socket.try_read_vectored(room) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return Poll::Ready(outcome),
                }
            },
            #[cfg(feature = "_tls")]
            Self::Tls(stream) => stream.poll_read(cx, room),
        }
    }

    /// Takes bytes of `slices` to be sent, and says how many.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => loop {
                ready!(socket.poll_write_ready(cx))?;
                match socket.try_write_vectored(slices) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return Poll::Ready(outcome),
                }
            },
            #[cfg(feature = "_tls")]
            Self::Tls(stream) => stream.poll_write(cx, slices),
        }
    }

    /// Hands to the kernel what was taken before.
    #[cfg_attr(not(feature = "_tls"), expect(unused_variables, reason = "a socket holds nothing"))]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "_tls")]
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Says that nothing follows what was taken before; still to be [flushed](Self::poll_flush).
    pub(super) fn say_goodbye(&mut self) {
        match self {
            Self::Plain(_) => {}
            #[cfg(feature = "_tls")]
            Self::Tls(stream) => stream.say_goodbye(),
        }
    }
}

impl Detached {
    /// Registers it with the runtime that this is called in.
    pub(super) fn attach(self) -> io::Result<Transport> {
        match self {
            Self::Plain(socket) => Ok(Transport::Plain(TcpStream::from_std(socket)?)),
            #[cfg(feature = "_tls")]
            Self::Tls(socket, session) => {
                let socket = TcpStream::from_std(socket)?;
                Ok(Transport::Tls(Box::new(tls::TlsStream::new(socket, *session))))
            }
        }
    }
}

#[cfg(feature = "_tls")]
pub(super) mod tls {
    //! A TLS session over a socket, without the handshake.

    use std::io::{self, IoSlice, IoSliceMut, Read, Write};
    use std::task::{Context, Poll, ready};

    use tokio::net::TcpStream;

    /// A session and the encrypted bytes that it did not take yet.
    #[derive(Debug)]
    pub(in super::super) struct Tls {
        session: rustls::Connection,
        encrypted: Box<[u8]>,
        start: usize,
        end: usize,
    }

    impl Tls {
        pub(super) fn new(mut session: rustls::Connection) -> Self {
            session.set_buffer_limit(Some(UNSENT_LEN_MAX));
            Self { session, encrypted: vec![0; READ_LEN].into(), start: 0, end: 0 }
        }
    }

    /// Most that is encrypted ahead of the socket, in bytes: what is encrypted cannot be overtaken.
    const UNSENT_LEN_MAX: usize = 128 << 10;

    /// Encrypted bytes that one system call can bring.
    const READ_LEN: usize = 128 << 10;

    #[derive(Debug)]
    pub(in super::super) struct TlsStream {
        socket: TcpStream,
        tls: Tls,
    }

    impl TlsStream {
        pub(super) fn new(socket: TcpStream, tls: Tls) -> Self {
            Self { socket, tls }
        }

        pub(super) fn socket(&self) -> &TcpStream {
            &self.socket
        }

        pub(super) fn into_parts(self) -> (TcpStream, Tls) {
            (self.socket, self.tls)
        }

        pub(super) fn poll_read(
            &mut self,
            cx: &mut Context<'_>,
            room: &mut [IoSliceMut<'_>],
        ) -> Poll<io::Result<usize>> {
            loop {
                match self.tls.session.reader().read_vectored(room) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return Poll::Ready(outcome),
                }
                if self.tls.start == self.tls.end && ready!(self.poll_receive(cx))? == 0 {
                    return Poll::Ready(Ok(0));
                }
                let mut rest = &self.tls.encrypted[self.tls.start..self.tls.end];
                self.tls.session.read_tls(&mut rest)?;
                self.tls.start = self.tls.end - rest.len();
                if let Err(error) = self.tls.session.process_new_packets() {
                    // The alert that says why; whether it arrives changes nothing.
                    let _ = self.tls.session.write_tls(&mut Unbuffered(&self.socket));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
        }

        /// Refills the empty buffer of encrypted bytes.
        fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
            loop {
                ready!(self.socket.poll_read_ready(cx))?;
                match self.socket.try_read(&mut self.tls.encrypted) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => {
                        let len = outcome?;
                        self.tls.start = 0;
                        self.tls.end = len;
                        return Poll::Ready(Ok(len));
                    }
                }
            }
        }

        pub(super) fn poll_write(
            &mut self,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            loop {
                let taken = self.tls.session.writer().write_vectored(slices)?;
                if taken > 0 {
                    return Poll::Ready(Ok(taken));
                }
                ready!(self.poll_flush(cx))?;
            }
        }

        pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while self.tls.session.wants_write() {
                ready!(self.socket.poll_write_ready(cx))?;
                match self.tls.session.write_tls(&mut Unbuffered(&self.socket)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => {
                        outcome?;
                    }
                }
            }
            Poll::Ready(Ok(()))
        }

        pub(super) fn say_goodbye(&mut self) {
            self.tls.session.send_close_notify();
        }
    }

    /// The socket as rustls wants to see it.
    struct Unbuffered<'a>(&'a TcpStream);

    impl Write for Unbuffered<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.try_write(bytes)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.0.try_write_vectored(slices)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
