//! One machine: its files, and the process that runs the core on them.
//!
//! Hashes and reads of the core are done at once: what they find is what they would find later,
//! since the core starts none while a write of the block is under way, and a client's write that
//! comes after one is as good as one that comes before its answer is told. Random ids and the end
//! of closed connections come at once too; they touch nothing else. All writes and syncs, and reads
//! of clients, end when the checker says so, in any order.

use std::hash::{Hash, Hasher};

use hotpair::replica::{
    DiskOutcome, Effect, Input, IoId, LinkId, Replica, RequestId, Settings, Start, Ticket,
};
use hotpair::units::{Epoch, Instance, Instant};

use crate::disk::{Files, Pages, Value, Work};

/// A machine.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) files: Files,
    pub(crate) process: Option<Box<Process>>,
    /// Counts starts of the process.
    lives: u8,
    /// Counts random ids.
    ids: u8,
}

/// A running daemon.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) core: Replica<Pages>,
    /// I/O that was begun and has not ended, in the order of beginning.
    pub(crate) works: Vec<(Name, Work)>,
    pub(crate) wants_link: bool,
    pub(crate) link: Option<LinkId>,
    /// Accepting clients in this epoch.
    pub(crate) export: Option<Epoch>,
    /// Requests of clients without an answer.
    pub(crate) asked: Vec<Asked>,
}

/// Who is told when an I/O ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    Io(IoId),
    Ticket(Ticket),
}

/// A client's request that the core has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Asked {
    pub(crate) request: RequestId,
    pub(crate) what: Ask,
    /// The newest write that was acknowledged when it was asked.
    pub(crate) after: Value,
    /// What a read found.
    pub(crate) found: Option<Value>,
}

/// What a client asks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Ask {
    Write(Value),
    Read,
    Flush,
}

impl Node {
    /// A machine with `files`.
    pub(crate) fn new(files: Files) -> Self {
        Self { files, process: None, lives: 0, ids: 0 }
    }

    /// The core, if the process runs.
    pub(crate) fn core(&self) -> Option<&Replica<Pages>> {
        self.process.as_ref().map(|process| &process.core)
    }

    /// Starts the process: recovery, then a core.
    pub(crate) fn start(&mut self, settings: Settings, now: Instant) {
        let recovered = self.files.recover();
        self.lives += 1;
        let start = Start {
            instance: Instance(u64::from(self.lives)),
            fresh_ids: vec![self.fresh_id(&settings)],
            now,
            place: self.files.place(),
        };
        self.process = Some(Box::new(Process {
            core: Replica::new(settings, recovered, start),
            works: Vec::new(),
            wants_link: false,
            link: None,
            export: None,
            asked: Vec::new(),
        }));
        self.note_map();
    }

    /// An id that no other node and no other moment makes.
    pub(crate) fn fresh_id(&mut self, settings: &Settings) -> u128 {
        self.ids += 1;
        let side = u128::from(settings.side == hotpair::units::Side::Second);
        (0x10 << side) + u128::from(self.ids)
    }

    /// The mapped memory is what the core made it.
    pub(crate) fn note_map(&mut self) {
        if let Some(process) = &self.process {
            self.files.map = process.core.dirty().memory().clone();
        }
    }

    /// The process ends. What was under way happened, all of it or nothing.
    pub(crate) fn crash(&mut self, is_landed: bool) -> Option<Value> {
        let process = self.process.take()?;
        let mut written = None;
        for (at, (_, work)) in process.works.iter().enumerate().filter(|_| is_landed) {
            // Each sync covers what was there when it began; what an earlier one took is gone.
            let work = match work {
                Work::Sync(covered) => {
                    let gone: usize = process.works[..at]
                        .iter()
                        .filter_map(|(_, earlier)| match earlier {
                            Work::Sync(covered) => Some(covered - 1),
                            _ => None,
                        })
                        .max()
                        .unwrap_or(0);
                    Work::Sync(covered.saturating_sub(gone).max(1))
                }
                other => other.clone(),
            };
            if let Work::Write(value) = work {
                written = Some(value);
            }
            self.files.land(&work);
        }
        written
    }
}

impl Process {
    /// Begins an I/O, if the effect is one that ends later.
    pub(crate) fn begin(&mut self, effect: &Effect, files: &Files) -> bool {
        let begun = match effect {
            Effect::Write { io, bytes, .. } => (Name::Io(*io), Work::Write(bytes[0])),
            Effect::Zero { io, .. } => (Name::Io(*io), Work::Write(0)),
            Effect::ReadForClient { io, .. } => (Name::Io(*io), Work::Read),
            Effect::SyncData { io } => (Name::Io(*io), Work::Sync(files.data.version_count())),
            Effect::WriteSuperblock { ticket, record } => {
                (Name::Ticket(*ticket), Work::Record(record.clone()))
            }
            Effect::AppendLog { ticket, append } => {
                (Name::Ticket(*ticket), Work::Append(append.clone()))
            }
            Effect::SyncMap { ticket, sums } => {
                let pages = self.core.dirty().memory().clone();
                (Name::Ticket(*ticket), Work::Map(pages, sums.clone()))
            }
            _ => return false,
        };
        self.works.push(begun);
        true
    }

    /// Ends an I/O: takes it off the list. A sync makes those that began after it cover less.
    pub(crate) fn end(&mut self, at: usize) -> (Name, Work) {
        let (name, work) = self.works.remove(at);
        if let Work::Sync(done) = &work {
            for (_, other) in &mut self.works {
                if let Work::Sync(covered) = other {
                    *covered = covered.saturating_sub(done - 1).max(1);
                }
            }
        }
        (name, work)
    }
}

/// What a read of the core finds, for those that are done at once.
pub(crate) fn read_at_once(effect: &Effect, files: &Files) -> Option<Input> {
    let bytes = [files.data.shown()];
    let (io, outcome) = match effect {
        Effect::ReadRange { io, .. } => (*io, DiskOutcome::Bytes(bytes.to_vec().into())),
        Effect::HashChunk { io, .. } => {
            let hash = *blake3::hash(&bytes).as_bytes();
            (*io, DiskOutcome::Hashes { chunk: hash, blocks: vec![hash] })
        }
        _ => return None,
    };
    Some(Input::Disk { io, outcome })
}

/// While it runs, the core knows the record and the map.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.lives, self.ids, &self.files).hash(state);
        let Some(process) = &self.process else { return false.hash(state) };
        (&process.core, process.wants_link, process.link, process.export).hash(state);
        process.asked.hash(state);
        // The core hashes what each is for in the same order.
        process.works.iter().for_each(|(_, work)| match work {
            Work::Record(_) => 0.hash(state),
            other => other.hash(state),
        });
    }
}
