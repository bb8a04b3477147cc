//! Names that are never looked at, by the patterns of the configuration.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::manifest::Name;

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error("exclude has {pattern:?}, which is no pattern: {why}")]
pub struct ExcludeError {
    /// As it was written.
    pattern: String,
    /// What is wrong.
    why: globset::Error,
}

/// Patterns as `.gitignore` and rsync have them. One without a slash means a name anywhere in the tree;
/// one with a slash a path from the root of the tree. `*` and `?` match no slash, `**` matches any
/// directories. What is below an excluded directory is excluded with it.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    names: GlobSet,
    paths: GlobSet,
}

impl Exclude {
    /// Reads the patterns.
    ///
    /// # Errors
    /// [`ExcludeError`] names the first that is none.
    pub fn new(patterns: &BTreeSet<String>) -> Result<Self, ExcludeError> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let refuse = |why| ExcludeError { pattern: pattern.clone(), why };
            let is_name = !pattern.contains('/');
            let glob = GlobBuilder::new(pattern.trim_start_matches('/'))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(refuse)?;
            if is_name {
                names.add(glob)
            } else {
                paths.add(glob)
            };
        }
        let build = |builder: &GlobSetBuilder| {
            builder.build().map_err(|why| ExcludeError { pattern: String::new(), why })
        };
        Ok(Self { names: build(&names)?, paths: build(&paths)? })
    }

    /// Whether an entry is excluded; `above` is the path of its directory, empty for the root.
    pub fn matches(&self, above: &[u8], name: &Name) -> bool {
        let as_path = |bytes: &[u8]| Path::new(OsStr::from_bytes(bytes)).to_owned();
        if !self.names.is_empty() && self.names.is_match(as_path(name.bytes())) {
            return true;
        }
        if self.paths.is_empty() {
            return false;
        }
        let slash: &[u8] = if above.is_empty() { b"" } else { b"/" };
        self.paths.is_match(as_path(&[above, slash, name.bytes()].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_with_a_slash_is_a_path_and_one_without_a_name() {
        let patterns = ["*.tmp", "/top", "a/*.o", "deep/**/x", "[ab]c"];
        let exclude = Exclude::new(&patterns.iter().map(|it| (*it).to_owned()).collect()).unwrap();
        let cases: [(&str, &str, bool); 14] = [
            ("", "x.tmp", true),
            ("p/q", "x.tmp", true),
            ("", "x.tmp2", false),
            ("", "top", true),
            ("p", "top", false),
            ("a", "x.o", true),
            ("a/b", "x.o", false),
            ("p/a", "x.o", false),
            ("deep", "x", true),
            ("deep/b/c", "x", true),
            ("deeper", "x", false),
            ("p", "ac", true),
            ("p", "cc", false),
            ("", "deep", false),
        ];
        for (above, name, expected) in cases {
            let found = Name::new(name.as_bytes()).unwrap();
            assert_eq!(exclude.matches(above.as_bytes(), &found), expected, "{above}/{name}");
        }
    }

    #[test]
    fn names_are_bytes_and_a_wrong_pattern_is_named() {
        let exclude = Exclude::new(&["\u{e4}*".to_owned(), "x?".to_owned()].into()).unwrap();
        assert!(exclude.matches(b"\xff", &Name::new(b"x\xfe").unwrap()));
        assert!(!exclude.matches(b"", &Name::new(b"\xe4x").unwrap()));
        let error = Exclude::new(&["ok".to_owned(), "a[".to_owned()].into()).unwrap_err();
        assert!(error.to_string().contains("\"a[\""), "{error}");
    }
}
