//! Hashes of a chunk and of each of its blocks, from the page cache or from the medium.

use std::io::ErrorKind;

use rustix::io::{Errno, pread};

use super::transfer::offset;
use super::{DataFile, StoreError};
use crate::replica::DiskOutcome;
use crate::units::{BLOCK_LEN, CHUNK_LEN, ChunkIndex};
use crate::wire::BufferPool;

/// Where a chunk to be hashed is read from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// The page cache, as clients read it.
    Cache,
    /// The medium: after a failed write the cache may show what never got there.
    Medium,
}

impl DataFile {
    /// Reads and hashes a chunk, through memory of `buffers`. One that lies behind the end has the
    /// hash of nothing, and no blocks. May block.
    pub(super) fn hash(
        &self,
        chunk: ChunkIndex,
        via: Via,
        buffers: &BufferPool,
    ) -> Result<DiskOutcome, StoreError> {
        let Some(range) = chunk.range(self.size()) else { return Ok(hashes(&[])) };
        // Whole: direct reads ask for whole blocks, at an address that buffers of a pool have.
        let mut buffer = buffers.get(small(CHUNK_LEN));
        let len = small(range.len());
        match via {
            Via::Cache => self.read_from(range.start(), &mut buffer[..len], 0)?,
            Via::Medium => self.read_direct(range.start(), &mut buffer, len)?,
        }
        Ok(hashes(&buffer[..len]))
    }

    /// Reads the first block past the page cache, where the file system can: the disk answers.
    pub(super) fn probe(&self, buffers: &BufferPool) -> Result<(), StoreError> {
        let mut buffer = buffers.get(small(BLOCK_LEN));
        let len = small(BLOCK_LEN.min(self.size().bytes()));
        match self.read_direct(0, &mut buffer, len) {
            Err(StoreError::NoDirectReads { .. }) => Ok(()),
            result => result,
        }
    }

    /// Reads at least `len` bytes from `start` past the page cache. Whole blocks are asked for,
    /// since direct reads know nothing smaller; at the end of a file fewer bytes come.
    fn read_direct(&self, start: u64, buffer: &mut [u8], len: usize) -> Result<(), StoreError> {
        self.check_usable()?;
        let direct = self.direct()?;
        let asked = len.next_multiple_of(small(BLOCK_LEN));
        let mut done = 0;
        while done < len {
            // Goes on at a whole block, should the kernel stop between two.
            done = done / small(BLOCK_LEN) * small(BLOCK_LEN);
            match pread(direct, &mut buffer[done..asked], start + offset(done)) {
                Ok(more) if more < small(BLOCK_LEN) && done + more < len => {
                    let kind = ErrorKind::UnexpectedEof;
                    return self.sticky(Err(StoreError::other(&self.path, "read", kind)));
                }
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                // What some file systems answer only when asked to read.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    return Err(StoreError::NoDirectReads { path: self.path.clone() });
                }
                Err(errno) => {
                    let error = StoreError::from_errno(&self.path, "read", errno);
                    return self.sticky(Err(error));
                }
            }
        }
        Ok(())
    }
}

fn hashes(bytes: &[u8]) -> DiskOutcome {
    DiskOutcome::Hashes {
        chunk: *blake3::hash(bytes).as_bytes(),
        blocks: bytes
            .chunks(small(BLOCK_LEN))
            .map(|block| *blake3::hash(block).as_bytes())
            .collect(),
    }
}

/// A length of at most a chunk in memory.
fn small(len: u64) -> usize {
    usize::try_from(len).expect("at most a chunk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ResourceSize;
    use crate::wire::PoolLimits;

    fn buffers() -> BufferPool {
        BufferPool::new(PoolLimits { small: 1, medium: 1, large: 1 })
    }

    #[test]
    fn the_hashes_of_every_chunk_are_those_of_its_bytes_by_either_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        for len in [1_usize, 4095, 4096, 4097, 65_536, 65_537, 70_000, 131_072] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            std::fs::write(&path, &bytes).unwrap();
            let size = ResourceSize::new(offset(len)).unwrap();
            let data = DataFile::open(&path, size).unwrap();
            let buffers = buffers();
            for (index, chunk) in bytes.chunks(small(CHUNK_LEN)).enumerate() {
                let expected = hashes(chunk);
                let index = ChunkIndex(offset(index));
                assert_eq!(data.hash(index, Via::Cache, &buffers).unwrap(), expected);
                match data.hash(index, Via::Medium, &buffers) {
                    Err(StoreError::NoDirectReads { path }) => {
                        println!("skipped: no direct reads of {}", path.display());
                    }
                    found => assert_eq!(found.unwrap(), expected, "{len} bytes"),
                }
            }
            let behind = ChunkIndex(size.chunk_count());
            assert_eq!(data.hash(behind, Via::Cache, &buffers).unwrap(), hashes(&[]));
            assert!(!data.has_failed());
        }
    }

    #[test]
    fn a_chunk_of_a_shortened_file_is_never_read_as_zeroes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        for via in [Via::Cache, Via::Medium] {
            std::fs::write(&path, vec![0; 65_536]).unwrap();
            let data = DataFile::open(&path, ResourceSize::new(65_536).unwrap()).unwrap();
            data.file.set_len(65_535).unwrap();
            let found = data.hash(ChunkIndex(0), via, &buffers());
            assert!(matches!(found, Err(StoreError::Io { .. } | StoreError::NoDirectReads { .. })));
        }
    }
}
