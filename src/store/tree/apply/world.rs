//! Real trees for tests: made at random, staged, planned, looked at.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use tempfile::TempDir;

use super::super::attributes::{read_xattrs, write_xattrs};
use super::super::folder::Folder;
use super::super::make::set_metadata;
use super::super::work_area::WorkArea;
use super::{
    Applier, ApplyError, Folders, IndexFailure, Moment, Outcome, PatchWriter, REGISTER_LEN,
    Records, RecordsFile, Steps, save_pre_image,
};
use crate::manifest::apply::{
    Birth, Change, Journal, JournalNumber, Place, Side, Slot, Staged, Turn, birth_of, plan, turn_of,
};
use crate::manifest::{
    Body, ContentHash, FileTime, Identity, Kind, LeftOut, Metadata, Name, Object,
};
use crate::units::{CHUNK_LEN, Epoch, ObjectId, TreeNumber, TreePosition};

pub(super) const MOMENT: Moment =
    Moment { epoch: Epoch(8), now: FileTime { seconds: 1_767_225_600, nanos: 0 } };
/// Objects 2 to 5 are directories, 6 to 10 files, then links, a pipe and a socket.
const DIRECTORIES: std::ops::Range<u64> = 2..6;
const OTHERS: std::ops::Range<u64> = 6..15;
const NAMES: [&[u8]; 5] = [b"a", b"b", b"c c", b"\xff\n", b"-d"];
/// Slots of patches are far from those that a plan gives out.
const PATCH_SLOT: u64 = 1_000_000;

pub(super) fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).unwrap()
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where there is a file system in memory that knows births and attributes, thousands of trees cost
/// no wear and little time.
fn in_memory() -> TempDir {
    let fits = |outer: &TempDir| {
        let folder = Folder::open(outer.path()).unwrap();
        let probe = vec![(b"user.probe".as_slice().into(), b"1".as_slice().into())];
        folder.look_at_self().unwrap().stamp.identity.birth.is_some()
            && write_xattrs(&folder, &probe, &LeftOut::default()).is_ok()
    };
    let in_memory = tempfile::tempdir_in("/dev/shm").ok().filter(fits);
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// The bytes of a file with this seed.
fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (index, block) in bytes.chunks_mut(4096).enumerate() {
        // Chunks that do not depend on the seed stay as they are from version to version.
        let own = if index % 32 < 16 { seed } else { 0 };
        block.fill(u8::try_from((own * 31 + index as u64) % 251).unwrap());
    }
    bytes
}

/// What the files of all versions hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents(BTreeMap<ContentHash, Vec<u8>>);

impl Contents {
    fn regular(&mut self, seed: u64, len: usize) -> Body {
        let bytes = bytes_of(seed, len);
        let content = ContentHash(*blake3::hash(&bytes).as_bytes());
        let size = bytes.len() as u64;
        self.0.insert(content, bytes);
        Body::Regular { size, content }
    }

    pub(super) fn bytes(&self, body: &Body) -> &[u8] {
        match body {
            Body::Regular { content, .. } => &self.0[content],
            _ => &[],
        }
    }
}

fn kind_of(id: ObjectId) -> Kind {
    match id.0 {
        0..=5 => Kind::Directory,
        6..=10 => Kind::Regular,
        11 | 12 => Kind::Symlink,
        13 => Kind::Fifo,
        _ => Kind::Socket,
    }
}

fn body(contents: &mut Contents, id: ObjectId, version: u64) -> Body {
    match kind_of(id) {
        Kind::Directory => Body::Directory,
        Kind::Regular => {
            let lengths = [0, 10, 70_000, 131_072, 200_001];
            let len = lengths[usize::try_from(id.0 + version).unwrap() % lengths.len()];
            contents.regular(id.0 * 8 + version, len)
        }
        Kind::Symlink => Body::Symlink { target: format!("../t{version}").into_bytes().into() },
        Kind::Fifo => Body::Fifo,
        Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Body::Socket,
    }
}

