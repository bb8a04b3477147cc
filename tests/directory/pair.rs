//! Two trees in one process: what the source captures is taken by the target, without a network.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hotpair::manifest::{
    Deletes, Due, FileTime, Guard, Keep, LeaveOut, LeftOut, Name, Preview, Record, Scope,
};
use hotpair::store::tree::apply::{Folders, Moment, Outcome};
use hotpair::store::tree::capture::{CaptureError, Captured, Progress, Subject, capture};
use hotpair::store::tree::index::{Index, Rows};
use hotpair::store::tree::outgoing::{Outgoing, OutgoingError};
use hotpair::store::tree::receive::{Foreign, Incoming, Limits, Prepare, Prepared};
use hotpair::store::tree::target::{Agreement, Target, TargetError};
use hotpair::store::tree::{Exclude, Folder, Observer, WorkArea};
use hotpair::units::{Epoch, Instant, ResourceId, TreeNumber, TreePosition};

/// Chunks that are asked for at once.
const WANTS: usize = 256;
/// Bytes of records that are sent at once.
const BATCH_LEN: usize = 1 << 20;

/// What both sides agree on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) exclude: BTreeSet<String>,
    pub(crate) leave_out: BTreeSet<LeaveOut>,
}

impl Terms {
    fn agreement(&self) -> Agreement {
        let scope = Scope {
            resource: ResourceId(11),
            exclude: self.exclude.clone(),
            leave_out: self.leave_out.clone(),
        };
        Agreement {
            exclude: Exclude::new(&scope.exclude).unwrap(),
            left_out: LeftOut(scope.leave_out.clone()),
            scope,
        }
    }
}

/// What a shipment cost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Shipped {
    /// Bytes of records.
    pub(crate) records: u64,
    /// Bytes of chunks.
    pub(crate) payload: u64,
    pub(crate) chunks: u64,
}

/// A tree that is captured.
pub(crate) struct Source {
    pub(crate) tree: PathBuf,
    root: Folder,
    agreement: Agreement,
    index: Index,
    observer: Observer,
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn area(outer: &Folder, root: &Folder, text: &str) -> WorkArea {
    WorkArea::open(outer, &name(text), &root.look_at_self().unwrap()).unwrap()
}

fn folder(path: &Path) -> Folder {
    std::fs::create_dir_all(path).unwrap();
    Folder::open(path).unwrap()
}

impl Source {
    /// A tree in `outer`, empty unless it is there.
    pub(crate) fn new(outer: &Path, terms: &Terms) -> Self {
        let above = folder(outer);
        let tree = outer.join("tree");
        let root = folder(&tree);
        folder(&outer.join("state"));
        let ticks = Cell::new(0);
        let now = move || {
            ticks.set(ticks.get() + 1);
            Instant(ticks.get())
        };
        let area = area(&above, &root, ".hotpair-source");
        Self {
            tree,
            index: Index::open(&outer.join("state/index.redb")).unwrap(),
            observer: Observer::start(&area, true, now, || ()).unwrap(),
            root,
            agreement: terms.agreement(),
        }
    }

    pub(crate) fn position(&self) -> TreePosition {
        self.index.view().unwrap().position().unwrap()
    }

    /// Captures what the kernel has told of.
    pub(crate) fn capture(&mut self) -> Result<Captured, CaptureError> {
        self.capture_due(Due::default())
    }

    /// Captures everything.
    pub(crate) fn scan(&mut self) -> Result<Captured, CaptureError> {
        self.capture_due(Due { everything: true, ..Due::default() })
    }

    fn capture_due(&mut self, due: Due) -> Result<Captured, CaptureError> {
        let go = |_: Deletes| Guard::Go;
        let subject = Subject {
            root: &self.root,
            scope: &self.agreement.scope,
            exclude: &self.agreement.exclude,
            left_out: &self.agreement.left_out,
            guard: &go,
        };
        capture(&self.index, &subject, &mut self.observer, due, &Progress::default())
    }

    pub(crate) fn outgoing(&self) -> Outgoing<'_> {
        Outgoing::new(self.index.view().unwrap(), &self.root)
    }
}

/// The other tree.
pub(crate) fn target(outer: &Path, terms: &Terms) -> Result<(Target, Outcome), TargetError> {
    let above = folder(outer);
    let root = folder(&outer.join("tree"));
    let work = area(&above, &root, ".hotpair-target");
    let state = folder(&outer.join("state"));
    let (index, _) = Index::open_in(&state)?;
    Target::open(Folders { root, work, state }, index, terms.agreement(), moment())
}

pub(crate) fn moment() -> Moment {
    Moment { epoch: Epoch(3), now: FileTime { seconds: 1_767_225_600, nanos: 0 } }
}

/// Brings the newest generation of the source to the target.
///
/// # Errors
/// What either side says; [`ShipError::Foreign`] if the tree of the target is not what its index says.
pub(crate) fn ship(source: &Source, target: &mut Target) -> Result<Shipped, ShipError> {
    ship_as(source, target, |_| ())
}

