//! What one node keeps, and what a power loss leaves of it.
//!
//! The resource is one byte long: one block, and its content is its value. A write of it lands
//! whole or not, and whole writes of metadata are stable when they end: torn ones are the subject
//! of `tests/recovery.rs`. Until it is synced, a power loss may leave any version of the block.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hotpair::metadata::{
    self, Birth, Found, LogAppend, MapMemory, Newborn, Place, Recovered, SUPERBLOCK_FILE_LEN,
    Superblock, sum_offset,
};
use hotpair::units::{ReplicaId, ResourceId, ResourceSize};

/// Content of the block: 0 is the first image, n the n-th write of a client.
pub(crate) type Value = u8;

/// Size of the resource.
pub(crate) fn size() -> ResourceSize {
    ResourceSize::new(1).unwrap()
}

/// The data file.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Data {
    /// The stable version first, then each one written since; reads see the last.
    versions: Vec<Value>,
}

impl Data {
    /// What a read sees.
    pub(crate) fn shown(&self) -> Value {
        *self.versions.last().expect("there always is one")
    }

    /// The oldest that a power loss can leave.
    pub(crate) fn lowest(&self) -> Value {
        *self.versions.iter().min().expect("there always is one")
    }

    /// How many a power loss chooses from.
    pub(crate) fn version_count(&self) -> usize {
        self.versions.len()
    }

    pub(crate) fn write(&mut self, value: Value) {
        if self.shown() != value {
            self.versions.push(value);
        }
    }

    /// A sync that began when there were so many versions: the older ones are gone.
    fn sync(&mut self, covered: usize) {
        self.versions.drain(..covered - 1);
    }

    fn lose_power(&mut self, version: usize) {
        self.versions = vec![self.versions[version]];
    }
}

/// The mapped file of the dirty map, shared by all states that have the same.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Pages(Arc<Vec<u8>>);

/// Where the bit of the block is.
const BITS_AT: usize = 4096;

impl Pages {
    /// Whether the block is marked.
    pub(crate) fn is_marked(&self) -> bool {
        self.0[BITS_AT] & 1 == 1
    }
}

impl MapMemory for Pages {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        Arc::<Vec<u8>>::make_mut(&mut self.0)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages(marked: {})", self.is_marked())
    }
}

impl Hash for Pages {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_marked().hash(state);
    }
}

/// A write under way. Reads are done at once: see `node.rs`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Work {
    Write(Value),
    /// So many versions are covered.
    Sync(usize),
    Record(Box<Superblock>),
    Append(LogAppend),
    /// The map as it was, and its sums.
    Map(Pages, Vec<(u64, u32)>),
    /// A read of a client, whose bytes are read when it ends.
    Read,
}

/// All files of one node.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) data: Data,
    /// The newest stable record.
    pub(crate) record: Superblock,
    /// The mapped map as the last step of the process left it.
    pub(crate) map: Pages,
    map_stable: Pages,
    sum: u32,
    sum_head: Arc<Vec<u8>>,
    /// Pages of the log that are not zero, by offset.
    log: BTreeMap<u64, Arc<[u8]>>,
    /// Counts boots.
    boot: u8,
}

