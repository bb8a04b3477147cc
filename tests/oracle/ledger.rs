//! Which values a copy may hold: what was acknowledged, what was flushed, what may still appear.
//!
//! A value is *superseded* when a later write of the register, called after this one had ended,
//! must have taken effect. Which writes must have taken effect depends on what happened: all that
//! were acknowledged, or after a power cut of both nodes only those that a flush covered.

use std::collections::BTreeMap;
use std::fmt;

use super::{INITIAL, Moment, Value, ZEROED};

/// Every write of each register that may still be found somewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    registers: BTreeMap<u64, Vec<Entry>>,
    /// Registers with acknowledged writes that no flush covered yet.
    unflushed: BTreeMap<u64, Moment>,
}

/// One write of one register.
#[derive(Clone, Copy, Debug)]
struct Entry {
    value: Value,
    called: Moment,
    /// It takes effect before this moment or never.
    ended: Moment,
    /// `Moment::MAX` while it is not acknowledged.
    acknowledged: Moment,
    is_flushed: bool,
}

/// Which writes must be there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Floor {
    /// All that were acknowledged.
    Acknowledged,
    /// All that were acknowledged with FUA, or before the call of an acknowledged FLUSH.
    Flushed,
    /// All that were acknowledged before this moment.
    AcknowledgedBefore(Moment),
}

/// A copy holds what it must not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// Nobody wrote this value there.
    NeverWritten { register: u64, value: Value },
    /// A write that must be there is not.
    Lost { register: u64, found: Value, missing: Value },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({INITIAL} is the first content, {ZEROED} zeroes)")
    }
}

impl Ledger {
    /// The register holds `value` before everything, stable on both copies.
    pub(crate) fn begins_with(&mut self, register: u64, value: Value) {
        let entry = Entry { value, called: 0, ended: 0, acknowledged: 0, is_flushed: true };
        self.registers.insert(register, vec![entry]);
    }

    /// Every register, in order.
    pub(crate) fn registers(&self) -> impl Iterator<Item = u64> {
        self.registers.keys().copied()
    }

    /// A write of `value` was called.
    pub(crate) fn called(&mut self, register: u64, value: Value, at: Moment) {
        let entry = Entry {
            value,
            called: at,
            ended: Moment::MAX,
            acknowledged: Moment::MAX,
            is_flushed: false,
        };
        self.registers.entry(register).or_default().push(entry);
    }

    /// It was acknowledged.
    pub(crate) fn acknowledged(&mut self, register: u64, value: Value, at: Moment) {
        if let Some(entry) = self.entry(register, value) {
            entry.acknowledged = entry.acknowledged.min(at);
            entry.ended = entry.ended.min(at);
            self.unflushed.insert(register, at);
        }
    }

    /// It was acknowledged as stable.
    pub(crate) fn stable(&mut self, register: u64, value: Value) {
        if let Some(entry) = self.entry(register, value) {
            entry.is_flushed = true;
        }
    }

    /// It will not be acknowledged; it takes effect before `deadline` or never.
    pub(crate) fn ended(&mut self, register: u64, value: Value, deadline: Moment) {
        if let Some(entry) = self.entry(register, value) {
            entry.ended = entry.ended.min(deadline);
        }
    }

    /// A FLUSH that was called then was acknowledged.
    pub(crate) fn flushed(&mut self, called: Moment) {
        let touched: Vec<u64> = self.unflushed.keys().copied().collect();
        for register in touched {
            let entries = self.registers.entry(register).or_default();
            for entry in entries.iter_mut().filter(|entry| entry.acknowledged < called) {
                entry.is_flushed = true;
            }
            if entries.iter().all(|entry| entry.is_flushed || entry.acknowledged == Moment::MAX) {
                self.unflushed.remove(&register);
            }
        }
    }

    /// What was lost is accepted: from here on, `value` is what clients see there.
    pub(crate) fn restarts_with(&mut self, register: u64, value: Value, at: Moment) {
        let entries = self.registers.entry(register).or_default();
        entries.retain(|entry| entry.value != value);
        for entry in entries.iter_mut() {
            entry.ended = entry.ended.min(at);
        }
        let entry = Entry { value, called: at, ended: at, acknowledged: at, is_flushed: false };
        entries.push(entry);
        self.unflushed.insert(register, at);
    }

