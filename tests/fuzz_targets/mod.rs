//! What foreign bytes are thrown at: one plain function per kind of input.
//!
//! A target must not panic on any bytes, must not reserve more than they declare within the limits
//! of the format, and what it accepts must encode back to what was read. The same functions serve
//! a coverage-guided fuzzer.

mod config;
mod control;
mod frame;
mod heartbeat;
mod letter;
mod metadata;
mod nbd;
mod tree;

/// One kind of input.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Name, also of its folders in `tests/corpus` and `tests/golden`.
    pub(crate) name: &'static str,
    /// Reads the bytes as the program would, and panics if that breaks a promise.
    pub(crate) run: fn(&[u8]),
    /// Makes the checksums in the bytes right again, so that a broken field gets past them. Does
    /// nothing where there are none.
    pub(crate) repair: fn(&mut [u8]),
    /// Valid inputs, made by the code that reads them; beside those in the folders.
    pub(crate) made: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame::run, repair: frame::repair, made: Vec::new },
    Target { name: "letter", run: letter::run, repair: letter::repair, made: letter::made },
    Target {
        name: "heartbeat",
        run: heartbeat::run,
        repair: heartbeat::repair,
        made: heartbeat::made,
    },
    Target { name: "nbd", run: nbd::run, repair: |_| {}, made: nbd::made },
    Target { name: "metadata", run: metadata::run, repair: metadata::repair, made: metadata::made },
    Target { name: "config", run: config::run, repair: |_| {}, made: config::made },
    Target { name: "control", run: control::run, repair: |_| {}, made: control::made },
    Target { name: "tree", run: tree::run, repair: |_| {}, made: tree::made },
];
