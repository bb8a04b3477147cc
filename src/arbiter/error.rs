//! Why a connection between a node and a witness ended, or never began.

use std::io;
use std::time::Duration;

use crate::wire::letter::LetterError;

/// Why nothing more comes over a connection.
#[derive(Debug, thiserror::Error)]
pub enum ArbiterError {
    /// The other end closed it.
    #[error("the other end closed the connection")]
    Closed,
    /// The network failed, or TLS did: the error inside says which.
    #[error("cannot {action} the other end")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel or TLS said.
        source: io::Error,
    },
    /// The other end broke the protocol.
    #[error("the other end broke the protocol")]
    Letter(#[from] LetterError),
    /// The other end has not done something in time.
    #[error("the other end has not {what} within {limit:?}")]
    Slow {
        /// What it should have done.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// Somebody else has the address of the witness, or it was given a new key.
    #[error("the witness has the key {shown}, which is not the configured `witness_identity`")]
    OtherWitness {
        /// The fingerprint of the key.
        shown: String,
    },
    /// The other end proved no key, or not for this protocol.
    #[error("the other end proved no key for this protocol")]
    NoKey,
    /// The witness said why it closes.
    #[error("the witness refuses: {why}")]
    Dismissed {
        /// Its words.
        why: String,
    },
    /// The witness said something that it cannot say at this moment.
    #[error("the witness says something before its Welcome, or a second one")]
    NoWelcome,
}

/// An error with all its causes in one line, without control characters: part of it may be what a
/// stranger sent.
pub(super) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line = format!("{line}: {inner}");
        source = inner.source();
    }
    line.replace(|letter: char| letter.is_control(), " ")
}
