//! The person who types commands: curious during chaos, sane when it counts.
//!
//! Forces a promotion only when the other node is dead, and keeps it dead meanwhile; with an arbiter
//! until its record names the survivor. But for the seeds that are there to make split brains.

use std::collections::BTreeMap;

use fastrand::Rng;
use hotpair::metadata::Birth;
use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::{AgentCommand, Answer, Command, Input, LinkStatus, Refused};
use hotpair::units::{DiskState, ResourceSize, Role, ServeMode};

use crate::broken::{Broken, Checked};
use crate::ghost::Excuse;
use crate::net::Time;
use crate::node::Node;
use crate::plan::side;
use crate::world::{Event, World, millis, nanos};

/// What the person knows and does.
#[derive(Debug)]
pub(crate) struct Operator {
    rng: Rng,
    next_request: u64,
    answers: BTreeMap<u64, Result<Answer, Refused>>,
    /// Since when nobody serves.
    idle_since: Option<Time>,
    /// The last attempt to get a node to serve.
    attempt: Option<Attempt>,
    attempts: u64,
    /// The last forced one.
    forced: Option<Forced>,
    /// A force was used that may have left two histories.
    pub(crate) split_is_explained: bool,
    /// The node whose disk was broken and is not whole again.
    pub(crate) broken_disk: Option<usize>,
    /// How often a failed node was started again.
    repairs: u64,
    /// The last resize: node, request, size.
    resize: Option<(usize, u64, u64)>,
    /// The last copy that was given up: node, request.
    invalidate: Option<(usize, u64)>,
    /// The node that was made anew since somebody served.
    made_anew: Option<usize>,
}

/// A promotion that was typed.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    node: usize,
    request: u64,
    at: Time,
}

/// A promotion that was forced.
#[derive(Clone, Copy, Debug)]
struct Forced {
    node: usize,
    /// Which run of it was told.
    life: u64,
    request: u64,
}

impl Operator {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            next_request: 1,
            answers: BTreeMap::new(),
            idle_since: None,
            attempt: None,
            attempts: 0,
            forced: None,
            split_is_explained: false,
            broken_disk: None,
            repairs: 0,
            resize: None,
            invalidate: None,
            made_anew: None,
        }
    }

    /// A command was answered.
    pub(crate) fn answered(&mut self, request: u64, result: Result<Answer, Refused>) {
        self.answers.insert(request, result);
    }

    /// The answer to a command, if there is one.
    pub(crate) fn take_answer(&mut self, request: u64) -> Option<Result<Answer, Refused>> {
        self.answers.remove(&request)
    }

    /// Whether this command was answered with success; asks once.
    pub(crate) fn take_success(&mut self, request: u64) -> bool {
        matches!(self.answers.remove(&request), Some(Ok(_)))
    }
}

impl World {
    /// The person looks at both nodes.
    pub(crate) fn on_operator_turn(&mut self) -> Checked {
        let pause = self.operator.rng.u64(millis(200)..millis(900));
        self.after(pause, Event::Operator);
        self.command_by_chance()?;
        self.resize_by_chance()?;
        self.split_by_force()?;
        for at in 0..2 {
            self.look_after(at)?;
        }
        if self.has_cluster() { self.on_cluster_turn() } else { self.see_to_service() }
    }

    /// Types a command on a node.
    pub(crate) fn command(&mut self, at: usize, command: Command) -> Result<u64, Broken> {
        let request = self.operator.next_request;
        self.operator.next_request += 1;
        if let Some(process) = &mut self.nodes[at].process
            && command == Command::Stop
        {
            process.is_stopping = Some(request);
        }
        self.feed(at, Input::Operator { request, command })?;
        Ok(request)
    }

