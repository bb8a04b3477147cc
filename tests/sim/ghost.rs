//! The true history: what clients were told, and what a node that begins to serve must hold.

use std::collections::{BTreeMap, BTreeSet};

use hotpair::units::{Epoch, ReplicationMode};

use crate::broken::{Broken, Checked};
use crate::disk::File;
use crate::load::{Registers, Spot};
use crate::oracle::history::History;
use crate::oracle::ledger::{Floor, Ledger, Loss};
use crate::oracle::stamp::value_of;
use crate::oracle::{INITIAL, Moment, Value, ZEROED};
use crate::plan::Plan;

/// Everything that is true, known to nobody but the test.
#[derive(Debug)]
pub(crate) struct Ghost {
    run: u32,
    mode: ReplicationMode,
    flush_both: bool,
    budget_bytes: u64,
    lens: BTreeMap<u64, u64>,
    history: History,
    ledger: Ledger,
    now: Moment,
    /// Writes without an answer: they may take effect until the next export opens.
    limbo: Vec<(Registers, Value)>,
    zeroed: BTreeSet<u64>,
    /// `async`: acknowledged registers that the other node's file may lack.
    at_risk: BTreeSet<u64>,
    served: Option<Served>,
    /// What may be missing when a node opens its export.
    pub(crate) excuse: Excuse,
    /// Nodes that lost power and were not compared since.
    lost_power: [bool; 2],
    /// Two nodes serve by an operator's will: nothing is true until that is settled.
    pub(crate) is_split: bool,
}

/// Who served last.
#[derive(Clone, Copy, Debug)]
struct Served {
    node: usize,
    epoch: Epoch,
}

/// How a node begins to serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opening {
    /// The one that served before, or the first one.
    Again,
    /// The other one.
    Elsewhere,
    /// With less than was acknowledged, which was to be expected.
    AfterLoss,
}

/// Why acknowledged writes may be missing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Excuse {
    /// They may not.
    None,
    /// The only complete copies lost power: what was not flushed.
    Power,
    /// The operator accepted any loss.
    Accepted,
}

impl Ghost {
    /// The image holds stamps of operation 0 in every spot.
    /// What a resize adds reads as zero.
    pub(crate) fn new(run: u32, plan: &Plan, spots: &[Spot], late: &[Spot]) -> Self {
        let mut ghost = Self {
            run,
            mode: plan.mode,
            flush_both: plan.flush_both,
            budget_bytes: plan.limits.at_risk_bytes,
            lens: BTreeMap::new(),
            history: History::default(),
            ledger: Ledger::default(),
            now: 0,
            limbo: Vec::new(),
            zeroed: BTreeSet::new(),
            at_risk: BTreeSet::new(),
            served: None,
            excuse: Excuse::None,
            lost_power: [false; 2],
            is_split: false,
        };
        for spot in spots {
            for register in spot.all().offsets() {
                ghost.lens.insert(register, spot.register_len);
                ghost.history.begins_with(register, INITIAL);
                ghost.ledger.begins_with(register, INITIAL);
            }
        }
        for spot in late {
            for register in spot.all().offsets() {
                ghost.lens.insert(register, spot.register_len);
                ghost.history.begins_with(register, ZEROED);
                ghost.ledger.begins_with(register, ZEROED);
                ghost.zeroed.insert(register);
            }
        }
        ghost
    }

    /// The next moment: no two are equal.
    pub(crate) fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A client calls a write.
    pub(crate) fn write_called(&mut self, registers: Registers, value: Value) {
        let at = self.moment();
        for register in registers.offsets() {
            self.history.write_called(register, value, at);
            self.ledger.called(register, value, at);
        }
    }

    /// Takes the right to zero these registers, which exists once: values must be unique.
    pub(crate) fn claim_zeroing(&mut self, registers: Registers) -> bool {
        let is_free = registers.offsets().all(|register| !self.zeroed.contains(&register));
        if is_free {
            self.zeroed.extend(registers.offsets());
        }
        is_free
    }

    /// A write is answered with success.
    pub(crate) fn write_answered(&mut self, registers: Registers, value: Value, fua: bool) {
        let at = self.moment();
        for register in registers.offsets() {
            self.history.write_answered(register, value, at);
            self.ledger.acknowledged(register, value, at);
            if fua {
                self.ledger.stable(register, value);
            }
        }
    }

    /// A write will not be answered.
    pub(crate) fn write_abandoned(&mut self, registers: Registers, value: Value) {
        self.limbo.push((registers, value));
    }

