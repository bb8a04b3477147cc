//! One handshake as a state machine: bytes of the client in, replies and at last an open export
//! out. Time limits and the socket are left to `handshake.rs`.

use bytes::{Buf, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::exports::{CONNECTIONS_MAX, Export, Exports};
use super::handshake::HandshakeError;
use super::protocol::option::{
    self, AskedName, CLIENT_FLAGS_LEN, ClientFlags, ContextsAsked, ExportAsked, Malformed,
    OPTION_DATA_LEN_MAX, OPTION_HEADER_LEN, OptionError, OptionHeader, OptionKind, OptionReply,
};
use super::protocol::{Terms, transmission_flags};

/// Most options in one handshake.
pub(super) const OPTION_COUNT_MAX: u32 = 1024;
/// Most bytes of options that are skipped in one handshake.
pub(super) const SKIPPED_LEN_MAX: u32 = 1 << 20;

/// Where a handshake is.
#[derive(Debug)]
pub(super) struct Negotiation {
    stage: Stage,
    flags: ClientFlags,
    is_structured: bool,
    /// The export, by the name it was asked by, for which `base:allocation` is selected.
    selected_for: Option<String>,
    option_count: u32,
    skipped_len: u32,
}

#[derive(Debug)]
enum Stage {
    Flags,
    Option,
    /// Data of an option is dropped unseen, then the option is refused.
    Skip {
        left: usize,
        header: OptionHeader,
        error: OptionError,
        text: String,
    },
}

/// What came of some bytes.
#[derive(Debug)]
pub(super) enum Step {
    /// They are not enough.
    NeedsMore,
    /// Something was taken; there may be a reply.
    Goes,
    /// Transmission begins behind the reply.
    Opens(Box<Opening>),
    /// The client leaves, after the reply.
    Leaves,
}

/// An export that was agreed on.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) export: Export,
    pub(super) terms: Terms,
    pub(super) seat: OwnedSemaphorePermit,
}

