//! A pair under Pacemaker: a cluster that stops or fences one node before it promotes the other, and the
//! fence script that tells it which node must not be promoted.
//!
//! The cluster never lies and never promotes against the constraint that it knows. It may lose sight of a
//! node that lives; then it fences that one first. A node that was off when the constraint was placed or
//! removed has a configuration from before it, and starts with that if the other one is off.

use fastrand::Rng;
use hotpair::promotion::fencing::{FenceAction, FenceAnswer, FenceOrder};
use hotpair::replica::{AgentCommand, Command, Replica};
use hotpair::units::{DiskState, Role};

use crate::alone::FencePlan;
use crate::broken::Checked;
use crate::net::Time;
use crate::world::{Event, World, millis};

/// What the cluster remembers.
#[derive(Debug)]
pub(crate) struct Cluster {
    rng: Rng,
    /// The only node that may be promoted, and which run of its script said that.
    pub(crate) only: Option<(usize, u64)>,
    /// Counts up with each change of that.
    version: u64,
    /// What each node has on its disk of both.
    known: [(Option<(usize, u64)>, u64); 2],
    /// Its messages take the cable that the nodes have, too.
    pub(crate) shares_cable: bool,
    idle_since: Option<Time>,
    /// A promotion that was ordered: node, request, when.
    asked: Option<(usize, u64, Time)>,
    /// A demotion, likewise.
    demoting: Option<(usize, Time)>,
    attempts: u64,
}

impl Cluster {
    pub(crate) fn new(mut rng: Rng) -> Self {
        let shares_cable = rng.bool();
        Self {
            rng,
            only: None,
            version: 0,
            known: [(None, 0); 2],
            shares_cable,
            idle_since: None,
            asked: None,
            demoting: None,
            attempts: 0,
        }
    }
}

impl World {
    /// Whether Pacemaker says who serves.
    pub(crate) fn has_cluster(&self) -> bool {
        self.plan.alone.as_ref().is_some_and(crate::alone::AlonePlan::is_pacemaker)
    }

