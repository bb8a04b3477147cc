//! A store as its data thread uses it.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::metadata::{
    ACTIVITY_LOG_FILE, Birth, BirthFile, Crash, DIRTY_MAP_FILE, DIRTY_SUM_FILE, Found, Newborn,
    SUPERBLOCK_FILE, Superblock, birth, recover,
};
use crate::units::{BlockIndex, ReplicaId, ResourceId, ResourceSize};
use crate::wire::PoolLimits;

fn size(len: u64) -> ResourceSize {
    ResourceSize::new(len).unwrap()
}

fn buffers() -> BufferPool {
    BufferPool::new(PoolLimits { small: 4, medium: 4, large: 1 })
}

/// Small metadata files whose bytes mean nothing.
pub(super) fn births() -> [BirthFile; 4] {
    let superblock = [vec![1; 4096], vec![0; 4096]].concat();
    [
        BirthFile { name: DIRTY_MAP_FILE, len: 3 * 4096, head: vec![2; 4096] },
        BirthFile { name: DIRTY_SUM_FILE, len: 2 * 4096, head: vec![] },
        BirthFile { name: ACTIVITY_LOG_FILE, len: 16_384, head: vec![3; 16_384] },
        BirthFile { name: SUPERBLOCK_FILE, len: 8192, head: superblock },
    ]
}

/// Files of a resource of `len` bytes in a folder of their own.
pub(super) fn disk(len: u64) -> (tempfile::TempDir, Disk) {
    let folder = tempfile::tempdir().unwrap();
    let data = made(folder.path(), len);
    let sidecar = sidecar(folder.path());
    (folder, Disk { data, sidecar, buffers: buffers() })
}

fn made(folder: &Path, len: u64) -> DataFile {
    let path = folder.join("data");
    DataFile::create(&path, size(len)).unwrap();
    DataFile::open(&path, size(len)).unwrap()
}

fn sidecar(folder: &Path) -> Sidecar {
    let folder = folder.join("state");
    Sidecar::create(&folder, &births(), Existing::Keep).unwrap();
    Sidecar::open(&folder).unwrap()
}

fn store(len: u64, threads: Threads) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let (data, sidecar) = (made(folder.path(), len), sidecar(folder.path()));
    (folder, Store::new(data, sidecar, buffers(), threads).unwrap())
}

const BOTH: [Threads; 2] = [Threads::None, Threads::Pool(2)];

/// Waits for `count` completions.
fn wait(store: &mut Store, count: usize) -> Vec<Completion> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut completions = Vec::new();
    runtime.block_on(std::future::poll_fn(|cx| {
        while completions.len() < count {
            std::task::ready!(store.poll_completions(cx, &mut completions));
        }
        Poll::Ready(())
    }));
    assert_eq!(completions.len(), count);
    completions
}

/// The completion that came at once, or else the next one.
fn ended(store: &mut Store, now: Option<Completion>) -> Completion {
    now.unwrap_or_else(|| wait(store, 1).remove(0))
}

fn outcome_of(completion: Completion, expected: IoId) -> DiskOutcome {
    match completion {
        Completion::Disk { io, outcome } | Completion::ClientRead { io, outcome, .. } => {
            assert_eq!(io, expected);
            outcome
        }
        Completion::Metadata { .. }
        | Completion::Runs { .. }
        | Completion::Identity { .. }
        | Completion::Grown { .. } => {
            panic!("{completion:?}")
        }
    }
}

fn write(store: &mut Store, start: u64, bytes: &[u8]) -> DiskOutcome {
    let range = ByteRange::new(start, bytes.len() as u64, store.data().size()).unwrap();
    let now = store.write(IoId(start), range, Bytes::copy_from_slice(bytes));
    outcome_of(ended(store, now), IoId(start))
}

fn read(store: &mut Store, start: u64, len: u64) -> Vec<u8> {
    let range = ByteRange::new(start, len, store.data().size()).unwrap();
    let now = store.read_range(IoId(9), range);
    match outcome_of(ended(store, now), IoId(9)) {
        DiskOutcome::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_may_wait_for_a_path_or_for_books_is_left_to_the_pool() {
    for threads in BOTH {
        let (folder, mut store) = store(100_000, threads);
        let (request, range) = (RequestId(7), store.data().size().whole());
        let now = store.runs(request, range, 10);
        assert_eq!(now.is_none(), threads != Threads::None);
        match ended(&mut store, now) {
            Completion::Runs { request, runs } => {
                assert_eq!(request, RequestId(7));
                assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), 100_000);
            }
            other => panic!("{other:?}"),
        }
        for is_there in [true, false] {
            if !is_there {
                let path = store.data().path().to_owned();
                std::fs::remove_file(path).unwrap();
            }
            let now = store.check_identity();
            assert_eq!(now.is_none(), threads != Threads::None);
            match ended(&mut store, now) {
                Completion::Identity { result, .. } => assert_eq!(result.is_ok(), is_there),
                other => panic!("{other:?}"),
            }
        }
        drop(folder);
    }
}