    /// A write was never begun, or refused with nothing changed.
    pub(crate) fn write_refused(&mut self, registers: Registers, value: Value) {
        let at = self.moment();
        for register in registers.offsets() {
            self.history.write_ended(register, value, at);
            self.ledger.ended(register, value, at);
        }
    }

    /// A flush that was called at `called` is answered with success.
    pub(crate) fn flush_answered(&mut self, called: Moment) {
        self.ledger.flushed(called);
    }

    /// A read that was called at `called` is answered with `bytes`.
    pub(crate) fn read_answered(
        &mut self,
        registers: Registers,
        called: Moment,
        bytes: &[u8],
    ) -> Result<BTreeSet<Value>, Broken> {
        let mut values = BTreeSet::new();
        if self.is_split {
            return Ok(values);
        }
        let at = self.moment();
        let len = usize::try_from(registers.register_len).unwrap();
        for (register, content) in registers.offsets().zip(bytes.chunks(len)) {
            let value = value_of(content, register, self.run)
                .map_err(|strange| Broken::new("OldOrNew", format!("{register}: {strange:?}")))?;
            self.history
                .read(register, value, called, at)
                .map_err(|why| Broken::new("Linearizable", why.to_string()))?;
            // What was read may not be taken back, answered or not.
            self.ledger.acknowledged(register, value, at);
            values.insert(value);
        }
        Ok(values)
    }

    /// `async`: these registers were acknowledged.
    pub(crate) fn note_at_risk(&mut self, registers: Registers) {
        self.at_risk.extend(registers.offsets());
    }

    /// `async`: what was acknowledged and is not in `peer`, the other node's file, fits the budget.
    pub(crate) fn check_budget(&mut self, peer: &File) -> Checked {
        if self.at_risk_bytes() <= self.budget_bytes {
            return Ok(());
        }
        let mut at_risk = std::mem::take(&mut self.at_risk);
        at_risk.retain(|register| {
            let len = usize::try_from(self.lens[register]).unwrap();
            let value = value_of(&peer.read(*register, len), *register, self.run);
            value.is_ok_and(|value| {
                self.ledger.check(*register, value, Floor::Acknowledged).is_err()
            })
        });
        self.at_risk = at_risk;
        let bytes = self.at_risk_bytes();
        if bytes > self.budget_bytes {
            let detail = format!("{bytes} bytes are at risk of at most {}", self.budget_bytes);
            return Err(Broken::new("AtRiskBudget", detail));
        }
        Ok(())
    }

    fn at_risk_bytes(&self) -> u64 {
        self.at_risk.iter().map(|register| self.lens[register]).sum()
    }

    /// What was at risk has another name from here on, or is gone.
    pub(crate) fn nothing_is_at_risk(&mut self) {
        self.at_risk.clear();
    }

    /// What was flushed is stable in `data`, whatever a power loss takes of it.
    pub(crate) fn check_stable(&self, data: &File) -> Checked {
        if self.is_split || self.excuse != Excuse::None || !self.flush_both {
            return Ok(());
        }
        let content = self.content(&data.stable_part())?;
        self.check_content(&content, Floor::Flushed)
            .map_err(|why| Broken::new("PairedBeforeCandidate", why.to_string()))
    }

    /// Node `node` lost what was not stable, with its power or with its disk; `is_in_sync` says
    /// whether both copies were complete and known to be.
    pub(crate) fn power_lost(&mut self, node: usize, is_in_sync: bool) {
        self.lost_power[node] = true;
        self.nothing_is_at_risk();
        if !is_in_sync || self.lost_power == [true; 2] {
            self.excuse = self.excuse.max(Excuse::Power);
        }
    }

    /// `memsync`: the process of a secondary is gone, and with it what it had acknowledged and not
    /// written yet.
    pub(crate) fn memory_lost(&mut self, node: usize) {
        self.lost_power[node] = true;
        if self.lost_power == [true; 2] {
            self.excuse = self.excuse.max(Excuse::Power);
        }
    }

    /// Both nodes are compared and complete, and one of them serves.
    pub(crate) fn in_sync(&mut self) {
        self.lost_power = [false; 2];
        self.excuse = Excuse::None;
    }