    /// The cluster looks at both nodes, and does the next thing.
    pub(crate) fn on_cluster_turn(&mut self) -> Checked {
        self.fence_by_chance()?;
        let primary = (0..2).find(|at| self.is_primary(*at));
        let Some(primary) = primary else {
            self.cluster.demoting = None;
            return self.promote_by_cluster();
        };
        self.cluster.idle_since = None;
        self.release_fenced();
        let is_banned = self.cluster.only.is_some_and(|(only, _)| only != primary);
        let moves = !self.is_healing && self.is_in_sync() && self.cluster.rng.u8(..60) == 0;
        match self.cluster.demoting {
            Some((at, since)) if at == primary => {
                if self.now - since > millis(20_000) {
                    self.cluster.demoting = None;
                    return self.fence_by_cluster(primary);
                }
            }
            Some(_) | None if is_banned || moves => {
                if self.nodes[primary].awake().is_some() {
                    self.marks.add(if moves { "moved by the cluster" } else { "banned" });
                    self.cluster.demoting = Some((primary, self.now));
                    self.command(primary, Command::Agent(AgentCommand::Demote))?;
                }
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// A node comes up: it joins the other one, or starts with what it has.
    pub(crate) fn joins_cluster(&mut self, at: usize) {
        let is_alone = self.nodes[1 - at].process.is_none();
        let (only, version) = self.cluster.known[at];
        if is_alone || version > self.cluster.version {
            (self.cluster.only, self.cluster.version) = (only, version);
        }
        self.cluster.known[at] = (self.cluster.only, self.cluster.version);
        if !is_alone {
            self.cluster.known[1 - at] = self.cluster.known[at];
        }
    }

    /// Whoever is up learns of it.
    fn set_only(&mut self, only: Option<(usize, u64)>) {
        self.cluster.version += 1;
        self.cluster.only = only;
        for at in 0..2 {
            if self.nodes[at].process.is_some() {
                self.cluster.known[at] = (only, self.cluster.version);
            }
        }
    }

    fn is_primary(&self, at: usize) -> bool {
        self.nodes[at].core().is_some_and(Replica::is_primary)
    }

    /// With the cable cut that its messages take, each node is lost to the other one's part of the
    /// cluster, and one of them is faster.
    fn fence_by_chance(&mut self) -> Checked {
        let is_cut = self.cluster.shares_cable && self.net.is_cut();
        if !is_cut || self.is_healing || self.cluster.rng.u8(..12) != 0 {
            return Ok(());
        }
        let loser = usize::from(self.cluster.rng.bool());
        self.fence_by_cluster(loser)
    }

    /// Switches a machine off; it may come back at any time once nobody needs it off.
    fn fence_by_cluster(&mut self, at: usize) -> Checked {
        if self.nodes[at].process.is_none() || self.operator.broken_disk == Some(1 - at) {
            return Ok(());
        }
        self.marks.add("fenced by the cluster");
        let is_power = self.cluster.rng.u8(..4) == 0;
        self.kill(at, is_power)
    }

    fn promote_by_cluster(&mut self) -> Checked {
        let since = *self.cluster.idle_since.get_or_insert(self.now);
        let is_busy = self.cluster.asked.is_some_and(|(at, request, when)| {
            let is_answered = self.operator.take_answer(request).is_some();
            !is_answered && self.nodes[at].process.is_some() && self.now - when < millis(10_000)
        });
        if is_busy || self.now - since < millis(1_000) {
            return Ok(());
        }
        self.cluster.asked = None;
        self.release_fenced();
        self.cluster.attempts += 1;
        let first = usize::try_from(self.cluster.attempts % 2).unwrap();
        let Some(at) = [first, 1 - first].into_iter().find(|at| self.has_score(*at)) else {
            return Ok(());
        };
        let is_hidden =
            self.nodes[1 - at].awake().is_none() || self.cluster.shares_cable && self.net.is_cut();
        if is_hidden {
            // It is fenced before the other one is promoted, and does not come back meanwhile.
            self.fence_by_cluster(1 - at)?;
            if self.nodes[1 - at].process.is_some() {
                return Ok(());
            }
            self.nodes[1 - at].is_held_down = true;
        }
        self.marks.add("promoted by the cluster");
        let (force, accept_data_loss) = (false, false);
        let asked = AgentCommand::Promote { force, accept_data_loss };
        let request = self.command(at, Command::Agent(asked))?;
        self.cluster.asked = Some((at, request, self.now));
        Ok(())
    }

    /// Whether the agent gives this node a score for promotion, and no constraint takes it away.
    fn has_score(&self, at: usize) -> bool {
        let may_be = self.cluster.only.is_none_or(|(only, _)| only == at);
        let status = self.status(at).filter(|_| self.nodes[at].awake().is_some());
        may_be
            && status.is_some_and(|status| {
                // A run that has just started has none yet.
                let Some(promotion) = status.promotion else { return false };
                status.role == Role::Secondary
                    && status.disk == DiskState::UpToDate
                    && promotion.veto.is_none()
                    && !promotion.doubtful
                    && status.state != "syncing"
                    && (status.state != "isolated" || promotion.takes_over)
            })
    }

    fn release_fenced(&mut self) {
        for at in 0..2 {
            if std::mem::take(&mut self.nodes[at].is_held_down) {
                let delay = self.cluster.rng.u64(millis(100)..millis(5_000));
                self.after(delay, Event::Start(at));
            }
        }
    }

    /// A core runs the fence script.
    pub(crate) fn order_script(&mut self, at: usize, device: FencePlan, order: FenceOrder) {
        let rng = &mut self.cluster.rng;
        let hangs = match device {
            FencePlan::Works | FencePlan::WorksAfter(_) => false,
            FencePlan::Unreachable => true,
            FencePlan::Flaky => rng.u8(..3) == 0,
        };
        let delay = match device {
            FencePlan::WorksAfter(span) => crate::world::nanos(span),
            _ => rng.u64(millis(1)..millis(3_000)),
        };
        let life = self.nodes[at].life;
        self.fence_runs[at] = order.run;
        let seen = self.cluster.only;
        self.after(delay, Event::ScriptActs { node: at, life, order, hangs, seen });
    }

    /// The script does what it does, also if whoever started it is gone by now.
    pub(crate) fn on_script_acts(
        &mut self,
        (at, life, order): (usize, u64, FenceOrder),
        hangs: bool,
        seen: Option<(usize, u64)>,
    ) {
        if self.nodes[at].life == life && self.fence_runs[at] != order.run {
            self.acts_late(at, order, seen);
            return;
        }
        let answer = match order.action {
            // What fails may have been done all the same.
            FenceAction::Unfence if hangs && self.cluster.rng.bool() => FenceAnswer::Exit(5),
            FenceAction::Unfence => {
                self.remove(seen);
                self.marks.add("constraint lifted");
                FenceAnswer::Exit(i32::from(hangs))
            }
            FenceAction::Withdraw => {
                self.remove(seen.filter(|(only, _)| *only == at));
                self.marks.add("constraint withdrawn");
                FenceAnswer::Exit(i32::from(hangs))
            }
            FenceAction::Fence => self.forbid(at, hangs),
        };
        let delay = self.cluster.rng.u64(millis(1)..millis(2_000));
        self.after(delay, Event::FenceAnswers { node: at, life, run: order.run, answer });
    }

    /// Exactly what a run saw is deleted: nothing that was said since.
    fn remove(&mut self, seen: Option<(usize, u64)>) {
        if seen.is_some() && self.cluster.only == seen {
            self.set_only(None);
        }
    }

    /// The run was killed for a newer one, and what it had asked of the cluster may be done all the same:
    /// to replace or remove exactly what it saw, or to place what was not there.
    fn acts_late(&mut self, at: usize, order: FenceOrder, seen: Option<(usize, u64)>) {
        if self.nodes[at].process.is_none() || self.cluster.rng.u8(..4) != 0 {
            return;
        }
        self.marks.add("a killed script acted");
        match order.action {
            FenceAction::Unfence => self.remove(seen),
            FenceAction::Withdraw => self.remove(seen.filter(|(only, _)| *only == at)),
            FenceAction::Fence => {
                let is_own = seen.is_none_or(|(only, _)| only == at);
                if is_own && self.cluster.only == seen {
                    self.place(at);
                }
            }
        }
    }

    /// Each run has a number of its own.
    fn place(&mut self, at: usize) {
        let run = self.cluster.rng.u64(..);
        self.set_only(Some((at, run)));
    }

    /// Places the constraint, if the other node has not placed its own.
    fn forbid(&mut self, at: usize, hangs: bool) -> FenceAnswer {
        let peer = 1 - at;
        if self.cluster.only.is_some_and(|(only, _)| only == peer) {
            self.marks.add("fence script: 6");
            return FenceAnswer::Exit(6);
        }
        if hangs {
            return *self
                .cluster
                .rng
                .choice(&[FenceAnswer::Exit(5), FenceAnswer::Exit(1), FenceAnswer::TookTooLong])
                .unwrap();
        }
        if self.cluster.shares_cable && self.net.is_cut() && self.nodes[peer].process.is_some() {
            // No member, and not fenced: nobody knows.
            self.marks.add("fence script: 5");
            return FenceAnswer::Exit(5);
        }
        self.place(at);
        if self.nodes[peer].process.is_none() && self.cluster.rng.bool() {
            self.marks.add("fence script: 7");
            return FenceAnswer::Exit(7);
        }
        self.marks.add("fence script: 4");
        FenceAnswer::Exit(4)
    }
}
