//! Whether what clients saw fits together: linearizability, register by register.
//!
//! Values are unique, so each value has a *zone*: f is the first answer among its write and its
//! reads, s the last call among them. f < s makes a forward zone from f to s, in which the register
//! must have held the value all the time; else a backward zone from s to f, somewhere in which it
//! did. A history is linearizable exactly if no read precedes its write, no two forward zones
//! overlap and no backward zone lies inside a forward one. Source: Gibbons and Korach, "Testing
//! Shared Memories", 1997.

use std::collections::BTreeMap;
use std::fmt;

use super::{INITIAL, Moment, Value, ZEROED};

/// What clients called and were answered, as zones.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    registers: BTreeMap<u64, BTreeMap<Value, Zone>>,
}

/// Everything that is known of one value of one register.
#[derive(Clone, Copy, Debug)]
struct Zone {
    write_called: Moment,
    /// The first answer among the write and the reads.
    first_answer: Moment,
    /// The last call among the write and the reads.
    last_call: Moment,
    /// The write was answered or a read returned it. Else it may as well not have happened.
    is_visible: bool,
}

/// Why a history cannot be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Violation {
    /// A read returned what nobody had written.
    NeverWritten { register: u64, value: Value },
    /// A read was answered before the write of its value was called.
    BeforeItsWrite { register: u64, value: Value },
    /// Both values must have been there at one moment.
    TwoAtOnce { register: u64, one: Value, other: Value },
    /// One value was there all the time in which the other one must have been.
    Stale { register: u64, value: Value, hidden_by: Value },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not linearizable: {self:?} ({INITIAL} is the first content, {ZEROED} zeroes)")
    }
}

impl History {
    /// The register holds `value` before the history begins.
    pub(crate) fn begins_with(&mut self, register: u64, value: Value) {
        let zone = Zone { write_called: 0, first_answer: 0, last_call: 0, is_visible: true };
        self.registers.entry(register).or_default().insert(value, zone);
    }

    /// A write of `value` was called.
    pub(crate) fn write_called(&mut self, register: u64, value: Value, at: Moment) {
        let zone =
            Zone { write_called: at, first_answer: Moment::MAX, last_call: at, is_visible: false };
        self.registers.entry(register).or_default().entry(value).or_insert(zone);
    }

    /// It was answered with success.
    pub(crate) fn write_answered(&mut self, register: u64, value: Value, at: Moment) {
        if let Some(zone) = self.zone(register, value) {
            zone.first_answer = zone.first_answer.min(at);
            zone.is_visible = true;
        }
    }

    /// It was never answered; it may have taken effect until `deadline`, never later.
    pub(crate) fn write_ended(&mut self, register: u64, value: Value, deadline: Moment) {
        if let Some(zone) = self.zone(register, value) {
            zone.first_answer = zone.first_answer.min(deadline);
        }
    }

    /// A read, called and answered then, returned `value`.
    pub(crate) fn read(
        &mut self,
        register: u64,
        value: Value,
        called: Moment,
        answered: Moment,
    ) -> Result<(), Violation> {
        let zone = self.zone(register, value).ok_or(Violation::NeverWritten { register, value })?;
        if answered < zone.write_called {
            return Err(Violation::BeforeItsWrite { register, value });
        }
        zone.first_answer = zone.first_answer.min(answered);
        zone.last_call = zone.last_call.max(called);
        zone.is_visible = true;
        Ok(())
    }

    /// Whether all of it fits together.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        self.registers.iter().try_for_each(|(register, zones)| check_register(*register, zones))
    }

    fn zone(&mut self, register: u64, value: Value) -> Option<&mut Zone> {
        self.registers.get_mut(&register)?.get_mut(&value)
    }
}

