//! Why a node is as it is, and what to type next: `explain`, and refusals of `promote`.
//!
//! Nothing is decided here. A command that is named works when it is typed, and where several
//! would, the one that costs nothing comes first.

use super::Replica;
use super::operator::Refused;
use super::session::{Phase, Standing};
use crate::metadata::MapMemory;
use crate::metadata::generation::{self, PEER, RESOURCE};
use crate::promotion::controller::{self, Leaving};
use crate::promotion::{PromoteHow, Refusal};
use crate::units::{DiskState, Outcome, Role, Side, VetoReason};
use crate::wire::message::RefusalCode;

/// Why the nodes do not replicate, or why there is no connection.
#[derive(Clone, Debug, Hash)]
pub(super) struct Obstacle {
    pub(super) why: String,
    /// What to type, if that is known.
    pub(super) next: Option<String>,
}

impl<M: MapMemory> Replica<M> {
    /// The driver says why there is no connection. One that is there says more about itself.
    pub(super) fn on_no_link(&mut self, why: String, next: Option<String>) {
        if self.link.up.is_none() {
            self.link.obstacle = Some(Obstacle { why, next });
        }
    }

    /// What an operator types when a node refuses the other one with `code`; the peer, if
    /// `is_theirs`.
    pub(super) fn way_out(&self, code: RefusalCode, is_theirs: bool) -> Option<String> {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        match code {
            RefusalCode::WrongPeer | RefusalCode::Settings => Some(
                "use one configuration file on both nodes, check it on each with hotpair config \
                 check, and restart both daemons"
                    .to_owned(),
            ),
            RefusalCode::Version | RefusalCode::VerdictsDiffer => {
                Some("install the same release of hotpair on both nodes".to_owned())
            }
            RefusalCode::Disconnected if is_theirs => {
                Some(format!("on {peer}: hotpair connect {resource}"))
            }
            RefusalCode::Disconnected
            | RefusalCode::OldEpoch
            | RefusalCode::NotReady
            | RefusalCode::Protocol => None,
        }
    }

    /// What an operator types about the verdict of this meeting.
    pub(super) fn way_out_of_verdict(&self) -> Option<String> {
        let up = self.link.up.as_ref()?;
        let (mine, theirs) = (up.mine.as_ref()?, up.theirs.as_ref()?);
        let side = self.settings.side;
        let (mine, theirs) =
            (super::meet::standpoint(mine, side), super::meet::standpoint(theirs, side.other()));
        let mend = generation::mend(&mine, &theirs)?;
        Some(mend.replace(RESOURCE, &self.settings.resource).replace(PEER, &self.settings.peer))
    }

    /// Why this node is (not) in sync or promotable, and what to type.
    pub(super) fn explain(&self) -> Refused {
        let resource = &self.settings.resource;
        let record = self.records.stable();
        if record.stand_alone {
            let why = "an operator disconnected this node".to_owned();
            return Refused { why, next: format!("hotpair connect {resource}") };
        }
        if let Some(refused) = self.explain_leaving().or_else(|| self.explain_left_behind()) {
            return refused;
        }
        if self.is_split() {
            return self.explain_split();
        }
        match self.disk_state() {
            DiskState::Failed | DiskState::Missing => {
                return self.explain_promotion(Refusal::DiskFailed);
            }
            DiskState::UpToDate | DiskState::Outdated | DiskState::Inconsistent => {}
        }
        if self.disk_watch.is_stalled() {
            let why = "the disk of this node does not answer".to_owned();
            return Refused { why, next: super::stall::LOOK_AT_DISK.to_owned() };
        }
        if let Some(refused) = self.explain_pause().or_else(|| self.explain_services()) {
            return refused;
        }
        if self.role.is_primary() {
            return self.explain_primary();
        }
        self.explain_secondary()
    }

    fn explain_leaving(&self) -> Option<Refused> {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let why = match self.asks_arbiter()? {
            Leaving::Recording => return None,
            Leaving::Stop => {
                "this node is being demoted, and the arbiter has not answered".to_owned()
            }
            Leaving::Handover => {
                format!("the role was handed over; the arbiter has not said that {peer} has it")
            }
            Leaving::TakeBack => {
                "a handover failed: nobody serves until the arbiter has said that \
                                  this node goes on"
                    .to_owned()
            }
        };
        let watch = format!("hotpair status {resource} --watch");
        let refused = self.controller.as_ref().and_then(|controller| controller.refused());
        let next = match refused.filter(|refused| refused.asks_to_enroll()) {
            Some(refused) => format!(
                "{refused}; connect both nodes: once they are in sync they make a new record there: {watch}"
            ),
            None => format!("look at the arbiter, then: {watch}"),
        };
        Some(Refused { why, next })
    }

