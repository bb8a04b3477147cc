//! An NBD client that says exactly what a test wants it to say, byte by byte.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::memory_server::MemoryServer;

/// Longest time a test waits for a byte; only a broken server needs it.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const STARTTLS: u32 = 5;
pub(crate) const INFO: u32 = 6;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED_REPLY: u32 = 8;
pub(crate) const LIST_META_CONTEXT: u32 = 9;
pub(crate) const SET_META_CONTEXT: u32 = 10;
pub(crate) const EXTENDED_HEADERS: u32 = 11;

pub(crate) const ACK: u32 = 1;
pub(crate) const SERVER: u32 = 2;
pub(crate) const INFO_REPLY: u32 = 3;
pub(crate) const META_CONTEXT: u32 = 4;
pub(crate) const ERR_UNSUP: u32 = 0x8000_0001;
pub(crate) const ERR_INVALID: u32 = 0x8000_0003;
pub(crate) const ERR_UNKNOWN: u32 = 0x8000_0006;
pub(crate) const ERR_SHUTDOWN: u32 = 0x8000_0007;
pub(crate) const ERR_TOO_BIG: u32 = 0x8000_0009;

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

pub(crate) const FUA: u16 = 1;
pub(crate) const NO_HOLE: u16 = 2;
pub(crate) const DF: u16 = 4;
pub(crate) const REQ_ONE: u16 = 8;
pub(crate) const FAST_ZERO: u16 = 16;

pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSPC: u32 = 28;
pub(crate) const ENOTSUP: u32 = 95;

/// A connection to the server under test.
pub(crate) struct RawClient {
    stream: Stream,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A reply to an option.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OptionReply {
    pub(crate) option: u32,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// A reply to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    Simple { error: u32, cookie: u64 },
    Chunk { flags: u16, kind: u16, cookie: u64, data: Vec<u8> },
}

/// A request's fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

impl Ask {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.command.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

impl RawClient {
    /// Connects; the greeting is unread.
    pub(crate) fn connect(server: &MemoryServer) -> Self {
        Self::try_connect(server).unwrap()
    }

    pub(crate) fn try_connect(server: &MemoryServer) -> io::Result<Self> {
        let stream = if let Some(address) = server.tcp() {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        } else {
            let stream = UnixStream::connect(server.path())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Stream::Unix(stream)
        };
        Ok(Self { stream })
    }

    /// Connects and goes through greeting and flags.
    pub(crate) fn haggling(server: &MemoryServer) -> Self {
        let mut client = Self::connect(server);
        client.take(18);
        client.send(&3_u32.to_be_bytes());
        client
    }

    /// Opens the export with simple replies.
    pub(crate) fn simple(server: &MemoryServer) -> Self {
        let mut client = Self::haggling(server);
        client.go();
        client
    }

    /// Opens the export with structured replies and `base:allocation`.
    pub(crate) fn structured(server: &MemoryServer) -> Self {
        let mut client = Self::haggling(server);
        assert_eq!(client.option(STRUCTURED_REPLY, &[]), [ack(STRUCTURED_REPLY)]);
        let replies = client.option(SET_META_CONTEXT, &contexts("vm1", &["base:allocation"]));
        assert_eq!(replies.len(), 2);
        client.go();
        client
    }

    fn go(&mut self) {
        let replies = self.option(GO, &export("vm1", &[]));
        assert_eq!(replies.last(), Some(&ack(GO)), "{replies:?}");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tcp(stream) => stream.write_all(bytes),
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        self.try_take(len).unwrap()
    }

    pub(crate) fn try_take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match &mut self.stream {
            Stream::Unix(stream) => stream.read_exact(&mut bytes)?,
            Stream::Tcp(stream) => stream.read_exact(&mut bytes)?,
        }
        Ok(bytes)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn half_close(&self) {
        match &self.stream {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// Whether the server closed, after at most some more bytes.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = match &mut self.stream {
            Stream::Unix(stream) => stream.read_to_end(&mut rest),
            Stream::Tcp(stream) => stream.read_to_end(&mut rest),
        };
        match end {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Everything until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = match &mut self.stream {
            Stream::Unix(stream) => stream.read_to_end(&mut rest),
            Stream::Tcp(stream) => stream.read_to_end(&mut rest),
        };
        rest
    }

    /// Sends an option and takes all its replies.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        self.send(&option_bytes(option, data));
        self.option_replies()
    }

