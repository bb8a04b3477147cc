//! Bugs that can be planted in the controller, to prove that the tests find them.
//!
//! Each is one broken rule. Without the feature `planted-bugs` the check is a constant `false`.

use super::ControllerSettings;

/// One broken rule.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PlantedRule {
    /// A candidate does not wait until the leases that it granted are over.
    GrantsIgnored,
    /// A restart forgets the leases that were granted before it.
    GrantsForgotten,
    /// The peer is made eligible while acknowledgements do not need it yet.
    PairBeforePaired,
    /// A grant to go alone outlives the request that makes the peer eligible again.
    SoloOutlivesPair,
    /// The primary goes alone because the peer is silent.
    PeerAssumedDead,
    /// The secondary is promoted because the primary is silent, whether the arbiter refuses or does
    /// not answer.
    PromotedBySilence,
    /// The arbiter is asked before the promise is stable.
    AskedBeforePromise,
    /// Reads are answered without a lease.
    LeaseNotNeeded,
    /// A record of the same owner counts as the answer to a request.
    AnswerByOwner,
    /// The services of the old owner get no time to stop.
    NoStopBudget,
    /// That the fence command cannot reach the peer counts as if it were off.
    UnreachableIsOff,
    /// The primary lets its peer lift the pledge while its own record relies on it.
    PledgeLiftedEarly,
    /// The secondary lifts its pledge by itself.
    PledgeLiftedAlone,
    /// The arbiter promotes a node while the owner has a lease.
    LeaseIgnored,
    /// The arbiter makes no new epoch for an owner that is alone already.
    SoloKeepsEpoch,
    /// The peer is told that it is complete before the record says that it is needed.
    VetoLiftedBeforePaired,
    /// A veto is given while a promotion is asked for.
    VetoWhileAsking,
    /// The role is handed over without the flush of either disk.
    HandoverUnflushed,
    /// A former primary that lost power goes on without a comparison.
    DoubtfulResumes,
    /// What an old image of the record may do is not asked.
    LostRecordTrusted,
}

impl PlantedRule {
    /// Those that the simulator finds. The model finds the others, and most of these.
    pub const ALL: [Self; 12] = [
        Self::GrantsIgnored,
        Self::GrantsForgotten,
        Self::PairBeforePaired,
        Self::SoloOutlivesPair,
        Self::PeerAssumedDead,
        Self::PromotedBySilence,
        Self::AskedBeforePromise,
        Self::LeaseNotNeeded,
        Self::AnswerByOwner,
        Self::NoStopBudget,
        Self::PledgeLiftedEarly,
        Self::PledgeLiftedAlone,
    ];
}

impl ControllerSettings {
    /// Whether this bug is planted.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn is_planted(&self, rule: PlantedRule) -> bool {
        self.planted == Some(rule)
    }

    /// Never, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "same shape as with the feature planted-bugs")]
    pub(crate) fn is_planted(&self, _rule: PlantedRule) -> bool {
        false
    }
}
