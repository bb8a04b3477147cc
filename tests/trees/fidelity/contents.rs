//! Files of all sizes at which pieces end, and files with holes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::Maker;

/// Pieces of 4 KiB, 64 KiB, 1 MiB, and what is beside them.
const SIZES: [usize; 18] = [
    0,
    1,
    2,
    511,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    65_537,
    131_071,
    131_072,
    131_073,
    196_609,
    262_144,
    300_000,
    (1 << 20) - 1,
    (1 << 20) + 1,
];
const PIECE_LEN: u64 = 64 << 10;

/// A file of `size` bytes, and where it has data rather than holes: offset and length.
type Sparse = (&'static str, u64, &'static [(u64, usize)]);

const SPARSE: [Sparse; 9] = [
    ("hole-in-front", 1 << 20, &[((1 << 20) - 5000, 5000)]),
    ("hole-in-the-middle", 1 << 20, &[(0, 70_000), (900_000, 148_576)]),
    ("hole-at-the-end", 1 << 20, &[(0, 65_536)]),
    ("only-a-hole", 4 << 20, &[]),
    ("only-a-hole-of-one-byte", 1, &[]),
    ("only-a-hole-unaligned", 3 * PIECE_LEN + 1, &[]),
    (
        "every-other-piece",
        8 * PIECE_LEN,
        &[
            (PIECE_LEN, 65_536),
            (3 * PIECE_LEN, 65_536),
            (5 * PIECE_LEN, 65_536),
            (7 * PIECE_LEN, 65_536),
        ],
    ),
    ("across-an-edge", 6 * PIECE_LEN, &[(3 * PIECE_LEN - 1, 2)]),
    ("a-block-in-a-hole", 10 * PIECE_LEN, &[(5 * PIECE_LEN + 8192, 4096)]),
];

/// Makes `contents`.
pub(super) fn make(maker: &mut Maker<'_>) {
    let folder = maker.folder("contents/sizes");
    for size in SIZES {
        fs::write(folder.join(size.to_string()), random_bytes(size as u64, size)).unwrap();
    }

    let folder = maker.folder("contents/alike");
    let bytes = random_bytes(1, 3 * 65_536);
    fs::write(folder.join("first"), &bytes).unwrap();
    fs::write(folder.join("copy"), &bytes).unwrap();
    fs::write(folder.join("twice"), [&*bytes, &bytes].concat()).unwrap();
    fs::write(folder.join("shifted"), [b"!", &*bytes].concat()).unwrap();
    fs::write(folder.join("shortened"), &bytes[..bytes.len() - 1]).unwrap();
    fs::write(folder.join("all-bytes"), (0..=255).collect::<Vec<u8>>()).unwrap();

    let folder = maker.folder("contents/holes");
    for (name, size, parts) in SPARSE {
        let file = File::create(folder.join(name)).unwrap();
        file.set_len(size).unwrap();
        for (at, len) in parts {
            file.write_all_at(&random_bytes(*at, *len), *at).unwrap();
        }
    }
    // Zeros, with space for each of them.
    fs::write(folder.join("zeros"), vec![0; 131_072]).unwrap();
    let reserved = File::create(folder.join("reserved")).unwrap();
    let done = rustix::fs::fallocate(&reserved, FallocateFlags::empty(), 0, 131_072);
    maker.attempt("reserved space", done);
    let punched = fs::OpenOptions::new().write(true).create_new(true).open(folder.join("punched"));
    let punched = punched.unwrap();
    punched.write_all_at(&random_bytes(2, 262_144), 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let done: Result<(), Errno> = rustix::fs::fallocate(&punched, punch, 65_536, 131_072);
    maker.attempt("a punched hole", done);
}

fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}
