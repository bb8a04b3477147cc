//! The client's half: what it says and what it reads.
//!
//! It is for a client that opens one export with GO and reads simple replies; the server does not
//! use it. Connecting, waiting and retrying are left to the client.

use super::option::{
    CLIENT_FLAGS_LEN, FIXED_NEWSTYLE, GREETING_MAGIC, NO_ZEROES, OPTION_HEADER_LEN, OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
};
use super::transmission::{CommandNumber, RequestHeader, SIMPLE_REPLY_MAGIC};
use super::{Fields, len_u32};

/// Length of the greeting in bytes.
pub const GREETING_LEN: usize = 18;
/// Length of the header of a reply to an option in bytes.
pub const OPTION_REPLY_LEN: usize = 20;
/// Length of a simple reply without the data of a READ in bytes.
pub const SIMPLE_REPLY_LEN: usize = 16;

const OPTION_GO: u32 = 7;

/// Whether a server that we understand says this (N1).
pub fn is_greeting(bytes: &[u8; GREETING_LEN]) -> bool {
    let mut fields = Fields(bytes);
    fields.array().is_some_and(|magic| &magic == GREETING_MAGIC)
        && fields.array().is_some_and(|magic| &magic == OPTION_MAGIC)
        && fields.u16().is_some_and(|flags| flags & FIXED_NEWSTYLE != 0)
}

/// What opens `export` after the greeting: the client's flags and the option GO.
pub fn go(export: &str) -> Vec<u8> {
    let name_len = len_u32(export.len());
    let mut bytes = Vec::with_capacity(CLIENT_FLAGS_LEN + OPTION_HEADER_LEN + 4 + export.len() + 2);
    bytes.extend_from_slice(&u32::from(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    bytes.extend_from_slice(OPTION_MAGIC);
    bytes.extend_from_slice(&OPTION_GO.to_be_bytes());
    bytes.extend_from_slice(&(4 + name_len + 2).to_be_bytes());
    bytes.extend_from_slice(&name_len.to_be_bytes());
    bytes.extend_from_slice(export.as_bytes());
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes
}

/// The header of a reply to GO.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GoReply {
    number: u32,
    /// Length of its data in bytes.
    pub len: u32,
}

/// What a reply to GO means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GoNews {
    /// The export has so many bytes.
    Size(u64),
    /// Something else about the export.
    Else,
    /// The export is open: requests follow.
    Open,
    /// It is not, with the server's words.
    Refused(String),
}

impl GoReply {
    /// Reads a header; `None` if it is no reply to GO.
    pub fn decode(bytes: &[u8; OPTION_REPLY_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let is_ours = fields.u64()? == OPTION_REPLY_MAGIC && fields.u32()? == OPTION_GO;
        is_ours.then_some(())?;
        Some(Self { number: fields.u32()?, len: fields.u32()? })
    }

    /// Says what it means, given its data.
    pub fn news(&self, data: &[u8]) -> GoNews {
        const ACK: u32 = 1;
        const INFO: u32 = 3;
        const INFO_EXPORT: u16 = 0;
        match self.number {
            ACK => GoNews::Open,
            INFO => {
                let mut fields = Fields(data);
                match (fields.u16(), fields.u64()) {
                    (Some(INFO_EXPORT), Some(size)) => GoNews::Size(size),
                    _ => GoNews::Else,
                }
            }
            _ => GoNews::Refused(String::from_utf8_lossy(data).into_owned()),
        }
    }
}

impl RequestHeader {
    /// Asks for `len` bytes.
    pub fn read(cookie: u64, offset: u64, len: u32) -> Self {
        Self { flags: 0, command: CommandNumber::Read as u16, cookie, offset, len }
    }

    /// Announces `len` bytes to write, which must follow.
    pub fn write(cookie: u64, offset: u64, len: u32) -> Self {
        Self { flags: 0, command: CommandNumber::Write as u16, cookie, offset, len }
    }

    /// Asks that everything that was answered is stable.
    pub fn flush(cookie: u64) -> Self {
        Self { flags: 0, command: CommandNumber::Flush as u16, cookie, offset: 0, len: 0 }
    }

    /// Says goodbye; there is no answer.
    pub fn disconnect(cookie: u64) -> Self {
        Self { flags: 0, command: CommandNumber::Disconnect as u16, cookie, offset: 0, len: 0 }
    }
}

/// A simple reply. The data of a READ follows it, unless there was an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SimpleReply {
    /// Which request it answers.
    pub cookie: u64,
    /// 0, or an error as NBD numbers them.
    pub error: u32,
}

impl SimpleReply {
    /// Reads a reply; `None` if the magic is wrong, which leaves no way back in step (N27).
    pub fn decode(bytes: &[u8; SIMPLE_REPLY_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u32()? == SIMPLE_REPLY_MAGIC).then_some(())?;
        let error = fields.u32()?;
        Some(Self { cookie: fields.u64()?, error })
    }
}

#[cfg(test)]
mod tests {
    use super::super::option::{
        ClientFlags, ExportAsked, OptionError, OptionHeader, OptionKind, OptionReply, greeting,
    };
    use super::super::transmission::{ErrorCode, put_simple_reply};
    use super::*;

    fn go_reply(reply: &OptionReply<'_>) -> GoNews {
        let mut bytes = Vec::new();
        reply.put(OPTION_GO, &mut bytes);
        let (head, data) = bytes.split_first_chunk().unwrap();
        let reply = GoReply::decode(head).unwrap();
        assert_eq!(data.len(), usize::try_from(reply.len).unwrap());
        reply.news(data)
    }

    #[test]
    fn the_server_understands_how_an_export_is_opened() {
        assert!(is_greeting(&greeting()));
        let bytes = go("vm1");
        let (flags, rest) = bytes.split_first_chunk().unwrap();
        let flags = ClientFlags::decode(*flags).unwrap();
        assert!(flags.fixed_newstyle && flags.no_zeroes);
        let (header, data) = rest.split_first_chunk().unwrap();
        let header = OptionHeader::decode(header).unwrap();
        assert_eq!(header.kind(), Some(OptionKind::Go));
        assert_eq!(data.len(), usize::try_from(header.len).unwrap());
        assert!(ExportAsked::decode(data).is_ok());
    }

    #[test]
    fn the_answers_of_the_server_are_understood() {
        let size = OptionReply::InfoExport { size: 1 << 20, flags: 1 };
        assert_eq!(go_reply(&size), GoNews::Size(1 << 20));
        assert_eq!(go_reply(&OptionReply::InfoBlockSize), GoNews::Else);
        assert_eq!(go_reply(&OptionReply::Ack), GoNews::Open);
        let refused = OptionReply::Error(OptionError::Unknown, "no such export");
        assert_eq!(go_reply(&refused), GoNews::Refused("no such export".to_owned()));
        for (error, number) in [(None, 0), (Some(ErrorCode::NoSpace), 28)] {
            let mut bytes = Vec::new();
            put_simple_reply(&mut bytes, 7, error);
            let reply = SimpleReply::decode(&bytes.try_into().unwrap());
            assert_eq!(reply, Some(SimpleReply { cookie: 7, error: number }));
        }
    }
}
