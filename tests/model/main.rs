//! Every state that two nodes can get into, within bounds: the real cores, and all orders of what
//! can happen to them.
//!
//! `search.rs` is `auto = "off"` with `arbiter = "none"`, `witnessed.rs` is `auto = "arbiter"` with a
//! witness ([`third`], [`promises`], [`recovery`]): one block, a few writes and faults. [`pair`] is
//! the state and its actions, [`node`], [`disk`] and [`net`] what it is made of, [`ghost`] and
//! [`checks`] what must hold, [`bounds`] how much may happen. `wider.rs` is what seldom happens with a
//! witness. `HOTPAIR_MODEL=large` searches more, `HOTPAIR_MODEL_SECONDS` ends each search after so long.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "the sizes of the searches are printed for people")]

mod bounds;
#[cfg(feature = "planted-bugs")]
mod broken_rules;
mod checks;
mod datagrams;
mod disk;
mod facts;
mod ghost;
#[cfg(feature = "planted-bugs")]
mod mutants;
mod net;
mod node;
mod pair;
mod promises;
mod recovery;
mod search;
mod table;
mod third;
mod wider;
mod witnessed;
