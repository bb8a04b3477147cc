//! What a client did to an export, and what may therefore be found there.
//!
//! Every register the client writes carries a stamp, so a content alone says which write it is
//! from. The record picks the operations, hears the answers, and judges whole images against them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::nbd_client::{Command, NbdClient, Reply};
use crate::oracle::history::History;
use crate::oracle::ledger::{Floor, Ledger};
use crate::oracle::stamp::{CELL_LEN, SECTOR_LEN, Stamp, value_of};
use crate::oracle::{INITIAL, Moment, Value, ZEROED};

/// The end of the resource where registers are cells instead of sectors, in bytes.
const ODD_LEN: u64 = 16 << 10;
/// The bytes before that end, which are zero at first and which the record leaves to other clients.
const SPARE_LEN: u64 = 4 << 10;
/// Most strange registers that a report shows.
const SHOWN_MAX: usize = 10;

/// One operation that was called and not answered yet.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) command: Command,
    pub(crate) is_fua: bool,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    value: Value,
    called: Moment,
}

/// Everything one client did to one resource.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    run: u32,
    size: u64,
    /// Registers in `0..reach` and in the odd area are written, so that a test can be small.
    reach: u64,
    rng: fastrand::Rng,
    clock: Moment,
    next_value: Value,
    /// Registers that hold zeroes or will: a value is unique in its register.
    zeroed: BTreeSet<u64>,
    history: History,
    ledger: Ledger,
    /// Called, never answered, and still able to appear: until the next epoch serves.
    unknown: Vec<Operation>,
    /// Answers that were errors.
    errors: Vec<u32>,
    /// Reads that could not be; shown by [`Record::check_reads`].
    strange: Vec<String>,
    pub(crate) acknowledged: u64,
}

impl Record {
    /// The record of a resource of `size` bytes that holds [`Record::first_image`].
    pub(crate) fn new(size: u64, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut record = Self {
            run: rng.u32(..),
            size,
            reach: spare(size),
            rng,
            clock: 0,
            next_value: INITIAL + 1,
            zeroed: BTreeSet::new(),
            history: History::default(),
            ledger: Ledger::default(),
            unknown: Vec::new(),
            errors: Vec::new(),
            strange: Vec::new(),
            acknowledged: 0,
        };
        for register in record.registers() {
            record.begin(register, INITIAL);
        }
        record
    }

    /// What the resource holds before the first operation.
    pub(crate) fn first_image(&self) -> Vec<u8> {
        let mut image = vec![0; index(self.size)];
        for register in self.registers() {
            let end = register + self.register_len(register);
            self.stamp(register, INITIAL).fill(&mut image[index(register)..index(end)]);
        }
        image
    }

    /// The record of a second client that goes its own way from here, on a copy of its own.
    pub(crate) fn fork(&self) -> Self {
        let mut fork = self.clone();
        fork.next_value += 1 << 40;
        fork.rng = fastrand::Rng::with_seed(self.next_value);
        fork
    }

    /// Only the first `reach` bytes, and the odd area, are written from here on.
    pub(crate) fn reach_only(&mut self, reach: u64) {
        self.reach = reach.min(spare(self.size));
    }

    fn begin(&mut self, register: u64, value: Value) {
        self.history.begins_with(register, value);
        self.ledger.begins_with(register, value);
    }

    fn registers(&self) -> Vec<u64> {
        let odd = self.size - ODD_LEN;
        let sectors = (0..spare(self.size) / SECTOR_LEN).map(|at| at * SECTOR_LEN);
        sectors.chain((0..ODD_LEN / CELL_LEN).map(|at| odd + at * CELL_LEN)).collect()
    }

    fn register_len(&self, register: u64) -> u64 {
        if register < self.size - ODD_LEN { SECTOR_LEN } else { CELL_LEN }
    }

    fn registers_in(&self, offset: u64, len: u64) -> impl Iterator<Item = u64> + use<> {
        let step = self.register_len(offset);
        (offset..offset + len).step_by(index(step))
    }

    fn stamp(&self, register: u64, operation: Value) -> Stamp {
        Stamp { run: self.run, client: 0, register, operation, epoch: 0 }
    }

    fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    /// Picks the next operation of a mixed load, and notes that it is called.
    pub(crate) fn next_operation(&mut self) -> Operation {
        let (command, is_fua) = match self.rng.u8(..32) {
            0..8 => (Command::Read, false),
            8 => (Command::Flush, false),
            9 => (Command::Write, true),
            10 => (Command::Trim, false),
            11 => (Command::WriteZeroes, self.rng.bool()),
            _ => (Command::Write, false),
        };
        let is_odd = self.rng.u8(..8) == 0;
        let (start, end, step) = if is_odd {
            (self.size - ODD_LEN, self.size, CELL_LEN)
        } else {
            (0, self.reach, SECTOR_LEN)
        };
        let count = match self.rng.u8(..16) {
            0..6 => 1,
            6..14 => 8,
            14 => self.rng.u64(1..=32),
            _ => self.rng.u64(1..=256),
        };
        let first = self.rng.u64(0..(end - start) / step);
        let len = count.min((end - start) / step - first) * step;
        let operation = self.call(command, start + first * step, len);
        Operation { is_fua, ..operation }
    }

    /// Notes that an operation is called; zeroes that would not be unique become a plain write.
    pub(crate) fn call(&mut self, command: Command, offset: u64, len: u64) -> Operation {
        let is_zeroing = matches!(command, Command::Trim | Command::WriteZeroes);
        let is_repeated = self.registers_in(offset, len).any(|at| self.zeroed.contains(&at));
        let command = if is_zeroing && is_repeated { Command::Write } else { command };
        let value = match command {
            Command::Trim | Command::WriteZeroes => ZEROED,
            Command::Read | Command::Write | Command::Flush => {
                self.next_value += 1;
                self.next_value
            }
        };
        let called = self.tick();
        let (offset, len) = if command == Command::Flush { (0, 0) } else { (offset, len) };
        let operation = Operation { command, is_fua: false, offset, len, value, called };
        if operation.is_writing() {
            for register in self.registers_in(offset, len) {
                self.history.write_called(register, value, called);
                self.ledger.called(register, value, called);
                if value == ZEROED {
                    self.zeroed.insert(register);
                }
            }
        }
        operation
    }

    /// The bytes of a write.
    pub(crate) fn payload(&self, operation: &Operation) -> Vec<u8> {
        if operation.command != Command::Write {
            return Vec::new();
        }
        let mut bytes = vec![0; index(operation.len)];
        let step = index(self.register_len(operation.offset));
        let registers = self.registers_in(operation.offset, operation.len);
        for (part, register) in bytes.chunks_mut(step).zip(registers) {
            self.stamp(register, operation.value).fill(part);
        }
        bytes
    }

    /// Writes whole registers from `offset` on, and waits for the answer.
    pub(crate) fn write(&mut self, client: &mut NbdClient, offset: u64, len: u64) {
        let operation = self.call(Command::Write, offset, len);
        let payload = self.payload(&operation);
        client.write(offset, &payload).unwrap_or_else(|error| panic!("write at {offset}: {error}"));
        let reply = Reply { cookie: 0, error: 0, bytes: Vec::new() };
        self.answer(operation, &reply);
    }

    /// Notes the answer to an operation.
    pub(crate) fn answer(&mut self, operation: Operation, reply: &Reply) {
        if reply.error != 0 {
            self.errors.push(reply.error);
            self.unknown.push(operation);
            return;
        }
        self.acknowledged += 1;
        let at = self.tick();
        match operation.command {
            Command::Read => self.read(&operation, &reply.bytes, at),
            Command::Flush => self.ledger.flushed(operation.called),
            Command::Write | Command::Trim | Command::WriteZeroes => {
                for register in self.registers_in(operation.offset, operation.len) {
                    self.history.write_answered(register, operation.value, at);
                    self.ledger.acknowledged(register, operation.value, at);
                    if operation.is_fua {
                        self.ledger.stable(register, operation.value);
                    }
                }
            }
        }
    }