    fn command_by_chance(&mut self) -> Checked {
        if self.is_healing {
            return Ok(());
        }
        let rng = &mut self.operator.rng;
        let at = usize::from(rng.bool());
        let chance = |rng: &mut Rng, mean: Option<std::time::Duration>| {
            mean.is_some_and(|mean| rng.u64(0..nanos(mean)) < millis(550))
        };
        let stops = chance(rng, self.plan.faults.stop);
        let types = chance(rng, self.plan.faults.commands);
        let command = match rng.u8(..12) {
            0..=2 => Command::Switchover,
            3 => Command::Demote,
            4 => Command::Promote { force: false, accept_data_loss: false },
            5 => Command::Disconnect,
            6 => Command::Connect,
            7 => Command::PauseResync,
            8 => Command::ResumeResync,
            9 => Command::Verify { repair: rng.bool() },
            10 => Command::Invalidate,
            _ => Command::Connect,
        };
        if self.nodes[at].awake().is_none() {
            return Ok(());
        }
        if stops {
            self.command(at, Command::Stop)?;
        } else if types && command == Command::Invalidate {
            if self.may_invalidate(at) {
                self.operator.invalidate = Some((at, self.command(at, command)?));
            }
        } else if types {
            self.command(at, command)?;
        }
        Ok(())
    }

    /// Lets the resource grow, or tries to let it shrink, which is always refused.
    fn resize_by_chance(&mut self) -> Checked {
        if let Some((at, request, size)) = self.operator.resize
            && let Some(Ok(answer)) = self.operator.take_answer(request)
        {
            self.operator.resize = None;
            let recorded = self.nodes[at].superblock().size;
            if recorded < size {
                let detail = format!("node {at} has {recorded} of {size} bytes: {answer:?}");
                return Err(Broken::new("HonestAnswer", detail));
            }
            self.marks.add("resize answered");
        }
        let Some(mean) = self.plan.faults.resize else { return Ok(()) };
        let rng = &mut self.operator.rng;
        let at = usize::from(rng.bool());
        let is_due = rng.u64(0..nanos(mean)) < millis(550);
        let shrinks = rng.u8(..8) == 0;
        let Some(status) = self.status(at) else { return Ok(()) };
        if self.is_healing || !is_due || self.nodes[at].awake().is_none() {
            return Ok(());
        }
        let now = status.size_bytes;
        if shrinks {
            let request = self.command(at, Command::Resize { size: now / 2 })?;
            return match self.operator.take_answer(request) {
                Some(Err(_)) => Ok(()),
                answer => Err(Broken::new("OnlyGrows", format!("{now} bytes, half: {answer:?}"))),
            };
        }
        if let Some(size) = self.plan.grown.iter().find(|size| **size > now).copied() {
            let request = self.command(at, Command::Resize { size })?;
            self.operator.resize = Some((at, request, size));
        }
        Ok(())
    }

    /// The careless person of a split-brain seed: promotes the other node of a live pair.
    fn split_by_force(&mut self) -> Checked {
        let may = self.plan.faults.split_brain && !self.is_healing && self.net.is_cut();
        if !may || self.operator.split_is_explained || self.operator.rng.u8(..3) != 0 {
            return Ok(());
        }
        let is_serving = |node: &Node| node.awake().is_some_and(|it| it.export.is_some());
        let Some(serving) = self.nodes.iter().position(is_serving) else { return Ok(()) };
        if self.nodes[1 - serving].awake().is_none() {
            return Ok(());
        }
        self.operator.split_is_explained = true;
        self.ghost.is_split = true;
        self.command(1 - serving, Command::Promote { force: true, accept_data_loss: true })?;
        Ok(())
    }

    /// Giving a copy up is sane only while the other one is complete, and is not being given up.
    fn may_invalidate(&self, at: usize) -> bool {
        let is_being_given_up = self.operator.invalidate.is_some_and(|(node, request)| {
            self.nodes[node].process.is_some() && !self.operator.answers.contains_key(&request)
        });
        self.is_in_sync()
            && !is_being_given_up
            && self.operator.broken_disk.is_none()
            && self.status(at).is_some_and(|status| status.role == Role::Secondary)
    }

