//! The target is stopped at each step of a commit and an apply, and starts again.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::pair::{ShipError, Source, Terms, ship, target};
use crate::trees::judge;
use crate::trees::operations::Storm;
use hotpair::store::tree::apply::Steps;

/// A target that is at the first of two generations, the second of which is captured.
struct World {
    outer: TempDir,
    source: Source,
    before: PathBuf,
    here: PathBuf,
}

impl World {
    fn new(seed: u64) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let (before, here) = (outer.path().join("before"), outer.path().join("b"));
        let mut source = Source::new(&outer.path().join("a"), &Terms::default());
        source.scan().unwrap();
        let mut storm = Storm::new(&source.tree, seed);
        storm.run(40);
        source.capture().unwrap();
        ship(&source, &mut target(&here, &Terms::default()).unwrap().0).unwrap();
        let mut copy = Command::new("cp");
        assert!(copy.arg("-a").arg(&source.tree).arg(&before).status().unwrap().success());
        storm.run(12);
        source.capture().unwrap();
        Self { outer, source, before, here }
    }

    fn tree(&self) -> PathBuf {
        self.here.join("tree")
    }

    /// Takes the second generation, with so many steps.
    fn take(&self, steps: Steps) -> Result<(), ShipError> {
        let (mut there, _) = target(&self.here, &Terms::default()).unwrap();
        there.applier_mut().limit(steps);
        ship(&self.source, &mut there).map(drop)
    }

    /// A start after a stop. Whether the tree is the new generation.
    fn start(&self) -> bool {
        let (there, _) = target(&self.here, &Terms::default()).unwrap();
        let is_new = there.position() == self.source.position();
        let expected: &Path = if is_new { &self.source.tree } else { &self.before };
        judge::equal(expected, &self.tree()).unwrap();
        is_new
    }
}

/// Test 23, by the steps of the driver: whatever was done of them, the tree is the generation before or the
/// new one, and the next delta leads on from there.
#[test]
fn a_stop_at_any_step_leaves_one_generation_and_the_next_start_goes_on() {
    for seed in 1..=2 {
        let (mut old, mut new) = (0, 0);
        let mut world = World::new(seed);
        for stop in 0.. {
            let taken = world.take(Steps::until(stop));
            if taken.is_ok() {
                break;
            }
            assert!(matches!(taken, Err(ShipError::Target(_))), "seed {seed}, stop {stop}");
            if world.start() {
                new += 1;
                world = World::new(seed);
            } else {
                old += 1;
            }
        }
        assert!(old > 0 && new > 5, "seed {seed}: {old}, {new}");
        assert!(world.start(), "seed {seed}");
        drop(world.outer);
    }
}
