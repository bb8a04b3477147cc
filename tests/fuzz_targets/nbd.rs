//! A client of an export: its flags, options one behind the other, then requests.

use hotpair::nbd::protocol::option::{
    AskedName, CLIENT_FLAGS_LEN, ClientFlags, ContextsAsked, ExportAsked, OPTION_DATA_LEN_MAX,
    OPTION_HEADER_LEN, OptionHeader, OptionKind, QUERY_COUNT_MAX,
};
use hotpair::nbd::protocol::transmission::{Command, REQUEST_LEN, RequestHeader};
use hotpair::nbd::protocol::{PAYLOAD_LEN_MAX, Terms};
use hotpair::units::ResourceSize;

/// Size of the export.
const LEN: u64 = (1 << 33) + 512;
/// `OPTION_HEADER_LEN` bytes of an option begin with it.
const OPTION_MAGIC: &[u8] = b"IHAVEOPT";

pub(crate) fn run(bytes: &[u8]) {
    let Some((flags, rest)) = bytes.split_first_chunk::<CLIENT_FLAGS_LEN>() else { return };
    if ClientFlags::decode(*flags).is_none() {
        return;
    }
    let requests = read_options(rest);
    read_requests(requests);
}

/// Reads options as long as there are some, and answers what is behind them.
fn read_options(mut bytes: &[u8]) -> &[u8] {
    while let Some((header, rest)) = bytes.split_first_chunk::<OPTION_HEADER_LEN>() {
        let Some(header) = OptionHeader::decode(header) else { return bytes };
        let len = usize::try_from(header.len).unwrap();
        if len > usize::try_from(OPTION_DATA_LEN_MAX).unwrap() {
            return &[];
        }
        let Some((data, rest)) = rest.split_at_checked(len) else { return &[] };
        match header.kind() {
            Some(OptionKind::ExportName) => check_name(AskedName::decode(data).ok()),
            Some(OptionKind::Info | OptionKind::Go) => {
                check_name(ExportAsked::decode(data).ok().map(|asked| asked.name));
            }
            Some(OptionKind::ListMetaContext | OptionKind::SetMetaContext) => {
                if let Ok(asked) = ContextsAsked::decode(data) {
                    check_name(Some(asked.name));
                    assert!(asked.queries.len() <= usize::try_from(QUERY_COUNT_MAX).unwrap());
                    let selects = asked.selects_base_allocation();
                    assert!(!selects || asked.lists_base_allocation());
                }
            }
            Some(OptionKind::Abort | OptionKind::List | OptionKind::StructuredReply) | None => {}
        }
        bytes = rest;
    }
    bytes
}

fn check_name(name: Option<AskedName<'_>>) {
    if let Some(AskedName::Text(text)) = name {
        assert!(text.len() <= 4096 && !text.contains('\0'), "{text:?}");
    }
}

fn read_requests(mut bytes: &[u8]) {
    let size = ResourceSize::new(LEN).unwrap();
    while let Some((header, rest)) = bytes.split_first_chunk::<REQUEST_LEN>() {
        let Some(request) = RequestHeader::decode(header) else { return };
        assert_eq!(request.encode(), *header, "a header has one encoding");
        if request.payload_len() > PAYLOAD_LEN_MAX {
            return; // closed before anything else of it is looked at
        }
        for (structured, base_allocation) in [(false, false), (true, false), (true, true)] {
            let terms = Terms { size, structured, base_allocation };
            if let Ok(Some(command)) = request.check(&terms) {
                check_command(command, &terms);
            }
        }
        let payload_len = usize::try_from(request.payload_len()).unwrap();
        let Some((_, rest)) = rest.split_at_checked(payload_len) else { return };
        bytes = rest;
    }
}

fn check_command(command: Command, terms: &Terms) {
    let (range, len_max) = match command {
        Command::Read { range } | Command::Write { range, .. } => {
            (range, u64::from(PAYLOAD_LEN_MAX))
        }
        Command::Zero { range, .. } | Command::Cache { range } => (range, u64::from(u32::MAX)),
        Command::BlockStatus { range, .. } => {
            assert!(terms.base_allocation, "only who selected it is answered");
            (range, u64::from(u32::MAX))
        }
        Command::Flush | Command::Disconnect => return,
    };
    assert!(range.end() <= LEN && (1..=len_max).contains(&range.len()), "{command:?}");
}

pub(crate) fn made() -> Vec<Vec<u8>> {
    let option = |number: u32, data: &[u8]| {
        let len = u32::try_from(data.len()).unwrap().to_be_bytes();
        [OPTION_MAGIC, &number.to_be_bytes()[..], &len[..], data].concat()
    };
    let text = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat();
    let go = [&text(b"vm1")[..], &2_u16.to_be_bytes()[..], &[0, 1, 0, 3]].concat();
    let contexts =
        [&text(b"vm1")[..], &1_u32.to_be_bytes()[..], &text(b"base:allocation")[..]].concat();
    let options = [
        option(8, &[]),
        option(3, &[]),
        option(9, &contexts),
        option(10, &contexts),
        option(6, &go),
        option(7, &go),
        option(1, b"vm1"),
    ];
    let request = |command: u16, flags: u16, offset: u64, len: u32| {
        RequestHeader { flags, command, cookie: 0x1234, offset, len }.encode().to_vec()
    };
    let payload = vec![0xa5; 512];
    let requests = [
        request(0, 0, 4096, 65_536),
        [request(1, 1, 512, 512), payload].concat(),
        request(3, 0, 0, 0),
        request(4, 0, 0, u32::MAX),
        request(5, 0, LEN - 512, 512),
        request(6, 1 | 1 << 1 | 1 << 4, 8192, 1 << 30),
        request(7, 1 << 3, 0, 1 << 20),
        request(2, 0, 0, 0),
    ];
    let flags = 3_u32.to_be_bytes().to_vec();
    let mut all: Vec<_> =
        options.iter().map(|option| [&flags[..], option, &requests.concat()].concat()).collect();
    all.extend(requests.iter().map(|request| [&flags[..], request].concat()));
    all.push([&flags[..], &options.concat(), &requests.concat()].concat());
    all
}
