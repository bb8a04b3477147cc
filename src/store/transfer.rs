//! Bytes to and from the data file.
//!
//! On the data thread a call is made only if it does not block, as far as that can be known; the
//! rest of it is left to the pool. A short transfer goes on where it stopped; one that does not
//! get further is a failure.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::sync::atomic::Ordering;

use rustix::fs::fdatasync;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, pwritev2};

use super::pace::{Pace, monotonic_nanos};
use super::{DataFile, StoreError};

/// Longest read on the data thread, in bytes: copying more takes longer than asking a thread that
/// may do it meanwhile. Writes are never longer, they come in parts.
const INLINE_LEN_MAX: usize = 1 << 20;

/// How the data thread calls the kernel: what it refuses, and how fast it answers.
#[derive(Debug)]
pub(super) struct Inline {
    reads: Way,
    writes: Way,
}

#[derive(Debug)]
struct Way {
    /// The file system knows `RWF_NOWAIT` for this direction.
    asks_first: bool,
    pace: Pace,
}

impl Inline {
    pub(super) fn new() -> Self {
        let way = || Way { asks_first: true, pace: Pace::default() };
        Self { reads: way(), writes: way() }
    }

    /// Writes as much of `bytes` as goes without blocking; answers how much that was.
    pub(super) fn write(
        &mut self,
        data: &DataFile,
        start: u64,
        bytes: &[u8],
    ) -> Result<usize, StoreError> {
        data.check_usable()?;
        let done = self.writes.ask(bytes.len(), |done| {
            let rest = [IoSlice::new(&bytes[done..])];
            pwritev2(&data.file, &rest, start + offset(done), ReadWriteFlags::NOWAIT)
        });
        let done = data.sticky(done.map_err(|stop| stop.into_error(data, "write")))?;
        if done == bytes.len() || !self.writes.may_try() {
            return Ok(done);
        }
        self.writes.timed(bytes.len() - done, || data.write_from(start, bytes, done))?;
        Ok(bytes.len())
    }

    /// Fills as much of `buffer` as goes without blocking; answers how much that was.
    pub(super) fn read(
        &mut self,
        data: &DataFile,
        start: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StoreError> {
        data.check_usable()?;
        let len = buffer.len();
        if len > INLINE_LEN_MAX {
            return Ok(0);
        }
        let done = self.reads.ask(len, |done| {
            let mut rest = [IoSliceMut::new(&mut buffer[done..])];
            preadv2(&data.file, &mut rest, start + offset(done), ReadWriteFlags::NOWAIT)
        });
        let done = data.sticky(done.map_err(|stop| stop.into_error(data, "read")))?;
        if done == len || !self.reads.may_try() {
            return Ok(done);
        }
        self.reads.timed(len - done, || data.read_from(start, buffer, done))?;
        Ok(len)
    }
}

impl Way {
    /// Calls `transfer` with what is done so far, until all of `len` is or the rest would block.
    fn ask(
        &mut self,
        len: usize,
        mut transfer: impl FnMut(usize) -> rustix::io::Result<usize>,
    ) -> Result<usize, Stop> {
        let mut done = 0;
        while self.asks_first && done < len {
            match transfer(done) {
                Ok(0) => return Err(Stop::NoProgress),
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.asks_first = false,
                Err(errno) => return Err(Stop::Errno(errno)),
            }
        }
        Ok(done)
    }

    /// Whether a call may be made without knowing that it does not block: the kernel cannot say,
    /// and such calls were fast lately.
    fn may_try(&self) -> bool {
        !self.asks_first && self.pace.allows(monotonic_nanos())
    }

