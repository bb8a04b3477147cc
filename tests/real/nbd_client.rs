//! A small NBD client: what a test needs to have many requests in flight and to see each answer.
//!
//! It speaks fixed newstyle with GO, and simple replies. Numbers are from the NBD protocol,
//! "Values". It trusts nothing of the server but blocks on it, with a limit on time.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::process::PATIENCE;

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;

const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;
const FIXED_NEWSTYLE: u32 = 1;
const NO_ZEROES: u32 = 2;
/// Longest option reply or payload we take, in bytes.
const REPLY_LEN_MAX: u32 = 1 << 20;

/// What to do; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Flush = 3,
    Trim = 4,
    WriteZeroes = 6,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) command: Command,
    /// Force unit access: answered when stable.
    pub(crate) is_fua: bool,
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// Of a write, exactly `len` bytes.
    pub(crate) payload: &'a [u8],
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    /// 0, or an errno as NBD numbers them.
    pub(crate) error: u32,
    /// What was read.
    pub(crate) bytes: Vec<u8>,
}

/// A connection in its transmission phase.
#[derive(Debug)]
pub(crate) struct NbdClient {
    stream: UnixStream,
    pub(crate) size: u64,
    pub(crate) flags: u16,
    next_cookie: u64,
    /// Bytes that each READ without an answer asked for; 0 for the others.
    waiting: BTreeMap<u64, usize>,
    /// Answers that came while a request was being sent.
    early: VecDeque<Reply>,
}

impl NbdClient {
    /// Connects to `export` on a unix socket and goes through the handshake.
    pub(crate) fn connect(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        expect(read_u64(&mut stream)?, GREETING, "greeting")?;
        expect(read_u64(&mut stream)?, OPTION, "newstyle")?;
        let mut flags = [0; 2];
        stream.read_exact(&mut flags)?;
        let name_len = u32::try_from(export.len()).expect("a short name");
        let mut go = Vec::new();
        go.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        go.extend(OPTION.to_be_bytes());
        go.extend(OPTION_GO.to_be_bytes());
        go.extend((4 + name_len + 2).to_be_bytes());
        go.extend(name_len.to_be_bytes());
        go.extend(export.as_bytes());
        go.extend(0_u16.to_be_bytes());
        stream.write_all(&go)?;
        let (mut size, mut export_flags) = (0, 0);
        loop {
            let (kind, body) = read_option_reply(&mut stream)?;
            match kind {
                REPLY_ACK => break,
                REPLY_INFO if body.len() == 12 && body[..2] == INFO_EXPORT.to_be_bytes() => {
                    size = u64::from_be_bytes(body[2..10].try_into().expect("eight bytes"));
                    export_flags = u16::from_be_bytes([body[10], body[11]]);
                }
                REPLY_INFO => {}
                _ => return Err(bad(&format!("refused: {}", String::from_utf8_lossy(&body)))),
            }
        }
        let (waiting, early) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { stream, size, flags: export_flags, next_cookie: 1, waiting, early })
    }

    /// Requests whose answer was not received yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.len() + self.early.len()
    }

    /// Sends one request and returns its cookie.
    pub(crate) fn send(&mut self, request: Request<'_>) -> io::Result<u64> {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut head = Vec::with_capacity(28 + request.payload.len());
        head.extend(REQUEST.to_be_bytes());
        head.extend(u16::from(request.is_fua).to_be_bytes());
        head.extend((request.command as u16).to_be_bytes());
        head.extend(cookie.to_be_bytes());
        head.extend(request.offset.to_be_bytes());
        head.extend(request.len.to_be_bytes());
        head.extend(request.payload);
        let is_read = request.command == Command::Read;
        let len = if is_read { usize::try_from(request.len).expect("64 bit") } else { 0 };
        self.waiting.insert(cookie, len);
        self.write_whole(&head)?;
        Ok(cookie)
    }

    /// Writes a request, and takes answers when there is no room for it: a server need not read on
    /// while nobody takes what it has to say.
    fn write_whole(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.stream, bytes, SendFlags::DONTWAIT) {
                Ok(count) => bytes = &bytes[count..],
                // The last request in flight is this one, and no answer can come before it.
                Err(Errno::AGAIN) if self.waiting.len() == 1 => {
                    return self.stream.write_all(bytes);
                }
                Err(Errno::AGAIN) => {
                    let reply = self.read_reply()?;
                    self.early.push_back(reply);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the next answer, to whichever request.
    pub(crate) fn receive(&mut self) -> io::Result<Reply> {
        match self.early.pop_front() {
            Some(reply) => Ok(reply),
            None => self.read_reply(),
        }
    }

    fn read_reply(&mut self) -> io::Result<Reply> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let magic = u32::from_be_bytes(head[..4].try_into().expect("four bytes"));
        expect(u64::from(magic), u64::from(SIMPLE_REPLY), "reply")?;
        let error = u32::from_be_bytes(head[4..8].try_into().expect("four bytes"));
        let cookie = u64::from_be_bytes(head[8..].try_into().expect("eight bytes"));
        let len = self.waiting.remove(&cookie).ok_or_else(|| bad("a cookie nobody sent"))?;
        let mut bytes = vec![0; if error == 0 { len } else { 0 }];
        self.stream.read_exact(&mut bytes)?;
        Ok(Reply { cookie, error, bytes })
    }

    /// Sends one request and waits for its answer; nothing else may be in flight.
    pub(crate) fn call(&mut self, request: Request<'_>) -> io::Result<Vec<u8>> {
        assert_eq!(self.in_flight(), 0, "requests are in flight");
        self.send(request)?;
        let reply = self.receive()?;
        match reply.error {
            0 => Ok(reply.bytes),
            errno => Err(io::Error::from_raw_os_error(i32::try_from(errno).expect("small"))),
        }
    }

    pub(crate) fn read(&mut self, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let command = Command::Read;
        self.call(Request { command, is_fua: false, offset, len, payload: &[] })
    }

    pub(crate) fn write(&mut self, offset: u64, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).expect("at most 32 MiB");
        let request = Request { command: Command::Write, is_fua: false, offset, len, payload };
        self.call(request).map(drop)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let command = Command::Flush;
        self.call(Request { command, is_fua: false, offset: 0, len: 0, payload: &[] }).map(drop)
    }

    /// Everything, in pieces.
    pub(crate) fn read_all(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while u64::try_from(bytes.len()).expect("64 bit") < self.size {
            let offset = u64::try_from(bytes.len()).expect("64 bit");
            let len = u32::try_from((self.size - offset).min(1 << 20)).expect("1 MiB");
            bytes.extend(self.read(offset, len)?);
        }
        Ok(bytes)
    }
}

fn read_option_reply(stream: &mut UnixStream) -> io::Result<(u32, Vec<u8>)> {
    expect(read_u64(stream)?, OPTION_REPLY, "option reply")?;
    expect(u64::from(read_u32(stream)?), u64::from(OPTION_GO), "option")?;
    let kind = read_u32(stream)?;
    let len = read_u32(stream)?;
    if len > REPLY_LEN_MAX {
        return Err(bad("an option reply without end"));
    }
    let mut body = vec![0; usize::try_from(len).expect("64 bit")];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

fn read_u32(stream: &mut UnixStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn expect(found: u64, expected: u64, what: &str) -> io::Result<()> {
    if found == expected { Ok(()) } else { Err(bad(&format!("{what}: {found:#x}"))) }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
