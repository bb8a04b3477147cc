//! Chunks of a huge file that is written over in place: the new ones, and the old ones for the way
//! back.
//!
//! A patch is a file of its own: a header with the length of the patched file, then chunks in rising
//! order, each with its number and a checksum. The header is written last, so what an interrupted
//! writer leaves is no patch. A patch can be applied to a file that is half patched already.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;

use super::super::folder::Folder;
use super::error::ApplyError;
use super::records::errno_of;
use super::steps::Steps;
use crate::manifest::{FILE_LEN_MAX, Name, chunk_count};
use crate::units::CHUNK_LEN;

const MAGIC: [u8; 8] = *b"HPPATCH1";
/// Version of the format. History: 1, the first.
const FORMAT: u32 = 1;
/// Magic, format, length of the patched file, number of chunks, sum of all this.
const HEADER_LEN: usize = 32;
/// Number of a chunk, sum of the number and its bytes.
const CHUNK_HEADER_LEN: usize = 12;

/// Writes a patch, chunk by chunk. It is stable only once whoever commits it has synced it.
#[derive(Debug)]
pub struct PatchWriter {
    file: BufWriter<File>,
    path: String,
    len: u64,
    count: u64,
    next: u64,
}

impl PatchWriter {
    /// Begins a patch in a new file `name`. The patched file will have `len` bytes.
    ///
    /// # Errors
    /// [`ApplyError`], as of a file that is made.
    pub fn new(folder: &Folder, name: &Name, len: u64) -> Result<Self, ApplyError> {
        let path = name.to_string();
        if len > FILE_LEN_MAX {
            return Err(ApplyError::kernel("make", path, Errno::FBIG));
        }
        let failed = |action| {
            let path = path.clone();
            move |errno| ApplyError::kernel(action, path, errno)
        };
        let mut file = BufWriter::new(folder.make_file(name).map_err(failed("make"))?);
        file.write_all(&[0; HEADER_LEN]).map_err(|error| failed("write")(errno_of(&error)))?;
        Ok(Self { file, path, len, count: 0, next: 0 })
    }

    /// Appends chunk `number`, which is as long as it is in a file of that length.
    ///
    /// # Errors
    /// [`ApplyError::Patch`] if the chunk is out of order or has another length, else as of a file
    /// that is written.
    pub fn append(&mut self, number: u64, bytes: &[u8]) -> Result<(), ApplyError> {
        if number < self.next || chunk_len(self.len, number) != Some(bytes.len()) {
            let why = "a chunk is out of order, or has another length than it should have";
            return Err(ApplyError::Patch { path: self.path.clone(), why });
        }
        let number_bytes = number.to_le_bytes();
        let written = [&number_bytes[..], &sum_of(&number_bytes, bytes).to_le_bytes(), bytes]
            .into_iter()
            .try_for_each(|part| self.file.write_all(part));
        written.map_err(|error| self.failed(&error))?;
        self.next = number + 1;
        self.count += 1;
        Ok(())
    }

    /// Makes it a patch. The file is given back to be synced.
    ///
    /// # Errors
    /// As of a file that is written.
    pub fn end(mut self) -> Result<File, ApplyError> {
        self.file.flush().map_err(|error| self.failed(&error))?;
        let header = header_of(self.len, self.count);
        let file = self.file.get_ref();
        file.write_all_at(&header, 0).map_err(|error| self.failed(&error))?;
        let path = self.path;
        let failed = |error: &std::io::Error| ApplyError::kernel("write", path, errno_of(error));
        self.file.into_inner().map_err(|error| failed(error.error()))
    }

    fn failed(&self, error: &std::io::Error) -> ApplyError {
        ApplyError::kernel("write", self.path.clone(), errno_of(error))
    }
}

/// Writes a patch `name` that leads from what `file` becomes back to what it is: `chunks` are those
/// that will be written over, in rising order, `len_after` the length it will have. What it loses
/// at its end by that is saved as well.
///
/// # Errors
/// As of the two files; [`ApplyError::Patch`] if `file` is written to meanwhile, or `chunks` do not
/// rise.
pub fn save_pre_image(
    folder: &Folder,
    name: &Name,
    file: &File,
    chunks: impl IntoIterator<Item = u64>,
    len_after: u64,
) -> Result<File, ApplyError> {
    let read_failed =
        |error: &std::io::Error| ApplyError::kernel("read", name.to_string(), errno_of(error));
    let len = file.metadata().map_err(|error| read_failed(&error))?.len();
    let mut patch = PatchWriter::new(folder, name, len)?;
    // From here on everything is lost or changes its length.
    let tail = if len_after < len { len_after / CHUNK_LEN } else { chunk_count(len) };
    let mut buffer = vec![0; usize::try_from(CHUNK_LEN).expect("a chunk is small")];
    let kept = chunks.into_iter().filter(|number| *number < tail);
    for number in kept.chain(tail..chunk_count(len)) {
        let Some(chunk) = chunk_len(len, number).and_then(|len| buffer.get_mut(..len)) else {
            continue;
        };
        file.read_exact_at(chunk, number * CHUNK_LEN).map_err(|error| read_failed(&error))?;
        patch.append(number, chunk)?;
    }
    patch.end()
}

