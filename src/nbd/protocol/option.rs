//! What is said before an export is open: greeting, options and their replies.

use super::{Fields, PAYLOAD_LEN_MAX, TEXT_LEN_MAX, len_u32, sendable};

/// Length of the header of an option in bytes.
pub const OPTION_HEADER_LEN: usize = 16;
/// Length of the client's flags in bytes.
pub const CLIENT_FLAGS_LEN: usize = 4;
/// Most data of an option that is looked at, in bytes.
pub const OPTION_DATA_LEN_MAX: u32 = 64 << 10;
/// Most queries in one option.
pub const QUERY_COUNT_MAX: u32 = 256;
/// The only metadata context.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Its number in answers to `BLOCK_STATUS`.
pub const BASE_ALLOCATION_ID: u32 = 1;

pub(super) const GREETING_MAGIC: &[u8; 8] = b"NBDMAGIC";
pub(super) const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const FIXED_NEWSTYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 1 << 1;

/// The first bytes of a connection (N1).
pub fn greeting() -> [u8; 18] {
    let mut bytes = Vec::with_capacity(18);
    bytes.extend_from_slice(GREETING_MAGIC);
    bytes.extend_from_slice(OPTION_MAGIC);
    bytes.extend_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    bytes.try_into().expect("the fields are as long as the greeting")
}

/// What the client answers to the greeting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientFlags {
    /// It reads error replies to options; without, only `EXPORT_NAME` is taken (N3).
    pub fixed_newstyle: bool,
    /// It wants no padding behind the answer to `EXPORT_NAME` (N8).
    pub no_zeroes: bool,
}

impl ClientFlags {
    /// Reads the flags; `None` if one was not offered (N2).
    pub fn decode(bytes: [u8; CLIENT_FLAGS_LEN]) -> Option<Self> {
        let flags = u32::from_be_bytes(bytes);
        let (fixed, no_zeroes) = (u32::from(FIXED_NEWSTYLE), u32::from(NO_ZEROES));
        (flags & !(fixed | no_zeroes) == 0).then_some(Self {
            fixed_newstyle: flags & fixed != 0,
            no_zeroes: flags & no_zeroes != 0,
        })
    }
}

/// The header of an option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OptionHeader {
    /// Number of the option, echoed in replies.
    pub number: u32,
    /// Length of its data in bytes.
    pub len: u32,
}

impl OptionHeader {
    /// Reads a header; `None` if the magic is wrong, which leaves no way back in step (N4).
    pub fn decode(bytes: &[u8; OPTION_HEADER_LEN]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if &fields.array::<8>()? != OPTION_MAGIC {
            return None;
        }
        Some(Self { number: fields.u32()?, len: fields.u32()? })
    }

    /// The option, if it is one that we know.
    pub fn kind(&self) -> Option<OptionKind> {
        Some(match self.number {
            1 => OptionKind::ExportName,
            2 => OptionKind::Abort,
            3 => OptionKind::List,
            6 => OptionKind::Info,
            7 => OptionKind::Go,
            8 => OptionKind::StructuredReply,
            9 => OptionKind::ListMetaContext,
            10 => OptionKind::SetMetaContext,
            _ => return None,
        })
    }
}

/// The options that we know. STARTTLS (5) and `EXTENDED_HEADERS` (11) are not among them: they are
/// answered like any unknown one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OptionKind {
    /// Open an export; there is no way to refuse but to close.
    ExportName,
    /// The client leaves.
    Abort,
    /// Name the exports.
    List,
    /// Describe an export.
    Info,
    /// Describe and open an export.
    Go,
    /// Answer READ in chunks.
    StructuredReply,
    /// Name the metadata contexts of an export.
    ListMetaContext,
    /// Select metadata contexts of an export.
    SetMetaContext,
}

