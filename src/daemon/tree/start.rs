//! From the folders of a directory resource to its desk and its threads.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as plain;

use rustix::io::Errno;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::super::error::DaemonError;
use super::keeping::{
    FLAGS_LEN, Keeping, Wanted, has_foreign, leaves_way_back, mend_way_back, went_back,
};
use super::orders::{Ahead, Order, Report, Sent};
use super::register_file::{Block, RegisterFile};
use super::sender::{Sender, ToSender};
use super::view::TreeView;
use super::worker::{RootMark, Terms, Worker, closed_as, closed_of, local_register, marker_of};
use super::{ORDERS_MAX, Service, TreeDesk};
use crate::config::{self, NodeConfig, NodeResource};
use crate::manifest::source::{Closed, Register, Source, SourceSettings};
use crate::manifest::target::Target as TargetMachine;
use crate::manifest::{
    Allowed, EntryHash, FileTime, Held, LeaveOut, LeftOut, MARKER, MassDelete, Name, Pace,
    REGISTER_BLOCK_LEN, RESERVED, Scope, decode_register, encode_register,
};
use crate::store::tree::apply::{ApplyError, Folders, Moment, Outcome, REGISTER_LEN};
use crate::store::tree::capture::Progress;
use crate::store::tree::index::Index;
use crate::store::tree::reconcile::Reading;
use crate::store::tree::target::{Agreement, Target};
use crate::store::tree::{Exclude, Folder, WorkArea, WorkAreaError};
use crate::store::{DataFile, Sidecar, StoreError};
use crate::units::{Epoch, Instant, ResourceId, TreeNumber, TreePosition};

/// Messages of the sender that wait for the connection: a few MiB.
const SENT_MAX: usize = 4;
/// Orders that wait for the sender.
const SENDER_ORDERS_MAX: usize = 1024;
/// The file of the register, beside the metadata.
const REGISTER_FILE: &str = "tree.register";
const INDEX_FILE: &str = "index.redb";

/// Where the register of a resource is.
pub(in crate::daemon) fn register_path(resource: &NodeResource) -> PathBuf {
    resource.metadata_dir.join(REGISTER_FILE)
}

/// Makes the register of a new replica, unless it is there, and whatever marks the tree as this
/// resource's.
///
/// # Errors
/// [`DaemonError`] if the tree cannot be one, or says that it is another resource's.
pub(in crate::daemon) fn prepare_register(
    cluster: &str,
    resource: &NodeResource,
) -> Result<(), DaemonError> {
    let failed = DaemonError::store(&resource.name);
    let root = root_of(resource)?;
    mark(cluster, resource, &root)?;
    work_area(resource, &root)?;
    let folder = &resource.metadata_dir;
    Sidecar::make_folder(folder).map_err(&failed)?;
    // What an earlier replica knew of this tree is given up with its metadata.
    for entry in std::fs::read_dir(folder).map_err(tree_failed(resource, folder))? {
        let name = entry.map_err(tree_failed(resource, folder))?.file_name();
        if is_of_tree(&name.to_string_lossy()) {
            let path = folder.join(name);
            std::fs::remove_file(&path).map_err(tree_failed(resource, &path))?;
        }
    }
    DataFile::create(&register_path(resource), resource.size).map_err(&failed)
}

/// Whether a file beside the metadata is about the tree.
fn is_of_tree(name: &str) -> bool {
    name.starts_with("tree.")
        || name.starts_with("journal-")
        || name.starts_with("back-")
        || name.starts_with("kept-")
        || name.starts_with("pinned-")
        || name == INDEX_FILE
}

fn tree_failed<'a>(
    resource: &'a NodeResource,
    path: &'a Path,
) -> impl Fn(io::Error) -> DaemonError + 'a {
    move |source| DaemonError::Tree {
        resource: resource.name.clone(),
        path: path.to_owned(),
        source: Box::new(source),
    }
}

/// A tree that is at rest, before its threads run.
pub(in crate::daemon) struct OpenedTree {
    target: Target,
    settings: SourceSettings,
    terms: Terms,
    root: Folder,
    block: Block,
    /// What was committed could not be carried out: this copy is what it was before.
    fell_back: Option<String>,
    work_dir: PathBuf,
}

