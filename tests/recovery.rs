//! What a start finds after a crash at any moment of any write of metadata.
//!
//! Each operation is a list of writes and syncs. Between two syncs every subset of the writes is
//! taken, each of them whole, absent or torn at a sector: what is left opens as the state before or
//! after the operation, never as anything else. Then the writes of the start that follows are cut
//! the same way, three deep. A process that crashes leaves whole files behind, so here power is
//! lost.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "the number of cases is printed for people")]

use std::collections::BTreeSet;
use std::sync::Arc;

use hotpair::metadata::{
    ActivityLog, Birth, Crash, Damage, DirtyMap, Found, LogAppend, MapMemory, Newborn, PAGE_LEN,
    Place, Recovered, Superblock, Want, birth, recover, sum_offset,
};
use hotpair::units::{
    BlockIndex, DiskReason, DiskState, Epoch, ExtentIndex, Generation, Instance, Instant,
    ReplicaId, ResourceId, ResourceSize, ServeMode, Side, Veto, VetoReason,
};

const SECTOR: usize = 512;

/// The four files of a replica.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Files {
    superblock: Vec<u8>,
    map: Vec<u8>,
    sum: Vec<u8>,
    log: Arc<Vec<u8>>,
}

/// One of them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Name {
    Superblock,
    Map,
    Sum,
    Log,
}

/// One write, not yet stable.
#[derive(Clone, Debug)]
struct Write {
    file: Name,
    offset: usize,
    bytes: Vec<u8>,
}

/// What is stable only together with all that was written before it.
type Steps = Vec<Vec<Write>>;

impl Files {
    fn new(kind: Birth) -> Self {
        let [map, sum, log, superblock] = birth(kind, &newborn()).map(|file| file.image());
        Self { superblock, map, sum, log: Arc::new(log) }
    }

    /// The sectors of `write` that `lands` names are there.
    fn put(&mut self, write: &Write, lands: impl Fn(usize) -> bool) {
        let file = match write.file {
            Name::Superblock => &mut self.superblock,
            Name::Map => &mut self.map,
            Name::Sum => &mut self.sum,
            Name::Log => Arc::<Vec<u8>>::make_mut(&mut self.log),
        };
        let mut at = 0;
        while at < write.bytes.len() {
            let len = (SECTOR - (write.offset + at) % SECTOR).min(write.bytes.len() - at);
            if lands(at / SECTOR) {
                let place = write.offset + at;
                file[place..place + len].copy_from_slice(&write.bytes[at..at + len]);
            }
            at += len;
        }
    }

    fn with(mut self, steps: &Steps) -> Self {
        steps.iter().flatten().for_each(|write| self.put(write, |_| true));
        self
    }

    /// A start after a power loss.
    fn open(&self) -> Result<Recovered<Vec<u8>>, Damage> {
        recover(self.found(after_power_loss(), None))
    }

    fn found(&self, place: Place, canary_copy: Option<u64>) -> Found<'_, Vec<u8>> {
        Found {
            superblock: &self.superblock,
            dirty_map: self.map.clone(),
            dirty_sum: &self.sum,
            activity_log: &self.log,
            place,
            canary_copy,
            data_len: size().bytes(),
        }
    }
}

impl Write {
    fn record(record: &Superblock) -> Self {
        let offset = usize::try_from(Superblock::slot_offset(record.counter)).unwrap();
        Self { file: Name::Superblock, offset, bytes: record.encode().to_vec() }
    }

    fn append(append: &LogAppend) -> Self {
        let offset = usize::try_from(append.offset).unwrap();
        Self { file: Name::Log, offset, bytes: append.bytes.clone() }
    }

    /// The map as it is in memory, and then the sums of its pages.
    fn map(map: &mut DirtyMap<Vec<u8>>) -> Steps {
        let pages = map.take_changed_pages();
        let changed = |page: &u64| Self {
            file: Name::Map,
            offset: PAGE_LEN + usize::try_from(*page).unwrap() * PAGE_LEN,
            bytes: map.page(*page).to_vec(),
        };
        let sum = |page: &u64| Self {
            file: Name::Sum,
            offset: usize::try_from(sum_offset(*page)).unwrap(),
            bytes: map.page_sum(*page).to_le_bytes().to_vec(),
        };
        vec![pages.iter().map(changed).collect(), pages.iter().map(sum).collect()]
    }