#[test]
fn what_is_written_is_read_at_any_place_and_length() {
    for threads in BOTH {
        let len = 200_001;
        let (_folder, mut store) = store(len, threads);
        let mut expected = vec![0; 200_001];
        for (number, (start, count)) in
            [(0, 1), (4095, 2), (100_000, 70_000), (200_000, 1), (1, 4096), (0, 200_001), (9, 9)]
                .into_iter()
                .enumerate()
        {
            let bytes = vec![u8::try_from(number).unwrap() + 1; count];
            assert_eq!(write(&mut store, start as u64, &bytes), DiskOutcome::Done);
            expected[start..start + count].copy_from_slice(&bytes);
            assert_eq!(read(&mut store, 0, len), expected);
        }
        assert_eq!(read(&mut store, 4094, 4), expected[4094..4098]);
    }
}

#[test]
fn a_read_for_a_client_brings_its_buffer_back() {
    for threads in BOTH {
        let (_folder, mut store) = store(1 << 20, threads);
        assert_eq!(write(&mut store, 4096, &[5; 10_000]), DiskOutcome::Done);
        let now = store.sync_data(IoId(1));
        assert_eq!(outcome_of(ended(&mut store, now), IoId(1)), DiskOutcome::Done);
        // Once from the cache, once cold.
        for _ in 0..2 {
            let range = ByteRange::new(4096, 10_000, store.data().size()).unwrap();
            let mut buffer = buffers().get(10_000);
            buffer.fill(0xff);
            let now = store.read_for_client(IoId(2), range, buffer);
            match ended(&mut store, now) {
                Completion::ClientRead { io: IoId(2), buffer, outcome: DiskOutcome::Done } => {
                    assert_eq!(buffer[..], [5; 10_000]);
                }
                other => panic!("{other:?}"),
            }
            let drop = rustix::fs::Advice::DontNeed;
            rustix::fs::fadvise(&store.data().file, 0, None, drop).unwrap();
        }
    }
}