/// Opens the tree, brings it to rest, and makes the file of the register say what it is. The register is
/// not open yet.
///
/// # Errors
/// [`DaemonError`]; what was committed is carried out at the next start.
pub(in crate::daemon) fn open_tree(
    node: &NodeConfig,
    resource: &NodeResource,
    epoch: Epoch,
) -> Result<Option<OpenedTree>, DaemonError> {
    let Some(directory) = &resource.directory else { return Ok(None) };
    let failed = |source| failed(resource, source);
    let AtRest { mut target, outcome, root: held, work_dir } =
        bring_to_rest(&node.cluster, resource, directory, epoch)?;
    let scope_digest = target.agreement().scope.root(EntryHash([0; 32])).0;
    let register = target.applier().records().register;
    let has_foreign = has_foreign(&register);
    if is_serving(&register) || has_foreign {
        // Whoever wrote to it has not been seen to stop, or has left what is no generation.
        target.doubt();
    }
    info!(resource = %resource.name, generation = %target.position().number, ?outcome,
        "the tree is at rest");
    let records = target.applier().records();
    let found = read_block(&register_path(resource)).map_err(|error| failed(Box::new(error)))?;
    let at = (records.applied.position, records.register);
    let (block, fell_back) = reconcile(&found, at, matches!(outcome, Outcome::Undone { .. }));
    if *block != *found {
        write_block(&register_path(resource), &block).map_err(|error| failed(Box::new(error)))?;
    }
    let core = TreeDesk::read_block(&block);
    if let Some(register) = mend_way_back(&at.1, at.0, core.as_ref()) {
        let written = target.applier_mut().write_register(&register);
        written.map_err(|error| failed(Box::new(error)))?;
    }
    let pace = Pace { settle: directory.settle, oldest_max: directory.max_lag / 2 };
    let beyond = match directory.mass_delete {
        config::MassDelete::Pin => MassDelete::Pin,
        config::MassDelete::Halt => MassDelete::Halt,
    };
    let lost_power = records_lost_power(&target.applier().records().register);
    Ok(Some(OpenedTree {
        target,
        settings: SourceSettings {
            max_lag: directory.max_lag,
            pace,
            full_scan: directory.full_scan,
            scope_digest,
        },
        terms: Terms {
            name: resource.name.clone(),
            root: RootMark {
                path: resource.local.path.clone(),
                marker: marker(&node.cluster, resource),
            },
            pace,
            allowed: Allowed { percent: directory.max_delete_percent, beyond },
            events: directory.watch != config::Watch::Scan,
            epoch,
            at_least: core.and_then(|it| it.position()).unwrap_or_default().number,
            lost_power,
            wanted: Wanted {
                count: usize::try_from(directory.keep_generations).unwrap_or(usize::MAX),
                limit_bytes: directory.keep_limit_bytes,
            },
        },
        root: held,
        block,
        fell_back,
        work_dir,
    }))
}

/// A tree that is a generation, or of which nobody knows what it is.
struct AtRest {
    target: Target,
    outcome: Outcome,
    root: Folder,
    work_dir: PathBuf,
}

/// Opens a tree, and carries out what was committed.
fn bring_to_rest(
    cluster: &str,
    resource: &NodeResource,
    directory: &config::Directory,
    epoch: Epoch,
) -> Result<AtRest, DaemonError> {
    let failed = |source| failed(resource, source);
    let root = root_of(resource)?;
    check_mark(cluster, resource, &root)?;
    let (work, work_dir) = work_area(resource, &root)?;
    let state = Folder::open(&resource.metadata_dir).map_err(|errno| failed(io_error(errno)))?;
    let agreement = agreement(cluster, resource, directory).map_err(failed)?;
    let held = root.again().map_err(|errno| failed(io_error(errno)))?;
    let (index, damage) = Index::open_in(&state).map_err(|error| failed(Box::new(error)))?;
    if let Some(error) = damage {
        warn!(resource = %resource.name, error = &error as &dyn std::error::Error,
            "the index of the tree is damaged: it is made anew from the tree");
    }
    let moment = Moment { epoch, now: time_of_day() };
    let folders = Folders { root, work, state };
    let (target, outcome) =
        Target::open(folders, index, agreement, moment).map_err(|error| failed(Box::new(error)))?;
    Ok(AtRest { target, outcome, root: held, work_dir })
}