    fn read(&mut self, operation: &Operation, bytes: &[u8], at: Moment) {
        let step = index(self.register_len(operation.offset));
        let registers = self.registers_in(operation.offset, operation.len);
        for (part, register) in bytes.chunks(step).zip(registers) {
            match value_of(part, register, self.run) {
                Err(strange) => self.strange.push(format!("read at {register}: {strange:?}")),
                Ok(value) => {
                    if let Err(why) = self.history.read(register, value, operation.called, at) {
                        self.strange.push(format!("read at {register}: {why}"));
                    }
                }
            }
        }
    }

    /// The connection broke: these operations get no answer.
    pub(crate) fn lose(&mut self, operations: impl IntoIterator<Item = Operation>) {
        self.unknown.extend(operations);
    }

    /// A new epoch serves: what is unknown has taken effect by now, or never will.
    pub(crate) fn epoch_serves(&mut self) {
        let at = self.tick();
        for operation in std::mem::take(&mut self.unknown) {
            if operation.is_writing() {
                for register in self.registers_in(operation.offset, operation.len) {
                    self.history.write_ended(register, operation.value, at);
                    self.ledger.ended(register, operation.value, at);
                }
            }
        }
    }

    /// Notes what clients would read everywhere, all at once.
    pub(crate) fn read_whole(&mut self, image: &[u8]) {
        let called = self.tick();
        let at = self.tick();
        for (offset, len) in [(0, spare(self.size)), (self.size - ODD_LEN, ODD_LEN)] {
            let len = len / SECTOR_LEN * SECTOR_LEN;
            let command = Command::Read;
            let read = Operation { command, is_fua: false, offset, len, value: 0, called };
            self.read(&read, &image[index(offset)..index(offset + len)], at);
        }
    }

    /// Panics if any answer was an error.
    pub(crate) fn check_errors(&self, why: &str) {
        let errors = &self.errors[..self.errors.len().min(SHOWN_MAX)];
        assert!(errors.is_empty(), "{why}: errors {errors:?}");
    }

    /// Panics if any answer could not be.
    pub(crate) fn check_reads(&self) {
        assert!(self.strange.is_empty(), "{}", report(&self.strange));
        if let Err(violation) = self.history.check() {
            panic!("{violation}");
        }
    }

    /// Panics if `image`, found at `place`, holds in any register what it must not.
    pub(crate) fn check_image(&self, place: &str, image: &[u8], floor: Floor) {
        assert_eq!(index(self.size), image.len(), "length of {place}");
        let mut wrong = Vec::new();
        for register in self.registers() {
            let end = register + self.register_len(register);
            match value_of(&image[index(register)..index(end)], register, self.run) {
                Err(strange) => wrong.push(format!("{place} at {register}: {strange:?}")),
                Ok(value) => {
                    if let Err(loss) = self.ledger.check(register, value, floor) {
                        wrong.push(format!("{place} at {register}: {loss}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", report(&wrong));
    }

    /// Begins a new history with what was just found, so that long runs stay small.
    pub(crate) fn settle(&mut self, image: &[u8]) {
        assert!(self.unknown.is_empty(), "an unknown write could still appear");
        self.history = History::default();
        self.ledger = Ledger::default();
        self.zeroed.clear();
        for register in self.registers() {
            let end = register + self.register_len(register);
            let value = value_of(&image[index(register)..index(end)], register, self.run)
                .unwrap_or_else(|strange| panic!("at {register}: {strange:?}"));
            self.begin(register, value);
            if value == ZEROED {
                self.zeroed.insert(register);
            }
        }
    }

    /// A number below `end` from the record's own generator.
    pub(crate) fn draw(&mut self, end: u64) -> u64 {
        self.rng.u64(..end)
    }
}

impl Operation {
    fn is_writing(&self) -> bool {
        matches!(self.command, Command::Write | Command::Trim | Command::WriteZeroes)
    }
}

/// Where the sectors begin that the record of a resource of `size` bytes leaves to other clients.
pub(crate) fn spare(size: u64) -> u64 {
    size - ODD_LEN - SPARE_LEN
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("64 bit")
}

fn report(wrong: &[String]) -> String {
    let mut text = format!("{} registers are wrong", wrong.len());
    for line in wrong.iter().take(SHOWN_MAX) {
        let _ = write!(text, "\n  {line}");
    }
    text
}
