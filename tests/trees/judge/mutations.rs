//! Each difference that two trees can have, and what looks like one and is none.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags, lremovexattr,
    lsetxattr, makedev, mknodat, rename, utimensat,
};

use super::super::tool;

/// Which judges find a difference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum By {
    Both,
    /// rsync need not; that of this machine may.
    Walk,
}

/// One difference alone: what is done to a copy, what the walk must say of it, at which path.
#[derive(Clone, Copy)]
pub(super) struct Mutation {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) word: &'static str,
    pub(super) by: By,
    pub(super) needs_root: bool,
    pub(super) make: fn(&Path),
}

const fn mutation(
    name: &'static str,
    (path, word): (&'static str, &'static str),
    by: By,
    make: fn(&Path),
) -> Mutation {
    Mutation { name, path, word, by, needs_root: false, make }
}

const fn as_root(mutation: Mutation) -> Mutation {
    Mutation { needs_root: true, ..mutation }
}

/// Names, kinds, contents.
pub(super) const ENTRIES: &[Mutation] = &[
    mutation("file gone", ("d/file", "only in the first"), By::Both, |root| {
        fs::remove_file(root.join("d/file")).unwrap();
    }),
    mutation("file more", ("d/more", "only in the second"), By::Both, |root| {
        fs::write(root.join("d/more"), "").unwrap();
    }),
    mutation("empty folder gone", ("empty", "only in the first"), By::Both, |root| {
        fs::remove_dir(root.join("empty")).unwrap();
    }),
    mutation("empty folder more", ("empty/more", "only in the second"), By::Both, |root| {
        fs::create_dir(root.join("empty/more")).unwrap();
    }),
    mutation("reserved name below the top", ("d/.hotpair", "only in the second"), By::Both, |it| {
        fs::write(it.join("d/.hotpair"), "").unwrap();
    }),
    mutation("byte of content", ("d/file", "kind file of 9 bytes"), By::Both, |root| {
        let file = fs::OpenOptions::new().write(true).open(root.join("d/file")).unwrap();
        file.write_all_at(b"X", 4).unwrap();
    }),
    mutation("zero at the end", ("d/file", "kind file of 9 bytes"), By::Both, |root| {
        let file = fs::OpenOptions::new().write(true).open(root.join("d/file")).unwrap();
        file.set_len(10).unwrap();
    }),
    mutation("target of a link", ("link", "kind link to d/file"), By::Both, |root| {
        let date = date_of(&root.join("link"));
        fs::remove_file(root.join("link")).unwrap();
        std::os::unix::fs::symlink("d/filE", root.join("link")).unwrap();
        set_date(&root.join("link"), date);
    }),
    mutation("socket for fifo", ("fifo", "kind fifo, socket"), By::Both, |root| {
        node_instead(&root.join("fifo"), FileType::Socket, 0);
    }),
    mutation("file for link", ("link", "kind link to d/file"), By::Both, |root| {
        let date = date_of(&root.join("link"));
        fs::remove_file(root.join("link")).unwrap();
        fs::write(root.join("link"), "d/file").unwrap();
        fs::set_permissions(root.join("link"), PermissionsExt::from_mode(0o777)).unwrap();
        set_date(&root.join("link"), date);
    }),
    as_root(mutation("minor of a device", ("device", "kind character device"), By::Both, |root| {
        node_instead(&root.join("device"), FileType::CharacterDevice, makedev(1, 5));
    })),
    as_root(mutation("kind of a device", ("device", "kind character device"), By::Walk, |root| {
        node_instead(&root.join("device"), FileType::BlockDevice, makedev(1, 3));
    })),
];