/// Reads all of the tree of a new replica that others get their data from, and makes it a generation, which
/// the register names: so the peer can be given it before anybody serves.
///
/// # Errors
/// [`DaemonError`]; there is no register then that names anything.
pub(in crate::daemon) fn capture_first(
    cluster: &str,
    resource: &NodeResource,
) -> Result<(), DaemonError> {
    let Some(directory) = &resource.directory else { return Ok(()) };
    let failed = |source| failed(resource, source);
    let AtRest { mut target, .. } = bring_to_rest(cluster, resource, directory, Epoch(0))?;
    let captured = target
        .survey(Reading::Everything, TreeNumber(0), &Progress::default())
        .map_err(|error| failed(Box::new(error)))?;
    let Closed { position, label, .. } = closed_as(&captured, Held::Nobody);
    let register = Register::Complete { position, label };
    target
        .adopt(Some(&local_register(Some(&register), false)))
        .map_err(|error| failed(Box::new(error)))?;
    // The index and the records are stable, so the register may name them.
    write_block(&register_path(resource), &encode_register(Some(&register)))
        .map_err(|error| failed(Box::new(error)))
}

fn failed(
    resource: &NodeResource,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> DaemonError {
    DaemonError::Tree { resource: resource.name.clone(), path: resource.local.path.clone(), source }
}

/// For people.
pub(super) fn time_of_day() -> FileTime {
    let now = jiff::Timestamp::now();
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
    FileTime { seconds: now.as_second(), nanos }
}

/// Whether a node's own word is that it serves.
fn is_serving(kept: &[u8; REGISTER_LEN]) -> bool {
    kept[REGISTER_LEN - 1] != 0
}

/// Whether the node has lost power since anybody knew what the tree is.
fn records_lost_power(kept: &[u8; REGISTER_LEN]) -> bool {
    kept[REGISTER_LEN - 2] != 0
}

/// What the register is to say after a start, and why this copy fell back, if it did. `found` is what the
/// file says, `at` the generation that the tree is with what was kept with the record of that.
fn reconcile(
    found: &[u8; REGISTER_BLOCK_LEN],
    (tree, kept): (TreePosition, [u8; REGISTER_LEN]),
    is_undone: bool,
) -> (Block, Option<String>) {
    let mut head = kept;
    let was_serving = is_serving(&kept);
    head[REGISTER_LEN - FLAGS_LEN..].fill(0);
    let mut whole = [0; REGISTER_BLOCK_LEN];
    whole[..REGISTER_LEN].copy_from_slice(&head);
    let recorded = decode_register(&whole).ok().flatten();
    let written = decode_register(found);
    if was_serving {
        // Only its own writes came there; one that was torn was never acknowledged.
        let block = if written.is_ok() { Box::new(*found) } else { open_block() };
        return (block, None);
    }
    if went_back(&kept) && !leaves_way_back(&kept) && written.is_ok() {
        // The core knows of what an operator went back to once this node serves.
        return (Box::new(*found), None);
    }
    let recorded = recorded.filter(|it| it.position() == Some(tree));
    match (written, recorded) {
        // A register that nobody ever wrote, or that is about the tree as it is.
        (Ok(written), _)
            if !is_undone && written.as_ref().and_then(Register::position) == Some(tree) =>
        {
            (Box::new(*found), None)
        }
        (Ok(None), None) if !is_undone && tree == TreePosition::default() => {
            (Box::new(*found), None)
        }
        (_, Some(recorded)) if !is_undone => (encode_register(Some(&recorded)), None),
        _ => {
            let why = "what was committed could not be carried out".to_owned();
            (open_block(), Some(why))
        }
    }
}

fn open_block() -> Block {
    encode_register(Some(&Register::Open))
}

fn read_block(path: &Path) -> io::Result<Box<[u8; REGISTER_BLOCK_LEN]>> {
    let bytes = std::fs::read(path)?;
    let mut block = Box::new([0; REGISTER_BLOCK_LEN]);
    let len = bytes.len().min(REGISTER_BLOCK_LEN);
    block[..len].copy_from_slice(&bytes[..len]);
    Ok(block)
}

/// Over what is there: the file stays the one that the metadata is about.
fn write_block(path: &Path, block: &[u8; REGISTER_BLOCK_LEN]) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(block, 0)?;
    // The core relies on what it says from here on.
    file.sync_data()
}