    /// Node `node` begins to serve in `epoch` with `data`.
    pub(crate) fn opens(
        &mut self,
        node: usize,
        epoch: Epoch,
        data: &File,
    ) -> Result<Opening, Broken> {
        if self.is_split {
            self.served = Some(Served { node, epoch });
            return Ok(Opening::Elsewhere);
        }
        if let Some(served) = self.served
            && (served.epoch > epoch || (served.epoch == epoch && served.node != node))
        {
            let detail = format!("node {node} opens epoch {epoch} after {served:?}");
            return Err(Broken::new("EpochMono", detail));
        }
        let at = self.moment();
        for (registers, value) in std::mem::take(&mut self.limbo) {
            for register in registers.offsets() {
                self.history.write_ended(register, value, at);
                self.ledger.ended(register, value, at);
            }
        }
        let is_other = self.served.is_some_and(|served| served.node != node);
        self.served = Some(Served { node, epoch });
        let content = self.content(data)?;
        if let Err(why) = self.check_content(&content, Floor::Acknowledged) {
            self.check_excuse(&content, is_other, why)?;
            self.restart(&content);
            return Ok(Opening::AfterLoss);
        }
        if self.excuse != Excuse::None {
            // What was read may be gone even where an older write that was under way at the same
            // time is as good an answer.
            self.restart(&content);
        }
        Ok(if is_other { Opening::Elsewhere } else { Opening::Again })
    }

    /// What two nodes did alone is settled: `data` is what stays.
    pub(crate) fn settled(&mut self, data: &File) -> Checked {
        self.is_split = false;
        self.limbo.clear();
        let content = self.content(data)?;
        self.restart(&content);
        Ok(())
    }

    /// A copy that is complete holds nothing that clients could not see.
    pub(crate) fn check_copy(&self, data: &File) -> Checked {
        let content = self.content(data)?;
        self.check_content(&content, Floor::Acknowledged)
            .map_err(|why| Broken::new("Durable", why.to_string()))
    }

    /// All answers so far fit together.
    pub(crate) fn check_history(&self) -> Checked {
        self.history.check().map_err(|why| Broken::new("Linearizable", why.to_string()))
    }

    fn check_content(&self, content: &[(u64, Value)], floor: Floor) -> Result<(), Loss> {
        content.iter().try_for_each(|(register, value)| self.ledger.check(*register, *value, floor))
    }

    /// Whether what is missing may be missing.
    fn check_excuse(&self, content: &[(u64, Value)], is_other: bool, why: Loss) -> Checked {
        if self.excuse == Excuse::Accepted {
            return Ok(());
        }
        let is_async = self.mode == ReplicationMode::Async;
        if is_async && self.excuse != Excuse::Power && (is_other || self.lost_power != [false; 2]) {
            return self.check_order(content);
        }
        if is_async && !self.flush_both && (is_other || self.excuse == Excuse::Power) {
            // Flushed on the primary alone, which is at risk like any write until the peer has it:
            // the copy that is served now is the peer's, or was overwritten by it.
            return Ok(());
        }
        if self.excuse == Excuse::Power {
            return self
                .check_content(content, Floor::Flushed)
                .map_err(|why| Broken::new("FlushOnBoth", why.to_string()));
        }
        Err(Broken::new("NoLostAck", why.to_string()))
    }

    /// `async`: what is there has no holes, and what is missing fits the budget.
    fn check_order(&self, content: &[(u64, Value)]) -> Checked {
        let newest = content
            .iter()
            .filter_map(|(register, value)| self.ledger.call_of(*register, *value))
            .max()
            .unwrap_or(0);
        self.check_content(content, Floor::AcknowledgedBefore(newest))
            .map_err(|why| Broken::new("ClosedUnderOrder", why.to_string()))?;
        let missing: u64 = content
            .iter()
            .filter(|(register, value)| {
                self.ledger.check(*register, *value, Floor::Acknowledged).is_err()
            })
            .map(|(register, _)| self.lens[register])
            .sum();
        if missing > self.budget_bytes {
            let detail = format!("{missing} bytes are missing of at most {}", self.budget_bytes);
            return Err(Broken::new("AtRiskBudget", detail));
        }
        Ok(())
    }

    /// What was lost is lost: a new history begins with what is there.
    fn restart(&mut self, content: &[(u64, Value)]) {
        self.history = History::default();
        let at = self.moment();
        for (register, value) in content {
            self.history.begins_with(*register, *value);
            self.ledger.restarts_with(*register, *value, at);
        }
    }

    /// The value of every register in `data`.
    fn content(&self, data: &File) -> Result<Vec<(u64, Value)>, Broken> {
        let value = |(register, len): (&u64, &u64)| {
            let bytes = data.read(*register, usize::try_from(*len).unwrap());
            value_of(&bytes, *register, self.run)
                .map(|value| (*register, value))
                .map_err(|strange| Broken::new("OldOrNew", format!("{register}: {strange:?}")))
        };
        self.lens.iter().map(value).collect()
    }
}
