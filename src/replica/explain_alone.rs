//! What people are told of a pair without an arbiter that promotes by itself: its state, what stands
//! in the way, and what to type.

use super::Replica;
use super::operator::{PromotionStatus, Refused};
use super::session::Standing;
use crate::metadata::MapMemory;
use crate::promotion::Permit;
use crate::promotion::alone::Waits;
use crate::promotion::controller::Obstacle;
use crate::units::{DiskReason, ServeMode};

impl<M: MapMemory> Replica<M> {
    /// What `status` says of it; `None` where only an operator promotes.
    pub(super) fn promotion_status_alone(&self) -> Option<PromotionStatus> {
        let alone = self.alone.as_ref()?;
        let record = self.records.stable();
        let is_alone = self.role.is_primary() && record.serve_mode == ServeMode::Solo;
        let permit = self.permit_to_go_alone(self.role.peer_vetoed.is_some());
        Some(PromotionStatus {
            state: self.state_name(),
            permit: permit.filter(|_| is_alone).map(Permit::name),
            lease_ms: None,
            pledge: record.hold,
            promotions: 0,
            promotions_paused_min: None,
            arbiter_refused: None,
            stopped: record.stopped,
            takes_over: !self.role.is_primary()
                && alone.obstacle_after_loss(&self.facts()).is_none(),
            doubtful: matches!(
                record.disk_reason,
                DiskReason::LostPower | DiskReason::HeldInMemory
            ),
            veto: record.veto.map(|veto| veto.reason.name()),
        })
    }

    /// A primary that holds writes since the other node is lost.
    pub(super) fn explain_held_alone(&self) -> Option<Refused> {
        let alone = self.alone.as_ref()?;
        if !self.is_frozen_alone() {
            return None;
        }
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let held = format!("writes are held: {peer} is lost");
        let back = format!("bring {peer} back");
        let (why, next) = match alone.waits() {
            Waits::AfterFailure(answer) if alone.is_under_pacemaker() => (
                format!("{held}, and the fence command ended with {answer}; it is run again"),
                format!(
                    "pcs status, then {back}, or let Pacemaker fence it: pcs stonith fence {peer}; hotpair \
                     events shows what the command said"
                ),
            ),
            Waits::AfterFailure(answer) => (
                format!("{held}, and the fence command ended with {answer}; it is run again"),
                format!("{back}, or mend the fence command; hotpair events shows what it said"),
            ),
            Waits::ForFence => (
                format!("{held}, and the fence command runs"),
                format!("hotpair status {resource} --watch"),
            ),
            Waits::ForPeer if alone.risks_split_brain() => (
                format!("{held}; this node goes on when every path to it is silent"),
                format!("{back}, or look at the connection of the nodes"),
            ),
            Waits::ForPeer => (
                format!("{held}; it is fenced if it does not come back in a moment"),
                format!("hotpair status {resource} --watch"),
            ),
        };
        Some(Refused { why: self.with_risk(why), next })
    }

    /// Why a secondary is not promoted now.
    pub(super) fn explain_secondary_alone(&self) -> Option<Refused> {
        let alone = self.alone.as_ref()?;
        if alone.is_under_pacemaker() {
            return self.explain_secondary_under_pacemaker();
        }
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let facts = self.facts();
        let watch = format!("hotpair status {resource} --watch");
        let is_following = self.is_in_sync() && self.link.peer_is_primary();
        if is_following {
            let why = match alone.obstacle_after_loss(&facts) {
                None => {
                    format!("in sync; {peer} is primary, and this node takes over if it is lost")
                }
                Some(obstacle) => {
                    format!("in sync; {peer} is primary; if it were lost now: {obstacle}")
                }
            };
            return Some(Refused { why: self.with_risk(why), next: String::new() });
        }
        if self.link.standing() != Standing::Down {
            return None;
        }
        match alone.obstacle(&facts) {
            // Where nothing of this kind stands in the way the rest is told as in any pair.
            Some(Obstacle::NotFollowed | Obstacle::PeerHeard) | None => {}
            Some(_) => return None,
        }
        let forced = format!("hotpair promote {resource} --force --peer-is-fenced");
        let (why, next) = match (alone.obstacle(&facts), alone.waits()) {
            (Some(obstacle), _) => {
                let next = format!("bring {peer} back; only if it is off and stays off: {forced}");
                (format!("{peer} is not connected; {obstacle}"), next)
            }
            (None, Waits::AfterFailure(answer)) => (
                format!(
                    "{peer} is lost, and the fence command ended with {answer}: this node stays \
                     secondary, and runs it again"
                ),
                format!(
                    "mend the fence command (hotpair events shows what it said); only if {peer} is \
                     off and stays off: {forced}"
                ),
            ),
            (None, Waits::ForFence) => {
                (format!("{peer} is lost, and the fence command runs"), watch)
            }
            (None, Waits::ForPeer) => {
                (format!("{peer} is lost, and this node takes over in a moment"), watch)
            }
        };
        Some(Refused { why: self.with_risk(why), next })
    }

    fn is_frozen_alone(&self) -> bool {
        self.role.is_primary()
            && self.records.stable().serve_mode == ServeMode::Paired
            && self.link.standing() == Standing::Down
            && self.permit_to_go_alone(self.role.peer_vetoed.is_some()).is_none()
    }

    /// Whoever asks about such a pair hears what it risks.
    fn with_risk(&self, mut why: String) -> String {
        if self.alone.as_ref().is_some_and(|alone| alone.risks_split_brain()) {
            why.push_str("; auto is \"heartbeat-only\", so two primaries are possible");
        }
        why
    }
}