/// The same, with what `describe` says of the generation.
///
/// # Errors
/// As [`ship`].
pub(crate) fn ship_as(
    source: &Source,
    target: &mut Target,
    describe: impl FnOnce(&mut Prepared),
) -> Result<Shipped, ShipError> {
    ship_with(source, target, describe, |_| ())
}

/// The same; `arrived` is told how many chunks have come after each.
///
/// # Errors
/// As [`ship`].
pub(crate) fn ship_with(
    source: &Source,
    target: &mut Target,
    describe: impl FnOnce(&mut Prepared),
    arrived: impl FnMut(u64),
) -> Result<Shipped, ShipError> {
    let mut shipped = Shipped::default();
    let mut outgoing = source.outgoing();
    let to = outgoing.position()?;
    if to == target.position() {
        return Ok(shipped);
    }
    let incoming = target.begin(Limits::default())?;
    let base = target.position().number;
    let from = (incoming, base);
    let mut prepared = stage_with(&mut outgoing, target, from, &mut shipped, arrived)?;
    describe(&mut prepared);
    target.commit(&prepared, &[7; 512])?;
    target.apply(prepared, moment())?;
    Ok(shipped)
}

/// Brings the newest generation of the source to a target of which nobody knows what it has. Gives what that
/// cost and how the trees differed.
///
/// # Errors
/// As [`ship`].
pub(crate) fn ship_whole(
    source: &Source,
    target: &mut Target,
    keep: Keep,
) -> Result<(Shipped, Preview), ShipError> {
    let mut shipped = Shipped::default();
    let mut outgoing = source.outgoing();
    let incoming = target.begin_whole(Limits::default(), keep)?;
    let prepared = stage(&mut outgoing, target, (incoming, TreeNumber(0)), &mut shipped)?;
    let preview = prepared.received.reconciled().expect("it was whole").preview;
    target.commit(&prepared, &[7; 512])?;
    target.apply(prepared, moment())?;
    Ok((shipped, preview))
}

/// Takes the records of what changed after `base`, and stages all that they need.
///
/// # Errors
/// As [`ship`].
pub(crate) fn stage(
    outgoing: &mut Outgoing<'_>,
    target: &Target,
    from: (Incoming, TreeNumber),
    shipped: &mut Shipped,
) -> Result<Prepared, ShipError> {
    stage_with(outgoing, target, from, shipped, |_| ())
}

fn stage_with(
    outgoing: &mut Outgoing<'_>,
    target: &Target,
    (mut incoming, base): (Incoming, TreeNumber),
    shipped: &mut Shipped,
    mut arrived: impl FnMut(u64),
) -> Result<Prepared, ShipError> {
    let to = outgoing.position()?;
    outgoing.records(base, BATCH_LEN, |batch| -> Result<(), ShipError> {
        shipped.records += batch.len() as u64;
        let mut rest = &*batch;
        while !rest.is_empty() {
            let (record, behind) = Record::decode(rest).expect("it was encoded just now");
            incoming.push(record).map_err(TargetError::from)?;
            rest = behind;
        }
        Ok(())
    })?;
    let received = target.end(incoming, to)?;
    let mut staging = target.stage(received)?;
    let mut bytes = Vec::new();
    loop {
        let wants = staging.wants(WANTS).map_err(TargetError::from)?;
        for (object, chunk) in &wants.chunks {
            outgoing.chunk(*object, *chunk, &mut bytes)?;
            shipped.chunks += 1;
            shipped.payload += bytes.len() as u64;
            staging.put_chunk(*object, *chunk, &bytes).map_err(TargetError::from)?;
            arrived(shipped.chunks);
        }
        if wants.is_all && wants.chunks.is_empty() {
            break;
        }
    }
    match target.prepare(staging)? {
        Prepare::Ready(prepared) => Ok(*prepared),
        Prepare::Foreign(_, foreign) => Err(ShipError::Foreign(foreign)),
    }
}

#[derive(Debug)]
pub(crate) enum ShipError {
    Target(TargetError),
    Source(OutgoingError),
    Foreign(Vec<Foreign>),
}

impl From<TargetError> for ShipError {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl From<OutgoingError> for ShipError {
    fn from(error: OutgoingError) -> Self {
        Self::Source(error)
    }
}

impl fmt::Display for ShipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => write!(f, "the target: {error}"),
            Self::Source(error) => write!(f, "the source: {error}"),
            Self::Foreign(found) => write!(f, "foreign writes: {found:?}"),
        }
    }
}

/// A small file system at `path`, as long as this is there.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// # Errors
    /// What `mount` says.
    pub(crate) fn new(path: &Path, options: &str) -> Result<Self, String> {
        std::fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        match mount {
            Ok(done) if done.status.success() => Ok(Self(path.to_owned())),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    pub(crate) fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        let option = format!("remount,size={size}");
        assert!(mount.args(["-o", &option]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