#[test]
fn every_kind_of_operation_ends_once() {
    for threads in BOTH {
        let (_folder, mut store) = store(70_000, threads);
        assert_eq!(write(&mut store, 0, &vec![1; 70_000]), DiskOutcome::Done);
        let range = ByteRange::new(4096, 8192, store.data().size()).unwrap();
        let now = store.zero(IoId(1), range, ZeroKind::Punch);
        assert_eq!(outcome_of(ended(&mut store, now), IoId(1)), DiskOutcome::Done);
        let now = store.hash_chunk(IoId(2), ChunkIndex(1), Via::Cache);
        match outcome_of(ended(&mut store, now), IoId(2)) {
            DiskOutcome::Hashes { chunk, blocks } => {
                assert_eq!(chunk, *blake3::hash(&vec![1; 70_000 - 65_536]).as_bytes());
                assert_eq!(blocks[0], *blake3::hash(&[1; 4096]).as_bytes());
                assert_eq!(blocks[1], *blake3::hash(&[1; 368]).as_bytes());
                assert_eq!(blocks.len(), 2);
            }
            other => panic!("{other:?}"),
        }
        let operations: [fn(&mut Store) -> Option<Completion>; 3] = [
            |store| store.write_superblock(Ticket(3), 4096, vec![4; 4096].into()),
            |store| store.append_log(Ticket(3), 4096, vec![5; 4096]),
            |store| store.sync_map(Ticket(3), vec![(0, 1), (1, 2)]),
        ];
        for operation in operations {
            let now = operation(&mut store);
            match ended(&mut store, now) {
                Completion::Metadata { ticket: Ticket(3), result: Ok(()) } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(store.sidecar().read_superblock().unwrap()[4096..], [4; 4096]);
    }
}

#[test]
fn more_than_the_threads_have_room_for_waits_and_nothing_is_lost() {
    let (_folder, mut store) = store(1 << 20, Threads::Pool(2));
    let count = 3000;
    for io in 0..count {
        let now = match io % 3 {
            0 => store.hash_chunk(IoId(io), ChunkIndex(io % 16), Via::Cache),
            1 => store.sync_data(IoId(io)),
            _ => {
                let range = ByteRange::new(io * 4, 4, store.data().size()).unwrap();
                store.zero(IoId(io), range, ZeroKind::Trim)
            }
        };
        assert!(now.is_none());
    }
    let mut ended: Vec<_> = wait(&mut store, usize::try_from(count).unwrap())
        .into_iter()
        .map(|completion| match completion {
            Completion::Disk { io, outcome } => {
                assert!(!matches!(outcome, DiskOutcome::Failed | DiskOutcome::NoSpace));
                io.0
            }
            other => panic!("{other:?}"),
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, (0..count).collect::<Vec<_>>());
}

#[test]
fn when_a_store_is_dropped_its_files_can_be_opened_at_once() {
    let (folder, mut store) = store(1 << 20, Threads::Pool(4));
    for io in 0..500 {
        store.hash_chunk(IoId(io), ChunkIndex(io % 16), Via::Cache);
    }
    drop(store);
    DataFile::open(&folder.path().join("data"), size(1 << 20)).unwrap();
    Sidecar::open(&folder.path().join("state")).unwrap();
}

#[test]
fn after_a_failure_every_operation_fails() {
    for threads in BOTH {
        let (_folder, mut store) = store(1 << 20, threads);
        assert_eq!(write(&mut store, 0, &[1; 4096]), DiskOutcome::Done);
        store.data().file.set_len(10).unwrap();
        let range = ByteRange::new(0, 4096, store.data().size()).unwrap();
        let operations: [fn(&mut Store, ByteRange) -> Option<Completion>; 5] = [
            |store, range| store.read_range(IoId(1), range),
            |store, range| store.write(IoId(1), range, Bytes::from(vec![0; 4096])),
            |store, range| store.zero(IoId(1), range, ZeroKind::Trim),
            |store, range| store.read_for_client(IoId(1), range, buffers().get(4096)),
            |store, _| store.sync_data(IoId(1)),
        ];
        for operation in operations {
            let now = operation(&mut store, range);
            assert_eq!(outcome_of(ended(&mut store, now), IoId(1)), DiskOutcome::Failed);
        }
        // That can still be recorded.
        let now = store.write_superblock(Ticket(1), 0, vec![9; 4096].into());
        assert!(matches!(ended(&mut store, now), Completion::Metadata { result: Ok(()), .. }));
    }
}

/// Runs a system tool; says so and answers false if it cannot.
fn tool(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok();
    match output {
        Some(output) if output.status.success() => {
            Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        }
        _ => {
            println!("skipped: {program} {arguments:?} is not permitted here");
            None
        }
    }
}

/// Runs a tool again when the test ends, however it ends.
struct Undo(&'static str, Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(&self.1).status();
    }
}

#[test]
fn a_full_disk_is_told_apart_and_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    if tool("mount", &["-t", "tmpfs", "-o", "size=1m", "none", place]).is_none() {
        return;
    }
    let _undo = Undo("umount", vec!["-l".to_owned(), place.to_owned()]);
    for threads in BOTH {
        let outer = tempfile::tempdir().unwrap();
        let sidecar = sidecar(outer.path());
        let path = folder.path().join("data");
        DataFile::create(&path, size(4 << 20)).unwrap();
        let data = DataFile::open(&path, size(4 << 20)).unwrap();
        let mut store = Store::new(data, sidecar, buffers(), threads).unwrap();
        assert_eq!(write(&mut store, 0, &vec![1; 2 << 20]), DiskOutcome::NoSpace);
        let whole = store.data().size().whole();
        let now = store.zero(IoId(1), whole, ZeroKind::Keep);
        assert_eq!(outcome_of(ended(&mut store, now), IoId(1)), DiskOutcome::NoSpace);
        let now = store.zero(IoId(1), whole, ZeroKind::Trim);
        assert_eq!(outcome_of(ended(&mut store, now), IoId(1)), DiskOutcome::Done);
        assert_eq!(write(&mut store, 5, &[1; 4096]), DiskOutcome::Done);
        assert!(!store.data().has_failed());
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_block_device_is_served_like_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![0xff; 1 << 20]).unwrap();
    let Some(device) = tool("losetup", &["-f", "--show", image.to_str().unwrap()]) else { return };
    let _undo = Undo("losetup", vec!["-d".to_owned(), device.clone()]);
    let device = Path::new(&device);
    let data = DataFile::open(device, size((1 << 20) - 100)).unwrap();
    assert_eq!(data.len_bytes().unwrap(), 1 << 20);
    assert!(matches!(DataFile::open(device, size(1)), Err(StoreError::Locked { .. })));
    let mut store = Store::new(data, sidecar(folder.path()), buffers(), BOTH[1]).unwrap();
    store.data().check_identity().unwrap();
    assert_eq!(write(&mut store, 4090, &[1; 100]), DiskOutcome::Done);
    for kind in [ZeroKind::Trim, ZeroKind::Keep] {
        let range = ByteRange::new(4100, 100_000, store.data().size()).unwrap();
        let now = store.zero(IoId(1), range, kind);
        assert_eq!(outcome_of(ended(&mut store, now), IoId(1)), DiskOutcome::Done);
        let found = read(&mut store, 4090, 100_020);
        assert_eq!(found[..10], [1; 10]);
        assert!(found[10..100_010].iter().all(|byte| *byte == 0));
        assert_eq!(found[100_010..], [0xff; 10]);
    }
    let now = store.sync_data(IoId(2));
    assert_eq!(outcome_of(ended(&mut store, now), IoId(2)), DiskOutcome::Done);
    let now = store.hash_chunk(IoId(3), ChunkIndex(15), Via::Medium);
    let DiskOutcome::Hashes { chunk, blocks } = outcome_of(ended(&mut store, now), IoId(3)) else {
        panic!("no hashes");
    };
    assert_eq!(chunk, *blake3::hash(&vec![0xff; (64 << 10) - 100]).as_bytes());
    assert_eq!(blocks.len(), 16);
    let grown = store.data().grow(store.data().size(), size(2 << 20));
    assert!(matches!(grown, Err(StoreError::Shorter { .. })));
}

#[test]
fn what_birth_makes_is_recovered_and_a_killed_process_is_told_from_a_power_loss() {
    let outer = tempfile::tempdir().unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let canary = [memory.path().join("canary")];
    let folder = outer.path().join("state");
    let data = made(outer.path(), 1 << 20);
    let newborn = Newborn {
        resource_id: ResourceId(1),
        replica_id: ReplicaId(2),
        generation_id: 3,
        size: data.size(),
        place: place(&data, &folder).unwrap(),
    };
    Sidecar::create(&folder, &birth(Birth::This, &newborn), Existing::Keep).unwrap();
    let start = |copy: Option<u64>| {
        let sidecar = Sidecar::open(&folder).unwrap();
        recover(Found {
            superblock: &sidecar.read_superblock().unwrap(),
            dirty_map: sidecar.map().unwrap(),
            dirty_sum: &sidecar.read_dirty_sum().unwrap(),
            activity_log: &sidecar.read_activity_log().unwrap(),
            place: place(&data, &folder).unwrap(),
            canary_copy: copy,
            data_len: data.len_bytes().unwrap(),
        })
        .unwrap()
    };
    {
        let mut recovered = start(None);
        // The clean flag is gone before the first change.
        let counter = recovered.superblock.counter + 1;
        let record = Superblock { counter, clean: false, ..recovered.superblock };
        let sidecar = Sidecar::open(&folder);
        assert!(matches!(sidecar, Err(StoreError::Locked { .. })), "the mapping holds a lock");
        let (mut copy, found) = CanaryCopy::open(&canary).unwrap();
        assert_eq!(found, None);
        recovered.dirty.set(BlockIndex(7));
        copy.store(recovered.dirty.raise_canary());
        // Dropped here without a sync, as kill -9 would.
        drop(recovered.dirty);
        let sidecar = Sidecar::open(&folder).unwrap();
        sidecar.write_superblock(Superblock::slot_offset(counter), &record.encode()).unwrap();
    }
    let found = CanaryCopy::open(&canary).unwrap().1;
    let recovered = start(found);
    assert_eq!(recovered.crash, Crash::Process);
    assert!(recovered.dirty.is_set(BlockIndex(7)));
    assert_eq!(recovered.dirty.count(), 1);
    drop(recovered);
    assert_eq!(start(None).crash, Crash::Power);
}

#[test]
fn a_store_can_move_to_its_data_thread() {
    fn moves<T: Send>() {}
    moves::<Store>();
    moves::<MappedMap>();
    moves::<CanaryCopy>();
}
