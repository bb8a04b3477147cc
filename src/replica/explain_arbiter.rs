//! What people are told of a resource with an arbiter: its state, its leases, what stands in the way
//! of a promotion, and what to type.

use super::Replica;
use super::operator::{PromotionStatus, Refused};
use super::role::AckNeed;
use crate::metadata::MapMemory;
use crate::promotion::arbiter;
use crate::promotion::controller::{Controller, Obstacle, Won};
use crate::promotion::{Permit, Refusal};
use crate::units::{DiskReason, ServeMode, VetoReason};

impl<M: MapMemory> Replica<M> {
    /// What `status` says of the arbiter's part; `None` without one.
    pub(super) fn promotion_status(&self) -> Option<PromotionStatus> {
        let Some(controller) = &self.controller else { return self.promotion_status_alone() };
        let record = self.records.stable();
        let is_alone = self.role.is_primary() && record.serve_mode == ServeMode::Solo;
        let permit = self.permit_to_go_alone(self.role.peer_vetoed.is_some());
        Some(PromotionStatus {
            state: self.state_name(),
            permit: permit.filter(|_| is_alone).map(Permit::name),
            lease_ms: controller.lease_held(record.serve_mode),
            pledge: record.hold,
            promotions: controller.promotions_counted(),
            promotions_paused_min: controller.flap_pause().map(|it| it.as_secs().div_ceil(60)),
            arbiter_refused: controller.refused().filter(|why| why.is_no_answer()),
            stopped: record.stopped || controller.known().is_some_and(|known| known.stopped),
            takes_over: !self.role.is_primary()
                && controller.obstacle_after_loss(&self.facts()).is_none(),
            doubtful: matches!(
                record.disk_reason,
                DiskReason::LostPower | DiskReason::HeldInMemory
            ),
            veto: record.veto.map(|veto| veto.reason.name()),
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
        if controller.is_out_of_line(&self.facts()) {
            let says = match controller.refused() {
                Some(refused) => format!("it says: {refused}"),
                None => "it has not answered yet".to_owned(),
            };
            let why = format!(
                "this node was promoted by force without the arbiter, which is told as soon as it \
                 can be; {says}; {}",
                self.given_up(false)
            );
            let is_gone = controller.refused().is_some_and(arbiter::Refused::asks_to_enroll);
            let next = if is_gone {
                format!(
                    "keep {peer} off, and put the arbiter's old store back; if that is gone for good, \
                     bring {peer} back: once both are in sync they make a new record; see: {next}"
                )
            } else {
                format!("keep {peer} off, and look at the arbiter: {next}")
            };
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
        if let Some(obstacle) = controller.fence_obstacle() {
            return Some(self.explain_obstacle(obstacle));
        }
        let obstacle = match controller.obstacle(&facts, false) {
            Some(Obstacle::PeerHeard | Obstacle::Connected) if self.is_in_sync() => {
                let peer = &self.settings.peer;
                let mut next = String::new();
                let why = match controller.obstacle_after_loss(&facts) {
                    Some(Obstacle::Flapping) => {
                        let refused = self.explain_obstacle(Obstacle::Flapping);
                        next = refused.next;
                        format!("in sync; {peer} is primary; if it were lost now: {}", refused.why)
                    }
                    None => {
                        format!(
                            "in sync; {peer} is primary, and this node takes over if it is lost"
                        )
                    }
                    Some(obstacle) => {
                        format!("in sync; {peer} is primary; if it were lost now: {obstacle}")
                    }
                };
                return Some(Refused { why, next });
            }
            Some(obstacle) => obstacle,
            None if controller.arbiter_obstacle() == Some(Obstacle::ArbiterAway) => {
                Obstacle::ArbiterAway
            }
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
        let forced = format!("{promote} --force --peer-is-fenced");
        let watch = format!("hotpair status {resource} --watch");
        let veto = self.records.stable().veto;
        let is_noted = veto.is_some_and(|veto| veto.reason == VetoReason::RecordLost);
        let next = match obstacle {
            Obstacle::Connected | Obstacle::PeerHeard => format!("hotpair switchover {resource}"),
            Obstacle::SplitBrain => format!("hotpair split-brain show {resource}"),
            Obstacle::NotAutomatic | Obstacle::Stopped => promote,
            Obstacle::Flapping => match self.explain_flapping() {
                Some(refused) => return refused,
                None => promote,
            },
            Obstacle::Local(refusal) => return self.explain_promotion(refusal),
            Obstacle::Arbiter(arbiter::Refused::PeerAlive) => {
                let why = format!("{peer} is alive: it has a lease at the arbiter");
                let next = format!(
                    "once both are connected: hotpair switchover {resource}; or make sure that {peer} \
                     is off, and wait until its lease is over: {watch}"
                );
                return Refused { why, next };
            }
            Obstacle::NotUpToDate => {
                format!("bring {peer} back; when both are connected, let the resync end: {watch}")
            }
            // Its veto says so durably: it is told by the same words whatever was typed.
            Obstacle::RecordLost if is_noted => {
                return self.explain_promotion(Refusal::Outdated);
            }
            Obstacle::Vetoed
            | Obstacle::RecordLost
            | Obstacle::Arbiter(
                arbiter::Refused::NotEligible | arbiter::Refused::OtherGeneration,
            ) => format!(
                "bring {peer} back; when both are connected, let the resync end: {watch}; only if \
                 {peer} is lost, to give up what is missing: {forced} --accept-data-loss"
            ),
            Obstacle::Pledged => format!(
                "bring {peer} or the arbiter back; only if {peer} is lost, to give up what it may \
                 have acknowledged alone: {forced} --accept-data-loss"
            ),
            Obstacle::ArbiterBehind => {
                format!("bring {peer} back, or make sure that it is off and type: {forced}")
            }
            Obstacle::ArbiterAway => {
                "hotpair status says why the arbiter does not answer".to_owned()
            }
            Obstacle::DiskStalled => super::stall::LOOK_AT_DISK.to_owned(),
            Obstacle::Stopping => "start hotpair again".to_owned(),
            Obstacle::Arbiter(arbiter::Refused::Unreadable) => format!(
                "see what is there, and put back what was: etcdctl get --prefix \
                 /hotpair/v1/CLUSTER/{resource}/; `hotpair status` names the key"
            ),
            Obstacle::NotFenced(_) => {
                "mend the fence command; hotpair events shows what it said".to_owned()
            }
            Obstacle::NotFollowed | Obstacle::PeerAhead => format!("bring {peer} back"),
            Obstacle::Primary
            | Obstacle::Fencing
            | Obstacle::GrantHeld
            | Obstacle::HoldDown
            | Obstacle::OwnerFirst => watch,
            Obstacle::Arbiter(refused) => next_about_record(refused, watch),
        };
        Refused { why: obstacle.to_string(), next }
    }

    /// How an operator's promotion ended.
    pub(super) fn tell_of(&self, won: Won) -> String {
        let epoch = self.records.stable().epoch;
        match won {
            Won::ByRule => format!("this node is primary at epoch {epoch}"),
            Won::ByForce { accept_data_loss } => format!(
                "this node is primary at epoch {epoch}, by force; {}",
                self.given_up(accept_data_loss)
            ),
        }
    }

    /// What an operator typed to force a promotion, and what that gave up.
    pub(super) fn forced_words(&self, accept_data_loss: bool) -> String {
        let resource = &self.settings.resource;
        let accepts = if accept_data_loss { " --accept-data-loss" } else { "" };
        format!(
            "hotpair promote {resource} --force --peer-is-fenced{accepts}: {}",
            self.given_up(accept_data_loss)
        )
    }

    /// What the operator who forced the last promotion has given up.
    fn given_up(&self, accept_data_loss: bool) -> String {
        let peer = &self.settings.peer;
        let by_arbiter = self.records.stable().epoch.is_by_arbiter();
        let alone = if by_arbiter || !self.has_controller() {
            format!("given up: what only {peer} has acknowledged")
        } else {
            format!(
                "the arbiter was out of reach; given up: what only {peer} has acknowledged, and that \
                 nobody but the operator knows whether {peer} is off"
            )
        };
        if accept_data_loss {
            format!("{alone}, and acknowledged writes that may have been missing here before")
        } else {
            alone
        }
    }
}

/// What to type when the arbiter refused for what it has stored, or for anything that passes.
fn next_about_record(refused: arbiter::Refused, watch: String) -> String {
    if refused == arbiter::Refused::OtherIdentity {
        return format!(
            "put the old key of that node back; or, once both nodes know the new one, let the witness \
             forget its records with `hotpair witness --new-identity`, and wait: {watch}"
        );
    }
    if refused.asks_to_enroll() {
        return format!(
            "connect both nodes: once they are in sync they make a new record there: {watch}"
        );
    }
    watch
}