    fn sector_count(&self) -> usize {
        self.bytes.len().div_ceil(SECTOR)
    }

    /// Which of its sectors land: all, none, or torn at each border, from either end.
    fn tears(&self) -> Vec<Vec<bool>> {
        let count = self.sector_count();
        let from_start = (0..=count).map(|border| (0..count).map(|at| at < border).collect());
        let from_end = (1..count).map(|border| (0..count).map(|at| at >= border).collect());
        from_start.chain(from_end).collect()
    }

    /// Every subset of its sectors.
    fn subsets(&self) -> impl Iterator<Item = Vec<bool>> + use<> {
        let count = self.sector_count();
        (0..1_usize << count).map(move |bits| (0..count).map(|at| bits >> at & 1 == 1).collect())
    }
}

/// Calls `look` with everything that a power loss can leave of `steps` done to `before`.
fn cut(before: &Files, steps: &Steps, look: &mut dyn FnMut(&Files)) {
    let mut stable = before.clone();
    for together in steps {
        cut_one(&stable, together, look);
        for write in together {
            stable.put(write, |_| true);
        }
    }
}

fn cut_one(files: &Files, writes: &[Write], look: &mut dyn FnMut(&Files)) {
    let Some((write, rest)) = writes.split_first() else { return look(files) };
    for tear in write.tears() {
        let mut left = files.clone();
        left.put(write, |sector| tear[sector]);
        cut_one(&left, rest, look);
    }
}

/// 256 MiB: two pages of marks, 64 extents.
fn size() -> ResourceSize {
    ResourceSize::new(256 << 20).unwrap()
}

fn newborn() -> Newborn {
    Newborn {
        resource_id: ResourceId(1),
        replica_id: ReplicaId(2),
        generation_id: 3,
        size: size(),
        place: here(),
    }
}

fn here() -> Place {
    Place { boot_id: 7, sidecar_mount: 1, data_mount: 2, device: 3, inode: 4 }
}

fn after_power_loss() -> Place {
    Place { boot_id: 8, ..here() }
}

/// A replica that ran: extents 1 and 2 are hot, block 5 is marked, the record is not clean.
fn worn() -> Files {
    let mut files = Files::new(Birth::This);
    let recovered = recover(files.found(here(), None)).unwrap();
    let record = Superblock {
        clean: false,
        serve_mode: ServeMode::Paired,
        owner: Some(Side::First),
        epoch: Epoch(5),
        promised: Epoch(5),
        instances: vec![Instance(9)],
        ..next(&recovered.superblock)
    };
    let mut log = recovered.log;
    let mut map = recovered.dirty;
    map.set(BlockIndex(5));
    let steps = vec![vec![Write::record(&record)], heat(&mut log, &[1, 2])];
    files = files.with(&steps).with(&Write::map(&mut map));
    files
}

fn next(record: &Superblock) -> Superblock {
    Superblock { counter: record.counter + 1, ..record.clone() }
}

/// A record that differs from the one before it in every field that a node relies on.
fn changed(record: &Superblock) -> Superblock {
    Superblock {
        epoch: Epoch(9),
        promised: Epoch(10),
        served_epoch: Epoch(9),
        generation: Some(Generation { number: 2, id: 77 }),
        history: record.generation.into_iter().collect(),
        disk: DiskState::Inconsistent,
        disk_reason: DiskReason::Resync,
        serve_mode: ServeMode::Solo,
        veto: Some(Veto { reason: VetoReason::Evicted, epoch: Epoch(9) }),
        ..next(record)
    }
}

/// Makes extents hot: one append.
fn heat(log: &mut ActivityLog, extents: &[u32]) -> Vec<Write> {
    for extent in extents {
        assert_ne!(log.want(ExtentIndex(*extent), Instant(0)), Want::Full);
    }
    let append = log.next_append().unwrap();
    log.appended();
    vec![Write::append(&append)]
}

