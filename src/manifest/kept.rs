//! What of an object is kept, and what the operator leaves out on both nodes.

use super::entry::{MODE_MASK, Metadata, NANOS_PER_SECOND, XATTR_NAME_LEN_MAX, Xattrs};
use super::limits::FILE_LEN_MAX;
use super::{
    Body, Kind, ManifestError, Object, TARGET_LEN_MAX, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX,
};

/// What a resource may leave out: it is in the manifest of neither node then, so equal roots still
/// prove all that is kept. The numbers are those of the root hash.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum LeaveOut {
    /// Owner and group.
    Owner = 1,
    /// Extended attributes of users and of `trusted.` and `security.`, but for ACLs and
    /// capabilities.
    Xattr = 2,
    /// POSIX ACLs.
    Acl = 3,
    /// Character and block devices.
    Devices = 4,
    /// The setuid and setgid bits.
    Setid = 5,
    /// File capabilities.
    Capabilities = 6,
}

impl LeaveOut {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Xattr, Self::Acl, Self::Devices, Self::Setid, Self::Capabilities];

    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Xattr => "xattr",
            Self::Acl => "acl",
            Self::Devices => "devices",
            Self::Setid => "setid",
            Self::Capabilities => "capabilities",
        }
    }

    /// Its number in the root hash.
    pub fn number(self) -> u8 {
        match self {
            Self::Owner => 1,
            Self::Xattr => 2,
            Self::Acl => 3,
            Self::Devices => 4,
            Self::Setid => 5,
            Self::Capabilities => 6,
        }
    }
}

/// Attributes that belong to an inode, a node or hotpair itself, so that a copy of them is wrong
/// elsewhere. Source: directory.md 2 and 3.
const XATTRS_NEVER: [&[u8]; 3] = [b"security.ima", b"security.evm", MARKER];
/// Tells the root of a tree from one that took its place; on the root alone, and in no manifest. Source:
/// directory.md 3.
pub const MARKER: &[u8] = b"user.hotpair.resource";
/// POSIX ACLs as the kernel hands them out.
pub(super) const XATTRS_ACL: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Beginnings of names that are kept.
const XATTR_PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Whether an extended attribute of that name is kept, as far as nothing is left out.
pub fn keeps_xattr(name: &[u8]) -> bool {
    if name.len() > XATTR_NAME_LEN_MAX || name.contains(&0) {
        return false;
    }
    if XATTRS_NEVER.contains(&name) || name.starts_with(b"trusted.overlay.") {
        return false;
    }
    let is_under = |prefix: &&[u8]| name.len() > prefix.len() && name.starts_with(prefix);
    XATTRS_ACL.contains(&name) || XATTR_PREFIXES.iter().any(is_under)
}

/// Checks what an object says of itself: limits, and the one way of writing it.
///
/// # Errors
/// [`ManifestError`] names what is beyond a limit or not canonical.
pub fn check_object(object: &Object) -> Result<(), ManifestError> {
    check_metadata(&object.metadata, object.kind())?;
    match &object.body {
        Body::Regular { size, .. } => {
            if *size > FILE_LEN_MAX {
                return Err(ManifestError::FileTooLong { found: *size });
            }
        }
        Body::Symlink { target } => {
            let is_one = !target.is_empty() && target.len() <= TARGET_LEN_MAX;
            if !is_one || target.contains(&0) {
                return Err(ManifestError::Target { len: target.len() });
            }
        }
        Body::Directory
        | Body::Fifo
        | Body::Socket
        | Body::CharDevice { .. }
        | Body::BlockDevice { .. } => {}
    }
    Ok(())
}

fn check_metadata(metadata: &Metadata, kind: Kind) -> Result<(), ManifestError> {
    let allowed = if kind == Kind::Symlink { 0 } else { MODE_MASK };
    if metadata.mode & !allowed != 0 {
        return Err(ManifestError::Mode { found: metadata.mode });
    }
    if metadata.mtime.nanos >= NANOS_PER_SECOND {
        return Err(ManifestError::Nanos { found: metadata.mtime.nanos });
    }
    check_xattrs(&metadata.xattrs)
}