impl Negotiation {
    /// Begins behind the greeting.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Flags,
            flags: ClientFlags { fixed_newstyle: false, no_zeroes: false },
            is_structured: false,
            selected_for: None,
            option_count: 0,
            skipped_len: 0,
        }
    }

    /// Takes at most one option from the front of `input` and appends the replies to `out`, which
    /// must be sent whatever is returned.
    ///
    /// # Errors
    /// Why the connection must be closed.
    pub(super) fn step(
        &mut self,
        input: &mut BytesMut,
        exports: &Exports,
        out: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        match &mut self.stage {
            Stage::Flags => self.on_flags(input),
            Stage::Option => self.on_option(input, exports, out),
            Stage::Skip { left, header, error, text } => {
                let now = input.len().min(*left);
                input.advance(now);
                *left -= now;
                if *left > 0 {
                    return Ok(Step::NeedsMore);
                }
                OptionReply::Error(*error, text).put(header.number, out);
                self.stage = Stage::Option;
                Ok(Step::Goes)
            }
        }
    }

    fn on_flags(&mut self, input: &mut BytesMut) -> Result<Step, HandshakeError> {
        let Some(bytes) = input.first_chunk::<CLIENT_FLAGS_LEN>() else {
            return Ok(Step::NeedsMore);
        };
        self.flags = ClientFlags::decode(*bytes)
            .ok_or(HandshakeError::ClientFlags { flags: u32::from_be_bytes(*bytes) })?;
        input.advance(CLIENT_FLAGS_LEN);
        self.stage = Stage::Option;
        Ok(Step::Goes)
    }

    fn on_option(
        &mut self,
        input: &mut BytesMut,
        exports: &Exports,
        out: &mut Vec<u8>,
    ) -> Result<Step, HandshakeError> {
        let Some(bytes) = input.first_chunk::<OPTION_HEADER_LEN>() else {
            return Ok(Step::NeedsMore);
        };
        let header = OptionHeader::decode(bytes).ok_or(HandshakeError::Magic)?;
        let kind = header.kind();
        if !self.flags.fixed_newstyle && kind != Some(OptionKind::ExportName) {
            return Err(HandshakeError::NotFixedNewstyle { option: header.number });
        }
        let Some(kind) = kind else {
            input.advance(OPTION_HEADER_LEN);
            let text = format!("option {} is not supported", header.number);
            return self.skip(header, OptionError::Unsupported, text);
        };
        if header.len > OPTION_DATA_LEN_MAX {
            if kind == OptionKind::ExportName {
                return Err(HandshakeError::NoSuchExport);
            }
            input.advance(OPTION_HEADER_LEN);
            let len = header.len;
            let text = format!("option data of {len} bytes is longer than {OPTION_DATA_LEN_MAX}");
            return self.skip(header, OptionError::TooBig, text);
        }
        let whole = OPTION_HEADER_LEN + usize::try_from(header.len).expect("64 KiB at most");
        if input.len() < whole {
            return Ok(Step::NeedsMore);
        }
        self.count_option()?;
        let mut data = input.split_to(whole);
        data.advance(OPTION_HEADER_LEN);
        let mut asked = Asked { header, data: &data, exports, out };
        self.on_known(kind, &mut asked)
    }

    fn count_option(&mut self) -> Result<(), HandshakeError> {
        self.option_count += 1;
        if self.option_count > OPTION_COUNT_MAX {
            return Err(HandshakeError::TooManyOptions);
        }
        Ok(())
    }

    fn skip(
        &mut self,
        header: OptionHeader,
        error: OptionError,
        text: String,
    ) -> Result<Step, HandshakeError> {
        self.count_option()?;
        self.skipped_len = self.skipped_len.saturating_add(header.len);
        if self.skipped_len > SKIPPED_LEN_MAX {
            return Err(HandshakeError::SkippedTooMuch);
        }
        let left = usize::try_from(header.len).expect("1 MiB at most");
        self.stage = Stage::Skip { left, header, error, text };
        Ok(Step::Goes)
    }

    fn on_known(
        &mut self,
        kind: OptionKind,
        asked: &mut Asked<'_>,
    ) -> Result<Step, HandshakeError> {
        match kind {
            OptionKind::Abort => {
                asked.reply(&OptionReply::Ack);
                return Ok(Step::Leaves);
            }
            OptionKind::ExportName => return self.on_export_name(asked),
            _ if asked.exports.is_closing => {
                asked.refuse(OptionError::Shutdown, "this node is about to stop serving");
            }
            OptionKind::List => on_list(asked),
            OptionKind::StructuredReply => self.on_structured_reply(asked),
            OptionKind::Info => {
                if self.on_export(asked).is_some() {
                    asked.reply(&OptionReply::Ack);
                }
            }
            OptionKind::Go => return self.on_go(asked),
            OptionKind::ListMetaContext => self.on_list_contexts(asked),
            OptionKind::SetMetaContext => self.on_set_contexts(asked),
        }
        Ok(Step::Goes)
    }

    /// N8: there is no error reply, so everything but success closes.
    fn on_export_name(&mut self, asked: &mut Asked<'_>) -> Result<Step, HandshakeError> {
        let name = AskedName::decode(asked.data).map_err(|_| HandshakeError::NoSuchExport)?;
        if asked.exports.is_closing {
            return Err(HandshakeError::NoSuchExport);
        }
        let export = asked.exports.find(name).map_err(|_| HandshakeError::NoSuchExport)?;
        let terms = self.terms_of(export, name);
        let seat = export.take_seat().ok_or(HandshakeError::Crowded)?;
        let padded = !self.flags.no_zeroes;
        option::put_export_name_answer(asked.out, terms.size.bytes(), terms.flags(), padded);
        Ok(Step::Opens(Box::new(Opening { export: export.clone(), terms, seat })))
    }

    fn on_structured_reply(&mut self, asked: &mut Asked<'_>) {
        if !asked.data.is_empty() {
            return asked.malformed(Malformed::UnexpectedData);
        }
        self.is_structured = true;
        asked.reply(&OptionReply::Ack);
    }

    /// Answers INFO, and GO up to its acknowledgement. `None` if that was an error.
    fn on_export<'a>(&self, asked: &mut Asked<'a>) -> Option<(&'a Export, Terms)> {
        let about = match ExportAsked::decode(asked.data) {
            Ok(about) => about,
            Err(malformed) => {
                asked.malformed(malformed);
                return None;
            }
        };
        let export = asked.find(about.name)?;
        let terms = self.terms_of(export, about.name);
        asked.describe(export, &terms, &about);
        Some((export, terms))
    }

    fn on_go(&mut self, asked: &mut Asked<'_>) -> Result<Step, HandshakeError> {
        let Some((export, terms)) = self.on_export(asked) else {
            return Ok(Step::Goes);
        };
        let Some(seat) = export.take_seat() else {
            let text = format!("{CONNECTIONS_MAX} connections are open, which is the most");
            asked.refuse(OptionError::Policy, &text);
            return Err(HandshakeError::Crowded);
        };
        asked.reply(&OptionReply::Ack);
        Ok(Step::Opens(Box::new(Opening { export: export.clone(), terms, seat })))
    }

    /// N20: a selection holds only for the export that it was made for.
    fn terms_of(&self, export: &Export, name: AskedName<'_>) -> Terms {
        let selected = match (&self.selected_for, name) {
            (Some(selected), AskedName::Text(name)) => selected == name,
            (Some(_) | None, AskedName::NotText) | (None, AskedName::Text(_)) => false,
        };
        Terms {
            size: export.size,
            structured: self.is_structured,
            base_allocation: self.is_structured && selected,
        }
    }

    fn on_list_contexts(&mut self, asked: &mut Asked<'_>) {
        if let Some(contexts) = self.contexts_asked(asked) {
            if contexts.lists_base_allocation() {
                asked.reply(&OptionReply::BaseAllocation { selected: false });
            }
            asked.reply(&OptionReply::Ack);
        }
    }

    fn on_set_contexts(&mut self, asked: &mut Asked<'_>) {
        self.selected_for = None;
        let Some(contexts) = self.contexts_asked(asked) else {
            return;
        };
        if let (AskedName::Text(name), true) = (contexts.name, contexts.selects_base_allocation()) {
            self.selected_for = Some(name.to_owned());
            asked.reply(&OptionReply::BaseAllocation { selected: true });
        }
        asked.reply(&OptionReply::Ack);
    }

    fn contexts_asked<'a>(&self, asked: &mut Asked<'a>) -> Option<ContextsAsked<'a>> {
        if !self.is_structured {
            asked.refuse(OptionError::Invalid, "ask for structured replies first");
            return None;
        }
        match ContextsAsked::decode(asked.data) {
            Ok(contexts) => asked.find(contexts.name).map(|_| contexts),
            Err(malformed) => {
                asked.malformed(malformed);
                None
            }
        }
    }
}

