//! Every kind of entry, and objects with several names.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, linkat, makedev, mknodat};
use rustix::io::Errno;

use super::Maker;

/// A device that is none on this machine; its node is an entry like any other.
const DEVICES: [(&str, FileType, u32, u32); 5] = [
    ("character", FileType::CharacterDevice, 1, 3),
    ("block", FileType::BlockDevice, 7, 200),
    ("large-numbers", FileType::CharacterDevice, 4095, 1_048_575),
    ("large-minor", FileType::BlockDevice, 259, 65_536),
    ("number-zero", FileType::CharacterDevice, 0, 0),
];

/// Makes `kinds` and `links`.
pub(super) fn make(maker: &mut Maker<'_>) {
    nodes(maker);
    symlinks(maker);
    links(maker);
}

fn nodes(maker: &mut Maker<'_>) {
    let folder = maker.folder("kinds");
    maker.folder("kinds/empty");
    maker.folder("kinds/nested/empty/inside");
    fs::write(folder.join("file"), "a file").unwrap();
    let mode = Mode::from(0o640);
    for (name, kind) in [("fifo", FileType::Fifo), ("socket", FileType::Socket)] {
        let done = mknodat(CWD, folder.join(name), kind, mode, 0);
        maker.attempt(name, done);
    }
    for (name, kind, major, minor) in DEVICES {
        // Anybody may make the number zero, as a whiteout, but few programs know that.
        if !maker.is_root {
            maker.skip(&format!("device {name}"), "not root");
            continue;
        }
        let done = mknodat(CWD, folder.join(name), kind, mode, makedev(major, minor));
        maker.attempt(&format!("device {name}"), done);
    }
}

fn symlinks(maker: &mut Maker<'_>) {
    let folder = maker.folder("kinds/symlinks");
    let folder_beside = folder.join("folder");
    fs::create_dir(&folder_beside).unwrap();
    fs::write(folder_beside.join("inside"), "seen through a link").unwrap();
    let longest = "x/".repeat(2047) + "y";
    let targets: [(&str, &[u8]); 15] = [
        ("to-folder", b"folder"),
        ("to-folder-with-slash", b"folder/"),
        ("to-file", b"folder/inside"),
        ("to-link", b"to-file"),
        ("dangling", b"nowhere"),
        ("absolute", b"/etc/hostname"),
        ("absolute-dangling", b"/nowhere/at/all"),
        ("outside", b"../../../../../../outside"),
        ("above", b".."),
        ("itself", b"itself"),
        ("round-one", b"round-two"),
        ("round-two", b"round-one"),
        ("not-utf-8", b"\xff\xfe/\x80"),
        ("newline", b"two\nlines\x1b[31m"),
        ("longest", longest.as_bytes()),
    ];
    for (name, target) in targets {
        let done = rustix::fs::symlink(target, folder.join(name));
        maker.attempt(&format!("symlink {name}"), done);
    }
}

/// Groups of names, some of which lead from folder to folder and up and down.
fn links(maker: &mut Maker<'_>) {
    let folder = maker.folder("links");
    maker.folder("links/a/deep");
    maker.folder("links/b");
    let groups: [&[&str]; 5] = [
        &["same-folder-1", "same-folder-2", "same-folder-3"],
        &["b/first-made", "a/across"],
        &["b/below", "a/deep/below"],
        &["a/up", "up"],
        &["a/everywhere", "a/deep/everywhere", "b/everywhere", "zz-everywhere"],
    ];
    for names in groups {
        // Equal content, so that only the link tells one group from another.
        fs::write(folder.join(names[0]), "one of many names").unwrap();
        link_all(maker, &folder, names);
    }
    for name in ["twin-1", "twin-2"] {
        fs::write(folder.join(name), "one of many names").unwrap();
    }
    rustix::fs::symlink("target", folder.join("symlink-1")).unwrap();
    link_all(maker, &folder, &["symlink-1", "a/symlink-2"]);
    let mode = Mode::from(0o600);
    for (name, kind, number) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("device", FileType::CharacterDevice, makedev(1, 5)),
    ] {
        let names = [format!("{name}-1"), format!("b/{name}-2")];
        let done = mknodat(CWD, folder.join(&names[0]), kind, mode, number);
        if maker.attempt(&format!("{name} with two names"), done).is_some() {
            link_all(maker, &folder, &[&names[0], &names[1]]);
        }
    }
    many_links(maker, &folder);
}

/// Gives the first of `names` the others as well.
fn link_all(maker: &mut Maker<'_>, folder: &Path, names: &[&str]) {
    for name in &names[1..] {
        let done = linkat(CWD, folder.join(names[0]), CWD, folder.join(name), AtFlags::empty());
        maker.attempt(&format!("link {name}"), done);
    }
}

/// One file with 300 names: more than fit into a byte.
fn many_links(maker: &mut Maker<'_>, folder: &Path) {
    let many = folder.join("many");
    fs::create_dir(&many).unwrap();
    let first = many.join("000");
    fs::write(&first, "three hundred names").unwrap();
    let done: Result<(), Errno> =
        (1..300).try_for_each(|number| rustix::fs::link(&first, many.join(format!("{number:03}"))));
    maker.attempt("300 links", done);
}
