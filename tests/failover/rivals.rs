//! A client of each node that writes wherever it is let in.
//!
//! Each has a register of its own and reads both. Were there two writers at any moment, then of what
//! one of them was answered something would be gone in the end, or would not have been seen by the
//! other: the record of both together could not be.

use std::io;
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::oracle::history::History;
use crate::oracle::ledger::{Floor, Ledger};
use crate::oracle::stamp::{SECTOR_LEN, Stamp, value_of};
use crate::oracle::{Moment, Value, ZEROED};
use crate::real::nbd_client::NbdClient;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::process::{News, lock};
use crate::real::record::spare;

/// Between two turns of a client, so that the machine is left to others.
const PACE: Duration = Duration::from_millis(10);

/// What both clients did and saw, in one order.
#[derive(Clone)]
pub(crate) struct Seen(Arc<Mutex<Record>>);

struct Record {
    run: u32,
    /// Where each client writes, in bytes.
    registers: [u64; 2],
    clock: Moment,
    last_value: Value,
    history: History,
    ledger: Ledger,
    /// Reads that could not be.
    strange: Vec<String>,
}

impl Seen {
    /// Nobody wrote anything yet to a resource of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        let registers = [spare(size), spare(size) + SECTOR_LEN];
        let mut record = Record {
            run: fastrand::u32(..),
            registers,
            clock: 0,
            last_value: 0,
            history: History::default(),
            ledger: Ledger::default(),
            strange: Vec::new(),
        };
        record.begin([ZEROED; 2]);
        Self(Arc::new(Mutex::new(record)))
    }

    /// Panics unless all that was seen fits together, and what was acknowledged is there. Both nodes are in
    /// sync, and neither client is connected: what was not answered has taken effect by now, or never will.
    pub(crate) fn check(&self, client: &mut NbdClient) {
        let registers = lock(&self.0).registers;
        let found = registers.map(|register| self.read(client, register).unwrap());
        let mut record = lock(&self.0);
        assert!(record.strange.is_empty(), "{:?}", record.strange);
        if let Err(violation) = record.history.check() {
            panic!("two writers, or a stale read: {violation}");
        }
        let values = found.map(|value| value.expect("nothing was strange"));
        for (register, value) in registers.into_iter().zip(values) {
            if let Err(loss) = record.ledger.check(register, value, Floor::Acknowledged) {
                panic!("of two writers one has lost: {loss}");
            }
        }
        record.begin(values);
    }

    /// Writes something new into the register of client `at`.
    fn write(&self, client: &mut NbdClient, at: usize) -> io::Result<()> {
        let (register, value, bytes) = lock(&self.0).calls(at);
        client.write(register, &bytes)?;
        lock(&self.0).answers(register, value);
        Ok(())
    }

    /// Reads a register; `None` if it holds what cannot be there.
    fn read(&self, client: &mut NbdClient, register: u64) -> io::Result<Option<Value>> {
        let called = lock(&self.0).tick();
        let bytes = client.read(register, SECTOR_LEN.try_into().expect("it is 512"))?;
        Ok(lock(&self.0).reads(register, called, &bytes))
    }
}

impl Record {
    /// A history begins with what the registers hold.
    fn begin(&mut self, values: [Value; 2]) {
        (self.history, self.ledger) = (History::default(), Ledger::default());
        for (register, value) in self.registers.into_iter().zip(values) {
            self.history.begins_with(register, value);
            self.ledger.begins_with(register, value);
        }
    }

    fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    /// A write of client `at` is called: where, what, and its bytes.
    fn calls(&mut self, at: usize) -> (u64, Value, Vec<u8>) {
        let (register, called) = (self.registers[at], self.tick());
        self.last_value += 1;
        let operation = self.last_value;
        self.history.write_called(register, operation, called);
        self.ledger.called(register, operation, called);
        let client = u16::try_from(at).expect("one of two");
        let mut bytes = vec![0; SECTOR_LEN.try_into().expect("it is 512")];
        Stamp { run: self.run, client, register, operation, epoch: 0 }.fill(&mut bytes);
        (register, operation, bytes)
    }

