//! Names that a shell, a log, a terminal or a path made of text gets wrong, and deep folders.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Maker;

const NAME_LEN_MAX: usize = 255;

const STRANGE: [&[u8]; 54] = [
    b" ",
    b"  leading",
    b"trailing ",
    b"-",
    b"--",
    b"-rf",
    b"--delete",
    b"...",
    b"..x",
    b"x..",
    b".hidden",
    b"\\",
    b"back\\slash",
    b"\\#012",
    b"\"double\"",
    b"'single'",
    b"`id`",
    b"$(id)",
    b"$HOME",
    b"*",
    b"?",
    b"[a]",
    b"{a,b}",
    b"~",
    b"#",
    b"%s%n",
    b"a:b",
    b"a;b",
    b"a|b",
    b"a&b",
    b"<a>",
    b"\n",
    b"new\nline",
    b"\r",
    b"tab\t",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x7f",
    b"\xff",
    b"\xff\xfe",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    // One accent in two ways, and a sign that turns the rest around.
    b"e\xcc\x81",
    b"\xc3\xa9",
    b"\xe2\x80\xaefdp.exe",
    b"Case",
    b"case",
    b"CASE",
    b"COM1",
    b"trailing.",
    b"lost+found",
    b"lost+hotpair",
    b".hotpair",
    b".hotpair-tree",
];

/// Makes `names` and `deep`.
pub(super) fn make(maker: &mut Maker<'_>) {
    let files = maker.folder("names/files");
    let folders = maker.folder("names/folders");
    for name in STRANGE {
        file_called(maker, files.join(OsStr::from_bytes(name)), name);
        let folder = folders.join(OsStr::from_bytes(name));
        let what = format!("folder \"{}\"", name.escape_ascii());
        let done = rustix::fs::mkdir(&folder, 0o755.into());
        if maker.attempt(&what, done).is_some() {
            file_called(maker, folder.join("inside"), name);
        }
    }
    every_byte(maker);
    long_names(maker);
    deep_folders(maker);
}

/// A file that contains its name, so that its content tells if it got that of another.
fn file_called(maker: &mut Maker<'_>, path: PathBuf, name: &[u8]) {
    let what = format!("name \"{}\"", name.escape_ascii());
    let done = fs::write(path, name).map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO));
    maker.attempt(&what, done);
}

/// Each byte that a name may have, alone and in the middle, and all of them at once.
fn every_byte(maker: &mut Maker<'_>) {
    let folder = maker.folder("names/bytes");
    let bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for byte in &bytes {
        let names: [&[u8]; 2] = [&[*byte], &[b'a', *byte, b'z']];
        for name in names.into_iter().filter(|name| *name != b".") {
            file_called(maker, folder.join(OsStr::from_bytes(name)), name);
        }
    }
    file_called(maker, folder.join(OsStr::from_bytes(&bytes)), &bytes);
}

/// Names of 255 bytes, in all of which some later part differs.
fn long_names(maker: &mut Maker<'_>) {
    let folder = maker.folder("names/long");
    let names: [Vec<u8>; 5] = [
        vec![b'n'; NAME_LEN_MAX],
        [vec![b'n'; NAME_LEN_MAX - 1], vec![b'm']].concat(),
        vec![b'n'; NAME_LEN_MAX - 1],
        // The euro sign has three bytes, so one does not fit beside 255 / 3.
        b"\xe2\x82\xac".repeat(NAME_LEN_MAX / 3),
        vec![0xff; NAME_LEN_MAX],
    ];
    for name in names {
        file_called(maker, folder.join(OsStr::from_bytes(&name)), &name);
    }
}

/// A hundred folders of short names, and paths that are nearly as long as they may be.
fn deep_folders(maker: &mut Maker<'_>) {
    let mut folder = maker.folder("deep");
    for level in 0..100_u32 {
        folder.push("d");
        fs::create_dir(&folder).unwrap();
        if level % 10 == 9 {
            fs::write(folder.join("file"), level.to_string()).unwrap();
        }
    }
    let mut folder = maker.folder("deep");
    for level in 0..14_usize {
        let name = format!("{level:w>NAME_LEN_MAX$}");
        folder.push(name);
        let done = rustix::fs::mkdir(&folder, 0o755.into());
        if maker.attempt("a path of 3600 bytes", done).is_none() {
            return;
        }
    }
    file_called(maker, folder.join("bottom"), b"bottom");
}
