//! Which extents are hot: may be in motion, and are compared after a power loss.
//!
//! An extent's entry is stable before the first write to it (`log_file.rs` says how it lies on
//! disk). Entries are added in batches, one append and one sync each; they leave lazily, and their
//! removals ride in the next batch. At most one append is under way. What a start found in the log
//! may be in the page cache only, so it counts as hot again once the first append is stable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Damage;
use super::log_file::{BLOCK_ENTRIES_MAX, Entry, LogImage, Position};
use super::page::FileIds;
use crate::units::{ExtentIndex, Instant};

/// Most hot extents: 8 GiB.
pub const SLOTS: usize = 2048;

/// One write to the log's file, to be synced.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct LogAppend {
    /// Where, in bytes from the start of the file.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
    /// Counts the appends of this run.
    pub batch: u64,
}

/// Whether an extent may be written.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Want {
    /// Yes: its entry is stable.
    Hot,
    /// Once the append that carries its entry is stable.
    Pending,
    /// No slot is free; nothing was noted. Ask again after an extent left.
    Full,
}

/// The set of hot extents and where the log goes on.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ActivityLog {
    ids: FileIds,
    slots: usize,
    position: Position,
    /// Stable in the log, with the time of the last touch.
    hot: BTreeMap<ExtentIndex, Instant>,
    /// What was found is not known to be stable: the next append comes unasked.
    unconfirmed: bool,
    /// To be added by the next append.
    wanted: BTreeMap<ExtentIndex, Instant>,
    /// Candidates to leave that nobody touched since they became that.
    cooling: BTreeSet<ExtentIndex>,
    /// To be removed by the next append; still hot on disk.
    leaving: BTreeSet<ExtentIndex>,
    pins: BTreeMap<ExtentIndex, u32>,
    under_way: Option<Batch>,
    batch: u64,
    /// Nothing may be appended before every mark is stable: the log forgot what was hot.
    waits_for_marks: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Batch {
    added: BTreeMap<ExtentIndex, Instant>,
    after: Position,
}

impl ActivityLog {
    /// Length of the file in bytes.
    pub fn file_len() -> u64 {
        super::log_file::FILE_LEN
    }

    /// The start of a new file: nothing is hot. The rest of its length is zero.
    pub fn format(ids: &FileIds) -> Vec<u8> {
        super::log_file::new_image(ids)
    }

    /// Reads a log and goes on where it ends.
    ///
    /// # Errors
    /// [`Damage::Foreign`] and [`Damage::Format`]; all else that is wrong is
    /// [`Damage::LogUnreadable`].
    pub fn recover(bytes: &[u8], ids: &FileIds) -> Result<Self, Damage> {
        let image = LogImage::read(bytes, ids)?;
        if image.hot.len() > SLOTS {
            return Err(Damage::LogUnreadable);
        }
        let mut log = Self::at(image.position, ids);
        log.unconfirmed = !image.hot.is_empty();
        log.hot = image.hot.into_iter().map(|extent| (extent, Instant::default())).collect();
        Ok(log)
    }

    /// Begins a log anew over one that cannot be read. It appends nothing until
    /// [`ActivityLog::marks_are_stable`]: until then the damage itself says that every extent may
    /// have been hot.
    pub fn begin_anew(damaged: &[u8], ids: &FileIds) -> Self {
        let mut log = Self::at(Position::anew(damaged), ids);
        log.waits_for_marks = true;
        log.unconfirmed = true;
        log
    }

    fn at(position: Position, ids: &FileIds) -> Self {
        Self {
            ids: *ids,
            slots: SLOTS,
            position,
            hot: BTreeMap::new(),
            unconfirmed: false,
            wanted: BTreeMap::new(),
            cooling: BTreeSet::new(),
            leaving: BTreeSet::new(),
            pins: BTreeMap::new(),
            under_way: None,
            batch: 0,
            waits_for_marks: false,
        }
    }

    /// Uses fewer slots than there are, so that tests meet a full log.
    pub fn limit_slots(&mut self, slots: usize) {
        self.slots = slots.clamp(1, SLOTS);
    }

    /// Whether [`ActivityLog::marks_are_stable`] is waited for.
    pub fn waits_for_marks(&self) -> bool {
        self.waits_for_marks
    }

    /// Every mark that recovery made is stable, and so are the sums.
    pub fn marks_are_stable(&mut self) {
        self.waits_for_marks = false;
    }

    /// Whether the extent may be written.
    pub fn is_hot(&self, extent: ExtentIndex) -> bool {
        !self.unconfirmed && self.hot.contains_key(&extent)
    }

    /// Asks for an extent to be hot. Whatever comes of it, it does not leave meanwhile.
    pub fn want(&mut self, extent: ExtentIndex, now: Instant) -> Want {
        if let Some(touched) = self.hot.get_mut(&extent) {
            *touched = now;
            self.cooling.remove(&extent);
            self.leaving.remove(&extent);
            return if self.unconfirmed { Want::Pending } else { Want::Hot };
        }
        let added = self.under_way.as_mut().map(|batch| &mut batch.added);
        if let Some(touched) = added.and_then(|added| added.get_mut(&extent)) {
            *touched = now;
            return Want::Pending;
        }
        if !self.wanted.contains_key(&extent) && self.free() == 0 {
            return Want::Full;
        }
        self.wanted.insert(extent, now);
        Want::Pending
    }

    /// Notes a use, so that the extent does not leave soon.
    pub fn touch(&mut self, extent: ExtentIndex, now: Instant) {
        if let Some(touched) = self.hot.get_mut(&extent) {
            *touched = now;
            self.cooling.remove(&extent);
            self.leaving.remove(&extent);
        }
    }

