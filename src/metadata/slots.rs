//! Which of two slots counts: the newest one that is whole and lies where it was written.

use super::damage::Damage;
use super::page::PAGE_LEN;

/// Length in bytes of a file of two slots.
pub const TWO_SLOTS_LEN: u64 = 2 * PAGE_LEN as u64;

/// Where the record with this counter is written: not over its predecessor.
pub fn slot_offset(counter: u64) -> u64 {
    counter % 2 * PAGE_LEN as u64
}

/// The newest valid record of the two slots in `slots`, of which each is a page.
///
/// # Errors
/// [`Damage::Format`] if one slot is of a newer release, since the other one is older than what
/// that release relies on; else why neither slot can be read.
pub fn newest_of_two<T>(
    file: &'static str,
    slots: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Damage>,
    counter_of: impl Fn(&T) -> u64,
) -> Result<T, Damage> {
    let short = Damage::Short { file, len: slots.len() as u64, needed: TWO_SLOTS_LEN };
    let (first, rest) = slots.split_at_checked(PAGE_LEN).ok_or_else(|| short.clone())?;
    let (second, _) = rest.split_at_checked(PAGE_LEN).ok_or(short)?;
    let in_place = |bytes: &[u8], slot: u64| {
        let record = decode(bytes)?;
        // One in the wrong slot was misdirected by the medium: its own may hold a newer one.
        if counter_of(&record) % 2 == slot {
            return Ok(record);
        }
        Err(Damage::Value { file, field: "the counter" })
    };
    match (in_place(first, 0), in_place(second, 1)) {
        (Err(newer @ Damage::Format { .. }), _) | (_, Err(newer @ Damage::Format { .. })) => {
            Err(newer)
        }
        (Ok(even), Ok(odd)) => Ok(if counter_of(&even) > counter_of(&odd) { even } else { odd }),
        (Ok(record), Err(_)) | (Err(_), Ok(record)) => Ok(record),
        (Err(foreign @ Damage::BadMagic { .. }), Err(Damage::BadMagic { .. })) => Err(foreign),
        (Err(_), Err(_)) => Err(Damage::BothSlots { file }),
    }
}