fn metadata(rng: &mut Rng, kind: Kind) -> Metadata {
    let is_link = kind == Kind::Symlink;
    let all = [0o600, 0o755, 0o4711, 0o2770, 0o1777, 0o6755, 0o644];
    let mode = if is_link { 0 } else { all[rng.usize(..all.len())] };
    // Whoever is not root must be able to look at what the test made.
    let mode = if kind == Kind::Directory { mode | 0o700 } else { mode };
    let mut xattrs = Vec::new();
    let may_have_any = matches!(kind, Kind::Regular | Kind::Directory);
    for (key, allowed) in
        [("trusted.t", is_root()), ("user.a", may_have_any), ("user.b", may_have_any)]
    {
        if allowed && rng.u8(..4) == 0 {
            let value = vec![rng.u8(..); rng.usize(..20)];
            xattrs.push((key.as_bytes().into(), value.into()));
        }
    }
    let owner = |rng: &mut Rng, own: u32| if is_root() { rng.u32(..4) * 1000 } else { own };
    Metadata {
        mode,
        uid: owner(rng, rustix::process::geteuid().as_raw()),
        gid: owner(rng, rustix::process::getegid().as_raw()),
        mtime: FileTime { seconds: rng.i64(1..2_000_000_000), nanos: rng.u32(..1_000_000_000) },
        xattrs,
    }
}

/// A tree of some of the objects. What it has in common with `like` is as it is there, mostly.
pub(super) fn random_side(rng: &mut Rng, contents: &mut Contents, like: Option<&Side>) -> Side {
    let mut side = Side::default();
    let mut object = |rng: &mut Rng, id: ObjectId| {
        let old = like.and_then(|side| side.objects.get(&id));
        let fresh_metadata = metadata(rng, kind_of(id));
        let fresh_body = body(contents, id, rng.u64(..4));
        Object {
            metadata: old
                .filter(|_| rng.u8(..3) > 0)
                .map_or(fresh_metadata, |it| it.metadata.clone()),
            body: old.filter(|_| rng.bool()).map_or(fresh_body, |it| it.body.clone()),
        }
    };
    side.objects.insert(ObjectId::ROOT, object(rng, ObjectId::ROOT));
    let mut directories = vec![ObjectId::ROOT];
    let mut ids: Vec<u64> = DIRECTORIES.collect();
    rng.shuffle(&mut ids);
    ids.extend(OTHERS);
    for id in ids.into_iter().map(ObjectId) {
        if rng.u8(..4) == 0 {
            continue;
        }
        let many = matches!(kind_of(id), Kind::Regular | Kind::Fifo | Kind::Symlink);
        let wanted = if many && rng.u8(..3) == 0 { rng.usize(2..4) } else { 1 };
        let mut found = 0;
        for _ in 0..8 {
            let key = (
                directories[rng.usize(..directories.len())],
                name(NAMES[rng.usize(..NAMES.len())]),
            );
            if found < wanted && !side.names.contains_key(&key) {
                side.names.insert(key, id);
                found += 1;
            }
        }
        if found > 0 {
            side.objects.insert(id, object(rng, id));
            if kind_of(id) == Kind::Directory {
                directories.push(id);
            }
        }
    }
    side
}

/// What a path leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Leads {
    pub(super) identity: Identity,
    pub(super) object: Object,
}

pub(super) type View = BTreeMap<PathBuf, Leads>;

/// All that is below `top`, and `top`.
pub(super) fn view(top: &Path) -> View {
    let mut result = View::new();
    let folder = Folder::open(top).unwrap();
    let found = folder.look_at_self().unwrap();
    let xattrs = read_xattrs(&folder, &LeftOut::default()).unwrap();
    let object = Object { metadata: metadata_of(&found, xattrs), body: Body::Directory };
    result.insert(PathBuf::new(), Leads { identity: found.stamp.identity, object });
    let mut pending = vec![(PathBuf::new(), folder)];
    while let Some((path, folder)) = pending.pop() {
        for entry in folder.list().unwrap().names {
            let found = folder.look(&entry).unwrap().unwrap();
            let path = path.join(super::super::folder::os(&entry));
            let xattrs = read_xattrs(folder.object(&entry).unwrap(), &LeftOut::default()).unwrap();
            let body = match found.kind.unwrap() {
                Kind::Directory => Body::Directory,
                Kind::Symlink => Body::Symlink { target: folder.target(&entry).unwrap() },
                Kind::Fifo => Body::Fifo,
                Kind::Regular => {
                    let bytes = std::fs::read(top.join(&path)).unwrap();
                    let content = ContentHash(*blake3::hash(&bytes).as_bytes());
                    Body::Regular { size: found.stamp.size, content }
                }
                Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Body::Socket,
            };
            let object = Object { metadata: metadata_of(&found, xattrs), body };
            if found.kind == Some(Kind::Directory) {
                pending.push((path.clone(), folder.child(&entry).unwrap()));
            }
            result.insert(path, Leads { identity: found.stamp.identity, object });
        }
    }
    result
}

