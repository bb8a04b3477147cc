//! The threads that wait for the disk, so that the data thread does not.
//!
//! Reads and writes that would block are shared by a few threads. Syncs of the data file have one
//! of their own: one fdatasync serves all that were asked for before it began. Metadata has one,
//! too: a log entry that a client waits for is not queued behind cold reads or a sync of the data.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::mpsc;

use super::StoreError;
use super::call::{Call, Completion, Disk, Lane};

/// Calls of a lane that its threads can see.
const QUEUE_LEN: usize = 256;
/// Calls of a lane that wait on the data thread. The core keeps at most 4,096 parts in flight and
/// far fewer other operations, so more means that it lost count.
const WAITING_MAX: usize = 16_384;
/// Completions that the data thread did not take yet; beyond it the threads wait.
const COMPLETIONS_LEN: usize = 1024;

/// The threads of one resource and the way to them.
pub(super) struct Pool {
    queues: [Queue; 3],
    completions: mpsc::Receiver<Completion>,
    stops: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

struct Queue {
    /// `None` once the pool stops.
    calls: Option<Sender<Call>>,
    waiting: VecDeque<Call>,
}

impl Pool {
    /// Starts `io_threads` for reads and writes, and one each for syncs and metadata.
    pub(super) fn start(disk: &Arc<Disk>, io_threads: usize) -> Result<Self, StoreError> {
        let (done, completions) = mpsc::channel(COMPLETIONS_LEN);
        let stops = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut queue = |lane: Lane, count: usize| {
            let (calls, taken) = bounded(QUEUE_LEN);
            for _ in 0..count.max(1) {
                let worker = Worker {
                    disk: Arc::clone(disk),
                    calls: taken.clone(),
                    done: done.clone(),
                    stops: Arc::clone(&stops),
                };
                let thread = Builder::new().name(lane.thread_name().to_owned());
                let started = match lane {
                    Lane::Sync => thread.spawn(move || worker.sync_together()),
                    Lane::Io | Lane::Metadata => thread.spawn(move || worker.run_each()),
                };
                threads.push(started.map_err(|source| StoreError::Io {
                    path: disk.data.path().to_owned(),
                    action: "start a thread for",
                    source,
                })?);
            }
            Ok(Queue { calls: Some(calls), waiting: VecDeque::new() })
        };
        let queues =
            [queue(Lane::Io, io_threads)?, queue(Lane::Sync, 1)?, queue(Lane::Metadata, 1)?];
        Ok(Self { queues, completions, stops, threads })
    }

    /// Hands over a call. Never blocks: what the threads have no room for waits here.
    pub(super) fn submit(&mut self, call: Call) {
        let queue = &mut self.queues[call.lane().index()];
        assert!(queue.waiting.len() < WAITING_MAX, "the core limits what is in flight");
        queue.waiting.push_back(call);
        queue.refill();
    }

    /// Takes what is done, and hands on what waited for room.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        completions: &mut Vec<Completion>,
    ) -> Poll<()> {
        let count = self.completions.poll_recv_many(cx, completions, COMPLETIONS_LEN);
        for queue in &mut self.queues {
            queue.refill();
        }
        count.map(|_| ())
    }
}

impl Queue {
    fn refill(&mut self) {
        let Some(calls) = &self.calls else { return };
        while let Some(call) = self.waiting.pop_front() {
            match calls.try_send(call) {
                Ok(()) => {}
                Err(TrySendError::Full(call)) => {
                    // Each of those before it will end in a completion, which brings us back here.
                    self.waiting.push_front(call);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    panic!("the threads of a pool live as long as it does")
                }
            }
        }
    }
}

/// Waits for what is under way: when it returns, no I/O of ours is left and the locks are free.
impl Drop for Pool {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Release);
        for queue in &mut self.queues {
            queue.calls = None;
        }
        // A thread that waits for room here gets an error instead.
        self.completions.close();
        for thread in self.threads.drain(..) {
            // One that panicked has said so already.
            let _ = thread.join();
        }
    }
}

struct Worker {
    disk: Arc<Disk>,
    calls: Receiver<Call>,
    done: mpsc::Sender<Completion>,
    stops: Arc<AtomicBool>,
}

impl Worker {
    fn run_each(&self) {
        while let Some(call) = self.next() {
            if self.done.blocking_send(self.disk.run(call)).is_err() {
                return;
            }
        }
    }

    /// Takes all syncs that were asked for, then makes one for all: it covers whatever was
    /// written before any of them was asked for.
    fn sync_together(&self) {
        while let Some(call) = self.next() {
            let mut together = vec![call];
            together.extend(self.calls.try_iter().take(QUEUE_LEN));
            for completion in self.disk.sync_for(together) {
                if self.done.blocking_send(completion).is_err() {
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<Call> {
        let call = self.calls.recv().ok()?;
        (!self.stops.load(Ordering::Acquire)).then_some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::disk;
    use super::*;
    use crate::replica::{DiskOutcome, IoId};

    #[test]
    fn one_sync_serves_all_that_were_asked_for_before_it() {
        let (_folder, disk) = disk(4096);
        let disk = Arc::new(disk);
        let (calls, taken) = bounded(QUEUE_LEN);
        for io in 0..100 {
            calls.send(Call::SyncData { io: IoId(io) }).unwrap();
        }
        drop(calls);
        let (done, mut completions) = mpsc::channel(COMPLETIONS_LEN);
        let stops = Arc::new(AtomicBool::new(false));
        Worker { disk: Arc::clone(&disk), calls: taken, done, stops }.sync_together();
        for expected in 0..100 {
            match completions.try_recv().unwrap() {
                Completion::Disk { io, outcome: DiskOutcome::Done } => assert_eq!(io.0, expected),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(disk.data.sync_count(), 1);
    }
}
