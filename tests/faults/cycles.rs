//! Cases that repeat: how often, from which seed, and the line that the ledger reads.

#![expect(clippy::print_stdout, reason = "tools/campaign reads this line")]

use std::panic;

use crate::real::process;

/// Runs `cycle` with one seed after the other, as the environment says.
///
/// `HOTPAIR_CYCLES` (else `count`), `HOTPAIR_CYCLE_SECONDS` (no new cycle begins after that) and
/// `HOTPAIR_FIRST_SEED` (hexadecimal). After each cycle a line says how far it is:
/// `NAME: cycles=N first=HEX failures=F seconds=S`.
pub(crate) fn repeat(name: &str, count: u64, mut cycle: impl FnMut(u64)) {
    let count = number("HOTPAIR_CYCLES", 10).unwrap_or(count);
    let limit_s = number("HOTPAIR_CYCLE_SECONDS", 10).unwrap_or(u64::MAX);
    let first = number("HOTPAIR_FIRST_SEED", 16).unwrap_or(0);
    let start = process::now();
    let tell = |cycles: u64, failures: u64| {
        let seconds = (process::now() - start).as_secs();
        println!("{name}: cycles={cycles} first={first:x} failures={failures} seconds={seconds}");
    };
    for done in 0..count {
        if (process::now() - start).as_secs() >= limit_s {
            break;
        }
        let result = panic::catch_unwind(panic::AssertUnwindSafe(|| cycle(first + done)));
        tell(done + 1, u64::from(result.is_err()));
        if let Err(panic) = result {
            println!("  failed with HOTPAIR_FIRST_SEED={:x} HOTPAIR_CYCLES=1", first + done);
            panic::resume_unwind(panic);
        }
    }
}

fn number(variable: &str, radix: u32) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = u64::from_str_radix(&text, radix);
    Some(number.unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
