//! A client that keeps an export busy until it is told to stop or the connection breaks.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::nbd_client::{NbdClient, Request};
use super::process::{self, News};
use super::record::{Operation, Record};

/// How a load ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) record: Record,
    /// The connection broke, with this.
    pub(crate) broken: Option<io::Error>,
    /// The longest time between two answers.
    longest_wait: Duration,
}

impl Ended {
    /// Panics if nothing was answered for longer than `limit`.
    pub(crate) fn check_waits(&self, limit: Duration) {
        let waited = self.longest_wait;
        assert!(waited <= limit, "nothing was answered for {waited:?}, longer than {limit:?}");
    }
}

/// A load under way, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Load {
    thread: JoinHandle<Ended>,
    state: Arc<State>,
    news: News,
}

#[derive(Debug, Default)]
struct State {
    must_stop: AtomicBool,
    answered: AtomicU64,
    /// How it ended, if it has.
    ended: OnceLock<String>,
    longest_wait_ms: AtomicU64,
}

impl Load {
    /// Connects and keeps up to `depth` operations in flight.
    pub(crate) fn start(
        socket: &Path,
        export: &str,
        depth: usize,
        record: Record,
        news: &News,
    ) -> Self {
        let mut client = NbdClient::connect(socket, export)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", socket.display()));
        let state = Arc::new(State::default());
        let (shared, wake) = (Arc::clone(&state), news.clone());
        let thread = std::thread::spawn(move || {
            let mut record = record;
            let mut waiting = BTreeMap::new();
            let result = keep_busy(&mut client, depth, &mut record, &mut waiting, &shared);
            record.lose(waiting.into_values());
            let how =
                result.as_ref().err().map_or("it was stopped".to_owned(), io::Error::to_string);
            shared.ended.set(how).expect("it ends once");
            wake.tell();
            let longest_wait =
                Duration::from_millis(shared.longest_wait_ms.load(Ordering::Relaxed));
            Ended { record, broken: result.err(), longest_wait }
        });
        Self { thread, state, news: news.clone() }
    }

    /// Waits until `count` more operations were answered with success. Panics if the load ends before.
    pub(crate) fn wait_for_answers(&self, count: u64) {
        let is_there = self.has_answers_or_end(count);
        assert!(is_there, "before {count} more answers the load ended: {:?}", self.state.ended);
    }

    /// Waits until `count` more operations were answered with success, or the load has ended; whether they
    /// were answered.
    pub(crate) fn has_answers_or_end(&self, count: u64) -> bool {
        let goal = self.state.answered.load(Ordering::Acquire) + count;
        let what = format!("{count} more answers");
        self.news.wait_for(&what, || {
            let is_there = self.state.answered.load(Ordering::Acquire) >= goal;
            (is_there || self.state.ended.get().is_some()).then_some(is_there)
        })
    }

    /// Lets what is in flight finish, and ends.
    pub(crate) fn stop(self) -> Ended {
        self.state.must_stop.store(true, Ordering::Release);
        self.join()
    }

    /// Waits until the connection breaks. That the server says nothing, or nonsense, is no end of it.
    pub(crate) fn join(self) -> Ended {
        self.news.wait_for("the load to end", || {
            (self.state.ended.get().is_some() || self.thread.is_finished()).then_some(())
        });
        let ended = self.thread.join().expect("the load does not panic");
        if let Some(error) = &ended.broken {
            let is_end = matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            );
            assert!(is_end, "the connection did not end: {error}");
        }
        ended
    }
}

fn keep_busy(
    client: &mut NbdClient,
    depth: usize,
    record: &mut Record,
    waiting: &mut BTreeMap<u64, Operation>,
    state: &State,
) -> io::Result<()> {
    let mut last = process::now();
    loop {
        while waiting.len() < depth && !state.must_stop.load(Ordering::Acquire) {
            let operation = record.next_operation();
            let payload = record.payload(&operation);
            let request = Request {
                command: operation.command,
                is_fua: operation.is_fua,
                offset: operation.offset,
                len: u32::try_from(operation.len).expect("at most 128 KiB"),
                payload: &payload,
            };
            match client.send(request) {
                Ok(cookie) => drop(waiting.insert(cookie, operation)),
                Err(error) => {
                    record.lose([operation]);
                    return Err(error);
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let reply = client.receive()?;
        let operation = waiting.remove(&reply.cookie).expect("the client knows its cookies");
        record.answer(operation, &reply);
        let wait = process::now() - std::mem::replace(&mut last, process::now());
        let wait_ms = wait.as_millis().try_into().expect("a short time");
        state.longest_wait_ms.fetch_max(wait_ms, Ordering::Relaxed);
        state.answered.fetch_add(1, Ordering::AcqRel);
    }
}
