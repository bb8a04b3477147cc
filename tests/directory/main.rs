//! A tree kept identical: whole generations from one folder to another, judged by rsync and by a walk of
//! our own. Numbers of tests are those of the design's list.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::disallowed_methods, reason = "trees are changed as applications change them")]

#[path = "../trees/mod.rs"]
mod trees;

mod fidelity;
mod foreign;
mod generations;
mod pair;
mod reconcile;
mod renames;
mod room;
mod stops;
mod storms;
