//! A desk and a worker, each alone: what one says to the other is written and read by the test.

mod desk;
mod worker;

use crate::manifest::source::Register;
use crate::units::{Label, TreeNumber, TreePosition, TreeRoot};

fn at(number: u64) -> TreePosition {
    TreePosition { number: TreeNumber(number), root: TreeRoot([7; 32]) }
}

fn complete(position: TreePosition) -> Register {
    Register::Complete { position, label: Label::Stable }
}