fn metadata_of(found: &super::super::folder::Found, xattrs: crate::manifest::Xattrs) -> Metadata {
    let mode = if found.kind == Some(Kind::Symlink) { 0 } else { found.stamp.mode & 0o7777 };
    Metadata {
        mode: u16::try_from(mode).unwrap(),
        uid: found.stamp.uid,
        gid: found.stamp.gid,
        mtime: found.stamp.mtime,
        xattrs,
    }
}

/// The paths of all entries of `side`, and what they lead to.
pub(super) fn paths_of(side: &Side) -> BTreeMap<PathBuf, ObjectId> {
    let mut result = BTreeMap::from([(PathBuf::new(), ObjectId::ROOT)]);
    let mut pending = vec![(PathBuf::new(), ObjectId::ROOT)];
    while let Some((path, at)) = pending.pop() {
        for ((_, name), id) in side.names.iter().filter(|((directory, _), _)| *directory == at) {
            let path = path.join(super::super::folder::os(name));
            result.insert(path.clone(), *id);
            if kind_of_side(side, *id) == Kind::Directory {
                pending.push((path, *id));
            }
        }
    }
    result
}

fn kind_of_side(side: &Side, id: ObjectId) -> Kind {
    side.objects[&id].kind()
}

/// A node with a tree on a real file system.
#[derive(Debug)]
pub(super) struct World {
    pub(super) outer: TempDir,
    pub(super) contents: Contents,
    pub(super) side: Side,
    pub(super) found: BTreeMap<ObjectId, Identity>,
    next_slot: u64,
}

impl World {
    /// A node whose tree is `side`.
    pub(super) fn new(side: &Side, contents: &Contents) -> Self {
        Self::in_folder(in_memory(), side, contents)
    }

