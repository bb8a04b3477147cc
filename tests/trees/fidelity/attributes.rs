//! Modes, owners, dates, extended attributes, ACLs and capabilities.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, XattrFlags, chownat, lsetxattr, mknodat};

use super::super::tool;
use super::Maker;

/// Seconds and nanoseconds: before 1970, around signs and widths of numbers, far in the future.
const DATES: [(i64, i64); 16] = [
    (0, 0),
    (0, 1),
    (0, 999_999_999),
    (1, 0),
    (-1, 0),
    (-1, 999_999_999),
    (-1, 1),
    (-86_400, 500_000_000),
    (-2_147_483_648, 0),
    (2_147_483_647, 999_999_999),
    (2_147_483_648, 0),
    (4_102_444_800, 123_456_789),
    (4_294_967_295, 999_999_999),
    (4_294_967_296, 1),
    (15_032_385_535, 0),
    (253_402_300_799, 0),
];
const FILE_MODES: [u32; 13] = [
    0o0644, 0o0600, 0o0755, 0o0444, 0o0777, 0o4755, 0o2755, 0o1644, 0o6711, 0o7777, 0o0111, 0o4000,
    0o0000,
];
const FOLDER_MODES: [u32; 7] = [0o0755, 0o0700, 0o1777, 0o2775, 0o3777, 0o7755, 0o0000];
/// Nobody, and the last that is one.
const OWNERS: [(u32, u32); 4] =
    [(12_345, 54_321), (65_534, 0), (0, 65_534), (4_294_967_294, 4_294_967_294)];
/// Lengths of values; ext4 takes what fits into a block with all others, others more.
const VALUE_LENS: [usize; 6] = [1, 1000, 3900, 20_000, 65_535, 65_536];

/// Makes `modes`, `owners`, `dates`, `xattrs` and `acls`.
pub(super) fn make(maker: &mut Maker<'_>) {
    modes(maker);
    owners(maker);
    dates(maker);
    xattrs(maker);
    acls_and_capabilities(maker);
}

