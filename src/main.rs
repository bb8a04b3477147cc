//! The `hotpair` binary.

fn main() {}