/// Writes the chunks of the patch `source` into `file` and gives it its length; a step per chunk.
/// `path` names the patch in errors.
pub(super) fn apply_patch(
    steps: &Steps,
    path: &str,
    source: File,
    file: &File,
) -> Result<(), ApplyError> {
    let broken = |why| ApplyError::Patch { path: path.to_owned(), why };
    let write_failed = |error: &std::io::Error| ApplyError::kernel("write", path, errno_of(error));
    let mut source = BufReader::with_capacity(1 << 20, source);
    let mut header = [0; HEADER_LEN];
    read(path, &mut source, &mut header)?;
    let (len, count) = read_header(&header).ok_or_else(|| broken("not a patch"))?;
    let mut buffer = vec![0; usize::try_from(CHUNK_LEN).expect("a chunk is small")];
    let mut next = 0;
    for _ in 0..count {
        let mut head = [0; CHUNK_HEADER_LEN];
        read(path, &mut source, &mut head)?;
        let (number_bytes, sum) = head.split_first_chunk::<8>().expect("8 of 12 bytes");
        let number = u64::from_le_bytes(*number_bytes);
        let chunk = chunk_len(len, number).and_then(|len| buffer.get_mut(..len));
        let chunk = chunk.filter(|_| number >= next);
        let chunk = chunk.ok_or_else(|| broken("a chunk of the patch is out of order"))?;
        read(path, &mut source, chunk)?;
        if *sum != sum_of(number_bytes, chunk).to_le_bytes() {
            return Err(broken("a chunk of the patch is damaged"));
        }
        steps.take("write", || path.to_owned())?;
        file.write_all_at(chunk, number * CHUNK_LEN).map_err(|error| write_failed(&error))?;
        next = number + 1;
    }
    steps.take("write", || path.to_owned())?;
    file.set_len(len).map_err(|error| write_failed(&error))
}

/// Reads single chunks of a patch.
#[derive(Debug)]
pub struct PatchReader {
    file: File,
    len: u64,
    count: u64,
}

impl PatchReader {
    /// Of the patch that `file` is; `None` if it is none.
    pub fn new(file: File) -> Option<Self> {
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0).ok()?;
        let (len, count) = read_header(&header)?;
        Some(Self { file, len, count })
    }

    /// The bytes of chunk `number`; `None` if the patch does not have it, or it is damaged.
    pub fn read(&self, number: u64) -> Option<Vec<u8>> {
        // All but the last one are whole, so each is where its place among them says.
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let mut head = [0; CHUNK_HEADER_LEN];
            let whole = CHUNK_HEADER_LEN as u64 + CHUNK_LEN;
            let at = middle.checked_mul(whole)?.checked_add(HEADER_LEN as u64)?;
            self.file.read_exact_at(&mut head, at).ok()?;
            let (number_bytes, sum) = head.split_first_chunk::<8>()?;
            match u64::from_le_bytes(*number_bytes).cmp(&number) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let mut chunk = vec![0; chunk_len(self.len, number)?];
                    self.file.read_exact_at(&mut chunk, at + CHUNK_HEADER_LEN as u64).ok()?;
                    let is_whole = *sum == sum_of(number_bytes, &chunk).to_le_bytes();
                    return is_whole.then_some(chunk);
                }
            }
        }
        None
    }
}

/// Whether these are the first bytes of a whole patch.
fn read_header(header: &[u8; HEADER_LEN]) -> Option<(u64, u64)> {
    let len = u64::from_le_bytes(header[12..20].try_into().ok()?);
    let count = u64::from_le_bytes(header[20..28].try_into().ok()?);
    let is_whole = header_of(len, count) == *header;
    (is_whole && len <= FILE_LEN_MAX && count <= chunk_count(len)).then_some((len, count))
}

fn header_of(len: u64, count: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..20].copy_from_slice(&len.to_le_bytes());
    header[20..28].copy_from_slice(&count.to_le_bytes());
    let sum = crc32c::crc32c(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// How long chunk `number` is in a file of `len` bytes, if it is in there.
fn chunk_len(len: u64, number: u64) -> Option<usize> {
    let rest = len.checked_sub(number.checked_mul(CHUNK_LEN)?)?;
    usize::try_from(rest.min(CHUNK_LEN)).ok().filter(|len| *len > 0)
}

fn sum_of(number: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(number), bytes)
}