/// Why the data of an option is not valid. The text goes to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Lengths inside the data do not fit the data.
    #[error("the lengths inside the option do not fit its data")]
    Lengths,
    /// A name or query above [`TEXT_LEN_MAX`].
    #[error("a text of {len} bytes is longer than {TEXT_LEN_MAX}")]
    TextTooLong {
        /// Its length.
        len: u32,
    },
    /// A query that is not UTF-8 or has a NUL.
    #[error("a query is not UTF-8 text without NUL")]
    NotText,
    /// More than [`QUERY_COUNT_MAX`] queries.
    #[error("{count} queries are more than {QUERY_COUNT_MAX}")]
    TooManyQueries {
        /// How many.
        count: u32,
    },
    /// Data where there must be none.
    #[error("this option takes no data")]
    UnexpectedData,
}

impl Malformed {
    /// The error to answer with.
    pub fn error(&self) -> OptionError {
        match self {
            Self::TextTooLong { .. } | Self::TooManyQueries { .. } => OptionError::TooBig,
            Self::Lengths | Self::NotText | Self::UnexpectedData => OptionError::Invalid,
        }
    }
}

/// The name of an export as a client sent it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AskedName<'a> {
    /// A text.
    Text(&'a str),
    /// Not UTF-8, or with a NUL: no export can have this name.
    NotText,
}

impl<'a> AskedName<'a> {
    /// Looks at the bytes of a name (N6).
    ///
    /// # Errors
    /// [`Malformed::TextTooLong`] above 4,096 bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > TEXT_LEN_MAX {
            return Err(Malformed::TextTooLong { len: len_u32(bytes.len()) });
        }
        Ok(text(bytes).map_or(Self::NotText, Self::Text))
    }
}

/// The data of INFO and GO (N12).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExportAsked<'a> {
    /// Which export.
    pub name: AskedName<'a>,
    /// The canonical name is wanted.
    pub wants_name: bool,
    /// The description is wanted.
    pub wants_description: bool,
    /// The block sizes are wanted.
    pub wants_block_size: bool,
}

