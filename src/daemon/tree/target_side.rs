//! What a node does that follows: take generations, commit the one that the core writes, apply it.

use super::orders::{Order, Report};
use super::register_file::Block;
use super::worker::local_register;
use super::{Deed, ROOM_LEFT, TreeDesk};
use crate::manifest::decode_register;
use crate::manifest::target::{ApplyEnd, CommitEnd, Io, Outcome, TargetEffect, TargetInput};
use crate::replica::{DiskOutcome, Input, IoId};
use crate::wire::{TREE_RECORDS_AHEAD_MAX, TreeMessage, TreeNote};

impl TreeDesk {
    /// Something of the source, as fast as the worker takes it.
    pub(super) fn on_bulk(&mut self, message: TreeMessage) {
        if matches!(message.note, TreeNote::DeltaRecords { .. }) {
            self.untaken += 1;
        }
        // A delta that was given up is taken back from the worker after the next one has begun.
        if self.untaken > 4 * TREE_RECORDS_AHEAD_MAX || self.orders.capacity() < ROOM_LEFT {
            let what = "the source sends more than it was asked for";
            self.deeds.push_back(Deed::CloseLink { what });
            return;
        }
        self.tell_target(TargetInput::Said(message));
    }

    /// The core writes a register that came from the peer: the order to commit what it names.
    pub(super) fn on_commit_asked(&mut self, io: IoId, block: Block) {
        if self.goes_back() {
            // The tree leaves what the machine takes it for.
            return self.input(Input::Disk { io, outcome: DiskOutcome::NoSpace });
        }
        let position = Self::named_by(&block);
        self.asked.insert(io.0, block);
        self.tell_target(TargetInput::RegisterAsked { io: Io(io.0), position });
    }

    pub(super) fn carry_out_target(&mut self, effect: TargetEffect) {
        match effect {
            TargetEffect::Say(note) => self.say(TreeMessage::bare(note)),
            TargetEffect::Begin { attempt, base, number: _ } => {
                self.order(Order::Begin { attempt, base });
            }
            TargetEffect::Push { attempt, packing, records } => {
                self.order(Order::Push { attempt, packing, records });
            }
            TargetEffect::End { attempt, position, label, fuzzy_count: _ } => {
                self.order(Order::End { attempt, position, label });
            }
            TargetEffect::StageMore { attempt, chunks_max } => {
                self.order(Order::StageMore { attempt, chunks_max });
            }
            TargetEffect::Put { attempt, table, packing, bytes } => {
                self.order(Order::Put { attempt, table, packing, bytes });
            }
            TargetEffect::Prepare { attempt } => self.order(Order::Prepare { attempt }),
            TargetEffect::Commit { io, attempt, position: _ } => self.order_commit(io, attempt),
            TargetEffect::Store { io } => self.store(io),
            TargetEffect::Complete { io, outcome } => self.complete(io, outcome),
            TargetEffect::Apply => self.order(Order::Apply),
            TargetEffect::Drop { attempt } => self.order(Order::Drop { attempt }),
            TargetEffect::Close { what } => self.deeds.push_back(Deed::CloseLink { what }),
        }
    }

    fn order_commit(&mut self, io: Option<Io>, attempt: crate::manifest::target::Attempt) {
        let register = match io.map(|io| self.asked.get(&io.0)) {
            Some(Some(block)) => decode_register(&**block).ok().flatten(),
            Some(None) => return,
            None => self.register,
        };
        let register = local_register(register.as_ref(), false);
        self.order(Order::Commit { attempt, register });
    }

    /// The tree is what the register says, or goes there: the file says so from here on.
    fn store(&mut self, io: Io) {
        let Some(block) = self.asked.remove(&io.0) else { return };
        self.register = Self::read_block(&block);
        self.block.clone_from(&block);
        self.file.write(Some(IoId(io.0)), block);
    }

    fn complete(&mut self, io: Io, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Done => return self.store(io),
            // To the core this node has no room for it, and falls behind.
            Outcome::NotStaged | Outcome::Busy | Outcome::Undone => DiskOutcome::NoSpace,
            Outcome::Failed => DiskOutcome::Failed,
        };
        self.asked.remove(&io.0);
        self.input(Input::Disk { io: IoId(io.0), outcome });
    }

    pub(super) fn on_target_report(&mut self, report: Report) {
        match report {
            Report::Taken => {
                self.untaken = self.untaken.saturating_sub(1);
                if self.session.is_some_and(|session| !session.is_source) {
                    self.say(TreeMessage::bare(TreeNote::RecordsTaken { count: 1 }));
                }
            }
            Report::Checked { attempt, result } => {
                self.tell_target(TargetInput::Checked { attempt, result });
            }
            Report::Wants { attempt, chunks, is_all } => {
                self.tell_target(TargetInput::Wants { attempt, chunks, is_all });
            }
            Report::AllStaged { attempt } => self.tell_target(TargetInput::AllStaged { attempt }),
            Report::StageFailed { attempt, refusal } => {
                self.note_refusal(&refusal);
                self.tell_target(TargetInput::StageFailed { attempt, refusal });
            }
            Report::Garbled { attempt } => self.tell_target(TargetInput::Garbled { attempt }),
            Report::Prepared { attempt, result } => {
                self.tell_target(TargetInput::Prepared { attempt, result });
            }
            Report::Committed(end) => {
                if matches!(end, CommitEnd::Done) {
                    self.keeping.forget_way_back();
                }
                self.tell_target(TargetInput::Committed(end));
            }
            Report::Applied { end, space } => {
                let undone = match &end {
                    ApplyEnd::Undone { refusal, .. } => Some(refusal.words.clone()),
                    ApplyEnd::Done | ApplyEnd::Failed => None,
                };
                self.tell_target(TargetInput::Applied { end, space });
                if let Some(why) = undone {
                    self.input(Input::FellBack { why });
                }
                self.release_syncs();
            }
            Report::Serves { .. }
            | Report::Lends { .. }
            | Report::Rests { .. }
            | Report::Captured { .. }
            | Report::CaptureFailed { .. }
            | Report::Halted { .. }
            | Report::Foreign { .. }
            | Report::Usage(_)
            | Report::Dropped { .. }
            | Report::CutOff { .. }
            | Report::Generations { .. }
            | Report::WentBack { .. }
            | Report::Failed { .. } => {}
        }
    }

    fn note_refusal(&mut self, refusal: &crate::manifest::target::Refusal) {
        let reason = format!("a generation is not taken: {}", refusal.words);
        self.deeds.push_back(Deed::Event { kind: "generation-refused", reason });
    }
}
