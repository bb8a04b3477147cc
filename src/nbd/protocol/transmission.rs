//! What is said once an export is open: requests, simple replies and chunks.

use super::{Fields, PAYLOAD_LEN_MAX, Terms, len_u32, sendable};
use crate::units::{ByteRange, ZeroKind};

/// Length of a request without its payload in bytes.
pub const REQUEST_LEN: usize = 28;
/// Most extents in one answer to `BLOCK_STATUS`.
pub const EXTENT_COUNT_MAX: usize = 65_536;

const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

const FLAG_FUA: u16 = 1;
const FLAG_NO_HOLE: u16 = 1 << 1;
const FLAG_DF: u16 = 1 << 2;
const FLAG_REQ_ONE: u16 = 1 << 3;
const FLAG_FAST_ZERO: u16 = 1 << 4;

/// The header of a request as it was sent; nothing of it but the magic was checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestHeader {
    /// Modifiers.
    pub flags: u16,
    /// What is asked.
    pub command: u16,
    /// Opaque to us, echoed in the answer.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u32,
}

impl RequestHeader {
    /// Reads a header; `None` if the magic is wrong, which leaves no way back in step (N26).
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
        })
    }

    /// The bytes of a header; what a client sends.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = Vec::with_capacity(REQUEST_LEN);
        bytes.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.command.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.len.to_be_bytes());
        bytes.try_into().expect("the fields are as long as the header")
    }

    /// Number of bytes that follow the header, whether it is valid or not (N35, N44).
    pub fn payload_len(&self) -> u32 {
        if self.command == CommandNumber::Write as u16 { self.len } else { 0 }
    }

    /// Whether the answer comes in chunks (N28).
    pub fn is_read(&self) -> bool {
        self.command == CommandNumber::Read as u16
    }

    /// Says what is asked for, or why it is not valid. `Ok(None)` succeeds without effect (N44).
    ///
    /// # Errors
    /// [`Fault`] is the answer to the client; the connection goes on.
    pub fn check(&self, terms: &Terms) -> Result<Option<Command>, Fault> {
        let number = CommandNumber::of(self.command)
            .ok_or(Fault::UnknownCommand { command: self.command })?;
        if number == CommandNumber::Disconnect {
            return Ok(Some(Command::Disconnect));
        }
        let unknown = self.flags & !number.flags(terms.structured);
        if unknown != 0 {
            return Err(Fault::UnknownFlags { command: self.command, flags: unknown });
        }
        if number == CommandNumber::Flush {
            return Ok(Some(Command::Flush));
        }
        if number == CommandNumber::BlockStatus && !terms.base_allocation {
            return Err(Fault::NoContext);
        }
        if self.len == 0 {
            let status = number == CommandNumber::BlockStatus;
            return if status { Err(Fault::NothingAsked) } else { Ok(None) };
        }
        if number == CommandNumber::Read && self.len > PAYLOAD_LEN_MAX {
            return Err(Fault::ReadTooLong { len: self.len });
        }
        let range = ByteRange::new(self.offset, u64::from(self.len), terms.size)
            .ok_or_else(|| self.beyond_end(number, terms))?;
        Ok(Some(self.command_on(number, range)))
    }

    fn beyond_end(&self, number: CommandNumber, terms: &Terms) -> Fault {
        let (offset, len, size) = (self.offset, self.len, terms.size.bytes());
        match number {
            CommandNumber::Write | CommandNumber::WriteZeroes => {
                Fault::WriteBeyondEnd { offset, len, size }
            }
            _ => Fault::BeyondEnd { offset, len, size },
        }
    }

    fn command_on(&self, number: CommandNumber, range: ByteRange) -> Command {
        let has = |flag: u16| self.flags & flag != 0;
        let fua = has(FLAG_FUA);
        match number {
            CommandNumber::Read => Command::Read { range },
            CommandNumber::Write => Command::Write { range, fua },
            CommandNumber::Trim => {
                Command::Zero { range, kind: ZeroKind::Trim, fua, fast_only: false }
            }
            CommandNumber::WriteZeroes => {
                let kind = if has(FLAG_NO_HOLE) { ZeroKind::Keep } else { ZeroKind::Punch };
                Command::Zero { range, kind, fua, fast_only: has(FLAG_FAST_ZERO) }
            }
            CommandNumber::Cache => Command::Cache { range },
            CommandNumber::BlockStatus => Command::BlockStatus { range, single: has(FLAG_REQ_ONE) },
            CommandNumber::Disconnect => Command::Disconnect,
            CommandNumber::Flush => Command::Flush,
        }
    }
}

