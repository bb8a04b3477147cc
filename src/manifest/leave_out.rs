//! What of an object is kept where the configuration leaves something out on both nodes.
//!
//! What is left out is in the manifest of neither node, so that equal roots still prove all that is
//! kept. It is how a tree is kept without root, or beside a peer that must not plant setuid files and
//! devices.

use std::collections::BTreeSet;

use super::entry::{MODE_MASK, Metadata};
use super::kept::{LeaveOut, XATTRS_ACL, keeps_xattr};

/// File capabilities.
const CAPABILITY: &[u8] = b"security.capability";
/// Bits of a mode that give the owner's rights to whoever runs the file.
const SETID: u16 = 0o6000;

/// All that is left out: nothing, unless the configuration says so.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct LeftOut(pub BTreeSet<LeaveOut>);

impl LeftOut {
    /// Whether an extended attribute of this name is kept.
    pub fn keeps_xattr(&self, name: &[u8]) -> bool {
        let class = if XATTRS_ACL.contains(&name) {
            LeaveOut::Acl
        } else if name == CAPABILITY {
            LeaveOut::Capabilities
        } else {
            LeaveOut::Xattr
        };
        keeps_xattr(name) && !self.0.contains(&class)
    }

    /// The bits of a mode that are kept.
    pub fn mode(&self, mode: u16) -> u16 {
        let kept = mode & MODE_MASK;
        if self.0.contains(&LeaveOut::Setid) { kept & !SETID } else { kept }
    }

    /// Owner and group as they are kept.
    pub fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        if self.0.contains(&LeaveOut::Owner) { (0, 0) } else { (uid, gid) }
    }

    /// Whether metadata holds nothing that is left out: a peer that sends it all the same has other
    /// rules.
    pub fn allows(&self, metadata: &Metadata) -> bool {
        let Metadata { mode, uid, gid, mtime: _, xattrs } = metadata;
        self.mode(*mode) == *mode
            && self.owner(*uid, *gid) == (*uid, *gid)
            && xattrs.iter().all(|(name, _)| self.keeps_xattr(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without<const N: usize>(words: [LeaveOut; N]) -> LeftOut {
        LeftOut(BTreeSet::from(words))
    }

    #[test]
    fn each_class_of_attributes_is_left_out_by_its_own_word() {
        let of_class = [
            (LeaveOut::Xattr, &b"user.a"[..]),
            (LeaveOut::Xattr, b"security.selinux"),
            (LeaveOut::Acl, b"system.posix_acl_default"),
            (LeaveOut::Capabilities, b"security.capability"),
        ];
        for (class, name) in of_class {
            for word in LeaveOut::ALL {
                assert_eq!(without([word]).keeps_xattr(name), word != class, "{}", word.name());
            }
        }
        assert!(!without([]).keeps_xattr(b"security.ima"));
    }

    #[test]
    fn metadata_with_what_is_left_out_is_not_allowed() {
        let strict = without([LeaveOut::Setid, LeaveOut::Owner]);
        assert_eq!((strict.mode(0o104_755), strict.owner(7, 8)), (0o755, (0, 0)));
        assert_eq!((without([]).mode(0o104_755), without([]).owner(7, 8)), (0o4755, (7, 8)));
        let plain = Metadata { mode: 0o755, ..Metadata::default() };
        assert!(strict.allows(&plain));
        assert!(!strict.allows(&Metadata { mode: 0o4755, ..plain.clone() }));
        assert!(!strict.allows(&Metadata { uid: 7, ..plain.clone() }));
        let xattrs = vec![(b"security.capability".as_slice().into(), b"".as_slice().into())];
        let with_capability = Metadata { xattrs, ..plain };
        assert!(strict.allows(&with_capability));
        assert!(!without([LeaveOut::Capabilities]).allows(&with_capability));
    }
}