fn modes(maker: &mut Maker<'_>) {
    let folder = maker.folder("modes");
    for mode in FILE_MODES {
        let path = folder.join(format!("file-{mode:04o}"));
        fs::write(&path, "mode").unwrap();
        chmod(maker, &path, mode, 0o400);
    }
    for mode in FOLDER_MODES {
        let path = folder.join(format!("folder-{mode:04o}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "mode").unwrap();
        chmod(maker, &path, mode, 0o500);
    }
}

/// Sets a mode, unless nobody but root could read the tree after it.
fn chmod(maker: &mut Maker<'_>, path: &Path, mode: u32, needed: u32) {
    let what = format!("mode {mode:04o}");
    if !maker.is_root && mode & needed != needed {
        return maker.skip(&what, "not root");
    }
    let done = rustix::fs::chmod(path, Mode::from(mode));
    maker.attempt(&what, done);
    let found = rustix::fs::lstat(path).unwrap().st_mode & 0o7777;
    if found != mode {
        maker.skip(&what, &format!("became {found:04o}"));
    }
}

fn owners(maker: &mut Maker<'_>) {
    let folder = maker.folder("owners");
    for (uid, gid) in OWNERS {
        let name = |kind: &str| folder.join(format!("{kind}-{uid}-{gid}"));
        fs::write(name("file"), "owner").unwrap();
        fs::write(name("setuid"), "owner").unwrap();
        fs::create_dir(name("folder")).unwrap();
        rustix::fs::symlink("nowhere", name("symlink")).unwrap();
        mknodat(CWD, name("fifo"), FileType::Fifo, Mode::from(0o666), 0).unwrap();
        for kind in ["file", "setuid", "folder", "symlink", "fifo"] {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            let done = chownat(CWD, name(kind), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
            maker.attempt(&format!("owner {uid}:{gid} of a {kind}"), done);
        }
        // After chown, which takes these bits away.
        chmod(maker, &name("setuid"), 0o6755, 0o400);
    }
}

fn dates(maker: &mut Maker<'_>) {
    let folder = maker.folder("dates");
    for (seconds, nanoseconds) in DATES {
        let name = |kind: &str| folder.join(format!("{kind}{seconds:+}.{nanoseconds:09}"));
        fs::write(name("file"), "date").unwrap();
        fs::create_dir(name("folder")).unwrap();
        fs::write(name("folder").join("inside"), "date").unwrap();
        rustix::fs::symlink("nowhere", name("symlink")).unwrap();
        for kind in ["file", "folder", "symlink"] {
            maker.date(name(kind), seconds, nanoseconds);
        }
    }
}

fn xattrs(maker: &mut Maker<'_>) {
    let folder = maker.folder("xattrs");
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest_name = format!("user.{}", "n".repeat(250));
    let values: [(&[u8], &[u8]); 9] = [
        (b"user.plain", b"value"),
        (b"user.empty", b""),
        (b"user.zero", b"\0"),
        (b"user.bytes", &every_byte),
        (b"user.\xff\n", b"a name that is no text"),
        (b"user.UPPER", b"U"),
        (b"user.upper", b"u"),
        (longest_name.as_bytes(), b"n"),
        (b"trusted.plain", b"for root only"),
    ];
    for kind in ["file", "folder"] {
        let path = folder.join(kind);
        if kind == "file" {
            fs::write(&path, "xattrs").unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        for (name, value) in values.into_iter().chain([(&b"security.plain"[..], &b"s"[..])]) {
            set_xattr(maker, &path, name, value);
        }
    }
    // Kinds that cannot have attributes of a user.
    rustix::fs::symlink("nowhere", folder.join("symlink")).unwrap();
    mknodat(CWD, folder.join("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    mknodat(CWD, folder.join("socket"), FileType::Socket, Mode::from(0o600), 0).unwrap();
    for kind in ["symlink", "fifo", "socket"] {
        set_xattr(maker, &folder.join(kind), b"trusted.odd", kind.as_bytes());
        set_xattr(maker, &folder.join(kind), b"security.odd", kind.as_bytes());
    }
    for len in VALUE_LENS {
        let path = folder.join(format!("value-of-{len}"));
        fs::write(&path, "xattrs").unwrap();
        let value: Vec<u8> = every_byte.iter().copied().cycle().take(len).collect();
        set_xattr(maker, &path, b"user.large", &value);
    }
    let many = folder.join("many");
    fs::write(&many, "xattrs").unwrap();
    for number in 0..60 {
        set_xattr(maker, &many, format!("user.{number:02}").as_bytes(), b"one of many");
    }
}

fn set_xattr(maker: &mut Maker<'_>, path: &Path, name: &[u8], value: &[u8]) {
    let kind = path.file_name().unwrap_or_default().display();
    let what = format!("xattr {} of {} bytes of {kind}", name.escape_ascii(), value.len());
    let done = lsetxattr(path, name, value, XattrFlags::empty());
    maker.attempt(&what, done);
}

fn acls_and_capabilities(maker: &mut Maker<'_>) {
    let folder = maker.folder("acls");
    // The program, its arguments, and the entry that it changes.
    let changes: [(&str, &[&str], &str); 7] = [
        ("setfacl", &["-m", "u:12345:rw-,g:54321:r-x"], "file-access"),
        ("setfacl", &["-m", "u:12345:rwx,m::r--"], "file-mask"),
        ("setfacl", &["-m", "u:12345:---,u:4294967294:r--"], "file-two-users"),
        ("setfacl", &["-m", "g:54321:rwx"], "folder-access"),
        ("setfacl", &["-d", "-m", "u:12345:rwx,o::---"], "folder-default"),
        ("setfacl", &["-m", "u:1:rwx,d:u:2:r-x,d:g:3:---,d:m::rwx"], "folder-both"),
        ("setcap", &["cap_net_raw,cap_net_bind_service=ep"], "file-capable"),
    ];
    for (program, arguments, name) in changes {
        let path = folder.join(name);
        if name.starts_with("file") {
            fs::write(&path, "acl").unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        let mut command = tool::command(program);
        if let Err(why) = tool::output_of(command.args(arguments).arg(&path)) {
            maker.skip(&format!("{program} of {name}"), &why);
        }
    }
    // What a folder with a default ACL gives to what is made in it.
    let heir = folder.join("folder-default/heir");
    fs::create_dir(&heir).unwrap();
    fs::write(heir.join("file"), "acl").unwrap();
}
