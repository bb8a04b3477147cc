//! Two nodes, their disks and the network between them, in virtual time.
//!
//! [`world`] has the events, [`node`] and [`io`] a machine, [`disk`] and [`net`] what can go wrong
//! with it, [`clients`] and [`operator`] who uses it, [`ghost`] and [`checks`] what must hold.
//! [`run`] is one seed, [`fresh`] many; each is a [`plan`] drawn from its number.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "seeds and rates are printed for people")]

#[path = "../oracle/mod.rs"]
mod oracle;

mod alone;
mod broken;
mod checks;
mod clients;
mod disk;
mod effects;
mod faults;
mod fresh;
mod ghost;
mod io;
mod load;
mod marks;
mod net;
mod node;
mod operator;
mod pacemaker;
mod plan;
#[cfg(feature = "planted-bugs")]
mod planted;
mod rules;
mod run;
mod scenarios;
mod script;
mod services;
mod shrink;
mod supervisor;
mod trace;
mod witness;
mod world;
