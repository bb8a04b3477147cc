//! Two nodes in temporary folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::scan::{names_of, read, scan};
use crate::manifest::apply::{JournalNumber, Side};
use crate::manifest::{Granularity, LeftOut, Name, Record, Scope, TreeClock, TreePath, View as _};
use crate::store::tree::index::{Delta, Index, IndexError, Rows};
use crate::store::tree::receive::{
    Base, Incoming, Limits, Prepare, Prepared, ReceiveError, Received, Site, Staging, look_again,
    span_of, write_index,
};
use crate::store::tree::{Folder, WorkArea};
use crate::units::{ObjectId, ResourceId, TreeNumber, TreePosition};

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(super) fn scope() -> Scope {
    Scope { resource: ResourceId(1), exclude: BTreeSet::new(), leave_out: BTreeSet::new() }
}

/// Bytes that no hole has.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// One node.
pub(super) struct Node {
    outer: tempfile::TempDir,
    pub(super) tree: Folder,
    pub(super) work: WorkArea,
    pub(super) index: Index,
}

impl Node {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("tree")).unwrap();
        let tree = Folder::open(&outer.path().join("tree")).unwrap();
        let parent = Folder::open(outer.path()).unwrap();
        let work = WorkArea::open(&parent, &name("work"), &tree.look_at_self().unwrap()).unwrap();
        let index = Index::open(&outer.path().join("index")).unwrap();
        Self { outer, tree, work, index }
    }

    pub(super) fn path(&self, inner: &str) -> PathBuf {
        self.outer.path().join("tree").join(inner)
    }

    pub(super) fn stage(&self) -> PathBuf {
        self.outer.path().join("work/stage")
    }

    pub(super) fn undo(&self) -> PathBuf {
        self.outer.path().join("work/undo")
    }

    pub(super) fn staged(&self) -> Vec<String> {
        let names = self.work.stage().list().unwrap().names;
        names.iter().map(ToString::to_string).collect()
    }

    pub(super) fn write(&self, inner: &str, bytes: &[u8]) {
        fs::write(self.path(inner), bytes).unwrap();
    }

    pub(super) fn write_at(&self, inner: &str, at: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.path(inner)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    fn spool(&self) -> fs::File {
        let path = self.outer.path().join("records");
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap()
    }

    /// The clock of the file system, when all stamps so far are old enough.
    pub(super) fn clock(&self) -> TreeClock {
        let at = fs::metadata(self.outer.path()).unwrap();
        // Far ahead: nothing is too young.
        let now = crate::manifest::FileTime { seconds: at.ctime() + 1000, nanos: 0 };
        TreeClock { now, granularity: Granularity::FINE }
    }
}

/// A source and a target.
pub(super) struct Pair {
    pub(super) source: Node,
    pub(super) target: Node,
    pub(super) number: u64,
    pub(super) position: TreePosition,
    /// What was asked for.
    pub(super) asked: Vec<(ObjectId, u64)>,
}

impl Pair {
    pub(super) fn new() -> Self {
        let position = TreePosition::default();
        Self { source: Node::new(), target: Node::new(), number: 0, position, asked: Vec::new() }
    }

    /// The source captures a generation.
    pub(super) fn capture(&mut self) -> TreePosition {
        self.number += 1;
        let number = TreeNumber(self.number);
        self.position = scan(&self.source.index, &self.source.tree, number, &scope());
        self.position
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let base = self.target.index.view().unwrap().position().unwrap();
        let view = self.source.index.view().unwrap();
        let mut records = Vec::new();
        let take = |record| {
            records.push(record);
            Ok::<_, IndexError>(())
        };
        Delta::since(&view, base.number).unwrap().records(take).unwrap();
        records
    }

    pub(super) fn base(&self) -> Arc<Base> {
        Arc::new(Base::new(self.target.index.view().unwrap()).unwrap())
    }

    pub(super) fn incoming(&self, left_out: LeftOut, limits: Limits) -> Incoming {
        Incoming::new(self.base(), left_out, limits, self.target.spool()).unwrap()
    }

    /// Takes the records that were kept by an earlier call.
    pub(super) fn again(&self) -> Result<Received, ReceiveError> {
        let base = self.base();
        let from = base.position();
        let (left_out, limits) = (LeftOut::default(), Limits::default());
        let incoming = Incoming::again(base, left_out, limits, self.target.spool())?;
        incoming.finish((from, self.position), |_| false)
    }

    pub(super) fn receive_as(
        &self,
        records: Vec<Record>,
        left_out: LeftOut,
        is_excluded: impl Fn(&TreePath) -> bool,
    ) -> Result<Received, ReceiveError> {
        let mut incoming = self.incoming(left_out, Limits::default());
        for record in records {
            incoming.push(record)?;
        }
        incoming.finish((self.base().position(), self.position), is_excluded)
    }

    pub(super) fn receive(&self) -> Received {
        self.receive_as(self.records(), LeftOut::default(), |_| false).unwrap()
    }

