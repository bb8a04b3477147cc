//! The block by which the core of a directory resource names a generation of the tree.
//!
//! To the core the data of such a resource is this one block, so whatever the core decides about data is
//! decided about the generation that it names. Both nodes have it byte for byte. All zeroes: nothing was
//! ever written. Fields are little-endian; the rest of the block is zero.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::source::Register;
use crate::units::{BLOCK_LEN, Label, TreeNumber, TreePosition, TreeRoot};

/// Length of the block in bytes.
pub const REGISTER_BLOCK_LEN: usize = {
    assert!(BLOCK_LEN <= 1 << 20, "a block fits the memory of any machine");
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let len = BLOCK_LEN as usize;
    len
};
/// Magic number, version 1.
const MAGIC: [u8; 8] = *b"HPTREEG1";
const OPEN: u8 = 1;
const COMPLETE: u8 = 2;
/// In the order of their numbers on disk; the list only grows.
const LABELS: [Label; 4] = [Label::Fuzzy, Label::Stable, Label::Frozen, Label::Quiesced];

/// Why a block is no register.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the block does not name a generation of the tree: {0}")]
pub struct NoRegister(&'static str);

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    kind: u8,
    label: u8,
    unused: [u8; 6],
    number: U64,
    root: [u8; 32],
    /// Over all before it.
    crc32c: U32,
}

const CRC_AT: usize = size_of::<Raw>() - size_of::<U32>();

/// The block that says `register`; `None`: nothing was ever written.
pub fn encode_register(register: Option<&Register>) -> Box<[u8; REGISTER_BLOCK_LEN]> {
    let mut block = Box::new([0; REGISTER_BLOCK_LEN]);
    let Some(register) = register else { return block };
    let mut raw = Raw::new_zeroed();
    raw.magic = MAGIC;
    match register {
        Register::Open => raw.kind = OPEN,
        Register::Complete { position, label } => {
            raw.kind = COMPLETE;
            let at = LABELS.iter().position(|it| it == label).unwrap_or_default();
            raw.label = u8::try_from(at).unwrap_or_default();
            raw.number = U64::new(position.number.0);
            raw.root = position.root.0;
        }
    }
    raw.crc32c = U32::new(crc32c::crc32c(&raw.as_bytes()[..CRC_AT]));
    block[..size_of::<Raw>()].copy_from_slice(raw.as_bytes());
    block
}

/// What a block says; `None`: nothing was ever written.
///
/// # Errors
/// [`NoRegister`] for whatever [`encode_register`] does not make.
pub fn decode_register(block: &[u8]) -> Result<Option<Register>, NoRegister> {
    let (raw, rest) = Raw::ref_from_prefix(block).map_err(|_| NoRegister("it is too short"))?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(NoRegister("something follows behind it"));
    }
    if raw.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if raw.magic != MAGIC {
        return Err(NoRegister("it begins with something else"));
    }
    if raw.crc32c.get() != crc32c::crc32c(&raw.as_bytes()[..CRC_AT]) {
        return Err(NoRegister("its sum is wrong"));
    }
    let position = TreePosition { number: TreeNumber(raw.number.get()), root: TreeRoot(raw.root) };
    let register = match raw.kind {
        OPEN => Register::Open,
        COMPLETE => {
            let label = LABELS.get(usize::from(raw.label)).copied();
            let label = label.ok_or(NoRegister("its label is unknown"))?;
            Register::Complete { position, label }
        }
        _ => return Err(NoRegister("it is of an unknown kind")),
    };
    // One state has one block: the nodes compare them byte for byte.
    if encode_register(Some(&register))[..size_of::<Raw>()] != *raw.as_bytes() {
        return Err(NoRegister("it is not written the one way"));
    }
    if position.number > TreeNumber::MAX {
        return Err(NoRegister("its number is too high"));
    }
    Ok(Some(register))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn all() -> Vec<Option<Register>> {
        let position = TreePosition { number: TreeNumber(0x0102_0304), root: TreeRoot([7; 32]) };
        let complete = LABELS.map(|label| Some(Register::Complete { position, label }));
        [None, Some(Register::Open)].into_iter().chain(complete).collect()
    }

    #[test]
    fn each_register_is_read_as_it_was_written() {
        for register in all() {
            let block = encode_register(register.as_ref());
            assert_eq!(decode_register(&*block), Ok(register));
        }
    }

    #[test]
    fn whatever_differs_in_one_bit_is_none() {
        for register in all().into_iter().flatten() {
            let block = encode_register(Some(&register));
            for bit in 0..8 * block.len() {
                let mut other = block.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_register(&*other).is_err(), "bit {bit} of {register:?}");
            }
        }
        assert!(decode_register(&[0; 10]).is_err());
    }

    #[test]
    fn the_bytes_of_a_register_are_these() {
        let block = encode_register(all()[3].as_ref());
        let mut head = String::new();
        for byte in &block[..64] {
            let _ = write!(head, "{byte:02x}");
        }
        let root = "07".repeat(32);
        let expected = format!("4850545245454731020100000000000004030201000000{}{root}", "00");
        assert_eq!(head[..112], expected);
    }
}