fn io_error(errno: Errno) -> Box<dyn std::error::Error + Send + Sync> {
    Box::new(io::Error::from(errno))
}

fn root_of(resource: &NodeResource) -> Result<Folder, DaemonError> {
    Folder::open(&resource.local.path).map_err(|errno| DaemonError::Tree {
        resource: resource.name.clone(),
        path: resource.local.path.clone(),
        source: io_error(errno),
    })
}

/// The folder for what is staged and kept, and its path: beside the tree, or in it where that is a mount
/// of its own.
fn work_area(resource: &NodeResource, root: &Folder) -> Result<(WorkArea, PathBuf), DaemonError> {
    let failed = |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| {
        DaemonError::Tree { resource: resource.name.clone(), path: path.to_owned(), source }
    };
    let tree = &resource.local.path;
    let found = root.look_at_self().map_err(|errno| failed(tree, io_error(errno)))?;
    let beside = format!(".hotpair-{}", resource.name);
    let inside = || (tree.clone(), RESERVED.to_vec());
    let (above, name) = match (&resource.local.work_dir, tree.parent()) {
        (Some(work_dir), _) => (work_dir.clone(), beside.into_bytes()),
        (None, Some(parent)) => {
            let is_same = Folder::open(parent)
                .and_then(|parent| parent.look_at_self())
                .is_ok_and(|parent| parent.mount == found.mount);
            if is_same { (parent.to_owned(), beside.into_bytes()) } else { inside() }
        }
        (None, None) => inside(),
    };
    let path = above.join(String::from_utf8_lossy(&name).as_ref());
    let name = Name::new(&name).map_err(|error| failed(&path, Box::new(error)))?;
    let above = Folder::open(&above).map_err(|errno| failed(&above, io_error(errno)))?;
    let area = WorkArea::open(&above, &name, &found).map_err(|error| match error {
        WorkAreaError::Kernel(errno) => failed(&path, io_error(errno)),
        error @ WorkAreaError::OtherMount => failed(&path, Box::new(error)),
    })?;
    Ok((area, path))
}

fn agreement(
    cluster: &str,
    resource: &NodeResource,
    directory: &config::Directory,
) -> Result<Agreement, Box<dyn std::error::Error + Send + Sync>> {
    let leave_out = directory.leave_out.iter().map(|one| match one {
        config::LeaveOut::Owner => LeaveOut::Owner,
        config::LeaveOut::Xattr => LeaveOut::Xattr,
        config::LeaveOut::Acl => LeaveOut::Acl,
        config::LeaveOut::Devices => LeaveOut::Devices,
        config::LeaveOut::Setid => LeaveOut::Setid,
        config::LeaveOut::Capabilities => LeaveOut::Capabilities,
    });
    let scope = Scope {
        resource: tree_id(cluster, resource),
        exclude: directory.exclude.clone(),
        leave_out: leave_out.collect(),
    };
    Ok(Agreement {
        exclude: Exclude::new(&scope.exclude)?,
        left_out: LeftOut(scope.leave_out.clone()),
        scope,
    })
}