    /// The bytes of a chunk, as the source has them.
    pub(super) fn chunk(&self, id: ObjectId, chunk: u64) -> Vec<u8> {
        let base = Base::new(self.source.index.view().unwrap()).unwrap();
        let mut at = base.place(id).unwrap();
        let mut path = vec![at.1];
        while at.0 != ObjectId::ROOT {
            at = base.place(at.0).unwrap();
            path.push(at.1);
        }
        let names: Vec<String> =
            path.iter().rev().map(|it| String::from_utf8(it.bytes().to_vec()).unwrap()).collect();
        let file = fs::File::open(self.source.path(&names.join("/"))).unwrap();
        let (start, len) = span_of(chunk, file.metadata().unwrap().len());
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, start).unwrap();
        bytes
    }

    /// Stages a delta with all that the source has, at most `most` chunks of it.
    pub(super) fn serve(&mut self, staging: &mut Staging<'_>, mut most: usize) {
        loop {
            let wants = staging.wants(7).unwrap();
            for (id, chunk) in &wants.chunks {
                if most == 0 {
                    return;
                }
                most -= 1;
                self.asked.push((*id, *chunk));
                staging.put_chunk(*id, *chunk, &self.chunk(*id, *chunk)).unwrap();
            }
            if wants.is_all {
                return;
            }
        }
    }

    /// Stages and prepares what the source has captured, and gives what was planned.
    pub(super) fn prepare(&mut self) -> Box<Prepared> {
        let received = self.receive();
        self.prepare_it(received)
    }

    pub(super) fn prepare_it(&mut self, received: Received) -> Box<Prepared> {
        match self.try_prepare(received) {
            Ok(prepared) => prepared,
            Err(foreign) => panic!("foreign: {foreign:?}"),
        }
    }

    pub(super) fn try_prepare(
        &mut self,
        received: Received,
    ) -> Result<Box<Prepared>, Vec<super::super::Foreign>> {
        let target = std::mem::replace(&mut self.target, Node::new());
        let left_out = LeftOut::default();
        let site = Site { tree: &target.tree, work: &target.work, left_out: &left_out };
        let mut staging = Staging::new(received, site, &BTreeSet::new()).unwrap();
        self.serve(&mut staging, usize::MAX);
        let number = JournalNumber(self.number);
        let prepared = staging.prepare(&target.index, &scope(), number, &target.clock()).unwrap();
        let result = match prepared {
            Prepare::Ready(prepared) => Ok(prepared),
            Prepare::Foreign(_, foreign) => Err(foreign),
        };
        self.target = target;
        result
    }

    /// The target becomes what the source is, by other means, and its index follows.
    pub(super) fn mirror(&mut self) {
        let received = self.receive();
        self.mirror_with(&received);
    }

    pub(super) fn mirror_with(&mut self, received: &Received) {
        empty(&self.target.path("."));
        let status = Command::new("cp")
            .args(["-a", "--reflink=never"])
            .args([self.source.path("."), self.target.path(".")])
            .status();
        assert!(status.unwrap().success());
        let sides = super::super::Sides::of(received).unwrap();
        let clock = self.target.clock();
        let looks = look_again(&self.target.tree, &sides.target, &clock).unwrap();
        write_index(&self.target.index, &scope(), received, &looks).unwrap();
        self.look_at_all();
    }

    /// A copy made by hand has other inodes everywhere.
    pub(super) fn look_at_all(&self) {
        let view = self.target.index.view().unwrap();
        let names = names_of(&view);
        let ids: BTreeSet<ObjectId> = names.values().copied().chain([ObjectId::ROOT]).collect();
        let object = |id: ObjectId| view.object(id).unwrap().unwrap().entry.object().clone();
        let side = Side { objects: ids.iter().map(|id| (*id, object(*id))).collect(), names };
        let looks = look_again(&self.target.tree, &side, &self.target.clock()).unwrap();
        let changed = self.target.index.change(|tables| {
            for (id, (stamp, _)) in looks {
                let row = tables.object(id)?.unwrap();
                tables.put_object(id, &crate::manifest::Row { stamp, ..row })?;
            }
            Ok(())
        });
        changed.unwrap();
    }

    pub(super) fn id(&self, inner: &str) -> ObjectId {
        let view = self.source.index.view().unwrap();
        inner
            .split('/')
            .fold(ObjectId::ROOT, |at, part| view.name(at, &name(part)).unwrap().unwrap())
    }
}

pub(super) fn empty(path: &Path) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Everything below two entries, by path: what they are, their bytes.
pub(super) fn assert_same(one: (&Folder, &Name), other: (&Folder, &Name)) {
    let (found, also) =
        (one.0.look(one.1).unwrap().unwrap(), other.0.look(other.1).unwrap().unwrap());
    let (left, right) = (read(one.0, one.1, &found), read(other.0, other.1, &also));
    assert_eq!(left.0, right.0, "{} and {}", one.1, other.1);
    assert!(left.1 == right.1, "the bytes of {}", one.1);
    if left.0.kind() == crate::manifest::Kind::Directory {
        let (one, other) = (one.0.child(one.1).unwrap(), other.0.child(other.1).unwrap());
        let names = one.list().unwrap().names;
        assert_eq!(names, other.list().unwrap().names);
        for name in names {
            assert_same((&one, &name), (&other, &name));
        }
    }
}

/// Blocks that each file below a folder takes.
pub(super) fn blocks(path: &Path) -> BTreeMap<String, u64> {
    let mut blocks = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let text = entry.file_name().into_string().unwrap();
        blocks.insert(text, entry.metadata().unwrap().blocks());
    }
    blocks
}
