//! The thread that reads for the peer: records of a generation, and the chunks that it wants of it.
//!
//! It works on a view of the index that stays as it is while the worker captures the next generation.
//! Records are sent while the peer keeps up, chunks only as asked for, so nothing piles up on either
//! side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::orders::{SendOrder, Sent};
use crate::manifest::source::Closed;
use crate::store::tree::Folder;
use crate::store::tree::index::{Rows, View};
use crate::store::tree::outgoing::{Outgoing, OutgoingError};
use crate::units::TreePosition;
use crate::wire::{
    ChunkPlace, Packer, Packing, Payload, TREE_CHUNKS_MAX, TREE_PAYLOAD_LEN_MAX,
    TREE_RECORDS_AHEAD_MAX, TreeMessage, TreeNote, WantedChunks,
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
    packer: Packer,
}

impl Sender {
    pub(super) fn new(root: Folder, orders: Receiver<ToSender>, sent: mpsc::Sender<Sent>) -> Self {
        let (behind, views) = (VecDeque::new(), VecDeque::new());
        Self { root, orders, sent, behind, views, ahead: 0, packer: Packer::default() }
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
        outgoing.records(base.number, PAYLOAD_LEN_MAX, |mut batch| {
            self.wait_for_room(session)?;
            self.ahead += 1;
            let (packing, payload) = self.pack(&mut batch);
            let message = TreeMessage { note: TreeNote::DeltaRecords { packing }, payload };
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

    fn flush(&mut self, session: u64, batch: &mut Batch) -> Result<(), Ended> {
        if batch.table.is_empty() {
            return Ok(());
        }
        let table = std::mem::take(&mut batch.table);
        let count = table.len() as u64;
        let (packing, payload) = self.pack(&mut batch.bytes);
        let message = TreeMessage { note: TreeNote::Chunks { table, packing }, payload };
        self.say(Sent::Message { session, message })?;
        self.say(Sent::Chunks { session, count })
    }

    /// What travels of `content`, which is empty afterwards. What was compressed leaves its memory for the next.
    fn pack(&mut self, content: &mut Vec<u8>) -> (Packing, Payload) {
        let (packing, bytes) = match self.packer.pack(content) {
            Some(packed) => {
                content.clear();
                packed
            }
            None => (Packing::Raw, Bytes::from(std::mem::take(content))),
        };
        (packing, Payload::unhashed(bytes))
    }
}

const NO_VIEW: &str = "the generation to be sent is not the newest any more";

/// Chunks that go in one message.
#[derive(Default)]
struct Batch {
    table: Vec<ChunkPlace>,
    bytes: Vec<u8>,
}

impl Batch {
    fn has_room(&self, len: usize) -> bool {
        self.table.len() < TREE_CHUNKS_MAX && self.bytes.len() + len <= PAYLOAD_LEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::thread::JoinHandle;

    use tempfile::TempDir;

    use super::*;
    use crate::manifest::{Body, Deletes, Due, Guard, LeftOut, Name, Record, Scope, chunk_count};
    use crate::store::tree::capture::{Progress, Subject, capture};
    use crate::store::tree::index::Index;
    use crate::store::tree::{Exclude, Observer, WorkArea};
    use crate::units::{Instant, Label, ObjectId, ResourceId};

    const SESSION: u64 = 1;

    fn text(len: usize) -> Vec<u8> {
        let line = |number| format!("{number}: the quick brown fox jumps over the lazy dog\n");
        (0..).flat_map(|number: u32| line(number).into_bytes()).take(len).collect()
    }

    fn noise(seed: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// A sender of a tree with one generation, and what is said to it and by it.
    struct Rig {
        _outer: TempDir,
        /// Its views last no longer than it does.
        _index: Index,
        to: Closed,
        orders: SyncSender<ToSender>,
        sent: mpsc::Receiver<Sent>,
        thread: JoinHandle<()>,
        /// Bytes that went out, and what they were.
        packed_len: usize,
        content_len: usize,
        packings: Vec<Packing>,
    }

    impl Rig {
        fn new(fill: impl FnOnce(&Path)) -> Self {
            let outer = tempfile::tempdir().unwrap();
            let folder = |path: &str| {
                let path = outer.path().join(path);
                fs::create_dir_all(&path).unwrap();
                Folder::open(&path).unwrap()
            };
            let (root, index) = (folder("tree"), Index::open_in(&folder("state")).unwrap().0);
            fill(&outer.path().join("tree"));
            let name = Name::new(b".hotpair-r").unwrap();
            let work = WorkArea::open(&folder("."), &name, &root.look_at_self().unwrap()).unwrap();
            let mut observer = Observer::start(&work, false, || Instant(0), || ()).unwrap();
            let scope =
                Scope { resource: ResourceId(11), exclude: [].into(), leave_out: [].into() };
            let exclude = Exclude::new(&scope.exclude).unwrap();
            let (left_out, go) = (LeftOut::default(), |_: Deletes| Guard::Go);
            let subject = Subject {
                root: &root,
                scope: &scope,
                exclude: &exclude,
                left_out: &left_out,
                guard: &go,
            };
            let due = Due { everything: true, ..Due::default() };
            let progress = Progress::default();
            let position =
                capture(&index, &subject, &mut observer, due, &progress).unwrap().position;
            let (orders, orders_out) = sync_channel(64);
            let (says, sent) = mpsc::channel(1);
            orders.send(ToSender::Fresh(Box::new(index.view().unwrap()))).unwrap();
            let sender = Sender::new(root, orders_out, says);
            let thread = std::thread::spawn(move || sender.run());
            let to = Closed { position, label: Label::Stable, fuzzy_count: 0 };
            let packings = Vec::new();
            Self {
                _outer: outer,
                _index: index,
                to,
                orders,
                sent,
                thread,
                packed_len: 0,
                content_len: 0,
                packings,
            }
        }

        fn order(&self, order: SendOrder) {
            self.orders.send(ToSender::Order(order)).unwrap();
        }

        fn content(&mut self, packing: Packing, payload: &Payload) -> Vec<u8> {
            let mut buffer = Vec::new();
            let content = packing.content(payload.bytes(), &mut buffer).unwrap().to_vec();
            self.packed_len += payload.len();
            self.content_len += content.len();
            self.packings.push(packing);
            content
        }

        /// All records of the generation.
        fn records(&mut self) -> Vec<Record> {
            self.order(SendOrder::Send { session: SESSION, to: self.to, base: None });
            let mut records = Vec::new();
            loop {
                let message = match self.sent.blocking_recv() {
                    Some(Sent::Message { message, .. }) => message,
                    Some(Sent::Failed { why }) => panic!("{why}"),
                    _ => panic!("the sender gave up"),
                };
                match message.note {
                    TreeNote::DeltaRecords { packing } => {
                        let content = self.content(packing, &message.payload);
                        let mut rest = &content[..];
                        while !rest.is_empty() {
                            let (record, behind) = Record::decode(rest).unwrap();
                            records.push(record);
                            rest = behind;
                        }
                        self.order(SendOrder::Taken { session: SESSION, count: 1 });
                    }
                    TreeNote::DeltaEnd { .. } => return records,
                    _ => {}
                }
            }
        }

        /// The content of all files that `records` tell of, by object.
        fn files(&mut self, records: &[Record]) -> BTreeMap<ObjectId, Vec<u8>> {
            let chunks: Vec<_> = records
                .iter()
                .filter_map(|record| match record {
                    Record::Object { id, object } => match object.body {
                        Body::Regular { size, .. } => {
                            let count = u32::try_from(chunk_count(size)).unwrap();
                            Some(WantedChunks { object: *id, first: 0, count })
                        }
                        _ => None,
                    },
                    _ => None,
                })
                .collect();
            let mut missing: u64 = chunks.iter().map(|it| u64::from(it.count)).sum();
            self.order(SendOrder::Chunks { session: SESSION, chunks });
            let mut files = BTreeMap::<_, Vec<u8>>::new();
            while missing > 0 {
                match self.sent.blocking_recv() {
                    Some(Sent::Message { message, .. }) => {
                        let TreeNote::Chunks { table, packing } = message.note else {
                            panic!("{:?}", message.note);
                        };
                        let content = self.content(packing, &message.payload);
                        let mut rest = &content[..];
                        for place in table {
                            let (part, behind) = rest.split_at(usize::try_from(place.len).unwrap());
                            files.entry(place.object).or_default().extend_from_slice(part);
                            rest = behind;
                        }
                        assert_eq!(rest, b"");
                    }
                    Some(Sent::Chunks { count, .. }) => missing -= count,
                    _ => panic!("the sender gave up"),
                }
            }
            files
        }

        fn end(self) {
            drop(self.orders);
            drop(self.sent);
            self.thread.join().unwrap();
        }
    }

    #[test]
    fn content_that_shrinks_is_sent_compressed_and_other_as_it_is() {
        let long = text((5 << 20) + 77);
        for (content, shrinks) in [(long, true), (noise(b"one", (3 << 20) + 77), false)] {
            let mut rig = Rig::new(|tree| fs::write(tree.join("file"), &content).unwrap());
            let records = rig.records();
            (rig.packed_len, rig.content_len) = (0, 0);
            rig.packings.clear();
            let files = rig.files(&records);
            assert!(files.into_values().eq([content.clone()]), "it arrives as it was");
            assert_eq!(rig.content_len, content.len());
            if shrinks {
                assert!(rig.packings.iter().all(|it| matches!(it, Packing::Lz4 { .. })));
                assert!(rig.packed_len < content.len() / 2, "{}", rig.packed_len);
            } else {
                assert!(rig.packings.iter().all(|it| *it == Packing::Raw));
                assert_eq!(rig.packed_len, content.len());
            }
            rig.end();
        }
    }

    #[test]
    fn a_buffer_is_used_again_whatever_became_of_the_batch_before() {
        let contents: Vec<_> = (0..6_u8)
            .map(|at| if at % 2 == 0 { text(1 << 20) } else { noise(&[at], 1 << 20) })
            .collect();
        let mut rig = Rig::new(|tree| {
            for (at, content) in contents.iter().enumerate() {
                fs::write(tree.join(format!("{at}")), content).unwrap();
            }
        });
        let records = rig.records();
        let mut found: Vec<_> = rig.files(&records).into_values().collect();
        let mut made = contents;
        found.sort();
        made.sort();
        assert!(found == made);
        let is_raw = |it: &&Packing| **it == Packing::Raw;
        assert_eq!(rig.packings.iter().filter(is_raw).count(), 3);
        rig.end();
    }

    #[test]
    fn records_are_compressed_too() {
        let mut rig = Rig::new(|tree| {
            for at in 0..500 {
                fs::write(tree.join(format!("{at}")), at.to_string()).unwrap();
            }
        });
        let records = rig.records();
        let is_name = |it: &&Record| matches!(it, Record::Name { .. });
        assert_eq!(records.iter().filter(is_name).count(), 500);
        assert!(rig.packings.iter().all(|it| matches!(it, Packing::Lz4 { .. })));
        assert!(
            rig.packed_len < rig.content_len * 9 / 10,
            "{} {}",
            rig.packed_len,
            rig.content_len
        );
        rig.end();
    }
}