fn read(path: &str, source: &mut impl Read, buffer: &mut [u8]) -> Result<(), ApplyError> {
    source.read_exact(buffer).map_err(|error| match Errno::from_io_error(&error) {
        Some(errno) => ApplyError::kernel("read", path, errno),
        None => ApplyError::Patch { path: path.to_owned(), why: "the patch is cut short" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 64 << 10;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn content(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at / 251 + at) % 256).unwrap() ^ seed).collect()
    }

    /// Chunks of `new` that `old` has not.
    fn changed(old: &[u8], new: &[u8]) -> Vec<u64> {
        let chunks =
            new.chunks(CHUNK).zip(old.chunks(CHUNK).map(Some).chain([None].into_iter().cycle()));
        (0..)
            .zip(chunks)
            .filter(|(_, (new, old))| Some(*new) != *old)
            .map(|(number, _)| number)
            .collect()
    }

    struct Case {
        outer: tempfile::TempDir,
        folder: Folder,
    }

    impl Case {
        fn new(old: &[u8]) -> Self {
            let outer = tempfile::tempdir().unwrap();
            std::fs::write(outer.path().join("huge"), old).unwrap();
            let folder = Folder::open(outer.path()).unwrap();
            Self { outer, folder }
        }

        fn huge(&self) -> File {
            let path = self.outer.path().join("huge");
            std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
        }

        fn now(&self) -> Vec<u8> {
            std::fs::read(self.outer.path().join("huge")).unwrap()
        }

        fn patch(&self, patch: &str, steps: &Steps) -> Result<(), ApplyError> {
            apply_patch(steps, patch, self.folder.file(&name(patch)).unwrap(), &self.huge())
        }

        /// Writes both patches.
        fn prepare(&self, old: &[u8], new: &[u8]) {
            let chunks = changed(old, new);
            let mut patch = PatchWriter::new(&self.folder, &name("new"), new.len() as u64).unwrap();
            for number in &chunks {
                let at = usize::try_from(*number).unwrap();
                patch.append(*number, new.chunks(CHUNK).nth(at).unwrap()).unwrap();
            }
            patch.end().unwrap();
            let len = new.len() as u64;
            save_pre_image(&self.folder, &name("old"), &self.huge(), chunks, len).unwrap();
        }
    }

    #[test]
    fn a_file_becomes_another_one_and_itself_again_from_wherever_it_stopped() {
        let old = content(1, 3 * CHUNK + 100);
        let mut edited = old.clone();
        edited[CHUNK + 5] ^= 1;
        let lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 99, 5 * CHUNK + 7];
        let mut targets = vec![edited.clone(), content(9, 2 * CHUNK)];
        targets.extend(lengths.map(|len| {
            let mut new = content(1, len);
            new.iter_mut().skip(CHUNK).take(3).for_each(|byte| *byte ^= 8);
            new
        }));
        for new in &targets {
            for (from, to) in [(&old, new), (new, &old)] {
                let case = Case::new(from);
                case.prepare(from, to);
                for stop in 0..20 {
                    let forward = case.patch("new", &Steps::until(stop));
                    case.patch("old", &Steps::until(stop / 2)).ok();
                    case.patch("old", &Steps::unlimited()).unwrap();
                    assert!(case.now() == *from, "{} bytes to {}", from.len(), to.len());
                    case.patch("new", &Steps::until(stop)).ok();
                    case.patch("new", &Steps::unlimited()).unwrap();
                    assert!(case.now() == *to, "{} bytes to {}", from.len(), to.len());
                    if forward.is_ok() {
                        break;
                    }
                    assert!(stop < 19, "it never ends");
                }
            }
        }
    }

    #[test]
    fn a_patch_is_refused_unless_it_is_what_was_written() {
        let (old, new) = (content(1, 2 * CHUNK + 9), content(2, 2 * CHUNK + 9));
        let case = Case::new(&old);
        case.prepare(&old, &new);
        let path = case.outer.path().join("new");
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let result = case.patch("new", &Steps::unlimited());
            matches!(result, Err(ApplyError::Patch { .. }))
        };
        for len in [0, 31, 32, 40, 44, 45, CHUNK + 44, whole.len() - 1] {
            assert!(refused(&whole[..len]), "{len} bytes");
        }
        for byte in (0..60).chain([CHUNK + 43, CHUNK + 44, CHUNK + 52, whole.len() - 1]) {
            let mut flipped = whole.clone();
            flipped[byte] ^= 0x10;
            assert!(refused(&flipped), "byte {byte}");
        }
        assert!(!refused(&whole));
        assert!(case.now() == new);
    }

    #[test]
    fn what_is_not_ended_is_no_patch_and_chunks_only_rise() {
        let case = Case::new(b"");
        let mut patch = PatchWriter::new(&case.folder, &name("new"), CHUNK as u64 + 10).unwrap();
        let chunk = content(1, CHUNK);
        for (number, bytes) in [(0, &chunk[..10]), (1, &chunk), (2, &chunk[..0]), (u64::MAX, &[])] {
            assert!(matches!(patch.append(number, bytes), Err(ApplyError::Patch { .. })));
        }
        patch.append(0, &chunk).unwrap();
        assert!(matches!(patch.append(0, &chunk), Err(ApplyError::Patch { .. })));
        patch.append(1, &chunk[..10]).unwrap();
        drop(patch);
        let result = case.patch("new", &Steps::unlimited());
        assert!(matches!(result, Err(ApplyError::Patch { why: "not a patch", .. })), "{result:?}");
        assert_eq!(case.now(), b"");
        assert!(PatchWriter::new(&case.folder, &name("x"), FILE_LEN_MAX + 1).is_err());
    }
}
