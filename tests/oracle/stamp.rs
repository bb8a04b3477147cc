//! Bytes that say where they came from.
//!
//! A register is the piece of a resource that one write replaces whole: a sector of 512 bytes, or
//! a cell of 32 bytes where writes of parts of a sector are tested. Its content alone says whether
//! it is lost, torn, stale, misdirected or foreign.

use super::{Value, ZEROED};

/// Length of the smallest register, and of one stamp.
pub(crate) const CELL_LEN: u64 = 32;
/// Length of the usual register.
pub(crate) const SECTOR_LEN: u64 = 512;

const MAGIC: u16 = 0x4853;

/// One write's mark on one register.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    /// Which run of the test.
    pub(crate) run: u32,
    /// Who wrote it.
    pub(crate) client: u16,
    /// Byte offset of the register it was meant for.
    pub(crate) register: u64,
    /// Number of the operation, unique in the run.
    pub(crate) operation: Value,
    /// Low bits of the epoch that the writer saw.
    pub(crate) epoch: u32,
}

/// Why the bytes of a register are not what any write leaves there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Strange {
    /// Not a stamp of ours.
    Foreign,
    /// Parts of different writes.
    Torn,
    /// A stamp that belongs elsewhere.
    Misdirected(Stamp),
    /// A stamp of another run.
    OtherRun(Stamp),
}

impl Stamp {
    /// Writes the stamp over `register`, again and again until it is full.
    pub(crate) fn fill(&self, register: &mut [u8]) {
        let cell = self.encode();
        for part in register.chunks_mut(cell.len()) {
            part.copy_from_slice(&cell[..part.len()]);
        }
    }

    fn encode(&self) -> [u8; 32] {
        let mut cell = [0; 32];
        cell[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        cell[2..4].copy_from_slice(&self.client.to_le_bytes());
        cell[4..8].copy_from_slice(&self.run.to_le_bytes());
        cell[8..16].copy_from_slice(&self.register.to_le_bytes());
        cell[16..24].copy_from_slice(&self.operation.to_le_bytes());
        cell[24..28].copy_from_slice(&self.epoch.to_le_bytes());
        let sum = crc32c::crc32c(&cell[..28]);
        cell[28..32].copy_from_slice(&sum.to_le_bytes());
        cell
    }

    fn decode(cell: &[u8]) -> Option<Self> {
        let number = |at: usize, len: usize| {
            cell[at..at + len].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let small = |at: usize, len: usize| u32::try_from(number(at, len)).ok();
        let is_ours =
            number(0, 2) == u64::from(MAGIC) && small(28, 4) == Some(crc32c::crc32c(&cell[..28]));
        is_ours.then_some(())?;
        Some(Self {
            client: u16::try_from(number(2, 2)).ok()?,
            run: small(4, 4)?,
            register: number(8, 8),
            operation: number(16, 8),
            epoch: small(24, 4)?,
        })
    }
}

/// The value that the register at byte offset `register` holds, given its bytes.
pub(crate) fn value_of(bytes: &[u8], register: u64, run: u32) -> Result<Value, Strange> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(ZEROED);
    }
    let cell_len = usize::try_from(CELL_LEN).expect("it is 32");
    let (first, rest) = bytes.split_at(cell_len);
    let stamp = Stamp::decode(first).ok_or(Strange::Foreign)?;
    if rest.chunks(cell_len).any(|cell| cell != &first[..cell.len()]) {
        return Err(Strange::Torn);
    }
    if stamp.run != run {
        return Err(Strange::OtherRun(stamp));
    }
    if stamp.register != register {
        return Err(Strange::Misdirected(stamp));
    }
    Ok(stamp.operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Stamp = Stamp { run: 77, client: 3, register: 1024, operation: 99, epoch: 6 };

    #[test]
    fn a_register_tells_the_write_that_filled_it() {
        for len in [32, 512] {
            let mut bytes = vec![0; len];
            SAMPLE.fill(&mut bytes);
            assert_eq!(value_of(&bytes, 1024, 77), Ok(99));
        }
        assert_eq!(value_of(&[0; 512], 1024, 77), Ok(ZEROED));
    }

    #[test]
    fn what_is_torn_misdirected_or_foreign_is_called_so() {
        let mut bytes = vec![0; 512];
        SAMPLE.fill(&mut bytes);
        assert_eq!(value_of(&bytes, 2048, 77), Err(Strange::Misdirected(SAMPLE)));
        assert_eq!(value_of(&bytes, 1024, 78), Err(Strange::OtherRun(SAMPLE)));
        for at in 0..512 {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert!(value_of(&broken, 1024, 77).is_err());
        }
        bytes[256..].fill(0);
        assert_eq!(value_of(&bytes, 1024, 77), Err(Strange::Torn));
    }
}
