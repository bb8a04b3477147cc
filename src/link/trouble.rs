//! Why there is no connection to the peer, as far as this end can tell.
//!
//! It is told to people, who may have to mend a configuration; nothing is decided by it. Fingerprints
//! in it are for comparing: one that somebody showed is none to be trusted for that.

use super::error::{HandshakeError, LinkError};
use super::refusals::in_one_line;
use crate::wire::ProtocolError;

/// Why there is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// In one line.
    pub why: String,
    /// What somebody has to mend, if it is not the network.
    pub mismatch: Option<Mismatch>,
}

/// What does not fit between the two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mismatch {
    /// The key of the other end is not the one that is configured here.
    TheirKey,
    /// The key of this node is not the one that is configured there.
    OurKey,
    /// One end encrypts, and the other one does not.
    Encryption,
    /// The names of cluster, nodes or resources.
    Names,
    /// The other end closed the connection and did not say why.
    Unsaid,
}

impl HandshakeError {
    /// What it says of the other end.
    pub(super) fn trouble(&self) -> Trouble {
        let mismatch = match self {
            Self::UnknownKey { .. } => Some(Mismatch::TheirKey),
            Self::OurKey { .. } => Some(Mismatch::OurKey),
            Self::NotTls { .. } => Some(Mismatch::Encryption),
            Self::NotOurs { .. } | Self::OtherNode { .. } => Some(Mismatch::Names),
            Self::HungUp { .. } => Some(Mismatch::Unsaid),
            Self::Io { .. } | Self::Timeout { .. } | Self::NotTaken => None,
        };
        Trouble { why: in_one_line(self), mismatch }
    }
}

impl LinkError {
    /// What it says of the other end, called `who`, that had not said a word on this connection;
    /// `mine` is the fingerprint of this node, which is there with TLS.
    pub fn trouble(&self, who: &str, mine: Option<&str>) -> Trouble {
        match self {
            #[cfg(feature = "_tls")]
            Self::Tls(error) if super::tls::refuses_our_key(error) => Trouble {
                why: format!("{who} does not accept the key of this node, {}", mine.unwrap_or("")),
                mismatch: Some(Mismatch::OurKey),
            },
            Self::Protocol(ProtocolError::BadMagic { found })
                if mine.is_none() && is_tls(found) =>
            {
                Trouble {
                    why: format!("{who} speaks TLS, and this node has encryption = \"none\""),
                    mismatch: Some(Mismatch::Encryption),
                }
            }
            _ => Trouble {
                why: format!("{who} did not say who it is: {}", in_one_line(self)),
                mismatch: Some(Mismatch::Unsaid),
            },
        }
    }
}

/// Whether bytes look like the start of a TLS record: its type, and the upper half of its version.
/// Source: RFC 8446, section 5.1.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=23, 3, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_tls_is_told_from_noise_and_from_a_frame() {
        let trouble = |found| LinkError::Protocol(ProtocolError::BadMagic { found });
        for (found, mismatch) in [
            ([22, 3, 1, 2], Mismatch::Encryption),
            ([21, 3, 3, 0], Mismatch::Encryption),
            (*b"GET ", Mismatch::Unsaid),
        ] {
            assert_eq!(trouble(found).trouble("beta", None).mismatch, Some(mismatch), "{found:?}");
        }
        // Inside TLS it is noise like any other.
        let inside = trouble([22, 3, 1, 2]).trouble("beta", Some("sha256//x"));
        assert_eq!(inside.mismatch, Some(Mismatch::Unsaid));
    }
}
