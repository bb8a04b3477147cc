//! What happened, as a hash always and as lines when somebody wants to read it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Lines of a trace that survive the end of its world, also by a panic.
pub(crate) type Lines = Rc<RefCell<VecDeque<String>>>;

/// Most lines that are kept.
const LINES_MAX: usize = 200_000;

/// The trace of one run. Two runs of one seed have the same hash, or the simulator is broken.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Lines>,
}

impl Trace {
    /// With `lines`, everything is written out too.
    pub(crate) fn new(lines: Option<Lines>) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines }
    }

    /// Something happened that these numbers tell from anything else.
    pub(crate) fn note(&mut self, numbers: &[u64], line: impl FnOnce() -> String) {
        for number in numbers {
            self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.events += 1;
        if let Some(lines) = &self.lines {
            let mut lines = lines.borrow_mut();
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line());
        }
    }

    /// The hash of everything noted so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things were noted.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
