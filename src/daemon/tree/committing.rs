//! What the worker does to the tree of a node that follows: the commit of a generation, and its apply.

use super::keeping::{set_leaves_way_back, tell, went_back};
use super::orders::Report;
use super::worker::{Worker, closed_of, in_one_line};
use crate::manifest::target::{ApplyEnd, CommitEnd, Refusal};
use crate::store::tree::apply::{ApplyError, Outcome, REGISTER_LEN};
use crate::store::tree::receive::{Prepared, ReceiveError};
use crate::store::tree::target::TargetError;
use crate::wire::TreeRefusal;

impl Worker {
    /// From here on the tree goes to what is prepared, if that is still for the tree as it is.
    pub(super) fn commit(
        &mut self,
        prepared: Box<Prepared>,
        register: &[u8; REGISTER_LEN],
    ) -> Option<Box<Prepared>> {
        let found = match self.target.look_again(&prepared) {
            Ok(found) => found,
            Err(error) => {
                self.say(Report::Committed(CommitEnd::Failed));
                self.fail("the tree cannot be looked at", &error);
                return None;
            }
        };
        if let Some(first) = found.iter().find(|it| it.why.is_obstacle()).or(found.first()) {
            let words =
                format!("the tree was changed by somebody else: {}", tell(&self.target, first));
            let refusal = Refusal { why: TreeRefusal::Kind, words };
            self.say(Report::Committed(CommitEnd::Refused(refusal)));
            if !first.why.is_obstacle() {
                self.found_foreign(&found);
            }
            return None;
        }
        let mut register = *register;
        if went_back(&self.target.applier().records().register) {
            set_leaves_way_back(&mut register);
        }
        let register = &register;
        match self.target.commit(&prepared, register) {
            Ok(()) => {
                self.newest = closed_of(register);
                self.say(Report::Committed(CommitEnd::Done));
                return Some(prepared);
            }
            Err(error) => {
                self.make_room(&error);
                if let Some(refusal) = refusal_of(&error) {
                    self.say(Report::Committed(CommitEnd::Refused(refusal)));
                } else {
                    self.say(Report::Committed(CommitEnd::Failed));
                    self.fail("a generation cannot be committed", &error);
                }
            }
        }
        None
    }

    /// Brings the tree to what was committed.
    pub(super) fn apply(&mut self, prepared: Option<Box<Prepared>>) {
        let Some(prepared) = prepared else { return };
        let moment = self.moment();
        let end = match self.target.apply(*prepared, moment) {
            Ok(Outcome::Applied(_) | Outcome::Rest) => {
                if !self.left_way_back() {
                    return;
                }
                ApplyEnd::Done
            }
            Ok(Outcome::Undone { position, why }) => {
                if !self.left_way_back() {
                    return;
                }
                self.make_room_after(why.as_deref());
                let words = why.map_or_else(String::new, |why| in_one_line(&why));
                let why = TreeRefusal::Space;
                ApplyEnd::Undone { position, refusal: Refusal { why, words } }
            }
            Err(error) => {
                self.fail("a generation cannot be applied", &error);
                ApplyEnd::Failed
            }
        };
        let space = self.target.space().unwrap_or_default();
        self.say(Report::Applied { end, space });
        self.keep_house();
        self.compare_a_while();
    }
}

/// What the peer is told; `None` if this node's disk is at fault.
pub(super) fn refusal_of(error: &TargetError) -> Option<Refusal> {
    let why = match error {
        error if error.missing_bytes().is_some() => TreeRefusal::Space,
        TargetError::Receive(error) => match &**error {
            ReceiveError::Manifest(_) | ReceiveError::LeftOut { .. } => TreeRefusal::Record,
            ReceiveError::NotWanted { .. } | ReceiveError::WrongBytes { .. } => TreeRefusal::Record,
            ReceiveError::TooLarge { .. } => TreeRefusal::Limit,
            ReceiveError::Position { .. } | ReceiveError::Incomplete { .. } => {
                TreeRefusal::Position
            }
            ReceiveError::Root { .. } => TreeRefusal::Root,
            ReceiveError::Kernel { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    TreeRefusal::Space
                }
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::Unsupported => {
                    TreeRefusal::Kind
                }
                _ => return None,
            },
            ReceiveError::Spool(_)
            | ReceiveError::Index(_)
            | ReceiveError::Patch(_)
            | ReceiveError::NoRoom { .. }
            | ReceiveError::Plan(_) => return None,
        },
        TargetError::Apply(ApplyError::NoSpace { .. }) => TreeRefusal::Space,
        TargetError::Apply(ApplyError::OutOfTurn { .. } | ApplyError::Missing(_)) => {
            TreeRefusal::Position
        }
        TargetError::Apply(_)
        | TargetError::Index(_)
        | TargetError::Unknown
        | TargetError::NotSurveyed
        | TargetError::Survey(_)
        | TargetError::Kept(_)
        | TargetError::NotKept(_)
        | TargetError::NotHeld { .. }
        | TargetError::UnderWay
        | TargetError::State(_) => return None,
    };
    Some(Refusal { why, words: in_one_line(error) })
}
