//! Random ids, nonces and instances, from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

use super::error::DaemonError;

/// Fills an array with random bytes.
///
/// # Errors
/// If the kernel has none, which happens only early at boot.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], DaemonError> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(DaemonError::Random { source: errno.into() }),
        }
    }
    Ok(bytes)
}

/// A random id that is not zero.
///
/// # Errors
/// As [`bytes()`].
pub(super) fn id() -> Result<u128, DaemonError> {
    loop {
        let id = u128::from_le_bytes(bytes()?);
        if id != 0 {
            return Ok(id);
        }
    }
}

/// A random number that is not zero.
///
/// # Errors
/// As [`bytes()`].
pub(super) fn instance() -> Result<u64, DaemonError> {
    loop {
        let id = u64::from_le_bytes(bytes()?);
        if id != 0 {
            return Ok(id);
        }
    }
}