fn check_register(register: u64, zones: &BTreeMap<Value, Zone>) -> Result<(), Violation> {
    let visible = || zones.iter().filter(|(_, zone)| zone.is_visible);
    let mut forward: Vec<(Moment, Moment, Value)> = visible()
        .filter(|(_, zone)| zone.first_answer < zone.last_call)
        .map(|(value, zone)| (zone.first_answer, zone.last_call, *value))
        .collect();
    forward.sort_unstable();
    for pair in forward.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(Violation::TwoAtOnce { register, one: pair[0].2, other: pair[1].2 });
        }
    }
    for (value, zone) in visible().filter(|(_, zone)| zone.first_answer >= zone.last_call) {
        let behind = forward.partition_point(|(start, _, _)| *start < zone.last_call);
        let Some((_, end, holder)) = behind.checked_sub(1).map(|at| forward[at]) else { continue };
        if zone.first_answer < end {
            return Err(Violation::Stale { register, value: *value, hidden_by: holder });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One operation of a small history of one register.
    #[derive(Clone, Copy, Debug)]
    struct Operation {
        is_write: bool,
        value: Value,
        called: Moment,
        /// `None`: a write that was never answered.
        answered: Option<Moment>,
    }

    /// Tries every order: the definition itself.
    fn some_order_explains(operations: &[Operation]) -> bool {
        let mut tried = BTreeSet::new();
        let mut open = vec![(0_u32, INITIAL)];
        while let Some((done, value)) = open.pop() {
            if !tried.insert((done, value)) {
                continue;
            }
            let rest: Vec<usize> =
                (0..operations.len()).filter(|at| done & (1 << at) == 0).collect();
            if rest.iter().all(|at| operations[*at].answered.is_none()) {
                return true;
            }
            let first_end =
                rest.iter().filter_map(|at| operations[*at].answered).min().unwrap_or(Moment::MAX);
            for at in rest {
                let next = operations[at];
                if next.called < first_end && (next.is_write || next.value == value) {
                    open.push((done | 1 << at, next.value));
                }
            }
        }
        false
    }

    fn zones_explain(operations: &[Operation]) -> bool {
        let mut history = History::default();
        history.begins_with(0, INITIAL);
        for op in operations.iter().filter(|op| op.is_write) {
            history.write_called(0, op.value, op.called);
            if let Some(at) = op.answered {
                history.write_answered(0, op.value, at);
            }
        }
        let mut reads = operations.iter().filter(|op| !op.is_write);
        reads.all(|op| history.read(0, op.value, op.called, op.answered.unwrap()).is_ok())
            && history.check().is_ok()
    }

    /// Runs a true register with overlapping operations; `stale` reads now and then return any
    /// value that was ever written.
    fn random_history(rng: &mut fastrand::Rng, is_lying: bool) -> Vec<Operation> {
        let count = rng.usize(2..=20);
        let mut operations = Vec::new();
        let mut now = 0;
        let mut open: Vec<Operation> = Vec::new();
        let mut value = INITIAL;
        let mut written = vec![INITIAL];
        while operations.len() + open.len() < count || !open.is_empty() {
            now += 1;
            let may_call = operations.len() + open.len() < count && open.len() < 5;
            if may_call && (open.is_empty() || rng.bool()) {
                let is_write = rng.bool();
                let fresh = u64::try_from(written.len()).unwrap();
                if is_write {
                    written.push(fresh);
                }
                open.push(Operation { is_write, value: fresh, called: now, answered: None });
            } else {
                let mut op = open.swap_remove(rng.usize(..open.len()));
                let is_unknown = op.is_write && rng.u8(..6) == 0;
                if op.is_write && (!is_unknown || rng.bool()) {
                    value = op.value;
                } else if !op.is_write {
                    let is_stale = is_lying && rng.u8(..3) == 0;
                    op.value = if is_stale { *rng.choice(&written).unwrap() } else { value };
                }
                op.answered = (!is_unknown).then_some(now);
                operations.push(op);
            }
        }
        operations
    }

    #[test]
    fn zones_agree_with_trying_every_order() {
        let mut rng = fastrand::Rng::with_seed(20_260_101);
        let mut counts = [0_u32; 2];
        for round in 0..40_000 {
            let operations = random_history(&mut rng, round % 2 == 0);
            let truth = some_order_explains(&operations);
            counts[usize::from(truth)] += 1;
            assert_eq!(zones_explain(&operations), truth, "{operations:#?}");
            assert!(truth || round % 2 == 0, "a true register was called false");
        }
        assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
    }

    #[test]
    fn an_unanswered_write_may_not_appear_after_its_deadline() {
        let mut history = History::default();
        history.begins_with(0, INITIAL);
        history.write_called(0, 1, 1);
        history.write_ended(0, 1, 10);
        history.read(0, INITIAL, 11, 12).unwrap();
        history.check().unwrap();
        history.read(0, 1, 13, 14).unwrap();
        assert!(history.check().is_err());
    }
}