/// Modes, owners, dates.
pub(super) const METADATA: &[Mutation] = &[
    mutation("mode of a file", ("d/file", "mode 0644, 0600"), By::Both, |it| {
        chmod(it, "d/file", 0o600);
    }),
    mutation("setuid", ("d/file", "mode 0644, 4644"), By::Both, |it| chmod(it, "d/file", 0o4644)),
    mutation("setgid", ("d", "mode 0755, 2755"), By::Both, |it| chmod(it, "d", 0o2755)),
    mutation("sticky", ("empty", "mode 0755, 1755"), By::Both, |it| chmod(it, "empty", 0o1755)),
    mutation("mode of a fifo", ("fifo", "mode 0640, 0600"), By::Both, |it| {
        chmod(it, "fifo", 0o600);
    }),
    mutation("mode of the root", (".", "mode 0755, 0750"), By::Both, |it| chmod(it, "", 0o750)),
    as_root(mutation("user", ("d/file", "uid 0, 5"), By::Both, |it| chown(it, "d/file", 5, 0))),
    as_root(mutation("group", ("empty", "gid 0, 5"), By::Both, |it| chown(it, "empty", 0, 5))),
    as_root(mutation("user of a link", ("link", "uid 0, 5"), By::Both, |it| {
        chown(it, "link", 5, 0);
    })),
    mutation("second of a file", ("d/file", "mtime"), By::Both, |it| later(it, "d/file", 1, 0)),
    mutation("second of a folder", ("d", "mtime"), By::Both, |it| later(it, "d", 1, 0)),
    mutation("second of a link", ("link", "mtime"), By::Both, |it| later(it, "link", 1, 0)),
    mutation("second of a fifo", ("fifo", "mtime"), By::Both, |it| later(it, "fifo", 1, 0)),
    mutation("second of the root", (".", "mtime"), By::Both, |it| later(it, "", 1, 0)),
    mutation("nanosecond of a file", ("d/file", "mtime"), By::Both, |it| later(it, "d/file", 0, 1)),
    mutation("nanosecond of a folder", ("d", "mtime"), By::Both, |it| later(it, "d", 0, 1)),
    mutation("nanosecond of a link", ("link", "mtime"), By::Both, |it| later(it, "link", 0, 1)),
];

/// Attributes, and which names lead to one object.
pub(super) const ATTRIBUTES: &[Mutation] = &[
    mutation("value", ("d/file", "xattr user.a \"1\", \"2\""), By::Both, |it| {
        xattr(it, "d/file", "user.a", b"2");
    }),
    mutation(
        "value longer by a zero",
        ("d/file", "xattr user.a \"1\", \"1\\x00\""),
        By::Both,
        |it| {
            xattr(it, "d/file", "user.a", b"1\0");
        },
    ),
    mutation("attribute gone", ("d/file", "xattr user.a \"1\", absent"), By::Both, |root| {
        lremovexattr(root.join("d/file"), "user.a").unwrap();
    }),
    mutation("empty attribute more", ("d", "xattr user.b absent, \"\""), By::Both, |it| {
        xattr(it, "d", "user.b", b"");
    }),
    mutation("attribute of the root", (".", "xattr user.b absent"), By::Both, |it| {
        xattr(it, "", "user.b", b"1");
    }),
    mutation("the marker elsewhere", ("d", "xattr user.hotpair.resource absent"), By::Walk, |it| {
        xattr(it, "d", "user.hotpair.resource", b"1");
    }),
    as_root(mutation("trusted attribute", ("d/file", "xattr trusted.t"), By::Both, |it| {
        xattr(it, "d/file", "trusted.t", b"1");
    })),
    as_root(mutation("attribute of a link", ("link", "xattr trusted.t"), By::Both, |it| {
        xattr(it, "link", "trusted.t", b"1");
    })),
    as_root(mutation("attribute of a fifo", ("fifo", "xattr trusted.t"), By::Both, |it| {
        xattr(it, "fifo", "trusted.t", b"1");
    })),
    as_root(mutation("capability", ("d/file", "xattr security.capability"), By::Both, |root| {
        run("setcap", &["cap_net_raw=ep"], &root.join("d/file"));
    })),
    mutation("ACL", ("acl", "xattr system.posix_acl_access"), By::Both, |root| {
        run("setfacl", &["-m", "u:12345:r--,m::rw-"], &root.join("acl"));
    }),
    mutation("default ACL", ("empty", "xattr system.posix_acl_default absent"), By::Both, |root| {
        run("setfacl", &["-d", "-m", "u:12345:r--"], &root.join("empty"));
    }),
    mutation("link broken", ("links/b", "link of links/a, links/b"), By::Both, |root| {
        own_copy(&root.join("links/b"));
    }),
    mutation(
        "link made",
        ("links/twin-2", "link of links/twin-2, links/twin-1"),
        By::Walk,
        |root| {
            let (one, two) = (root.join("links/twin-1"), root.join("links/twin-2"));
            fs::remove_file(&two).unwrap();
            fs::hard_link(one, two).unwrap();
        },
    ),
    mutation(
        "link of a link broken",
        ("links/symlink-2", "link of links/symlink-1"),
        By::Both,
        |root| {
            let path = root.join("links/symlink-2");
            let date = date_of(&path);
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("target", &path).unwrap();
            set_date(&path, date);
        },
    ),
];

