//! A client of one export that has many requests under way.
//!
//! It trusts nothing that the server says and waits for no answer longer than [`ANSWER_WITHIN`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::nbd::protocol::client::{
    GREETING_LEN, GoNews, GoReply, OPTION_REPLY_LEN, SIMPLE_REPLY_LEN, SimpleReply, go, is_greeting,
};
use crate::nbd::protocol::transmission::RequestHeader;

/// A connection to an open export.
#[derive(Debug)]
pub(super) struct NbdClient {
    stream: BufReader<UnixStream>,
    /// Requests that go out together, when the client would wait for an answer.
    outbound: Vec<u8>,
    /// Size of the export in bytes.
    pub(super) size: u64,
    last_cookie: u64,
    /// The length of what each request without an answer reads; 0 unless it is a READ.
    waiting: BTreeMap<u64, u32>,
}

/// A request that succeeded.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) cookie: u64,
    /// What was read.
    pub(super) bytes: Vec<u8>,
}

/// A server that is silent for so long is stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Longest reply to an option that is read, in bytes.
const OPTION_REPLY_LEN_MAX: u32 = 64 << 10;
/// What is read from the socket at a time, in bytes.
const BUFFER_LEN: usize = 256 << 10;

impl NbdClient {
    /// Opens `export` at a unix socket.
    pub(super) async fn connect(socket: &Path, export: &str) -> io::Result<Self> {
        let opened = async {
            let stream = UnixStream::connect(socket).await?;
            let mut stream = BufReader::with_capacity(BUFFER_LEN, stream);
            let mut greeting = [0; GREETING_LEN];
            stream.read_exact(&mut greeting).await?;
            if !is_greeting(&greeting) {
                return Err(strange("it is no NBD server"));
            }
            stream.write_all(&go(export)).await?;
            let size = read_size(&mut stream).await?;
            Ok(Self {
                stream,
                outbound: Vec::new(),
                size,
                last_cookie: 0,
                waiting: BTreeMap::new(),
            })
        };
        in_time(opened).await
    }

    /// Requests without an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Queues a WRITE, and returns its cookie.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        let len = u32::try_from(bytes.len()).expect("the demo writes blocks");
        let cookie = self.next_cookie();
        self.queue(RequestHeader::write(cookie, offset, len), bytes)
    }

    /// Queues a READ, and returns its cookie.
    pub(super) fn read(&mut self, offset: u64, len: u32) -> u64 {
        let cookie = self.next_cookie();
        self.queue(RequestHeader::read(cookie, offset, len), &[])
    }

    /// Waits until everything that was answered is stable on both nodes.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let cookie = self.next_cookie();
        self.queue(RequestHeader::flush(cookie), &[]);
        self.receive().await.map(drop)
    }

    /// Says goodbye.
    pub(super) async fn leave(mut self) -> io::Result<()> {
        let cookie = self.next_cookie();
        self.queue(RequestHeader::disconnect(cookie), &[]);
        self.send().await
    }

    /// Whether an answer is here already.
    pub(super) fn has_answer(&self) -> bool {
        self.stream.buffer().len() >= SIMPLE_REPLY_LEN
    }

    /// Sends what is queued.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        in_time(self.stream.write_all(&self.outbound)).await?;
        self.outbound.clear();
        Ok(())
    }

    /// Waits for the next answer, to whichever request.
    pub(super) async fn receive(&mut self) -> io::Result<Answered> {
        if !self.has_answer() {
            self.send().await?;
        }
        let received = async {
            let mut head = [0; SIMPLE_REPLY_LEN];
            self.stream.read_exact(&mut head).await?;
            let reply = SimpleReply::decode(&head).ok_or_else(|| strange("this is no reply"))?;
            let len = self.waiting.remove(&reply.cookie);
            let len = len.ok_or_else(|| strange("a reply to what nobody asked"))?;
            if reply.error != 0 {
                let error = i32::try_from(reply.error).unwrap_or_default();
                return Err(io::Error::from_raw_os_error(error));
            }
            let mut bytes = vec![0; usize::try_from(len).expect("u32 fits into usize")];
            self.stream.read_exact(&mut bytes).await?;
            Ok(Answered { cookie: reply.cookie, bytes })
        };
        in_time(received).await
    }

    fn next_cookie(&mut self) -> u64 {
        self.last_cookie += 1;
        self.last_cookie
    }

    fn queue(&mut self, header: RequestHeader, payload: &[u8]) -> u64 {
        self.outbound.extend_from_slice(&header.encode());
        self.outbound.extend_from_slice(payload);
        let read_len = if header.is_read() { header.len } else { 0 };
        self.waiting.insert(header.cookie, read_len);
        header.cookie
    }
}

/// Reads the replies to GO up to the last one.
async fn read_size(stream: &mut BufReader<UnixStream>) -> io::Result<u64> {
    let mut size = None;
    loop {
        let mut head = [0; OPTION_REPLY_LEN];
        stream.read_exact(&mut head).await?;
        let reply = GoReply::decode(&head).filter(|reply| reply.len <= OPTION_REPLY_LEN_MAX);
        let reply = reply.ok_or_else(|| strange("this is no reply to an option"))?;
        let mut data = vec![0; usize::try_from(reply.len).expect("it has a limit")];
        stream.read_exact(&mut data).await?;
        match reply.news(&data) {
            GoNews::Size(bytes) => size = Some(bytes),
            GoNews::Else => {}
            GoNews::Open => return size.ok_or_else(|| strange("an export without a size")),
            GoNews::Refused(why) => return Err(strange(&format!("the export is refused: {why}"))),
        }
    }
}

async fn in_time<T>(answered: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_WITHIN, answered).await.unwrap_or_else(|_| {
        let why = format!("no answer for {} seconds", ANSWER_WITHIN.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

fn strange(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