    /// Takes replies up to the one that ends them.
    pub(crate) fn option_replies(&mut self) -> Vec<OptionReply> {
        let mut replies = Vec::new();
        loop {
            let head = self.take(20);
            assert_eq!(head[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
            let data = self.take(u32_at(&head, 16) as usize);
            let kind = u32_at(&head, 12);
            replies.push(OptionReply { option: u32_at(&head, 8), kind, data });
            if kind == ACK || kind >= 0x8000_0000 {
                return replies;
            }
        }
    }

    pub(crate) fn ask(&mut self, ask: Ask) {
        self.send(&ask.bytes());
    }

    /// Sends a request and its payload, and takes the reply (without data of a simple READ).
    pub(crate) fn call(&mut self, ask: Ask, payload: &[u8]) -> Reply {
        let mut bytes = ask.bytes();
        bytes.extend_from_slice(payload);
        self.send(&bytes);
        self.reply()
    }

    /// The error of a request that is answered without data, whatever the form of the reply.
    pub(crate) fn error_of(&mut self, ask: Ask, payload: &[u8]) -> u32 {
        let reply = self.call(ask, payload);
        assert_eq!(reply.cookie(), ask.cookie);
        reply.error()
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap();
        let ask = Ask { command: WRITE, cookie: 77, offset, len, ..Ask::default() };
        assert_eq!(self.error_of(ask, bytes), 0);
    }

    pub(crate) fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        match self.call(Ask { command: READ, cookie: 78, offset, len, ..Ask::default() }, &[]) {
            Reply::Simple { error: 0, cookie: 78 } => self.take(len as usize),
            Reply::Chunk { flags: 1, kind: 1, cookie: 78, data } => {
                assert_eq!(data[..8], offset.to_be_bytes());
                data[8..].to_vec()
            }
            reply => panic!("{reply:?}"),
        }
    }

    pub(crate) fn reply(&mut self) -> Reply {
        let head = self.take(16);
        match u32_at(&head, 0) {
            0x6744_6698 => Reply::Simple { error: u32_at(&head, 4), cookie: u64_at(&head, 8) },
            0x668e_33ef => {
                let len = self.take(4);
                Reply::Chunk {
                    flags: u16::from_be_bytes([head[4], head[5]]),
                    kind: u16::from_be_bytes([head[6], head[7]]),
                    cookie: u64_at(&head, 8),
                    data: self.take(u32_at(&len, 0) as usize),
                }
            }
            magic => panic!("not a reply: {magic:#x}"),
        }
    }
}

impl Reply {
    pub(crate) fn cookie(&self) -> u64 {
        match self {
            Self::Simple { cookie, .. } | Self::Chunk { cookie, .. } => *cookie,
        }
    }

    /// Zero if it is a success.
    pub(crate) fn error(&self) -> u32 {
        match self {
            Self::Simple { error, .. } => *error,
            Self::Chunk { kind: 0x8001, data, .. } => u32_at(data, 0),
            Self::Chunk { .. } => 0,
        }
    }

    /// The text of an error chunk.
    pub(crate) fn text(&self) -> String {
        let Self::Chunk { kind: 0x8001, data, .. } = self else {
            panic!("no error chunk: {self:?}");
        };
        assert_eq!(usize::from(u16::from_be_bytes([data[4], data[5]])), data.len() - 6);
        String::from_utf8(data[6..].to_vec()).unwrap()
    }
}

pub(crate) fn ack(option: u32) -> OptionReply {
    OptionReply { option, kind: ACK, data: Vec::new() }
}

/// An option as it is sent.
pub(crate) fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend_from_slice(&option.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The data of INFO and GO.
pub(crate) fn export(name: impl AsRef<[u8]>, wanted: &[u16]) -> Vec<u8> {
    let mut bytes = counted(name.as_ref());
    bytes.extend_from_slice(&u16::try_from(wanted.len()).unwrap().to_be_bytes());
    for wanted in wanted {
        bytes.extend_from_slice(&wanted.to_be_bytes());
    }
    bytes
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
pub(crate) fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = counted(name.as_bytes());
    bytes.extend_from_slice(&u32::try_from(queries.len()).unwrap().to_be_bytes());
    for query in queries {
        bytes.extend(counted(query.as_bytes()));
    }
    bytes
}

pub(crate) fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}