/// The commands by number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CommandNumber {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    Cache = 5,
    WriteZeroes = 6,
    BlockStatus = 7,
}

impl CommandNumber {
    fn of(number: u16) -> Option<Self> {
        Some(match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            _ => return None,
        })
    }

    /// The flags that mean something with it; FUA is accepted everywhere (N37).
    fn flags(self, structured: bool) -> u16 {
        match self {
            Self::Read if structured => FLAG_FUA | FLAG_DF,
            Self::WriteZeroes => FLAG_FUA | FLAG_NO_HOLE | FLAG_FAST_ZERO,
            Self::BlockStatus => FLAG_FUA | FLAG_REQ_ONE,
            Self::Read
            | Self::Write
            | Self::Disconnect
            | Self::Flush
            | Self::Trim
            | Self::Cache => FLAG_FUA,
        }
    }
}

/// A valid request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Send these bytes; at most [`PAYLOAD_LEN_MAX`]. DF changes nothing: one chunk is always
    /// enough (N32).
    Read {
        /// Which.
        range: ByteRange,
    },
    /// Take the bytes that follow.
    Write {
        /// Where to.
        range: ByteRange,
        /// Answer when it is stable.
        fua: bool,
    },
    /// Make the range read as zero: TRIM or `WRITE_ZEROES`.
    Zero {
        /// Which.
        range: ByteRange,
        /// What becomes of the space.
        kind: ZeroKind,
        /// Answer when it is stable.
        fua: bool,
        /// Refuse unless it is fast.
        fast_only: bool,
    },
    /// Make all that was answered stable.
    Flush,
    /// Read ahead.
    Cache {
        /// Which.
        range: ByteRange,
    },
    /// Say what is allocated.
    BlockStatus {
        /// Where.
        range: ByteRange,
        /// One extent is enough.
        single: bool,
    },
    /// The client leaves once what is under way is answered.
    Disconnect,
}

/// An error as a client sees it (N43). The others that NBD knows are not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorCode {
    /// EIO: the data could not be read or written.
    Io = 5,
    /// EINVAL: the request breaks a rule.
    Invalid = 22,
    /// ENOSPC: no space is left, or a write reaches beyond the end.
    NoSpace = 28,
    /// ENOTSUP: zeroing would not be fast.
    NotSupported = 95,
}

impl ErrorCode {
    fn number(self) -> u32 {
        self as u32
    }
}

/// Why a request is not valid. The text goes to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// No such command.
    #[error("command {command} is unknown here")]
    UnknownCommand {
        /// Its number.
        command: u16,
    },
    /// No such flags with this command.
    #[error("flags {flags:#06x} are unknown with command {command}")]
    UnknownFlags {
        /// Its number.
        command: u16,
        /// Those that are unknown.
        flags: u16,
    },
    /// A write that the device has no room for.
    #[error("{len} bytes at {offset} reach beyond the end, which is at {size}")]
    WriteBeyondEnd {
        /// First byte.
        offset: u64,
        /// How many.
        len: u32,
        /// Size of the export.
        size: u64,
    },
    /// Anything else beyond the end.
    #[error("{len} bytes at {offset} reach beyond the end, which is at {size}")]
    BeyondEnd {
        /// First byte.
        offset: u64,
        /// How many.
        len: u32,
        /// Size of the export.
        size: u64,
    },
    /// A READ above the limit.
    #[error("a READ of {len} bytes is longer than {PAYLOAD_LEN_MAX}: ask for less at a time")]
    ReadTooLong {
        /// How many bytes.
        len: u32,
    },
    /// `BLOCK_STATUS` without a context.
    #[error("no metadata context was selected: ask for base:allocation before GO")]
    NoContext,
    /// `BLOCK_STATUS` of nothing.
    #[error("BLOCK_STATUS of 0 bytes has no answer")]
    NothingAsked,
}