fn hot(extents: &[u32]) -> BTreeSet<ExtentIndex> {
    extents.iter().copied().map(ExtentIndex).collect()
}

/// It says so, or the record does already.
fn is_doubtful(recovered: &Recovered<Vec<u8>>) -> bool {
    recovered.doubtful || recovered.superblock.disk == DiskState::Outdated
}

fn marks(map: &DirtyMap<Vec<u8>>) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut from = 0;
    while from < size().block_count()
        && let Some(block) = map.next_set(BlockIndex(from))
    {
        found.insert(block.0);
        from = block.0 + 1;
    }
    found
}

/// Opening what is there twice finds the same, and so does opening what the first opening left.
fn open_twice(files: &Files) -> Recovered<Vec<u8>> {
    let once = files.open().unwrap();
    assert_eq!(files.open().unwrap(), once);
    let left = Files { map: once.dirty.memory().clone(), ..files.clone() };
    let again = left.open().unwrap();
    assert_eq!((&again.superblock, &again.hot), (&once.superblock, &once.hot));
    assert_eq!((again.crash, again.doubtful), (once.crash, once.doubtful));
    assert!(again.dirty.count() >= once.dirty.count());
    once
}

#[test]
fn a_torn_record_opens_as_the_one_before_it() {
    let mut files = worn();
    for _ in 0..2 {
        let old = files.open().unwrap().superblock;
        let new = changed(&old);
        let write = Write::record(&new);
        for lands in write.subsets() {
            let mut left = files.clone();
            left.put(&write, |sector| lands[sector]);
            let found = left.open().unwrap().superblock;
            let is_whole = lands.iter().all(|it| *it);
            assert!(found == new || (found == old && !is_whole), "{lands:?}");
        }
        // Then the other slot.
        files.put(&write, |_| true);
    }
}