    /// The same on the file system that temporary files are on.
    pub(super) fn on_disk(side: &Side, contents: &Contents) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), side, contents)
    }

    fn in_folder(outer: TempDir, side: &Side, contents: &Contents) -> Self {
        for folder in ["tree", "state", "canary"] {
            std::fs::create_dir(outer.path().join(folder)).unwrap();
        }
        let mut world = Self {
            outer,
            contents: contents.clone(),
            side: side.clone(),
            found: BTreeMap::new(),
            next_slot: 0,
        };
        for (path, id) in paths_of(side) {
            let path = world.tree().join(path);
            world.make(&path, id, side);
        }
        world.dress(side);
        let state = Folder::open(&world.path("state")).unwrap();
        RecordsFile::make(&state, &Records::default()).unwrap();
        world
    }

    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.outer.path().join(text)
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    /// Makes an object, or a further name of it.
    fn make(&mut self, path: &Path, id: ObjectId, side: &Side) {
        if id != ObjectId::ROOT {
            let folder = Folder::open(path.parent().unwrap()).unwrap();
            let entry = name(std::os::unix::ffi::OsStrExt::as_bytes(path.file_name().unwrap()));
            let body = &side.objects[&id].body;
            if let Some(first) = self.first_path(id) {
                std::fs::hard_link(first, path).unwrap();
            } else {
                folder.make(&entry, body).unwrap();
                if let Body::Regular { .. } = body {
                    std::fs::write(path, self.contents.bytes(body)).unwrap();
                }
            }
        }
        let folder = Folder::open(path.parent().unwrap()).unwrap();
        let entry = name(std::os::unix::ffi::OsStrExt::as_bytes(path.file_name().unwrap()));
        let identity = folder.look(&entry).unwrap().unwrap().stamp.identity;
        self.found.insert(id, identity);
    }

    fn first_path(&self, id: ObjectId) -> Option<PathBuf> {
        let identity = self.found.get(&id)?;
        let all = view(&self.tree());
        all.iter().find(|(_, it)| it.identity == *identity).map(|(path, _)| self.tree().join(path))
    }

    /// Gives objects of the tree their metadata, the deepest ones first.
    fn dress(&self, side: &Side) {
        for (path, id) in paths_of(side).into_iter().rev() {
            dress(&self.tree().join(path), &side.objects[&id].metadata);
        }
    }

    /// What a start of the daemon opens.
    pub(super) fn start(&self) -> Applier {
        let root = Folder::open(&self.tree()).unwrap();
        let parent = Folder::open(self.outer.path()).unwrap();
        let work = WorkArea::open(&parent, &name(b".work"), &root.look_at_self().unwrap()).unwrap();
        let state = Folder::open(&self.path("state")).unwrap();
        let records = RecordsFile::open(&state).unwrap().unwrap();
        Applier::new(Folders { root, work, state }, records, LeftOut::default())
    }

    /// Stages what `target` needs and plans. Files are patched that can be, if `patches` says so.
    pub(super) fn prepare(&mut self, target: &Side, patches: bool) -> (Change, Journal) {
        let applier = self.start();
        let number = applier.next_number().unwrap();
        let mut change = Change {
            base: self.side.clone(),
            target: target.clone(),
            found: self.found.clone(),
            ..Change::default()
        };
        if patches {
            self.stage_patches(&applier, number, &mut change);
        }
        self.stage(&mut change);
        let base = applier.records().applied.position;
        let to = TreePosition { number: TreeNumber(base.number.0 + 1), ..base };
        let journal = plan(&change, number, base, to).unwrap();
        (change, journal)
    }

    fn stage_patches(&mut self, applier: &Applier, number: JournalNumber, change: &mut Change) {
        for (id, new) in &change.target.objects {
            let Some(old) = change.base.objects.get(id) else { continue };
            if new.kind() != Kind::Regular || old.body == new.body {
                continue;
            }
            self.next_slot += 1;
            let places = (
                Place::Stage(Slot(self.next_slot)),
                Place::Undo { journal: number, slot: Slot(PATCH_SLOT + id.0) },
            );
            let (old, new) = (self.contents.bytes(&old.body), self.contents.bytes(&new.body));
            let chunk_len = usize::try_from(CHUNK_LEN).unwrap();
            let stage = applier.work().stage();
            let entry = WorkArea::name_of(&places.0).unwrap();
            let mut patch = PatchWriter::new(stage, &entry, new.len() as u64).unwrap();
            let mut changed = Vec::new();
            for (number, chunk) in (0..).zip(new.chunks(chunk_len)) {
                if old.chunks(chunk_len).nth(usize::try_from(number).unwrap()) != Some(chunk) {
                    patch.append(number, chunk).unwrap();
                    changed.push(number);
                }
            }
            patch.end().unwrap();
            let file = std::fs::File::open(self.first_path(*id).unwrap()).unwrap();
            let undo = applier.work().undo_of(number).unwrap();
            let entry = WorkArea::name_of(&places.1).unwrap();
            save_pre_image(&undo, &entry, &file, changed, new.len() as u64).unwrap();
            change.patches.insert(*id, places);
        }
    }

    fn stage(&mut self, change: &mut Change) {
        let target = change.target.clone();
        let mut names: BTreeMap<ObjectId, Vec<(ObjectId, Name)>> = BTreeMap::new();
        for (key, id) in &target.names {
            names.entry(*id).or_default().push(key.clone());
        }
        let is_born =
            |id: &ObjectId| matches!(turn_of(change, *id).unwrap(), Turn::Born | Turn::Replaced);
        let born: Vec<ObjectId> = target.objects.keys().copied().filter(is_born).collect();
        let births: BTreeMap<ObjectId, Birth> =
            born.iter().map(|id| (*id, birth_of(change, *id, &names[id]).unwrap())).collect();
        let mut paths: BTreeMap<ObjectId, PathBuf> = BTreeMap::new();
        let mut order = Vec::new();
        // Parents first, wherever they are born.
        while paths.len() < births.len() {
            for (id, birth) in &births {
                let path = match birth {
                    _ if paths.contains_key(id) => continue,
                    Birth::Slot { .. } => {
                        self.next_slot += 1;
                        self.path(&format!(".work/stage/new-{}", self.next_slot))
                    }
                    Birth::Within { name: (directory, name) } => match paths.get(directory) {
                        Some(path) => path.join(super::super::folder::os(name)),
                        None => continue,
                    },
                };
                let known = self.found.remove(id);
                self.make(&path, *id, &target);
                let identity = self.found.remove(id).unwrap();
                self.found.extend(known.map(|known| (*id, known)));
                let slot = match birth {
                    Birth::Slot { .. } => Some(Slot(self.next_slot)),
                    Birth::Within { .. } => None,
                };
                change.staged.insert(*id, Staged { identity, slot });
                paths.insert(*id, path.clone());
                order.push((path, *id));
            }
        }
        for (path, id) in order.iter().rev() {
            dress(path, &target.objects[id].metadata);
        }
    }

    /// The tree is `side` now.
    pub(super) fn became(&mut self, change: &Change) {
        let ids = change.target.objects.keys();
        self.found = ids.map(|id| (*id, change.identity_in_target(*id).unwrap())).collect();
        self.side = change.target.clone();
    }

    /// The tree is exactly `side`, of these objects of the file system.
    pub(super) fn check(&self, side: &Side, identity: impl Fn(ObjectId) -> Identity, told: &str) {
        let found = view(&self.tree());
        let expected: View = paths_of(side)
            .into_iter()
            .map(|(path, id)| {
                let object = side.objects[&id].clone();
                (path, Leads { identity: identity(id), object })
            })
            .collect();
        for (path, leads) in &expected {
            assert_eq!(found.get(path), Some(leads), "{told}: {}", path.display());
        }
        let more: Vec<&PathBuf> =
            found.keys().filter(|path| !expected.contains_key(*path)).collect();
        assert_eq!(more, Vec::<&PathBuf>::new(), "{told}");
    }

    pub(super) fn check_base(&self, change: &Change, told: &str) {
        self.check(&change.base, |id| change.identity_in_base(id).unwrap(), told);
    }

    pub(super) fn check_target(&self, change: &Change, told: &str) {
        self.check(&change.target, |id| change.identity_in_target(id).unwrap(), told);
    }

    /// All files in the quarantine, by their paths there.
    pub(super) fn quarantined(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let top = self.path(".work/lost+hotpair");
        let all = view(&top).into_iter();
        let files = all
            .filter(|(path, it)| it.object.kind() == Kind::Regular && !path.ends_with("WHY.jsonl"));
        files.map(|(path, _)| (path.clone(), std::fs::read(top.join(path)).unwrap())).collect()
    }
}