    /// A write was acknowledged.
    fn answers(&mut self, register: u64, value: Value) {
        let at = self.tick();
        self.history.write_answered(register, value, at);
        self.ledger.acknowledged(register, value, at);
    }

    /// A read was answered.
    fn reads(&mut self, register: u64, called: Moment, bytes: &[u8]) -> Option<Value> {
        let at = self.tick();
        let value = match value_of(bytes, register, self.run) {
            Ok(value) => value,
            Err(strange) => {
                self.strange.push(format!("read at {register}: {strange:?}"));
                return None;
            }
        };
        if let Err(why) = self.history.read(register, value, called, at) {
            self.strange.push(format!("read at {register}: {why}"));
        }
        Some(value)
    }
}

/// Whether they can fail: an operator lies about fencing, so that there are two writers.
pub(crate) fn two_writers_are_noticed() {
    let plan = Plan { has_relays: true, ..Plan::default() };
    let image = vec![0; plan.size.try_into().expect("64 bit")];
    let pair = Pair::start(plan, &image);
    let seen = Seen::new(pair.plan.size);
    let rivals = Rivals::start(&pair, &seen);
    rivals.wait_for_answer(0);
    pair.cut();
    pair.nodes[1].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
    // The first of these may have been on its way to the other node before.
    for at in [0, 0, 1, 1] {
        rivals.wait_for_answer(at);
    }
    rivals.stop();
    let mut client = pair.nodes[1].connect();
    let check = panic::AssertUnwindSafe(|| seen.check(&mut client));
    assert!(panic::catch_unwind(check).is_err(), "two nodes acknowledged, and nobody says so");
}

/// Both clients under way.
pub(crate) struct Rivals {
    threads: [JoinHandle<()>; 2],
    state: Arc<State>,
}

struct State {
    seen: Seen,
    must_stop: AtomicBool,
    /// Writes that were acknowledged, to each of them.
    answered: [AtomicU64; 2],
    news: News,
}

impl Rivals {
    pub(crate) fn start(pair: &Pair, seen: &Seen) -> Self {
        let state = Arc::new(State {
            seen: seen.clone(),
            must_stop: AtomicBool::new(false),
            answered: [0; 2].map(AtomicU64::new),
            news: pair.news.clone(),
        });
        let threads = [0, 1].map(|at| {
            let (state, export) = (Arc::clone(&state), pair.nodes[at].export.clone());
            std::thread::spawn(move || state.compete(at, &export))
        });
        Self { threads, state }
    }

    /// Waits until node `at` has acknowledged one more write.
    pub(crate) fn wait_for_answer(&self, at: usize) {
        let answered = || self.state.answered[at].load(Ordering::Acquire);
        let before = answered();
        let is_there = || (answered() > before).then_some(());
        self.state.news.wait_for("a node to let a client write", is_there);
    }

    /// Waits for the end of what they are at, which comes once both nodes hear them.
    pub(crate) fn stop(self) {
        self.state.must_stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().expect("it does not panic");
        }
    }
}

impl State {
    /// Writes and reads at one node whenever that takes clients. No answer is none: it connects again.
    fn compete(&self, at: usize, export: &Path) {
        let mut client = None;
        while !self.must_stop.load(Ordering::Acquire) {
            client = client
                .or_else(|| NbdClient::connect(export, RESOURCE).ok())
                .and_then(|mut client| self.turn(at, &mut client).is_ok().then_some(client));
            let stop = || self.must_stop.load(Ordering::Acquire).then_some(());
            self.news.wait_within(PACE, stop);
        }
    }

    fn turn(&self, at: usize, client: &mut NbdClient) -> io::Result<()> {
        self.seen.write(client, at)?;
        self.answered[at].fetch_add(1, Ordering::AcqRel);
        let registers = lock(&self.seen.0).registers;
        registers.into_iter().try_for_each(|register| self.seen.read(client, register).map(drop))
    }
}
