//! Which versions of the protocol there are, and which one two nodes use.

use super::error::ProtocolError;

/// The wire's changelog, newest first. A release speaks its own version and the one before.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// The pair: block resources, resync, verify, commands passed on.
    V1,
}

impl Version {
    /// Oldest version that this build speaks.
    pub const OLDEST: Self = Self::V1;
    /// Newest version that this build speaks.
    pub const NEWEST: Self = Self::V1;

    /// What a Hello offers: oldest and newest.
    pub fn offer() -> (u16, u16) {
        (Self::OLDEST.number(), Self::NEWEST.number())
    }

    /// As it stands in a header.
    pub fn number(self) -> u16 {
        match self {
            Self::V1 => 1,
        }
    }

    /// The highest version that both nodes speak, given what the peer offers.
    ///
    /// # Errors
    /// [`ProtocolError::NoCommonVersion`] names what both speak.
    pub fn common(theirs: (u16, u16)) -> Result<Self, ProtocolError> {
        let (their_oldest, their_newest) = theirs;
        // Newest first: the first one that lies in the peer's range is the highest.
        [Self::V1]
            .into_iter()
            .find(|version| (their_oldest..=their_newest).contains(&version.number()))
            .ok_or(ProtocolError::NoCommonVersion {
                their_oldest,
                their_newest,
                oldest: Self::OLDEST.number(),
                newest: Self::NEWEST.number(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_used() {
        assert_eq!(Version::common(Version::offer()), Ok(Version::NEWEST));
        assert_eq!(Version::common((0, 1)), Ok(Version::V1));
        assert_eq!(Version::common((1, 9)), Ok(Version::V1));
    }

    #[test]
    fn a_refusal_names_what_both_speak() {
        for theirs in [(0, 0), (2, 3), (3, 1), (u16::MAX, u16::MAX)] {
            let error = Version::common(theirs).unwrap_err().to_string();
            for number in [theirs.0, theirs.1, 1] {
                assert!(error.contains(&number.to_string()), "{error}");
            }
        }
    }
}
