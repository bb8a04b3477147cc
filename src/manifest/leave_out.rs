//! What of an object is kept, and what the configuration leaves out on both nodes.
//!
//! What is left out is left out of the manifest, so that equal roots still prove all that is kept. It is
//! how a tree is kept without root, or beside a peer that must not plant setuid files and devices.

use super::entry::Xattrs;

/// The marker that tells a root from one that took its place; on the root alone, never in a manifest.
pub const MARKER: &[u8] = b"user.hotpair.resource";
/// POSIX ACLs, raw.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// File capabilities.
const CAPABILITY: &[u8] = b"security.capability";
/// Names with these beginnings are kept. Source: directory.md 2.
const KEPT: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// These belong to an inode or a node. Source: directory.md 2.
const NODE_OWN: [&[u8]; 2] = [b"security.ima", b"security.evm"];
/// The same, for names with this beginning.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// Bits of a mode that give the owner's rights to whoever runs the file.
const SETID: u16 = 0o6000;

/// What is left out on both nodes: nothing, unless the configuration says so.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the configuration")]
pub struct LeaveOut {
    /// Owner and group.
    pub owner: bool,
    /// Extended attributes, but for ACLs and capabilities.
    pub xattr: bool,
    /// POSIX ACLs.
    pub acl: bool,
    /// Device nodes, as entries.
    pub devices: bool,
    /// The setuid and setgid bits.
    pub setid: bool,
    /// File capabilities.
    pub capabilities: bool,
}

impl LeaveOut {
    /// Each word that the configuration may use, in the order of the root's hash.
    pub const WORDS: [&'static str; 6] =
        ["owner", "xattr", "acl", "devices", "setid", "capabilities"];

    /// Leaves out what `word` names; `None` if it is none of [`LeaveOut::WORDS`].
    #[must_use]
    pub fn with(mut self, word: &str) -> Option<Self> {
        let place = match word {
            "owner" => &mut self.owner,
            "xattr" => &mut self.xattr,
            "acl" => &mut self.acl,
            "devices" => &mut self.devices,
            "setid" => &mut self.setid,
            "capabilities" => &mut self.capabilities,
            _ => return None,
        };
        *place = true;
        Some(self)
    }

    /// The words that name what is left out.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let flags = [self.owner, self.xattr, self.acl, self.devices, self.setid, self.capabilities];
        Self::WORDS.into_iter().zip(flags).filter(|(_, is_out)| *is_out).map(|(word, _)| word)
    }

    /// Whether an extended attribute of this name is kept.
    pub fn keeps_xattr(self, name: &[u8]) -> bool {
        if ACLS.contains(&name) {
            return !self.acl;
        }
        if name == CAPABILITY {
            return !self.capabilities;
        }
        let is_kept = KEPT.iter().any(|prefix| name.starts_with(prefix));
        let is_of_node = NODE_OWN.contains(&name) || name.starts_with(OVERLAY) || name == MARKER;
        is_kept && !is_of_node && !self.xattr
    }

    /// The bits of a mode that are kept.
    pub fn mode(self, mode: u16) -> u16 {
        let kept = mode & super::entry::MODE_MASK;
        if self.setid { kept & !SETID } else { kept }
    }

    /// Owner and group as they are kept.
    pub fn owner(self, uid: u32, gid: u32) -> (u32, u32) {
        if self.owner { (0, 0) } else { (uid, gid) }
    }

    /// Whether a record holds nothing that is left out: a peer that sends it all the same has other
    /// rules.
    pub fn allows(self, mode: u16, uid: u32, gid: u32, xattrs: &Xattrs) -> bool {
        self.mode(mode) == mode
            && self.owner(uid, gid) == (uid, gid)
            && xattrs.iter().all(|(name, _)| self.keeps_xattr(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_leaves_out_what_it_names_and_nothing_else() {
        for word in LeaveOut::WORDS {
            let left_out = LeaveOut::default().with(word).unwrap();
            assert!(left_out.words().eq([word]));
        }
        assert_eq!(LeaveOut::default().with("mtime"), None);
        assert_eq!(LeaveOut::default().words().count(), 0);
    }

    #[test]
    fn attributes_of_users_and_administrators_are_kept_and_those_of_a_node_are_not() {
        let all = LeaveOut::default();
        for kept in [
            "user.a",
            "trusted.x",
            "security.selinux",
            "security.capability",
            "system.posix_acl_access",
        ] {
            assert!(all.keeps_xattr(kept.as_bytes()), "{kept}");
        }
        for own in [
            "security.ima",
            "security.evm",
            "trusted.overlay.opaque",
            "user.hotpair.resource",
            "system.nfs4_acl",
            "btrfs.compression",
        ] {
            assert!(!all.keeps_xattr(own.as_bytes()), "{own}");
        }
        let none = LeaveOut { xattr: true, ..all };
        assert!(!none.keeps_xattr(b"user.a") && none.keeps_xattr(b"system.posix_acl_default"));
        let no_acl = LeaveOut { acl: true, capabilities: true, ..all };
        assert!(no_acl.keeps_xattr(b"user.a") && !no_acl.keeps_xattr(b"system.posix_acl_default"));
        assert!(!no_acl.keeps_xattr(b"security.capability"));
    }

    #[test]
    fn a_record_with_what_is_left_out_is_not_allowed() {
        let strict = LeaveOut { setid: true, owner: true, ..LeaveOut::default() };
        assert_eq!((strict.mode(0o4755), strict.owner(7, 8)), (0o755, (0, 0)));
        assert!(strict.allows(0o755, 0, 0, &Vec::new()));
        assert!(!strict.allows(0o4755, 0, 0, &Vec::new()));
        assert!(!strict.allows(0o755, 7, 0, &Vec::new()));
        let xattrs = vec![(b"security.ima".as_slice().into(), b"".as_slice().into())];
        assert!(!LeaveOut::default().allows(0o755, 7, 8, &xattrs));
    }
}