    /// Brings one node back to order.
    fn look_after(&mut self, at: usize) -> Checked {
        if self.nodes[at].awake().is_none() {
            let is_down = self.nodes[at].process.is_none();
            if self.is_healing && is_down && !self.is_kept_off(at) {
                self.nodes[at].is_held_down = false;
                return self.on_start(at);
            }
            return Ok(());
        }
        let Some(status) = self.status(at) else { return Ok(()) };
        let patience = if self.is_healing { 1 } else { 12 };
        if self.operator.rng.u8(..patience) != 0 {
            return Ok(());
        }
        if status.disk == DiskState::Failed {
            return self.repair(at);
        }
        let is_stuck =
            status.role == Role::Primary && status.explain.why.contains("type `hotpair demote ");
        if is_stuck && self.has_cluster() {
            self.command(at, Command::Agent(AgentCommand::Demote))?;
        } else if is_stuck {
            self.command(at, Command::Demote)?;
        } else if status.link == LinkStatus::StandAlone && self.operator.rng.u8(..3) == 0 {
            self.command(at, Command::Connect)?;
        } else if status.split_brain.is_some() {
            let keep = side(usize::from(self.operator.rng.bool()));
            self.command(at, Command::Resolve { keep })?;
        } else if status.link == LinkStatus::StandAlone {
            self.command(at, Command::Connect)?;
        } else if status.resync.is_some_and(|resync| resync.paused) {
            self.command(at, Command::ResumeResync)?;
        }
        if self.is_in_sync() {
            self.operator.broken_disk = None;
            self.operator.repairs = 0;
        }
        Ok(())
    }

    /// A failed disk: start again, and if that does not help, make the replica anew.
    fn repair(&mut self, at: usize) -> Checked {
        self.trace.note(&[self.now, 93], || format!("{} {at}: is repaired", self.now));
        self.end_process(at, false)?;
        self.operator.repairs += 1;
        // Giving a copy up is sane only while the other one is complete.
        let is_other_whole = self.nodes[1 - at].superblock().disk == DiskState::UpToDate;
        if self.operator.repairs > 1 && is_other_whole {
            self.make_anew(at);
            self.operator.made_anew = Some(at);
        }
        self.after(millis(300), Event::Start(at));
        Ok(())
    }

    /// `init --rebuild --from peer` on a node that is down.
    pub(crate) fn make_anew(&mut self, at: usize) {
        self.trace.note(&[self.now, 94], || format!("{} {at}: is made anew", self.now));
        // The configuration has the size that the resource has.
        let sizes = [0, 1].map(|node| self.nodes[node].superblock().size);
        self.nodes[at].size = ResourceSize::new(sizes[0].max(sizes[1])).expect("a size");
        self.nodes[at].init(Birth::Rebuilt, 0, &mut self.process_rng);
    }

    /// Nobody serves: after a while the person promotes.
    fn see_to_service(&mut self) -> Checked {
        if self
            .nodes
            .iter()
            .any(|node| node.process.as_ref().is_some_and(|process| process.export.is_some()))
        {
            self.operator.idle_since = None;
            self.operator.made_anew = None;
            self.release();
            return Ok(());
        }
        let since = *self.operator.idle_since.get_or_insert(self.now);
        let patience = if self.is_healing { millis(1_500) } else { millis(3_000) };
        let is_busy = self.operator.attempt.is_some_and(|attempt| {
            self.now - attempt.at < millis(2_000)
                && !self.operator.answers.contains_key(&attempt.request)
        });
        if self.now - since < patience || is_busy {
            return Ok(());
        }
        self.promote_someone()
    }