    fn explain_services(&self) -> Option<Refused> {
        let failure = self.services.as_ref()?.failure()?;
        let why = format!("the services of this node did not start or stop: {failure}");
        let next = "hotpair events (what the hook said), and mend the hook".to_owned();
        Some(Refused { why, next })
    }

    fn explain_pause(&self) -> Option<Refused> {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let resync = self.resync_status(self.now).filter(|resync| resync.paused)?;
        let why = format!("{} bytes still differ; the resync is paused", resync.remaining_bytes);
        let next = format!("hotpair resume-resync {resource}");
        let is_theirs = self.is_paused_there();
        Some(Refused { why, next: if is_theirs { format!("on {peer}: {next}") } else { next } })
    }

    fn explain_primary(&self) -> Refused {
        let preference = || self.explain_preference().filter(|_| self.is_in_sync());
        let waits = self.explain_waiting_primary().or_else(|| self.explain_held_alone());
        let waits = waits.or_else(|| self.explain_not_lifted());
        if let Some(refused) = waits.or_else(preference) {
            return refused;
        }
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let (why, next) = match (self.is_in_sync(), self.link.standing()) {
            (true, _) => ("in sync; this node serves".to_owned(), String::new()),
            (false, Standing::Running { .. }) => (
                format!("{} bytes still differ; a resync is running", self.marked_bytes()),
                format!("hotpair status {resource} --watch"),
            ),
            (false, Standing::Down | Standing::Meeting) => (
                format!("{peer} is not connected{}", self.because(": ")),
                self.known_way().unwrap_or_else(|| self.way_to_peer()),
            ),
            (false, Standing::Apart) => (
                format!("connected to {peer}, but nothing is replicated{}", self.because(": ")),
                self.known_way()
                    .unwrap_or_else(|| format!("on {peer}: hotpair explain {resource}")),
            ),
        };
        Refused { why, next }
    }

    fn explain_secondary(&self) -> Refused {
        let here = self.explain_obstacle_here().or_else(|| self.explain_secondary_alone());
        if let Some(mut refused) = here {
            refused.why.push_str(&self.because("; "));
            return refused;
        }
        let peer = &self.settings.peer;
        let how = PromoteHow {
            force: false,
            accept_data_loss: false,
            by_pacemaker: self.is_under_pacemaker(),
        };
        match self.check_promotion(how) {
            Ok(_) if self.is_under_pacemaker() => self.explain_promotable_under_pacemaker(),
            Ok(_) => Refused {
                why: format!("this node is secondary and can be promoted{}", self.because("; ")),
                next: self.known_way().unwrap_or_else(|| self.way_to_promote()),
            },
            Err(Refusal::PeerIsPrimary) if self.is_in_sync() => {
                Refused { why: format!("in sync; {peer} is primary"), next: String::new() }
            }
            Err(refusal) => {
                let mut refused = self.explain_promotion(refusal);
                refused.why.push_str(&self.because(": "));
                if !self.peer_has_no_disk() {
                    refused.next = self.known_way().unwrap_or(refused.next);
                }
                refused
            }
        }
    }

    fn explain_split(&self) -> Refused {
        let resource = &self.settings.resource;
        let show = format!("hotpair split-brain show {resource}");
        if self.is_resolved_both_ways() {
            let why = "both nodes wrote what the other lacks, and `split-brain resolve` was typed on \
                       both with another node to keep: neither counts";
            let next = format!("{show}, and one of the commands that it shows, on one node only");
            return Refused { why: why.to_owned(), next };
        }
        if self.must_choose() {
            return Refused { why: self.apart_reason().to_owned(), next: show };
        }
        // It can be resolved only when both have said what they have.
        let why = format!(
            "both nodes wrote what the other lacks, and that cannot be settled now{}",
            self.because(": ")
        );
        let way = self.known_way().unwrap_or_else(|| self.way_to_peer());
        Refused { why, next: format!("{way}; once both are connected: {show}") }
    }

    /// Whether the operators of both nodes settled this split brain, each in another way.
    fn is_resolved_both_ways(&self) -> bool {
        let mine = self.records.stable().resolution;
        let theirs = self.link.peer_hello().and_then(|hello| hello.resolution);
        let (Some(mine), Some(theirs)) = (mine, theirs) else { return false };
        self.must_choose() && (mine.kept.id, mine.dropped.id) == (theirs.dropped.id, theirs.kept.id)
    }

    /// The primary that the other node has promised not to follow, if that is all that keeps the
    /// nodes apart.
    fn left_behind(&self) -> Option<Side> {
        let is_refused = matches!(
            self.link.up.as_ref().map(|up| &up.phase),
            Some(Phase::Apart(Outcome::Refused))
        );
        let theirs = self.link.peer_hello().filter(|_| is_refused)?;
        let record = self.records.stable();
        let side = self.settings.side;
        if self.role.is_primary() && theirs.promised > record.epoch {
            Some(side)
        } else if theirs.role == Role::Primary && record.promised > theirs.epoch {
            Some(side.other())
        } else {
            None
        }
    }