#[test]
fn no_flipped_bit_of_a_slot_opens_as_another_record() {
    let record = changed(&worn().open().unwrap().superblock);
    let slot = record.encode();
    for bit in 0..PAGE_LEN * 8 {
        let mut flipped = slot;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_flipped_bit_of_the_newest_slot_leaves_the_one_before_it() {
    let files = worn();
    let old = files.open().unwrap().superblock;
    let new = changed(&old);
    let both = files.with(&vec![vec![Write::record(&new)]]).superblock;
    let start = usize::try_from(Superblock::slot_offset(new.counter)).unwrap();
    for bit in 0..PAGE_LEN * 8 {
        let mut flipped = both.clone();
        flipped[start + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Superblock::newest(&flipped), Ok(old.clone()), "bit {bit}");
    }
}

#[test]
fn a_torn_append_leaves_the_log_as_it_was() {
    let files = worn();
    let mut log = files.open().unwrap().log;
    // What was found counts as hot again once the first append is stable.
    let mut append = log.next_append().unwrap();
    let mut before = files;
    let mut was_hot = hot(&[1, 2]);
    for extent in [3, 4, 5] {
        let mut is_hot = was_hot.clone();
        is_hot.extend(log.hot());
        let write = Write::append(&append);
        for lands in write.subsets() {
            let mut left = before.clone();
            left.put(&write, |sector| lands[sector]);
            let found = left.open().unwrap();
            let is_whole = lands.iter().all(|it| *it);
            assert!(!found.log_lost, "{lands:?}");
            assert!(found.hot == is_hot || (found.hot == was_hot && !is_whole), "{lands:?}");
            assert!(found.doubtful);
        }
        before.put(&write, |_| true);
        was_hot = is_hot;
        log.appended();
        assert_eq!(log.want(ExtentIndex(extent), Instant(0)), Want::Pending);
        append = log.next_append().unwrap();
    }
}

#[test]
fn a_torn_change_of_area_leaves_the_log_as_it_was() {
    let mut files = worn();
    let mut log = files.open().unwrap().log;
    let mut switches = 0;
    let mut appends = 0_u32;
    while switches < 3 {
        appends += 1;
        let extent = ExtentIndex(3 + appends % 40);
        if log.want(extent, Instant(0)) == Want::Hot {
            let cooled = log.cooling_candidates(Instant(0), std::time::Duration::ZERO);
            log.leave(&cooled);
        }
        let was_hot = files_hot(&files);
        let Some(append) = log.next_append() else { continue };
        let is_hot = log.hot();
        let write = Write::append(&append);
        if append.bytes.len() > PAGE_LEN {
            switches += 1;
            cut(&files, &vec![vec![write.clone()]], &mut |left| {
                let found = left.open().unwrap();
                assert!(!found.log_lost);
                assert!(found.hot == was_hot || found.hot == is_hot);
            });
        }
        files.put(&write, |_| true);
        log.appended();
    }
    println!("recovery: {appends} appends, {switches} changes of area");
}

fn files_hot(files: &Files) -> BTreeSet<ExtentIndex> {
    files.open().unwrap().hot
}

#[test]
fn a_torn_sync_of_the_map_leaves_its_marks_or_more() {
    let files = worn();
    let recovered = recover(files.found(here(), Some(0))).unwrap();
    let old = marks(&recovered.dirty);
    let mut map = recovered.dirty;
    map.clear(BlockIndex(5));
    // In three sectors of the first page, and in the second one.
    for block in [0, 5000, 9000, 40_000] {
        map.set(BlockIndex(block));
    }
    let new = marks(&map);
    let pages = [0..32_768_u64, 32_768..65_536];
    let of_page = |marks: &BTreeSet<u64>, page: usize| -> BTreeSet<u64> {
        marks.iter().copied().filter(|block| pages[page].contains(block)).collect()
    };
    let mut cases = 0;
    cut(&files, &Write::map(&mut map), &mut |left| {
        cases += 1;
        let found = marks(&left.open().unwrap().dirty);
        for page in 0..2 {
            let found = of_page(&found, page);
            let is_whole = found.len() == 32_768;
            let fits =
                found.is_superset(&of_page(&old, page)) || found.is_superset(&of_page(&new, page));
            assert!(is_whole || fits, "page {page}: {found:?}");
        }
    });
    println!("recovery: {cases} torn syncs of the map");
}

#[test]
fn a_stop_that_is_cut_was_no_clean_stop() {
    let files = worn();
    let recovered = files.open().unwrap();
    let (mut log, mut map) = (recovered.log, recovered.dirty);
    let first = Write::append(&log.next_append().unwrap());
    log.appended();
    let cooled = log.cooling_candidates(Instant(0), std::time::Duration::ZERO);
    log.leave(&cooled);
    let last = Write::append(&log.next_append().unwrap());
    log.appended();
    let clean = Superblock { clean: true, ..next(&recovered.superblock) };
    let mut steps = vec![vec![first]];
    steps.extend(Write::map(&mut map));
    steps.extend([vec![last], vec![Write::record(&clean)]]);
    let mut ends = BTreeSet::new();
    cut(&files, &steps, &mut |left| {
        let found = open_twice(left);
        let is_clean = found.superblock == clean;
        assert_eq!(found.crash == Crash::Clean, is_clean);
        assert_eq!(found.doubtful, !is_clean && !found.hot.is_empty());
        ends.insert((is_clean, found.hot.len()));
    });
    assert_eq!(ends, BTreeSet::from([(false, 2), (false, 0), (true, 0)]));
}

#[test]
fn a_birth_that_is_cut_left_no_replica_or_the_whole_one() {
    let files = Files::new(Birth::This);
    let whole = files.open().unwrap();
    let nothing = Files { superblock: vec![0; files.superblock.len()], ..files.clone() };
    assert!(matches!(nothing.open(), Err(Damage::BadMagic { .. })));
    let write = Write { file: Name::Superblock, offset: 0, bytes: files.superblock.clone() };
    let (mut born, mut unborn) = (0, 0);
    for lands in write.subsets() {
        let mut left = nothing.superblock.clone();
        for (sector, _) in lands.iter().enumerate().filter(|(_, lands)| **lands) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            left[range.clone()].copy_from_slice(&write.bytes[range]);
        }
        match Superblock::newest(&left) {
            Ok(found) => {
                born += 1;
                let counter = found.counter;
                assert_eq!(found, Superblock { counter, ..whole.superblock.clone() });
            }
            Err(Damage::BadMagic { .. } | Damage::BothSlots { .. }) => unborn += 1,
            Err(other) => panic!("{other}"),
        }
    }
    println!("recovery: {born} births, {unborn} that left nothing");
}

/// What a start writes before it relies on anything. The record that says what is doubtful is
/// stable before the log forgets why; the marks that recovery made are synced beside it.
fn start(recovered: &mut Recovered<Vec<u8>>) -> (Steps, Superblock) {
    let mut record = Superblock { clean: false, place: here(), ..next(&recovered.superblock) };
    if let Some(reason) = recovered.doubt() {
        record.disk = DiskState::Outdated;
        record.disk_reason = reason;
    }
    record.instances.insert(0, Instance(record.counter));
    record.instances.truncate(3);
    let mut steps = vec![vec![Write::record(&record)]];
    if recovered.log_lost {
        let [pages, sums] = <[Vec<Write>; 2]>::try_from(Write::map(&mut recovered.dirty)).unwrap();
        steps[0].extend(pages);
        steps.push(sums);
        recovered.log.marks_are_stable();
    }
    steps.extend(recovered.log.next_append().map(|append| vec![Write::append(&append)]));
    (steps, record)
}

#[test]
fn a_start_that_is_cut_three_times_still_finds_everything() {
    let files = worn();
    let old = files.open().unwrap();
    let operation = vec![
        vec![Write::record(&changed(&old.superblock))],
        vec![Write::append(&old.log.clone().next_append().unwrap())],
    ];
    let mut level = Vec::new();
    let mut seen = Vec::new();
    cut(&files, &operation, &mut |left| keep(left, &mut level, &mut seen));
    let mut cases = 0;
    for depth in 1..=3 {
        let mut deeper = Vec::new();
        let mut seen = Vec::new();
        for before in &level {
            let mut recovered = open_twice(before);
            let (was_doubtful, was_marked) = (is_doubtful(&recovered), marks(&recovered.dirty));
            let (was_hot, was) = (recovered.hot.clone(), recovered.superblock.clone());
            let (steps, record) = start(&mut recovered);
            cut(before, &steps, &mut |left| {
                cases += 1;
                let found = left.open().unwrap();
                assert!(found.superblock == was || found.superblock == record, "depth {depth}");
                assert_eq!(found.hot, was_hot);
                assert!(!found.log_lost);
                assert_eq!(is_doubtful(&found), was_doubtful, "depth {depth}");
                assert!(marks(&found.dirty).is_superset(&was_marked));
                keep(left, &mut deeper, &mut seen);
            });
        }
        println!("recovery: depth {depth}, {} starts, {cases} cuts so far", level.len());
        level = deeper;
    }
}

/// Goes on from one of all that open alike and lie alike in the record's and the log's files.
fn keep(files: &Files, level: &mut Vec<Files>, seen: &mut Vec<Recovered<Vec<u8>>>) {
    let found = files.open().unwrap();
    if !seen.contains(&found) {
        seen.push(found);
        level.push(files.clone());
    }
}

#[test]
fn an_unreadable_log_makes_every_extent_hot() {
    let files = worn();
    for byte in [0, 8, 60, PAGE_LEN, PAGE_LEN + 100, 2 * PAGE_LEN, 4 * PAGE_LEN - 1] {
        let mut log = (*files.log).clone();
        // Both areas have a snapshot only after a change; the other one is zero here.
        let areas = [byte, byte + 256 * PAGE_LEN];
        areas.iter().filter(|_| byte >= PAGE_LEN).for_each(|at| log[*at] ^= 1);
        log[byte.min(60)] ^= u8::from(byte < PAGE_LEN);
        let found = Files { log: Arc::new(log), ..files.clone() }.open().unwrap();
        assert!(found.log_lost && found.doubtful, "byte {byte}");
        assert_eq!(found.dirty.count(), size().block_count());
        assert_eq!(found.doubt(), Some(DiskReason::LostPower));
    }
}

#[test]
fn a_lost_log_is_said_until_every_mark_is_stable() {
    let files = worn();
    let torn = Files { log: Arc::new(vec![0; files.log.len()]), ..files };
    let mut recovered = torn.open().unwrap();
    assert!(recovered.log_lost);
    let (steps, _) = start(&mut recovered);
    let mut cases = 0;
    cut(&torn, &steps, &mut |left| {
        cases += 1;
        let found = left.open().unwrap();
        assert!(is_doubtful(&found));
        assert_eq!(found.dirty.count(), size().block_count());
    });
    println!("recovery: {cases} cuts of a start without a log");
}

#[test]
fn two_damaged_slots_are_damage_and_nothing_is_touched() {
    let mut files = worn();
    let before = files.clone();
    for slot in 0..2 {
        files.superblock[slot * PAGE_LEN + 100] ^= 1;
    }
    let found = files.found(after_power_loss(), None);
    assert_eq!(recover(found).unwrap_err(), Damage::BothSlots { file: "superblock" });
    assert_eq!((&files.map, &files.log), (&before.map, &before.log));
}

#[test]
fn a_page_with_a_wrong_sum_is_marked_whole_and_no_other() {
    let files = worn();
    for page in 0..2 {
        let mut sum = files.sum.clone();
        sum[usize::try_from(sum_offset(page)).unwrap()] ^= 1;
        let found = Files { sum, ..files.clone() }.open().unwrap();
        let in_page = |block: &&u64| *block / 32_768 == page;
        assert_eq!(marks(&found.dirty).iter().filter(in_page).count(), 32_768);
        let whole = files.open().unwrap();
        let others = |map| marks(map).iter().filter(|it| !in_page(it)).copied().collect::<Vec<_>>();
        assert_eq!(others(&found.dirty), others(&whole.dirty));
    }
}

#[test]
fn after_a_process_crash_the_map_is_exact() {
    let files = worn();
    let recovered = recover(files.found(here(), Some(0))).unwrap();
    let mut map = recovered.dirty;
    map.set(BlockIndex(60_000));
    map.raise_canary();
    let canary = map.raise_canary();
    let left = Files { map: map.memory().bytes().to_vec(), ..files };
    for copy in [canary, canary - 1] {
        let found = recover(left.found(here(), Some(copy))).unwrap();
        assert_eq!(found.crash, Crash::Process);
        assert_eq!(marks(&found.dirty), BTreeSet::from([5, 60_000]));
        assert!(!found.doubtful);
    }
    for (place, copy) in [
        (here(), None),
        (here(), Some(canary - 2)),
        (here(), Some(canary + 1)),
        (after_power_loss(), Some(canary)),
    ] {
        let found = recover(left.found(place, copy)).unwrap();
        assert_eq!(found.crash, Crash::Power, "{copy:?}");
        assert!(found.doubtful);
    }
}

#[test]
fn damage_of_any_sector_and_any_length_is_survived() {
    let files = worn();
    let mut opened = 0;
    let mut refused = 0;
    let mut look = |left: &Files| match left.open() {
        Ok(_) => opened += 1,
        Err(_) => refused += 1,
    };
    let sectors = |len: usize| (0..len).step_by(SECTOR);
    for fill in [0, 0xff] {
        for at in sectors(files.superblock.len()) {
            let mut left = files.clone();
            left.superblock[at..at + SECTOR].fill(fill);
            look(&left);
        }
        for at in sectors(files.map.len()) {
            let mut left = files.clone();
            left.map[at..at + SECTOR].fill(fill);
            look(&left);
        }
        for at in sectors(files.sum.len()) {
            let mut left = files.clone();
            left.sum[at..at + SECTOR].fill(fill);
            look(&left);
        }
        for at in sectors(8 * PAGE_LEN) {
            let mut left = files.clone();
            Arc::<Vec<u8>>::make_mut(&mut left.log)[at..at + SECTOR].fill(fill);
            look(&left);
        }
    }
    for len in sectors(files.map.len()) {
        let mut left = files.clone();
        left.map.truncate(len);
        look(&left);
        left = files.clone();
        left.superblock.truncate(len);
        look(&left);
        left = files.clone();
        left.sum.truncate(len);
        look(&left);
        left = files.clone();
        left.log = Arc::new(files.log[..len].to_vec());
        look(&left);
    }
    println!("recovery: of damaged files {opened} sets opened, {refused} were refused");
}
