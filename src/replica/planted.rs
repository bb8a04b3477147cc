//! Bugs that can be planted, to prove that the tests find them.
//!
//! Each is one broken rule. Without the feature `planted-bugs` the check is a constant `false`, so
//! a release build cannot contain one.

use super::Settings;

/// One broken rule.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Planted {
    /// A write is acknowledged before the peer has it.
    AckBeforePeer,
    /// A write goes to its extent before the activity log says so durably.
    AckBeforeActivityLog,
    /// A mark is cleared when the write is sent.
    BitClearedOnSend,
    /// A mark is cleared although the block was written again.
    BitClearedDespiteNewerWrite,
    /// The source does not merge the target's marks.
    PeerBitsNotMerged,
    /// Writes in flight are forgotten when the link is lost.
    InFlightForgottenAtDisconnect,
    /// What the peer had not flushed counts as clean when the link is lost.
    UnflushedWindowForgotten,
    /// The secondary applies writes as they come, whatever must precede them.
    OverlapReordered,
    /// A frame of an older session is applied.
    OldSessionAccepted,
    /// Solo before the new generation is stable.
    SoloWithoutNewGeneration,
    /// Writes are acknowledged alone before the record says solo.
    SoloBeforeRecord,
    /// A flush waits for the primary's disk only.
    FlushOnlyLocal,
    /// FUA is ignored on zeroes.
    FuaIgnoredOnZeroes,
    /// A trim is not sent to the peer.
    TrimNotReplicated,
    /// A node that serves, resumes or asks at an epoch below the promised one is accepted.
    LowerEpochAccepted,
    /// The at-risk budget is not looked at.
    BudgetNotEnforced,
    /// A chunk in motion that was written meanwhile counts as sent.
    SpoiledChunkCleared,
    /// A node that lost power does not say that it is doubtful.
    DoubtForgotten,
    /// Extents cool before their data is stable.
    CooledBeforeSync,
    /// A read does not wait for an overlapping unanswered write.
    ReadOvertakesWrite,
    /// The target counts as complete before its disk is synced.
    EndBeforeTargetSynced,
    /// What was marked since room was made for a longer map is not taken along.
    MarksLostByResize,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::AckBeforePeer,
        Self::AckBeforeActivityLog,
        Self::BitClearedOnSend,
        Self::BitClearedDespiteNewerWrite,
        Self::PeerBitsNotMerged,
        Self::InFlightForgottenAtDisconnect,
        Self::UnflushedWindowForgotten,
        Self::OverlapReordered,
        Self::OldSessionAccepted,
        Self::SoloWithoutNewGeneration,
        Self::SoloBeforeRecord,
        Self::FlushOnlyLocal,
        Self::FuaIgnoredOnZeroes,
        Self::TrimNotReplicated,
        Self::LowerEpochAccepted,
        Self::BudgetNotEnforced,
        Self::SpoiledChunkCleared,
        Self::DoubtForgotten,
        Self::CooledBeforeSync,
        Self::ReadOvertakesWrite,
        Self::EndBeforeTargetSynced,
        Self::MarksLostByResize,
    ];
}

impl Settings {
    /// Whether this bug is planted.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn is_planted(&self, bug: Planted) -> bool {
        self.planted == Some(bug)
    }

    /// Never, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "same shape as with the feature planted-bugs")]
    pub(super) fn is_planted(&self, _bug: Planted) -> bool {
        false
    }
}