impl Fault {
    /// The error to answer with (N35, N44, N45).
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::WriteBeyondEnd { .. } => ErrorCode::NoSpace,
            Self::UnknownCommand { .. }
            | Self::UnknownFlags { .. }
            | Self::BeyondEnd { .. }
            | Self::ReadTooLong { .. }
            | Self::NoContext
            | Self::NothingAsked => ErrorCode::Invalid,
        }
    }
}

/// A run of bytes that are alike, for `BLOCK_STATUS`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// Number of bytes, more than zero.
    pub len: u64,
    /// Not allocated, and reads as zero from the primary's own up-to-date disk. False is always
    /// true enough: it claims nothing (N34).
    pub is_hole: bool,
}

/// Appends a simple reply; the data of a successful READ must follow (N27).
pub fn put_simple_reply(out: &mut Vec<u8>, cookie: u64, error: Option<ErrorCode>) {
    out.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&error.map_or(0, ErrorCode::number).to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
}

/// Appends the only chunk of an answer without content (N29).
pub fn put_none_chunk(out: &mut Vec<u8>, cookie: u64) {
    put_last_chunk(out, ChunkType::None, cookie, 0);
}

/// Appends the head of the only chunk of a READ; `data_len` bytes must follow (N30, N31).
pub fn put_data_chunk(out: &mut Vec<u8>, cookie: u64, offset: u64, data_len: u32) {
    put_last_chunk(out, ChunkType::OffsetData, cookie, data_len + 8);
    out.extend_from_slice(&offset.to_be_bytes());
}

/// Appends an error as the only chunk of an answer, with what a person should know (N33).
pub fn put_error_chunk(out: &mut Vec<u8>, cookie: u64, error: ErrorCode, text: &str) {
    let text = sendable(text);
    let text_len = u16::try_from(text.len()).expect("sendable() keeps to TEXT_LEN_MAX");
    put_last_chunk(out, ChunkType::Error, cookie, 6 + u32::from(text_len));
    out.extend_from_slice(&error.number().to_be_bytes());
    out.extend_from_slice(&text_len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends the answer to a `BLOCK_STATUS` of `range` for the context `id` (N34). What `extents` say
/// beyond the range is left out; if they say less than the range, the client asks again.
///
/// # Panics
/// If there are none.
pub fn put_block_status(out: &mut Vec<u8>, cookie: u64, asked: &StatusAsked, extents: &[Extent]) {
    const HOLE_AND_ZERO: u32 = 3;
    let limit = if asked.single { 1 } else { EXTENT_COUNT_MAX };
    let start = out.len();
    put_last_chunk(out, ChunkType::BlockStatus, cookie, 0);
    out.extend_from_slice(&asked.context_id.to_be_bytes());
    let mut left = asked.range.len();
    let mut count = 0;
    let mut runs = extents.iter().filter(|run| run.len > 0).peekable();
    while let (Some(run), true) = (runs.next(), count < limit && left > 0) {
        let mut len = run.len;
        while let Some(next) = runs.next_if(|next| next.is_hole == run.is_hole) {
            len = len.saturating_add(next.len);
        }
        let len = u32::try_from(len.min(left)).expect("a range asked for has a 32-bit length");
        left -= u64::from(len);
        count += 1;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&if run.is_hole { HOLE_AND_ZERO } else { 0 }.to_be_bytes());
    }
    assert!(count > 0, "an answer to BLOCK_STATUS has at least one extent");
    let len = len_u32(4 + 8 * count);
    if let Some(field) = out.get_mut(start + 16..start + 20) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// What a `BLOCK_STATUS` asked.
#[derive(Clone, Copy, Debug)]
pub struct StatusAsked {
    /// Number of the context, as announced when it was selected.
    pub context_id: u32,
    /// Where.
    pub range: ByteRange,
    /// One extent is enough.
    pub single: bool,
}

/// The chunks that we send.
#[derive(Clone, Copy)]
enum ChunkType {
    None = 0,
    OffsetData = 1,
    BlockStatus = 5,
    Error = 0x8001,
}

/// Appends the header of a chunk that is the last one of its answer: we send no other.
fn put_last_chunk(out: &mut Vec<u8>, chunk: ChunkType, cookie: u64, len: u32) {
    const DONE: u16 = 1;
    out.extend_from_slice(&CHUNK_MAGIC.to_be_bytes());
    out.extend_from_slice(&DONE.to_be_bytes());
    out.extend_from_slice(&(chunk as u16).to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
}