/// What is no difference.
pub(super) const SAME: &[Mutation] = &[
    mutation("reserved name at the top", ("", ""), By::Both, |root| {
        fs::create_dir(root.join(".hotpair")).unwrap();
        fs::write(root.join(".hotpair/stage"), "").unwrap();
    }),
    mutation("marker of the root", ("", ""), By::Both, |it| {
        xattr(it, "", "user.hotpair.resource", b"1");
    }),
    mutation("atime and ctime", ("", ""), By::Both, |root| {
        let date = Timespec { tv_sec: 5, tv_nsec: 0 };
        let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: date, last_modification: omitted };
        utimensat(CWD, root.join("d/file"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }),
    mutation("a folder that was larger", ("", ""), By::Both, |root| {
        let paths: Vec<PathBuf> =
            (0..500).map(|it| root.join(format!("d/a-long-name-{it}"))).collect();
        for path in &paths {
            fs::write(path, "").unwrap();
        }
        for path in paths {
            fs::remove_file(path).unwrap();
        }
    }),
    as_root(mutation("attributes of an inode", ("", ""), By::Both, |root| {
        xattr(root, "d/file", "trusted.overlay.origin", b"1");
        xattr(root, "d/file", "security.ima", b"\x04\x01");
    })),
];

pub(super) fn chmod(root: &Path, path: &str, mode: u32) {
    fs::set_permissions(root.join(path), PermissionsExt::from_mode(mode)).unwrap();
}

fn chown(root: &Path, path: &str, uid: u32, gid: u32) {
    lchown(root.join(path), Some(uid), Some(gid)).unwrap();
}

pub(super) fn xattr(root: &Path, path: &str, name: &str, value: &[u8]) {
    lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
}

pub(super) fn run(program: &str, arguments: &[&str], path: &Path) {
    tool::output_of(tool::command(program).args(arguments).arg(path)).unwrap();
}

pub(super) fn later(root: &Path, path: &str, seconds: i64, nanoseconds: i64) {
    let date = date_of(&root.join(path));
    let date = Timespec { tv_sec: date.tv_sec + seconds, tv_nsec: date.tv_nsec + nanoseconds };
    set_date(&root.join(path), date);
}

pub(super) fn date_of(path: &Path) -> Timespec {
    let stat = rustix::fs::lstat(path).unwrap();
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() }
}

pub(super) fn set_date(path: &Path, date: Timespec) {
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omitted, last_modification: date };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Another node in the place of one, with its mode and date.
fn node_instead(path: &Path, kind: FileType, number: u64) {
    let (mode, date) = (rustix::fs::lstat(path).unwrap().st_mode & 0o777, date_of(path));
    fs::remove_file(path).unwrap();
    mknodat(CWD, path, kind, Mode::from(mode), number).unwrap();
    rustix::fs::chmod(path, Mode::from(mode)).unwrap();
    set_date(path, date);
}

/// An object of its own for one name of a file, equal in everything.
fn own_copy(path: &Path) {
    let aside = path.with_extension("aside");
    tool::output_of(tool::command("cp").arg("-a").arg(path).arg(&aside)).unwrap();
    rename(&aside, path).unwrap();
}
