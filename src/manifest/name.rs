//! Names of entries and paths within a tree: which bytes may be one.
//!
//! A name is any 1 to 255 bytes but NUL and `/`, byte for byte; it need not be UTF-8. Whatever came
//! from a peer or a disk becomes a [`Name`] or [`TreePath`] before anything else looks at it. Both are
//! shown escaped, so that a name cannot draw on a terminal or break a line of a log.

use std::fmt;

/// Longest name in bytes: `NAME_MAX` of Linux.
pub const NAME_LEN_MAX: usize = 255;
/// Longest path in bytes, slashes included. Source: directory.md 11.
pub const PATH_LEN_MAX: usize = 16 << 10;
/// Most names in a path. Source: directory.md 11.
pub const PATH_DEPTH_MAX: usize = 1024;
/// The name at the top of a tree that belongs to hotpair: the work area of a tree that is a mount
/// point. It is never in a manifest.
pub const RESERVED: &[u8] = b".hotpair";

/// Why these bytes are no name or path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Not even one byte, or nothing between two slashes.
    #[error("a name is empty")]
    Empty,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("a name has {len} bytes, at most {NAME_LEN_MAX} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// NUL or `/`.
    #[error("a name holds the byte {byte:#04x}")]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// `.` or `..`.
    #[error("a name is a dot or two dots, which is no entry of its own")]
    Dots,
    /// [`RESERVED`] at the top of the tree.
    #[error("the name .hotpair at the top of a tree is reserved")]
    Reserved,
    /// Longer than [`PATH_LEN_MAX`].
    #[error("a path has {len} bytes, at most {PATH_LEN_MAX} are allowed")]
    PathTooLong {
        /// Its length.
        len: usize,
    },
    /// More names than [`PATH_DEPTH_MAX`].
    #[error("a path has more than {PATH_DEPTH_MAX} names")]
    TooDeep,
}

/// The name of one entry in its directory.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Takes bytes as a name.
    ///
    /// # Errors
    /// [`NameError`] if a directory of Linux cannot have an entry of that name.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong { len: bytes.len() });
        }
        if let Some(byte) = bytes.iter().copied().find(|byte| matches!(byte, 0 | b'/')) {
            return Err(NameError::Byte { byte });
        }
        if matches!(bytes, b"." | b"..") {
            return Err(NameError::Dots);
        }
        Ok(Self(bytes.into()))
    }

    /// Byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is hotpair's own, should it stand at the top of a tree.
    pub fn is_reserved_at_top(&self) -> bool {
        *self.0 == *RESERVED
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// A path from the root of a tree: names with `/` between them, never empty, never upwards. That it
/// has the right form says nothing of links on the way: a driver opens it name by name.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// Takes bytes as a path.
    ///
    /// # Errors
    /// [`NameError`] if a part is no name, the path is too long or too deep, or begins with the
    /// reserved name.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > PATH_LEN_MAX {
            return Err(NameError::PathTooLong { len: bytes.len() });
        }
        for (index, part) in bytes.split(|byte| *byte == b'/').enumerate() {
            if index == PATH_DEPTH_MAX {
                return Err(NameError::TooDeep);
            }
            let name = Name::new(part)?;
            if index == 0 && name.is_reserved_at_top() {
                return Err(NameError::Reserved);
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The path of `names`, from the top down.
    ///
    /// # Errors
    /// As [`TreePath::new`].
    pub fn of<'a>(names: impl IntoIterator<Item = &'a Name>) -> Result<Self, NameError> {
        let mut bytes = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            if index > 0 {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.bytes());
            if bytes.len() > PATH_LEN_MAX {
                return Err(NameError::PathTooLong { len: bytes.len() });
            }
        }
        Self::new(&bytes)
    }

    /// Byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its names from the top down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_bytes_that_a_directory_can_hold() {
        for good in [&b"a"[..], b"-rf", b"a b\n", &[0xff, 0xfe], &[b'x'; NAME_LEN_MAX], b"..."] {
            assert_eq!(Name::new(good).unwrap().bytes(), good);
        }
        let bad: [(&[u8], NameError); 6] = [
            (b"", NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Byte { byte: b'/' }),
            (b"a\0", NameError::Byte { byte: 0 }),
            (&[b'x'; 256], NameError::TooLong { len: 256 }),
        ];
        for (bytes, error) in bad {
            assert_eq!(Name::new(bytes), Err(error));
        }
    }

    #[test]
    fn a_path_goes_down_and_never_up_and_never_into_the_work_area() {
        for good in [&b"a"[..], b"a/b/c", b"a/.hotpair", b".hotpair-x/y"] {
            assert_eq!(TreePath::new(good).unwrap().bytes(), good);
        }
        for bad in [&b""[..], b"/a", b"a/", b"a//b", b"../x", b"a/../b", b"./a", b".hotpair/x"] {
            assert!(TreePath::new(bad).is_err(), "{}", bad.escape_ascii());
        }
        let deep = vec!["d"; PATH_DEPTH_MAX].join("/");
        assert!(TreePath::new(deep.as_bytes()).is_ok());
        assert_eq!(TreePath::new(format!("{deep}/d").as_bytes()), Err(NameError::TooDeep));
        let long = vec![b'x'; PATH_LEN_MAX + 1];
        assert_eq!(TreePath::new(&long), Err(NameError::PathTooLong { len: PATH_LEN_MAX + 1 }));
    }

    #[test]
    fn a_path_is_its_names() {
        let names = [b"a".as_slice(), b"b c", b"d"].map(|name| Name::new(name).unwrap());
        let path = TreePath::of(&names).unwrap();
        assert_eq!(path.bytes(), b"a/b c/d");
        assert!(path.names().eq(names.iter().map(Name::bytes)));
    }

    #[test]
    fn names_are_shown_escaped() {
        let name = Name::new(b"a\x1b[2J\n\xff").unwrap();
        assert_eq!(name.to_string(), r"a\x1b[2J\n\xff");
    }
}
