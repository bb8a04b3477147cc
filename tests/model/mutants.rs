//! Whether the searches find bugs: each planted one must break a property.

use hotpair::replica::planted::Planted;

use crate::bounds::Bounds;
use crate::search::{blips, cooling, failover, planned, power_loss, resync, search};

/// Makes the bounds of a search.
type Search = fn() -> Bounds;

/// Planted bugs, and the search that finds each.
///
/// Not here is what the model has no words for: zeroes and FUA, `async`, writes that do not
/// overlap; and a lower epoch, which no session is agreed on for.
const FOUND: &[(Planted, Search)] = &[
    (Planted::AckBeforePeer, failover),
    (Planted::AckBeforeActivityLog, failover),
    (Planted::BitClearedOnSend, failover),
    (Planted::PeerBitsNotMerged, failover),
    (Planted::InFlightForgottenAtDisconnect, failover),
    (Planted::UnflushedWindowForgotten, failover),
    (Planted::OldSessionAccepted, planned),
    (Planted::SoloWithoutNewGeneration, failover),
    (Planted::SoloBeforeRecord, failover),
    (Planted::FlushOnlyLocal, power_loss),
    (Planted::SpoiledChunkCleared, resync),
    (Planted::DoubtForgotten, power_loss),
    (Planted::CooledBeforeSync, cooling),
    (Planted::ReadOvertakesWrite, blips),
    (Planted::EndBeforeTargetSynced, resync),
];

#[test]
fn planted_bugs_are_found() {
    let mut missed = Vec::new();
    for (bug, bounds) in FOUND {
        let broken = search(&Bounds { planted: Some(*bug), expected: &[], ..bounds() });
        println!("model: planted {bug:?} breaks {broken:?}");
        if broken.is_none() {
            missed.push(*bug);
        }
    }
    assert_eq!(missed, [], "not found");
}