/// The same on both nodes before they have met.
fn tree_id(cluster: &str, resource: &NodeResource) -> ResourceId {
    let mut hasher = blake3::Hasher::new_derive_key("hotpair 2026-11 tree of a resource");
    for text in [cluster, &resource.name] {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    ResourceId(u128::from_le_bytes(id))
}

fn marker(cluster: &str, resource: &NodeResource) -> Vec<u8> {
    format!("{:032x}", tree_id(cluster, resource).0).into_bytes()
}

/// The tree says whose it is, so that another directory is not taken for it.
fn mark(cluster: &str, resource: &NodeResource, root: &Folder) -> Result<(), DaemonError> {
    let value = marker(cluster, resource);
    match marker_of(root) {
        Some(found) if found == value => return Ok(()),
        Some(_) => return Err(other_resource(resource)),
        None => {}
    }
    rustix::fs::fsetxattr(root, MARKER, &value, rustix::fs::XattrFlags::empty()).map_err(|errno| {
        DaemonError::Tree {
            resource: resource.name.clone(),
            path: resource.local.path.clone(),
            source: io_error(errno),
        }
    })
}

fn check_mark(cluster: &str, resource: &NodeResource, root: &Folder) -> Result<(), DaemonError> {
    match marker_of(root) {
        Some(found) if found == marker(cluster, resource) => Ok(()),
        Some(_) | None => Err(other_resource(resource)),
    }
}

fn other_resource(resource: &NodeResource) -> DaemonError {
    DaemonError::OtherTree { resource: resource.name.clone(), path: resource.local.path.clone() }
}

impl OpenedTree {
    /// The node lost power while something was written: where nobody knows what the tree is, stamps say
    /// nothing of it. That is remembered until somebody does.
    ///
    /// # Errors
    /// What the disk says.
    pub(in crate::daemon) fn note_lost_power(&mut self) -> Result<(), ApplyError> {
        if self.target.is_known() {
            return Ok(());
        }
        self.terms.lost_power = true;
        let mut register = self.target.applier().records().register;
        register[REGISTER_LEN - 2] = 1;
        self.target.applier_mut().write_register(&register)
    }

    /// Starts the threads. Gives the desk, and what the core is to be told first.
    ///
    /// # Errors
    /// [`StoreError`] if a thread cannot be started.
    pub(in crate::daemon) fn start(
        self,
        name: &str,
    ) -> Result<(TreeDesk, Option<String>), StoreError> {
        let Self { target, settings, terms, root, block, fell_back, work_dir } = self;
        let (orders, orders_out) = mpsc::channel::<Order>(ORDERS_MAX);
        let (reports, reports_out) = mpsc::channel::<Report>(ORDERS_MAX);
        let (to_sender, sender_orders) = plain::sync_channel::<ToSender>(SENDER_ORDERS_MAX);
        let (sent, sent_out) = mpsc::channel::<Sent>(SENT_MAX);
        let (progress, ahead) = (Arc::<Progress>::default(), Arc::<Ahead>::default());
        let has_events = terms.events;
        let register = target.applier().records().register;
        let newest = closed_of(&register);
        let has_gone_back = went_back(&register) && !is_serving(&register);
        // What an operator went back to is nothing that a peer can build on.
        let own = newest.filter(|_| has_gone_back);
        let position = if own.is_some() { TreePosition::default() } else { target.position() };
        let has_foreign = has_foreign(&register);
        let worker = Worker {
            target,
            terms,
            orders: orders_out,
            reports,
            sender: to_sender.clone(),
            progress: Arc::clone(&progress),
            observer: None,
            newest,
            accepted: None,
            counted: None,
            ahead: Arc::clone(&ahead),
            is_compare_wanted: false,
            unpacked: Vec::new(),
        };
        let failed = |source| StoreError::Io {
            path: PathBuf::from(name),
            action: "start a thread for",
            source,
        };
        std::thread::Builder::new()
            .name(format!("tree-{name}"))
            .spawn(move || worker.run())
            .map_err(failed)?;
        let sender = Sender::new(root, sender_orders, sent);
        std::thread::Builder::new()
            .name(format!("send-{name}"))
            .spawn(move || sender.run())
            .map_err(failed)?;
        let (reports, sent) = (reports_out, sent_out);
        let threads = Threads { orders, reports, to_sender, sent, progress, ahead };
        let view = TreeView::new(work_dir);
        let mut desk =
            TreeDesk::new(name, (settings, position), (threads, view), (block, has_events));
        desk.keeping = Keeping::new(settings.full_scan, own, has_foreign);
        Ok((desk, fell_back))
    }
}

/// The ends of the threads.
pub(super) struct Threads {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) to_sender: plain::SyncSender<ToSender>,
    pub(super) sent: mpsc::Receiver<Sent>,
    pub(super) progress: Arc<Progress>,
    pub(super) ahead: Arc<Ahead>,
}

