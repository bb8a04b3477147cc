//! What people are told of a resource with an arbiter: its state, its leases, what stands in the way
//! of a promotion, and what to type.

use super::Replica;
use super::operator::{PromotionStatus, Refused};
use super::role::AckNeed;
use crate::metadata::MapMemory;
use crate::promotion::controller::{Controller, Obstacle};
use crate::promotion::{Permit, Refusal};
use crate::units::{DiskReason, DiskState, ServeMode};

impl<M: MapMemory> Replica<M> {
    /// What `status` says of the arbiter's part; `None` without one.
    pub(super) fn promotion_status(&self) -> Option<PromotionStatus> {
        let controller = self.controller.as_ref()?;
        let record = self.records.stable();
        let is_alone = self.role.is_primary() && record.serve_mode == ServeMode::Solo;
        let permit = self.permit_to_go_alone(self.role.peer_vetoed.is_some());
        Some(PromotionStatus {
            state: self.state_name(),
            permit: permit.filter(|_| is_alone).map(Permit::name),
            lease_ms: controller.lease_held(record.serve_mode),
            pledge: record.hold,
            stopped: record.stopped || controller.known().is_some_and(|known| known.stopped),
            takes_over: !self.role.is_primary()
                && controller.obstacle_after_loss(&self.facts()).is_none(),
            doubtful: matches!(
                record.disk_reason,
                DiskReason::LostPower | DiskReason::HeldInMemory
            ),
        })
    }

    /// The state that only an arbiter brings about.
    pub(super) fn state_by_arbiter(&self) -> Option<&'static str> {
        let controller = self.controller.as_ref()?;
        if !self.role.is_primary() {
            return controller.is_candidate().then_some("candidate");
        }
        let is_withheld = self.role.exit.is_none() && self.role.is_exported();
        (is_withheld && !self.may_answer_reads()).then_some("withheld")
    }

    /// A primary that waits for the arbiter.
    pub(super) fn explain_waiting_primary(&self) -> Option<Refused> {
        let controller = self.controller.as_ref()?;
        let peer = &self.settings.peer;
        let next = "hotpair status".to_owned();
        if !self.may_answer_reads() {
            let why = format!(
                "no reply leaves this node: neither the arbiter nor {peer} has confirmed lately \
                 that nobody else serves"
            );
            return Some(Refused { why, next });
        }
        let is_held = self.ack_need() == AckNeed::Hold
            && self.records.stable().serve_mode == ServeMode::Paired;
        let says = is_held.then(|| match controller.refused() {
            Some(refused) => format!("it says: {refused}"),
            None => "it has not answered yet".to_owned(),
        })?;
        let why = format!(
            "writes are held: {peer} is lost, and the arbiter is asked to let this node go on \
             alone; {says}"
        );
        Some(Refused { why, next })
    }

    /// Why a secondary is not promoted now.
    pub(super) fn explain_obstacle_here(&self) -> Option<Refused> {
        let controller: &Controller = self.controller.as_ref()?;
        let facts = self.facts();
        let obstacle = match controller.obstacle(&facts, false) {
            Some(Obstacle::PeerHeard | Obstacle::Connected) if self.is_in_sync() => {
                let peer = &self.settings.peer;
                let why = match controller.obstacle_after_loss(&facts) {
                    None => {
                        format!(
                            "in sync; {peer} is primary, and this node takes over if it is lost"
                        )
                    }
                    Some(obstacle) => {
                        format!("in sync; {peer} is primary; if it were lost now: {obstacle}")
                    }
                };
                return Some(Refused { why, next: String::new() });
            }
            Some(obstacle) => obstacle,
            None => match (controller.refused(), controller.known()) {
                (Some(refused), _) => Obstacle::Arbiter(refused),
                (None, None) => Obstacle::ArbiterAway,
                (None, Some(_)) => {
                    let why = "the arbiter is asked to promote this node".to_owned();
                    let next = format!("hotpair status {} --watch", self.settings.resource);
                    return Some(Refused { why, next });
                }
            },
        };
        Some(self.explain_obstacle(obstacle))
    }

    /// What stands in the way of a promotion, and what to type.
    pub(super) fn explain_obstacle(&self, obstacle: Obstacle) -> Refused {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let promote = format!("hotpair promote {resource}");
        let watch = format!("hotpair status {resource} --watch");
        let next = match obstacle {
            Obstacle::Connected | Obstacle::PeerHeard => format!("hotpair switchover {resource}"),
            Obstacle::SplitBrain => format!("hotpair split-brain show {resource}"),
            Obstacle::NotAutomatic | Obstacle::Stopped => promote,
            // The way out is that of a pair without an arbiter.
            Obstacle::Vetoed | Obstacle::NotUpToDate | Obstacle::RecordLost => {
                let is_partial = self.records.stable().disk == DiskState::Inconsistent;
                let refusal = if is_partial { Refusal::Inconsistent } else { Refusal::Outdated };
                self.explain_promotion(refusal).next
            }
            Obstacle::Pledged => format!("bring {peer} or the arbiter back"),
            Obstacle::ArbiterAway => {
                "hotpair status says why the arbiter does not answer".to_owned()
            }
            Obstacle::Stopping => "start hotpair again".to_owned(),
            Obstacle::Primary
            | Obstacle::GrantHeld
            | Obstacle::HoldDown
            | Obstacle::OwnerFirst
            | Obstacle::Arbiter(_) => watch,
        };
        Refused { why: obstacle.to_string(), next }
    }
}