fn on_list(asked: &mut Asked<'_>) {
    if !asked.data.is_empty() {
        return asked.malformed(Malformed::UnexpectedData);
    }
    for export in &asked.exports.served {
        let (name, description) = (&*export.name, &*export.description);
        asked.reply(&OptionReply::Server { name, description });
    }
    asked.reply(&OptionReply::Ack);
}

/// One option, and where its replies go.
struct Asked<'a> {
    header: OptionHeader,
    data: &'a [u8],
    exports: &'a Exports,
    out: &'a mut Vec<u8>,
}

impl<'a> Asked<'a> {
    fn reply(&mut self, reply: &OptionReply<'_>) {
        reply.put(self.header.number, self.out);
    }

    fn refuse(&mut self, error: OptionError, text: &str) {
        self.reply(&OptionReply::Error(error, text));
    }

    fn malformed(&mut self, malformed: Malformed) {
        self.refuse(malformed.error(), &malformed.to_string());
    }

    /// The export of that name; if there is none, that is the reply (N14).
    fn find(&mut self, name: AskedName<'_>) -> Option<&'a Export> {
        match self.exports.find(name) {
            Ok(export) => Some(export),
            Err(text) => {
                self.refuse(OptionError::Unknown, &text);
                None
            }
        }
    }

    fn describe(&mut self, export: &Export, terms: &Terms, about: &ExportAsked<'_>) {
        let flags = transmission_flags(terms.structured);
        self.reply(&OptionReply::InfoExport { size: terms.size.bytes(), flags });
        if about.wants_name {
            self.reply(&OptionReply::InfoName(&export.name));
        }
        if about.wants_description {
            self.reply(&OptionReply::InfoDescription(&export.description));
        }
        if about.wants_block_size {
            self.reply(&OptionReply::InfoBlockSize);
        }
    }
}