fn dress(path: &Path, metadata: &Metadata) {
    let parent = Folder::open(path.parent().unwrap()).unwrap();
    let entry = name(std::os::unix::ffi::OsStrExt::as_bytes(path.file_name().unwrap()));
    let is_link = parent.look(&entry).unwrap().unwrap().kind == Some(Kind::Symlink);
    let held = parent.object(&entry).unwrap();
    set_metadata(held.as_fd(), metadata, is_link, &LeftOut::default()).unwrap();
}

/// Commits and applies what is left of it, `steps` of it.
pub(super) fn run(
    world: &World,
    journal: &Journal,
    steps: Steps,
) -> (Result<Outcome, ApplyError>, u64) {
    let mut applier = world.start();
    applier.limit(steps);
    let result = match applier.commit(journal, &[1; REGISTER_LEN]) {
        Ok(()) => applier.apply(MOMENT, &mut followed),
        Err(error) => Err(error),
    };
    (result, applier.steps().taken())
}

/// An index that follows.
#[expect(clippy::unnecessary_wraps, reason = "an index can fail")]
pub(super) fn followed(_: &Journal) -> Result<(), IndexFailure> {
    Ok(())
}

/// What a start does, `steps` of it.
pub(super) fn recovered(world: &World, steps: Steps) -> Result<Outcome, ApplyError> {
    let mut applier = world.start();
    applier.limit(steps);
    applier.apply(MOMENT, &mut followed)
}