impl TreeDesk {
    pub(super) fn new(
        name: &str,
        (settings, position): (SourceSettings, TreePosition),
        (threads, view): (Threads, TreeView),
        (block, has_events): (Block, bool),
    ) -> Self {
        let Threads { orders, reports, to_sender, sent, progress, ahead } = threads;
        let register = Self::read_block(&block);
        Self {
            name: name.to_owned(),
            source: Source::new(settings),
            target: TargetMachine::new(settings.scope_digest, position),
            pace: settings.pace,
            orders,
            reports,
            to_sender,
            sent,
            progress,
            ahead,
            look: None,
            service: Service::Off,
            session: None,
            session_number: 0,
            is_asking: false,
            notes: VecDeque::new(),
            untaken: 0,
            file: RegisterFile::default(),
            block,
            register,
            record: None,
            is_record_ready: false,
            admits: false,
            requests: BTreeMap::new(),
            last_request: 0,
            is_alone: false,
            asked: BTreeMap::new(),
            held_syncs: Vec::new(),
            syncs: BTreeMap::new(),
            early_syncs: Vec::new(),
            last_sync: 0,
            settling_since: None,
            settled: None,
            closing: false,
            settles_later: false,
            rested: None,
            has_events,
            keeping: Keeping::new(settings.full_scan, None, false),
            view,
            source_effects: Vec::new(),
            target_effects: Vec::new(),
            deeds: VecDeque::new(),
            now: Instant::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keeping::{set_foreign, set_leaves_way_back, set_went_back};
    use super::*;
    use crate::units::{Label, TreeRoot};

    fn at(number: u64) -> TreePosition {
        TreePosition { number: TreeNumber(number), root: TreeRoot([7; 32]) }
    }

    fn complete(number: u64) -> Register {
        Register::Complete { position: at(number), label: Label::Stable }
    }

    #[test]
    fn a_start_leaves_the_register_of_a_tree_that_went_back_and_of_no_other() {
        let found = encode_register(Some(&complete(5)));
        let mut kept = local_register(Some(&complete(6)), false);
        assert_eq!(reconcile(&found, (at(6), *kept), false).0, encode_register(Some(&complete(6))));
        set_went_back(&mut kept);
        assert_eq!(reconcile(&found, (at(6), *kept), false), (found.clone(), None));
        // It could not be carried out, or was cut before that.
        assert_eq!(reconcile(&found, (at(5), *kept), true), (found, None));
        assert_eq!(closed_of(&kept).map(|it| it.position), Some(at(6)));
    }

    #[test]
    fn a_start_that_finds_the_tree_where_it_was_before_another_node_led_counts_for_nothing() {
        let found = encode_register(Some(&complete(8)));
        let mut kept = local_register(Some(&complete(8)), false);
        set_leaves_way_back(&mut kept);
        assert_eq!(reconcile(&found, (at(8), *kept), false), (found.clone(), None));
        let older = encode_register(Some(&complete(5)));
        assert_eq!(reconcile(&older, (at(8), *kept), false), (found.clone(), None));
        for is_undone in [true, false] {
            let (block, fell_back) = reconcile(&found, (at(6), *kept), is_undone);
            assert_eq!(block, open_block());
            assert!(fell_back.is_some());
        }
    }

    #[test]
    fn a_start_knows_that_somebody_else_has_written_to_the_tree() {
        let found = encode_register(Some(&complete(5)));
        let mut kept = local_register(Some(&complete(5)), false);
        assert!(!has_foreign(&kept));
        set_foreign(&mut kept);
        assert!(has_foreign(&kept) && !went_back(&kept) && !is_serving(&kept));
        assert_eq!(reconcile(&found, (at(5), *kept), false), (found, None));
    }
}