impl Files {
    /// What `hotpair init` makes on node `at`.
    pub(crate) fn new(kind: Birth, at: usize, place: Place) -> Self {
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId([0xa, 0xb][at]),
            generation_id: 1,
            size: size(),
            place,
        };
        let [map, sum, log, superblock] = metadata::birth(kind, &newborn);
        let map = Pages(Arc::new(map.image()));
        let mut files = Self {
            data: Data { versions: vec![0] },
            record: Superblock::newest(&superblock.image()).unwrap(),
            map: map.clone(),
            map_stable: map,
            sum: 0,
            sum_head: Arc::new(sum.image()),
            log: BTreeMap::new(),
            boot: 1,
        };
        let at = usize::try_from(sum_offset(0)).unwrap();
        files.sum = u32::from_le_bytes(files.sum_head[at..at + 4].try_into().unwrap());
        files.append(0, &log.head);
        files
    }

    /// Where the files are in this boot.
    pub(crate) fn place(&self) -> Place {
        Place { boot_id: self.boot.into(), ..Place::default() }
    }

    /// It happens: what it writes is there, and stable if it includes a sync.
    pub(crate) fn land(&mut self, work: &Work) {
        match work {
            Work::Write(value) => self.data.write(*value),
            Work::Sync(covered) => self.data.sync(*covered),
            Work::Record(record) => self.record = (**record).clone(),
            Work::Append(append) => self.append(append.offset, &append.bytes),
            Work::Map(pages, sums) => {
                self.map_stable = pages.clone();
                if let Some((_, sum)) = sums.first() {
                    self.sum = *sum;
                }
            }
            Work::Read => {}
        }
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) {
        let page_len = u64::try_from(metadata::PAGE_LEN).unwrap();
        for (offset, page) in (offset..).step_by(metadata::PAGE_LEN).zip(bytes.chunks(4096)) {
            debug_assert_eq!(offset % page_len, 0, "blocks of the log are pages");
            self.log.insert(offset, page.into());
        }
    }

    /// What no medium may do to a map that is in the page cache.
    pub(crate) fn forget_marks(&mut self) {
        self.map.bytes_mut()[BITS_AT] = 0;
    }

    /// Whether a power loss can leave another map than the one in memory.
    pub(crate) fn map_is_unsynced(&self) -> bool {
        self.map != self.map_stable
    }

    /// Power is lost; which version of the block and of the map is left is chosen.
    pub(crate) fn lose_power(&mut self, version: usize, map_is_kept: bool) {
        self.data.lose_power(version);
        if map_is_kept {
            self.map_stable = self.map.clone();
        } else {
            self.map = self.map_stable.clone();
        }
        self.boot += 1;
    }

    /// The machine boots with an older image of everything.
    pub(crate) fn put_back(&mut self, image: &Self) {
        *self = Self { boot: self.boot + 1, ..image.clone() };
        let last = self.data.version_count() - 1;
        self.data.lose_power(last);
        self.map_stable = self.map.clone();
    }

    /// Recovery of what is there. After a process crash the canary's copy is in memory, equal to
    /// the canary.
    pub(crate) fn recover(&mut self) -> Recovered<Pages> {
        // Only the parity of the counter means something, and the other slot is older.
        self.record.counter = 1;
        let mut superblock = vec![0; usize::try_from(SUPERBLOCK_FILE_LEN).unwrap()];
        superblock[metadata::PAGE_LEN..].copy_from_slice(&self.record.encode());
        let mut sums = (*self.sum_head).clone();
        let at = usize::try_from(sum_offset(0)).unwrap();
        sums[at..at + 4].copy_from_slice(&self.sum.to_le_bytes());
        let is_same_boot = self.record.place == self.place();
        let canary = u64::from_le_bytes(self.map.0[512..520].try_into().unwrap());
        self.with_log(|log| {
            metadata::recover(Found {
                superblock: &superblock,
                dirty_map: self.map.clone(),
                dirty_sum: &sums,
                activity_log: log,
                place: self.place(),
                canary_copy: is_same_boot.then_some(canary),
                data_len: size().bytes(),
            })
        })
        .expect("nothing is damaged")
    }

    /// Runs `read` on the whole file of the log.
    fn with_log<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        thread_local! {
            static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LOG.with_borrow_mut(|log| {
            log.resize(usize::try_from(metadata::ActivityLog::file_len()).unwrap(), 0);
            let at = |offset: &u64| usize::try_from(*offset).unwrap();
            for (offset, page) in &self.log {
                log[at(offset)..at(offset) + page.len()].copy_from_slice(page);
            }
            let result = read(log);
            for (offset, page) in &self.log {
                log[at(offset)..at(offset) + page.len()].fill(0);
            }
            result
        })
    }
}

/// Counters that only tell records and boots apart are left out.
impl Hash for Files {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Superblock { counter: 0, ..self.record.clone() }.hash(state);
        (&self.data, &self.map, &self.map_stable, self.sum, &self.log, self.boot).hash(state);
    }
}
