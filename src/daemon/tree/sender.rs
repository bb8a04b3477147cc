//! The thread that reads for the peer: records of a generation, and the chunks that it wants of it.
//!
//! It works on a view of the index that stays as it is while the worker captures the next generation.
//! Records are sent while the peer keeps up, chunks only as asked for, so nothing piles up on either
//! side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::orders::{SendOrder, Sent};
use crate::manifest::source::Closed;
use crate::store::tree::Folder;
use crate::store::tree::index::{Rows, View};
use crate::store::tree::outgoing::{Outgoing, OutgoingError};
use crate::units::TreePosition;
use crate::wire::{
    ChunkPlace, Payload, TREE_CHUNKS_MAX, TREE_PAYLOAD_LEN_MAX, TREE_RECORDS_AHEAD_MAX,
    TreeMessage, TreeNote, WantedChunks,
};

/// What goes to this thread: from the data thread orders, from the worker views.
pub(super) enum ToSender {
    Order(SendOrder),
    /// The index at a generation that was just closed.
    Fresh(Box<View>),
    /// The node does not serve any more.
    Forget,
}

/// Views that are kept: of the newest generation, and of the one before, which may be the one that the
/// data thread knows of.
const VIEWS_MAX: usize = 2;

/// Bytes of one message.
const PAYLOAD_LEN_MAX: usize = TREE_PAYLOAD_LEN_MAX as usize;

/// Why sending ends.
enum Ended {
    /// The data thread is gone.
    Gone,
    /// It was told to stop, or to do something else.
    Stopped,
    Failed(OutgoingError),
}

impl From<OutgoingError> for Ended {
    fn from(error: OutgoingError) -> Self {
        Self::Failed(error)
    }
}

pub(super) struct Sender {
    root: Folder,
    orders: Receiver<ToSender>,
    sent: mpsc::Sender<Sent>,
    /// Orders that came while others were carried out.
    behind: VecDeque<SendOrder>,
    views: VecDeque<(TreePosition, Arc<View>)>,
    /// Batches of records that the peer has not taken.
    ahead: u32,
}

impl Sender {
    pub(super) fn new(root: Folder, orders: Receiver<ToSender>, sent: mpsc::Sender<Sent>) -> Self {
        Self { root, orders, sent, behind: VecDeque::new(), views: VecDeque::new(), ahead: 0 }
    }

