//! Which chunks of a huge file are written over in place, and which were there before.

use rustix::fs::fdatasync;

use super::super::Folder;
use super::super::apply::PatchWriter;
use super::super::index::Rows;
use super::content::{Pieces, number};
use super::{ReceiveError, Received, failed, span_of};
use crate::manifest::{Name, SEGMENT_CHUNKS, chunk_count};
use crate::units::ObjectId;

/// The shortest file that is patched. Source: directory.md 9.
pub(super) const HUGE_LEN: u64 = 64 << 20;
/// Most chunks of a patch: their numbers are in memory.
pub(super) const PATCH_CHUNKS_MAX: usize = 1 << 20;

/// Writes the patch `name`, and makes it stable: the chunks `numbers` of a file that has `len` bytes
/// afterwards. `read` gives the bytes of a chunk, or `None` if they are zeroes.
///
/// # Errors
/// [`ReceiveError::Patch`], [`ReceiveError::Kernel`], and what `read` returns.
pub(super) fn write_patch(
    (folder, name): (&Folder, &Name),
    len: u64,
    numbers: &[u64],
    mut read: impl FnMut(u64) -> Result<Option<Vec<u8>>, ReceiveError>,
) -> Result<(), ReceiveError> {
    let mut patch = PatchWriter::new(folder, name, len)?;
    for chunk in numbers {
        let bytes = read(*chunk)?;
        patch.append(*chunk, &bytes.unwrap_or_else(|| vec![0; span_of(*chunk, len).1]))?;
    }
    // Before the commit record: from then on the file is patched with these, or back to them.
    fdatasync(patch.end()?).map_err(failed("sync a patch"))
}

/// The chunks in which a file of the delta and its old version differ, in rising order; `None` if they are
/// more than half of either, or too many for a patch.
pub(super) fn changed_chunks(
    received: &Received,
    id: ObjectId,
) -> Result<Option<Vec<u64>>, ReceiveError> {
    let view = received.base().view();
    let (size, old_size) = (received.size(id), received.base_size(id)?);
    let (count, old_count) = (chunk_count(size), chunk_count(old_size));
    let half = usize::try_from(count.max(old_count) / 2).unwrap_or(usize::MAX);
    let most = half.min(PATCH_CHUNKS_MAX);
    let lost = usize::try_from(old_count.saturating_sub(count)).unwrap_or(usize::MAX);
    let mut changed = Vec::new();
    let mut pieces = Pieces::new(received, id)?;
    while let Some(piece) = pieces.next(view, received.spool())? {
        let (first, count) = piece.chunks();
        let mut old = Vec::new();
        for chunk in first..first + count {
            let at = chunk % u64::from(SEGMENT_CHUNKS);
            if at == 0 {
                if changed.len() + lost > most {
                    return Ok(None);
                }
                old = view.segment(id, number(chunk / u64::from(SEGMENT_CHUNKS)))?.1;
            }
            let before = usize::try_from(at).ok().and_then(|at| old.get(at)).copied();
            let is_same = before.is_some() && before == piece.hash(chunk - first);
            if !is_same || span_of(chunk, size).1 != span_of(chunk, old_size).1 {
                changed.push(chunk);
            }
        }
    }
    Ok((changed.len() + lost <= most).then_some(changed))
}

/// The chunks of the old version that a patch overwrites or cuts off: those are saved before.
pub(super) fn overwritten(changed: &[u64], size: u64, old_size: u64) -> Vec<u64> {
    let (count, old_count) = (chunk_count(size), chunk_count(old_size));
    let within = changed.iter().copied().filter(|chunk| *chunk < old_count);
    within.chain(count..old_count.max(count)).collect()
}