    fn timed<T>(&mut self, len: usize, call: impl FnOnce() -> T) -> T {
        let began = monotonic_nanos();
        let answer = call();
        self.pace.note(began, monotonic_nanos(), len);
        answer
    }
}

/// Why a transfer ended early.
enum Stop {
    /// The kernel says that it did nothing: of a read, the end of the file.
    NoProgress,
    Errno(Errno),
}

impl Stop {
    fn into_error(self, data: &DataFile, action: &'static str) -> StoreError {
        match self {
            Self::NoProgress => StoreError::other(&data.path, action, ErrorKind::UnexpectedEof),
            Self::Errno(errno) => StoreError::from_errno(&data.path, action, errno),
        }
    }
}

impl DataFile {
    /// Writes `bytes` to `start`, the first `done` of which are there already. May block.
    pub(super) fn write_from(
        &self,
        start: u64,
        bytes: &[u8],
        done: usize,
    ) -> Result<(), StoreError> {
        self.check_usable()?;
        let written = complete(bytes.len(), done, |done| {
            pwrite(&self.file, &bytes[done..], start + offset(done))
        });
        self.sticky(written.map_err(|stop| stop.into_error(self, "write")))
    }

    /// Fills `buffer` from `start`, the first `done` bytes of which are there already. May block.
    /// The end of the file is a failure: it was shortened, and is never read as zeroes.
    pub(super) fn read_from(
        &self,
        start: u64,
        buffer: &mut [u8],
        done: usize,
    ) -> Result<(), StoreError> {
        self.check_usable()?;
        let read = complete(buffer.len(), done, |done| {
            pread(&self.file, &mut buffer[done..], start + offset(done))
        });
        self.sticky(read.map_err(|stop| stop.into_error(self, "read")))
    }

    /// Makes all that was written stable. Never called again once it failed: the kernel forgets
    /// what it could not write, and the next call would succeed without it.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.check_usable()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        // Orders every write, zeroing and punch that returned before it ahead of whatever the core
        // does with the answer. The length never changes here, so fdatasync is enough.
        self.sticky(fdatasync(&self.file).map_err(|errno| StoreError::from_sync(&self.path, errno)))
    }
}

/// Calls `transfer` with what is done so far until all of `len` is.
fn complete(
    len: usize,
    mut done: usize,
    mut transfer: impl FnMut(usize) -> rustix::io::Result<usize>,
) -> Result<(), Stop> {
    while done < len {
        match transfer(done) {
            Ok(0) => return Err(Stop::NoProgress),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Stop::Errno(errno)),
        }
    }
    Ok(())
}

/// A length in memory as an offset in a file.
pub(super) fn offset(len: usize) -> u64 {
    u64::try_from(len).expect("a usize fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        let mut seen = Vec::new();
        let mut way = Way { asks_first: true, pace: Pace::default() };
        let done = way.ask(10, |done| {
            seen.push(done);
            match seen.len() {
                1 => Ok(3),
                2 => Err(Errno::INTR),
                3 => Ok(4),
                _ => Err(Errno::AGAIN),
            }
        });
        assert!(matches!(done, Ok(7)));
        assert_eq!(seen, [0, 3, 3, 7]);
        let rest = complete(10, 7, |done| {
            seen.push(done);
            Ok(if done == 7 { 1 } else { 2 })
        });
        assert!(rest.is_ok());
        assert_eq!(seen[4..], [7, 8]);
    }

    #[test]
    fn a_transfer_that_gets_nowhere_is_a_failure() {
        let mut way = Way { asks_first: true, pace: Pace::default() };
        assert!(matches!(way.ask(1, |_| Ok(0)), Err(Stop::NoProgress)));
        assert!(matches!(complete(1, 0, |_| Ok(0)), Err(Stop::NoProgress)));
    }

    #[test]
    fn a_kernel_that_cannot_say_is_asked_once() {
        let mut way = Way { asks_first: true, pace: Pace::default() };
        let mut calls = 0;
        for _ in 0..3 {
            let done = way.ask(1, |_| {
                calls += 1;
                Err(Errno::OPNOTSUPP)
            });
            assert!(matches!(done, Ok(0)));
        }
        assert_eq!(calls, 1);
        assert!(way.may_try());
    }
}