    /// Keeps an extent from leaving until as many calls of [`ActivityLog::unpin`].
    pub fn pin(&mut self, extent: ExtentIndex) {
        *self.pins.entry(extent).or_default() += 1;
        self.cooling.remove(&extent);
        self.leaving.remove(&extent);
    }

    /// Takes one pin away.
    ///
    /// # Panics
    /// If there is none.
    pub fn unpin(&mut self, extent: ExtentIndex) {
        let pins = self.pins.get_mut(&extent).expect("only what is pinned is unpinned");
        *pins -= 1;
        if *pins == 0 {
            self.pins.remove(&extent);
        }
    }

    /// Whether it is pinned.
    pub fn is_pinned(&self, extent: ExtentIndex) -> bool {
        self.pins.contains_key(&extent)
    }

    /// The extents that should leave: those without a pin that nobody touched for `idle`, and, when
    /// less than an eighth of the slots is free, the oldest ones. The longest idle come first.
    /// Whoever asks makes their data and marks stable, then calls [`ActivityLog::leave`].
    pub fn cooling_candidates(&mut self, now: Instant, idle: Duration) -> Vec<ExtentIndex> {
        let mut by_age: Vec<_> = self
            .hot
            .iter()
            .filter(|(extent, _)| !self.pins.contains_key(extent) && !self.leaving.contains(extent))
            .map(|(extent, touched)| (*touched, *extent))
            .collect();
        by_age.sort_unstable();
        let missing = self.slots.div_ceil(8).saturating_sub(self.free());
        let candidates: Vec<_> = by_age
            .into_iter()
            .enumerate()
            .filter(|(place, (touched, _))| *place < missing || now.since(*touched) >= idle)
            .map(|(_, (_, extent))| extent)
            .collect();
        self.cooling.extend(&candidates);
        candidates
    }

    /// Lets candidates leave: their data is stable here, and stable on the peer or still marked,
    /// and the marks are stable. Those that were wanted, touched or pinned since they became
    /// candidates stay. The removal rides in the next append.
    pub fn leave(&mut self, extents: &[ExtentIndex]) {
        for extent in extents {
            if self.cooling.remove(extent) {
                self.leaving.insert(*extent);
            }
        }
    }

    /// The next batch to append and sync; `None` while one is under way or there is nothing to
    /// write.
    pub fn next_append(&mut self) -> Option<LogAppend> {
        let idle = self.wanted.is_empty() && self.leaving.is_empty() && !self.unconfirmed;
        if idle || self.under_way.is_some() || self.waits_for_marks {
            return None;
        }
        let (offset, bytes, after, added) =
            if self.position.is_full() { self.snapshot() } else { self.record() };
        self.batch += 1;
        self.under_way = Some(Batch { added, after });
        Some(LogAppend { offset, bytes, batch: self.batch })
    }

    /// The append under way is stable. Says which extents became hot.
    ///
    /// # Panics
    /// If none is under way.
    pub fn appended(&mut self) -> Vec<ExtentIndex> {
        let batch = self.under_way.take().expect("only an append under way can end");
        self.position = batch.after;
        let mut newly: Vec<_> = batch.added.keys().copied().collect();
        if std::mem::take(&mut self.unconfirmed) {
            newly.extend(self.hot.keys());
        }
        self.hot.extend(batch.added);
        newly
    }

    /// The rest of an area is used up: everything that stays goes into the other one.
    fn snapshot(&mut self) -> (u64, Vec<u8>, Position, BTreeMap<ExtentIndex, Instant>) {
        for extent in std::mem::take(&mut self.leaving) {
            self.hot.remove(&extent);
        }
        let added = std::mem::take(&mut self.wanted);
        let entries: BTreeSet<_> = self.hot.keys().chain(added.keys()).copied().collect();
        let (offset, bytes, after) = self.position.encode_snapshot(&entries, &self.ids);
        (offset, bytes, after, added)
    }

    /// One block. Half of it is kept for those that somebody waits for.
    fn record(&mut self) -> (u64, Vec<u8>, Position, BTreeMap<ExtentIndex, Instant>) {
        let for_leaving = BLOCK_ENTRIES_MAX - self.wanted.len().min(BLOCK_ENTRIES_MAX / 2);
        let mut entries = Vec::new();
        while entries.len() < for_leaving
            && let Some(extent) = self.leaving.pop_first()
        {
            self.hot.remove(&extent);
            entries.push(Entry::Leaves(extent));
        }
        let mut added = BTreeMap::new();
        while entries.len() < BLOCK_ENTRIES_MAX
            && self.hot.len() + added.len() < self.slots
            && let Some((extent, touched)) = self.wanted.pop_first()
        {
            added.insert(extent, touched);
            entries.push(Entry::Joins(extent));
        }
        let (offset, bytes, after) = self.position.encode_record(&entries);
        (offset, bytes, after, added)
    }

    /// Every extent that the disk may show as hot: stable or under way.
    pub fn hot(&self) -> BTreeSet<ExtentIndex> {
        let added = self.under_way.iter().flat_map(|batch| batch.added.keys());
        self.hot.keys().chain(added).copied().collect()
    }

    /// Number of extents that are hot.
    pub fn hot_count(&self) -> usize {
        self.hot.len()
    }

    /// Number of extents that can be hot at once.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Forgets entries behind the end of a resource: left over from a resize that did not end.
    pub(super) fn keep_below(&mut self, extent_count: u64) {
        self.hot.retain(|extent, _| u64::from(extent.0) < extent_count);
    }

    fn free(&self) -> usize {
        let added = self.under_way.as_ref().map_or(0, |batch| batch.added.len());
        let used = self.hot.len() - self.leaving.len() + self.wanted.len() + added;
        self.slots.saturating_sub(used)
    }
}