    fn explain_left_behind(&self) -> Option<Refused> {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let is_here = self.left_behind()? == self.settings.side;
        let next = if is_here {
            self.way_to_demote()
        } else if self.is_under_pacemaker() {
            format!("pcs resource ban {resource}-clone {peer} --promoted")
        } else {
            format!("on {peer}: hotpair demote {resource}")
        };
        Some(Refused { why: self.apart_reason().to_owned(), next })
    }

    fn peer_has_no_disk(&self) -> bool {
        self.link
            .peer_hello()
            .is_some_and(|hello| matches!(hello.disk, DiskState::Failed | DiskState::Missing))
    }

    fn apart_reason(&self) -> &str {
        let obstacle = self.link.obstacle.as_ref();
        obstacle.map_or("the peer is not connected now", |obstacle| obstacle.why.as_str())
    }

    /// The obstacle that was met last, with what joins it to a sentence.
    fn because(&self, mark: &str) -> String {
        let obstacle = self.link.obstacle.as_ref();
        obstacle.map_or_else(String::new, |obstacle| format!("{mark}{}", obstacle.why))
    }

    /// What to type about the obstacle that was met last.
    fn known_way(&self) -> Option<String> {
        self.link.obstacle.as_ref()?.next.clone()
    }

    /// What to do about a peer that is not there for reasons that are not known here.
    fn way_to_peer(&self) -> String {
        format!("start hotpair on {}, or look at the network", self.settings.peer)
    }

    /// Why a promotion is refused, and what to type.
    pub(super) fn explain_promotion(&self, refusal: Refusal) -> Refused {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let is_running = matches!(self.link.standing(), Standing::Running { .. });
        let mut why = refusal.to_string();
        let is_apart_by_hand = self.records.stable().stand_alone;
        if is_apart_by_hand {
            why.push_str("; an operator disconnected this node");
        }
        let connect = is_apart_by_hand.then(|| format!("hotpair connect {resource}"));
        let first = connect.or_else(|| self.known_way());
        let forced = self.way_to_force();
        let watch = format!("hotpair status {resource} --watch");
        let veto = self.records.stable().veto.map(|veto| veto.reason);
        if refusal == Refusal::Outdated && veto == Some(VetoReason::RecordLost) {
            let fill = if self.is_under_pacemaker() {
                self.move_to(peer)
            } else {
                format!("on {peer}: hotpair promote {resource}")
            };
            let next = format!(
                "{fill}, which fills this copy; only if {peer} cannot serve either, to give up what is \
                 missing: {forced} --accept-data-loss"
            );
            return Refused { why: controller::Obstacle::RecordLost.to_string(), next };
        }
        let next = match refusal {
            Refusal::PeerIsPrimary if self.must_choose() => {
                format!("hotpair split-brain show {resource}")
            }
            Refusal::PeerIsPrimary if self.is_in_sync() => self.way_to_switch(),
            Refusal::PeerAway | Refusal::HandingOver | Refusal::Vetoed | Refusal::NotFollowed => {
                match first {
                    Some(first) => {
                        format!("{first}; only if {peer} is off and stays off: {forced}")
                    }
                    None => {
                        format!("bring {peer} back, or make sure that it is off and type: {forced}")
                    }
                }
            }
            Refusal::Outdated | Refusal::Doubtful if !is_running => match first {
                Some(first) => format!(
                    "{first}; only if {peer} is lost, to give up what is missing: {forced} \
                     --accept-data-loss"
                ),
                None => format!(
                    "bring {peer} back, or give up what is missing: {forced} --accept-data-loss"
                ),
            },
            Refusal::Fresh | Refusal::Inconsistent if !is_running => {
                let first = first.unwrap_or_else(|| self.way_to_peer());
                format!("{first}; when both are connected, let the resync end: {watch}")
            }
            Refusal::DiskFailed => format!(
                "mend or replace the disk and start hotpair again; if the copy is lost, type \
                 before: hotpair init {resource} --from peer --rebuild"
            ),
            Refusal::NotInSync if self.peer_has_no_disk() => format!(
                "mend the disk of {peer}; if it is lost, stop hotpair there, so that it serves \
                 nobody, and type: {forced}"
            ),
            Refusal::PeerIsPrimary | Refusal::NotInSync => first.unwrap_or(watch),
            Refusal::Outdated | Refusal::Doubtful | Refusal::Fresh | Refusal::Inconsistent => {
                format!("let the resync end: {watch}")
            }
            Refusal::SplitBrain => format!("hotpair split-brain show {resource}"),
        };
        Refused { why, next }
    }
}