    /// Runs until the data thread is gone.
    pub(super) fn run(mut self) {
        let root = match self.root.again() {
            Ok(root) => root,
            Err(errno) => {
                let why = format!("the root of the tree cannot be held: {errno}");
                let _ = self.sent.blocking_send(Sent::Failed { why });
                return;
            }
        };
        let mut outgoing: Option<(u64, Outgoing<'_>)> = None;
        while let Some(order) = self.next() {
            let done = match order {
                SendOrder::Know { session, position, scope_digest } => {
                    self.know(session, position, scope_digest)
                }
                SendOrder::Send { session, to, base } => {
                    self.ahead = 0;
                    outgoing =
                        self.view(to.position).map(|view| (session, Outgoing::new(view, &root)));
                    match &outgoing {
                        Some((_, outgoing)) => self.send(session, outgoing, (to, base)),
                        // Only if captures were faster than the data thread: it will send the newest.
                        None => self.say(Sent::Failed { why: NO_VIEW.to_owned() }),
                    }
                }
                SendOrder::Chunks { session, chunks } => match &mut outgoing {
                    Some((of, outgoing)) if *of == session => {
                        self.chunks(session, outgoing, &chunks)
                    }
                    Some(_) | None => Ok(()),
                },
                SendOrder::Taken { .. } => Ok(()),
                SendOrder::Stop => {
                    outgoing = None;
                    Ok(())
                }
            };
            match done {
                Ok(()) | Err(Ended::Stopped) => {}
                Err(Ended::Gone) => return,
                Err(Ended::Failed(error)) => {
                    outgoing = None;
                    let why = format!("the tree cannot be read for the peer: {error}");
                    if self.say(Sent::Failed { why }).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Option<SendOrder> {
        loop {
            if let Some(order) = self.behind.pop_front() {
                return Some(order);
            }
            match self.orders.recv().ok()? {
                ToSender::Order(order) => return Some(order),
                other => self.keep(other),
            }
        }
    }

    fn keep(&mut self, news: ToSender) {
        match news {
            ToSender::Order(order) => self.behind.push_back(order),
            ToSender::Fresh(view) => {
                // A view that cannot say what it shows is of no use.
                let Ok(position) = view.position() else { return };
                self.views.push_back((position, Arc::from(view)));
                while self.views.len() > VIEWS_MAX {
                    self.views.pop_front();
                }
            }
            ToSender::Forget => self.views.clear(),
        }
    }

    fn view(&self, position: TreePosition) -> Option<Arc<View>> {
        let found = self.views.iter().rev().find(|(of, _)| *of == position);
        found.map(|(_, view)| Arc::clone(view))
    }

    fn say(&self, sent: Sent) -> Result<(), Ended> {
        self.sent.blocking_send(sent).map_err(|_| Ended::Gone)
    }

    fn know(
        &self,
        session: u64,
        position: TreePosition,
        scope_digest: [u8; 32],
    ) -> Result<(), Ended> {
        let is_known = match self.views.back() {
            Some((_, view)) => view.reaches(position).map_err(OutgoingError::from)?,
            None => false,
        };
        self.say(Sent::Known { session, position, scope_digest, is_known })
    }

    fn send(
        &mut self,
        session: u64,
        outgoing: &Outgoing<'_>,
        (to, base): (Closed, Option<TreePosition>),
    ) -> Result<(), Ended> {
        let number = to.position.number;
        let base = base.unwrap_or_default();
        let (entries, bytes) = (0, 0);
        let open = TreeNote::DeltaOpen { base, number, entries, bytes };
        self.say(Sent::Message { session, message: TreeMessage::bare(open) })?;
        outgoing.records(base.number, PAYLOAD_LEN_MAX, |batch| {
            self.wait_for_room(session)?;
            self.ahead += 1;
            let payload = Payload::unhashed(Bytes::from(batch));
            let message = TreeMessage { note: TreeNote::DeltaRecords, payload };
            self.say(Sent::Message { session, message })
        })?;
        let Closed { position, label, fuzzy_count } = to;
        let end = TreeNote::DeltaEnd { position, label, fuzzy_count };
        self.say(Sent::Message { session, message: TreeMessage::bare(end) })
    }

    /// Waits until the peer has taken enough of what was sent.
    fn wait_for_room(&mut self, session: u64) -> Result<(), Ended> {
        loop {
            self.look_at_orders(session)?;
            if self.ahead < TREE_RECORDS_AHEAD_MAX {
                return Ok(());
            }
            match self.orders.recv().map_err(|_| Ended::Gone)? {
                ToSender::Order(SendOrder::Taken { session: of, count }) => {
                    if of == session {
                        self.ahead = self.ahead.saturating_sub(count);
                    }
                }
                news => self.keep(news),
            }
        }
    }

    /// Takes what was ordered meanwhile. A stop, or another generation, ends what is being sent.
    fn look_at_orders(&mut self, session: u64) -> Result<(), Ended> {
        loop {
            match self.orders.try_recv() {
                Ok(ToSender::Order(SendOrder::Taken { session: of, count })) => {
                    if of == session {
                        self.ahead = self.ahead.saturating_sub(count);
                    }
                }
                Ok(news) => self.keep(news),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Ended::Gone),
            }
        }
        let ends = |order: &SendOrder| matches!(order, SendOrder::Stop | SendOrder::Send { .. });
        if self.behind.iter().any(ends) { Err(Ended::Stopped) } else { Ok(()) }
    }

    fn chunks(
        &mut self,
        session: u64,
        outgoing: &mut Outgoing<'_>,
        wanted: &[WantedChunks],
    ) -> Result<(), Ended> {
        let mut batch = Batch::default();
        let mut buffer = Vec::new();
        for run in wanted {
            for chunk in run.first..run.first.saturating_add(u64::from(run.count)) {
                match outgoing.chunk(run.object, chunk, &mut buffer) {
                    Ok(()) => {}
                    Err(OutgoingError::Gone { object, chunk }) => {
                        self.flush(session, &mut batch)?;
                        return self.say(Sent::Gone { session, object, chunk });
                    }
                    Err(OutgoingError::Unknown { .. }) => {
                        let what = "the target wants a chunk that the generation does not have";
                        return self.say(Sent::Wrong { session, what });
                    }
                    Err(error) => return Err(error.into()),
                }
                if !batch.has_room(buffer.len()) {
                    self.flush(session, &mut batch)?;
                    self.look_at_orders(session)?;
                }
                let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
                batch.table.push(ChunkPlace { object: run.object, chunk, len });
                batch.bytes.extend_from_slice(&buffer);
            }
        }
        self.flush(session, &mut batch)
    }

    fn flush(&self, session: u64, batch: &mut Batch) -> Result<(), Ended> {
        if batch.table.is_empty() {
            return Ok(());
        }
        let Batch { table, bytes } = std::mem::take(batch);
        let count = table.len() as u64;
        let message = TreeMessage {
            note: TreeNote::Chunks { table },
            payload: Payload::unhashed(bytes.freeze()),
        };
        self.say(Sent::Message { session, message })?;
        self.say(Sent::Chunks { session, count })
    }
}

const NO_VIEW: &str = "the generation to be sent is not the newest any more";

/// Chunks that go in one message.
#[derive(Default)]
struct Batch {
    table: Vec<ChunkPlace>,
    bytes: BytesMut,
}

impl Batch {
    fn has_room(&self, len: usize) -> bool {
        self.table.len() < TREE_CHUNKS_MAX && self.bytes.len() + len <= PAYLOAD_LEN_MAX
    }
}