    /// Whether a copy may hold `value` there.
    pub(crate) fn check(&self, register: u64, value: Value, floor: Floor) -> Result<(), Loss> {
        let entries = self.registers.get(&register).map_or(&[][..], Vec::as_slice);
        let found = entries.iter().find(|entry| entry.value == value);
        let Some(found) = found else { return Err(Loss::NeverWritten { register, value }) };
        let missing = entries.iter().find(|entry| entry.is_in(floor) && entry.called > found.ended);
        match missing {
            Some(entry) => Err(Loss::Lost { register, found: value, missing: entry.value }),
            None => Ok(()),
        }
    }

    /// When the write of `value` was called.
    pub(crate) fn call_of(&self, register: u64, value: Value) -> Option<Moment> {
        let entries = self.registers.get(&register)?;
        entries.iter().find(|entry| entry.value == value).map(|entry| entry.called)
    }

    fn entry(&mut self, register: u64, value: Value) -> Option<&mut Entry> {
        self.registers.get_mut(&register)?.iter_mut().find(|entry| entry.value == value)
    }
}

impl Entry {
    fn is_in(&self, floor: Floor) -> bool {
        match floor {
            Floor::Acknowledged => self.acknowledged != Moment::MAX,
            Floor::Flushed => self.is_flushed,
            Floor::AcknowledgedBefore(moment) => self.acknowledged < moment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_must_be_there_and_an_unanswered_one_may() {
        let mut ledger = Ledger::default();
        ledger.begins_with(0, INITIAL);
        ledger.called(0, 1, 1);
        assert!(ledger.check(0, INITIAL, Floor::Acknowledged).is_ok());
        assert!(ledger.check(0, 1, Floor::Acknowledged).is_ok());
        ledger.acknowledged(0, 1, 2);
        let lost = Loss::Lost { register: 0, found: INITIAL, missing: 1 };
        assert_eq!(ledger.check(0, INITIAL, Floor::Acknowledged), Err(lost));
        assert!(ledger.check(0, INITIAL, Floor::Flushed).is_ok());
        let never = Loss::NeverWritten { register: 0, value: 9 };
        assert_eq!(ledger.check(0, 9, Floor::Flushed), Err(never));
    }

    #[test]
    fn a_flush_covers_what_was_acknowledged_before_it_was_called() {
        let mut ledger = Ledger::default();
        ledger.begins_with(0, INITIAL);
        ledger.begins_with(512, INITIAL);
        ledger.called(0, 1, 1);
        ledger.acknowledged(0, 1, 2);
        ledger.called(512, 2, 3);
        ledger.acknowledged(512, 2, 5);
        ledger.flushed(4);
        assert!(ledger.check(0, INITIAL, Floor::Flushed).is_err());
        assert!(ledger.check(512, INITIAL, Floor::Flushed).is_ok());
    }

    #[test]
    fn concurrent_writes_may_win_in_either_order() {
        let mut ledger = Ledger::default();
        ledger.begins_with(0, INITIAL);
        ledger.called(0, 1, 1);
        ledger.called(0, 2, 2);
        ledger.acknowledged(0, 2, 3);
        ledger.acknowledged(0, 1, 4);
        ledger.flushed(5);
        for value in [1, 2] {
            assert!(ledger.check(0, value, Floor::Acknowledged).is_ok());
        }
        assert!(ledger.check(0, INITIAL, Floor::Acknowledged).is_err());
    }

    #[test]
    fn an_ended_write_is_superseded_by_what_came_after_its_deadline() {
        let mut ledger = Ledger::default();
        ledger.begins_with(0, INITIAL);
        ledger.called(0, 1, 1);
        ledger.ended(0, 1, 4);
        ledger.called(0, 2, 5);
        ledger.acknowledged(0, 2, 6);
        assert!(ledger.check(0, 1, Floor::Acknowledged).is_err());
        assert!(ledger.check(0, 1, Floor::Flushed).is_ok());
    }
}