impl<'a> ExportAsked<'a> {
    /// Reads the data of INFO or GO. Unknown requests are ignored.
    ///
    /// # Errors
    /// [`Malformed`] is the answer to the client.
    pub fn decode(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(data);
        let name = counted(&mut fields)?;
        let count = fields.u16().ok_or(Malformed::Lengths)?;
        if fields.0.len() != usize::from(count) * 2 {
            return Err(Malformed::Lengths);
        }
        let mut asked = Self {
            name: AskedName::decode(name)?,
            wants_name: false,
            wants_description: false,
            wants_block_size: false,
        };
        while let Some(wanted) = fields.u16() {
            match wanted {
                1 => asked.wants_name = true,
                2 => asked.wants_description = true,
                3 => asked.wants_block_size = true,
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT` (N19).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContextsAsked<'a> {
    /// Of which export.
    pub name: AskedName<'a>,
    /// What is asked for, in order.
    pub queries: Vec<&'a str>,
}

impl<'a> ContextsAsked<'a> {
    /// Reads the data.
    ///
    /// # Errors
    /// [`Malformed`] is the answer to the client.
    pub fn decode(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(data);
        let name = AskedName::decode(counted(&mut fields)?)?;
        let count = fields.u32().ok_or(Malformed::Lengths)?;
        if count > QUERY_COUNT_MAX {
            return Err(Malformed::TooManyQueries { count });
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            let query = counted(&mut fields)?;
            if query.len() > TEXT_LEN_MAX {
                return Err(Malformed::TextTooLong { len: len_u32(query.len()) });
            }
            queries.push(text(query).ok_or(Malformed::NotText)?);
        }
        if !fields.rest().is_empty() {
            return Err(Malformed::Lengths);
        }
        Ok(Self { name, queries })
    }

    /// Whether [`BASE_ALLOCATION`] is listed: asked for by its name, by the wildcard of its
    /// namespace, or by asking for nothing at all.
    pub fn lists_base_allocation(&self) -> bool {
        self.queries.is_empty()
            || self.queries.iter().any(|query| *query == BASE_ALLOCATION || *query == "base:")
    }

    /// Whether [`BASE_ALLOCATION`] is selected: asked for by its name.
    pub fn selects_base_allocation(&self) -> bool {
        self.queries.contains(&BASE_ALLOCATION)
    }
}

/// Takes a u32 length and as many bytes.
fn counted<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Malformed> {
    let len = fields.u32().ok_or(Malformed::Lengths)?;
    fields.bytes(len).ok_or(Malformed::Lengths)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// The error replies that we send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum OptionError {
    /// We do not know this option.
    Unsupported = 0x8000_0001,
    /// It is valid, but not allowed.
    Policy = 0x8000_0002,
    /// It breaks a rule.
    Invalid = 0x8000_0003,
    /// There is no such export here.
    Unknown = 0x8000_0006,
    /// The server is about to stop.
    Shutdown = 0x8000_0007,
    /// It is larger than we read.
    TooBig = 0x8000_0009,
}

/// A reply to an option.
#[derive(Clone, Copy, Debug)]
pub enum OptionReply<'a> {
    /// Done; ends the replies to one option.
    Ack,
    /// Not done; ends the replies to one option.
    Error(OptionError, &'a str),
    /// An export, for LIST.
    Server {
        /// Its name.
        name: &'a str,
        /// What it is, for people.
        description: &'a str,
    },
    /// Size and transmission flags, for INFO and GO.
    InfoExport {
        /// In bytes.
        size: u64,
        /// See [`super::transmission_flags`].
        flags: u16,
    },
    /// The canonical name.
    InfoName(&'a str),
    /// What it is, for people.
    InfoDescription(&'a str),
    /// The block sizes: any alignment is exact, 4 KiB is best, 32 MiB is the most (N15, N16).
    InfoBlockSize,
    /// [`BASE_ALLOCATION`]; its number is only said when it is selected.
    BaseAllocation {
        /// It is selected, not just listed.
        selected: bool,
    },
}

impl OptionReply<'_> {
    /// Appends the reply to `option` to `out` (N5).
    pub fn put(&self, option: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.to_be_bytes());
        out.extend_from_slice(&self.number().to_be_bytes());
        let len_at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.put_data(out);
        let len = len_u32(out.len() - len_at - 4);
        if let Some(field) = out.get_mut(len_at..len_at + 4) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }

    fn number(&self) -> u32 {
        match self {
            Self::Ack => 1,
            Self::Server { .. } => 2,
            Self::InfoExport { .. }
            | Self::InfoName(_)
            | Self::InfoDescription(_)
            | Self::InfoBlockSize => 3,
            Self::BaseAllocation { .. } => 4,
            Self::Error(error, _) => *error as u32,
        }
    }

    fn put_data(&self, out: &mut Vec<u8>) {
        const PREFERRED_BLOCK_LEN: u32 = 4096;
        match self {
            Self::Ack => {}
            Self::Error(_, text) => out.extend_from_slice(sendable(text).as_bytes()),
            Self::Server { name, description } => {
                let name = sendable(name);
                out.extend_from_slice(&len_u32(name.len()).to_be_bytes());
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(sendable(description).as_bytes());
            }
            Self::InfoExport { size, flags } => {
                out.extend_from_slice(&0_u16.to_be_bytes());
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(&flags.to_be_bytes());
            }
            Self::InfoName(text) => {
                out.extend_from_slice(&1_u16.to_be_bytes());
                out.extend_from_slice(sendable(text).as_bytes());
            }
            Self::InfoDescription(text) => {
                out.extend_from_slice(&2_u16.to_be_bytes());
                out.extend_from_slice(sendable(text).as_bytes());
            }
            Self::InfoBlockSize => {
                out.extend_from_slice(&3_u16.to_be_bytes());
                for len in [1, PREFERRED_BLOCK_LEN, PAYLOAD_LEN_MAX] {
                    out.extend_from_slice(&len.to_be_bytes());
                }
            }
            Self::BaseAllocation { selected } => {
                let id = if *selected { BASE_ALLOCATION_ID } else { 0 };
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(BASE_ALLOCATION.as_bytes());
            }
        }
    }
}

/// Appends the answer to `EXPORT_NAME` (N8).
pub fn put_export_name_answer(out: &mut Vec<u8>, size: u64, flags: u16, padded: bool) {
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    if padded {
        out.extend_from_slice(&[0; 124]);
    }
}