fn check_xattrs(xattrs: &Xattrs) -> Result<(), ManifestError> {
    let mut len = 0;
    let mut before: Option<&[u8]> = None;
    for (name, value) in xattrs {
        if !keeps_xattr(name) {
            return Err(ManifestError::XattrName { len: name.len() });
        }
        if value.len() > XATTR_VALUE_LEN_MAX {
            return Err(ManifestError::XattrValue { len: value.len() });
        }
        if before.is_some_and(|before| before >= &**name) {
            return Err(ManifestError::XattrOrder);
        }
        before = Some(name);
        len += name.len() + value.len();
        if len > XATTRS_LEN_MAX {
            return Err(ManifestError::Xattrs { len });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ContentHash, FileTime};

    fn object(body: Body) -> Object {
        let metadata = Metadata {
            mode: 0,
            uid: 1,
            gid: 2,
            mtime: FileTime { seconds: -1, nanos: 999_999_999 },
            xattrs: Vec::new(),
        };
        Object { metadata, body }
    }

    fn with_xattrs(xattrs: &[(&[u8], &[u8])]) -> Object {
        let mut object = object(Body::Fifo);
        object.metadata.xattrs =
            xattrs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        object
    }

    #[test]
    fn attributes_that_belong_to_an_inode_or_a_node_are_not_kept() {
        for kept in
            [&b"user.a"[..], b"trusted.x", b"security.capability", b"system.posix_acl_default"]
        {
            assert!(keeps_xattr(kept), "{}", kept.escape_ascii());
        }
        let never: [&[u8]; 9] = [
            b"",
            b"user.",
            b"system.nfs4_acl",
            b"security.ima",
            b"security.evm",
            b"trusted.overlay.opaque",
            b"user.hotpair.resource",
            b"user.a\0",
            b"os2.x",
        ];
        for name in never {
            assert!(!keeps_xattr(name), "{}", name.escape_ascii());
        }
        assert!(!keeps_xattr(&[b"user.".as_slice(), &[b'x'; 251]].concat()));
    }

    #[test]
    fn each_limit_of_an_object_is_held() {
        let mut mode = object(Body::Fifo);
        mode.metadata.mode = 0o10_000;
        let mut link = object(Body::Symlink { target: (*b"x").into() });
        link.metadata.mode = 0o777;
        let mut nanos = object(Body::Directory);
        nanos.metadata.mtime.nanos = NANOS_PER_SECOND;
        let long = vec![b'x'; TARGET_LEN_MAX + 1];
        let target = |bytes: &[u8]| object(Body::Symlink { target: bytes.into() });
        let size = FILE_LEN_MAX + 1;
        let file = object(Body::Regular { size, content: ContentHash::default() });
        let big = vec![0; XATTR_VALUE_LEN_MAX];
        let four: Vec<_> =
            [b"user.1", b"user.2", b"user.3", b"user.4"].map(|n| (&n[..], &*big)).into();
        let too_big = vec![0; XATTR_VALUE_LEN_MAX + 1];
        let cases = [
            (mode, ManifestError::Mode { found: 0o10_000 }),
            (link, ManifestError::Mode { found: 0o777 }),
            (nanos, ManifestError::Nanos { found: NANOS_PER_SECOND }),
            (target(b""), ManifestError::Target { len: 0 }),
            (target(b"a\0"), ManifestError::Target { len: 2 }),
            (target(&long), ManifestError::Target { len: TARGET_LEN_MAX + 1 }),
            (file, ManifestError::FileTooLong { found: size }),
            (with_xattrs(&[(b"system.x", b"")]), ManifestError::XattrName { len: 8 }),
            (with_xattrs(&[(b"user.b", b""), (b"user.a", b"")]), ManifestError::XattrOrder),
            (with_xattrs(&[(b"user.a", b""), (b"user.a", b"")]), ManifestError::XattrOrder),
            (
                with_xattrs(&[(b"user.a", &too_big)]),
                ManifestError::XattrValue { len: XATTR_VALUE_LEN_MAX + 1 },
            ),
            (with_xattrs(&four), ManifestError::Xattrs { len: XATTRS_LEN_MAX + 24 }),
        ];
        for (object, error) in cases {
            assert_eq!(check_object(&object), Err(error));
        }
        for good in [object(Body::Socket), target(&long[1..]), with_xattrs(&four[1..])] {
            assert_eq!(check_object(&good), Ok(()));
        }
    }

    #[test]
    fn what_can_be_left_out_has_a_number_and_a_name_of_its_own() {
        for (at, one) in LeaveOut::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(one.number()), at + 1);
            assert!(LeaveOut::ALL.iter().all(|other| *other == one || other.name() != one.name()));
        }
    }
}