    fn promote_someone(&mut self) -> Checked {
        self.operator.attempts += 1;
        let count = self.operator.attempts;
        let at = usize::try_from(count % 2).unwrap();
        if self.nodes[at].awake().is_none() {
            return Ok(());
        }
        let is_only_way = self.arbiter_lists_a_copy_that_is_gone(at);
        if is_only_way && self.nodes[1 - at].process.is_some() {
            self.end_process(1 - at, false)?;
        }
        let is_other_dead = self.nodes[1 - at].process.is_none();
        let was_refused = self.operator.attempt.is_some_and(|attempt| attempt.node == at);
        let may_force = is_other_dead && self.plan.faults.failover && !self.is_healing;
        let mut force = may_force && was_refused && self.operator.rng.bool();
        if force && self.went_alone(1 - at) {
            // Status said so: what the dead node wrote alone is here nowhere, and the two will
            // not agree when it comes back.
            force = self.plan.faults.accept_loss && !self.operator.split_is_explained;
            if force {
                self.operator.split_is_explained = true;
                self.ghost.is_split = true;
            }
        }
        let accept = force
            && self.plan.faults.accept_loss
            && self.operator.broken_disk.is_none()
            && self.operator.rng.u8(..3) == 0;
        // Nothing is excused for it: the copy was given up since the other one was complete.
        force |= is_only_way;
        let accept_data_loss = accept || is_only_way;
        if force {
            // It stays off until the survivor serves or has refused.
            self.nodes[1 - at].is_held_down = true;
        }
        if accept {
            self.ghost.excuse = Excuse::Accepted;
            self.operator.split_is_explained = true;
        }
        self.operator.attempt = Some(Attempt { node: at, request: 0, at: self.now });
        let command = Command::Promote { force, accept_data_loss };
        let request = self.command(at, command)?;
        self.operator.attempt = Some(Attempt { node: at, request, at: self.now });
        if force {
            let life = self.nodes[at].life;
            self.operator.forced = Some(Forced { node: at, life, request });
        } else {
            self.release();
        }
        Ok(())
    }

    /// Whether the arbiter lists the other node alone, whose copy was given up since. Its refusals say that only
    /// force is left, and that the other node must be off.
    fn arbiter_lists_a_copy_that_is_gone(&self, at: usize) -> bool {
        let record = self.lasting_record_of(at);
        let lists_it_alone = record.is_some_and(|record| {
            record.owner == side(1 - at) && record.eligible == Eligible::Owner
        });
        self.operator.made_anew == Some(1 - at) && lists_it_alone
    }

    /// Whether the other node is being forced, or was and the arbiter's record does not name it yet:
    /// who is started then may be taken for the owner.
    fn is_kept_off(&self, at: usize) -> bool {
        if self.plan.witness.is_none() || !self.nodes[at].is_held_down {
            return false;
        }
        let other = 1 - at;
        let is_under_way = self.operator.forced.is_some_and(|it| {
            let is_in_this_run = it.node == other && it.life == self.nodes[other].life;
            is_in_this_run && !self.operator.answers.contains_key(&it.request)
        });
        let record = self.nodes[other].superblock();
        // Where the arbiter has no record, or is gone for good, it takes both nodes to make one.
        let is_out_of_line = self.lasting_record_of(at).is_some()
            && record.forced
            && record.owner == Some(side(other))
            && record.serve_mode != ServeMode::None
            && !record.epoch.is_by_arbiter();
        is_under_way || is_out_of_line
    }

    /// Whether a dead node acknowledged what the other one lacks, as its status had shown.
    fn went_alone(&self, at: usize) -> bool {
        let (dead, other) = (self.nodes[at].superblock(), self.nodes[1 - at].superblock());
        let is_known = dead.generation.is_none_or(|generation| {
            other.generation == Some(generation) || other.history.contains(&generation)
        });
        dead.serve_mode == ServeMode::Solo || !is_known
    }

    /// What was kept off may start again.
    fn release(&mut self) {
        for at in 0..2 {
            if !self.is_kept_off(at) && std::mem::take(&mut self.nodes[at].is_held_down) {
                let delay = self.operator.rng.u64(millis(100)..millis(5_000));
                self.after(delay, Event::Start(at));
            }
        }
    }
}
