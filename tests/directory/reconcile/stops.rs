//! A tree of which nobody knows what it is is stopped on its way to a generation, or cannot get there.

use std::fs;

use hotpair::manifest::Keep;
use hotpair::store::tree::apply::Steps;
use hotpair::store::tree::capture::Progress;
use hotpair::store::tree::receive::Limits;
use hotpair::store::tree::reconcile::Reading;
use hotpair::units::{TreeNumber, TreePosition};

use super::{BOTH, World, copy};
use crate::pair::{ShipError, Shipped, Source, Terms, ship, ship_whole, stage};
use crate::trees::judge;
use crate::trees::operations::Storm;

#[test]
fn an_attempt_that_comes_to_nothing_forgets_nothing() {
    let mut world = World::stormy(9, 40).settled();
    let known = world.open().position();
    fs::write(world.source.tree.join("later"), "later").unwrap();
    world.source.capture().unwrap();
    let there = world.open();
    let incoming = there.begin_whole(Limits::default(), Keep::Quarantine).unwrap();
    let mut outgoing = world.source.outgoing();
    let prepared = stage(&mut outgoing, &there, (incoming, TreeNumber(0)), &mut Shipped::default());
    drop(prepared.unwrap());
    drop((outgoing, there));
    let mut there = world.open();
    assert_eq!((there.is_known(), there.position()), (true, known));
    ship(&world.source, &mut there).unwrap();
    world.check(&there);
}

/// An unknown tree is stopped at each step of taking another one.
#[test]
fn a_stop_leaves_what_was_there_or_the_generation_and_nothing_is_lost() {
    for keep in BOTH {
        let (mut old, mut new) = (0, 0);
        let make = || {
            let mut world = World::stormy(10, 25);
            world.seed();
            for folder in ["mine", "storm"] {
                fs::create_dir(world.tree().join(folder)).unwrap();
            }
            Storm::new(&world.tree().join("storm"), 3).run(8);
            fs::write(world.tree().join("mine/kept"), "kept").unwrap();
            fs::write(world.source.tree.join("edited"), "there").unwrap();
            fs::write(world.tree().join("edited"), "here").unwrap();
            world.source.scan().unwrap();
            copy(&world.tree(), &world.outer.path().join("before"));
            world
        };
        let mut world = make();
        for stop in 0.. {
            let mut there = world.open();
            assert!(!there.is_known());
            there.applier_mut().limit(Steps::until(stop));
            let surveyed = there.survey(Reading::Everything, TreeNumber(0), &Progress::default());
            let taken = match surveyed {
                Ok(_) => ship_whole(&world.source, &mut there, keep).map(drop),
                Err(error) => Err(ShipError::Target(error)),
            };
            drop(there);
            let there = world.open();
            if there.is_known() {
                world.check(&there);
                if keep == Keep::Quarantine {
                    assert_eq!(fs::read_to_string(world.lost("mine/kept")).unwrap(), "kept");
                    assert_eq!(fs::read_to_string(world.lost("edited")).unwrap(), "here");
                }
                drop(there);
                if taken.is_ok() {
                    break;
                }
                new += 1;
                world = make();
            } else {
                assert!(taken.is_err(), "{keep:?}, stop {stop}");
                judge::equal(&world.outer.path().join("before"), &world.tree()).unwrap();
                old += 1;
            }
        }
        assert!(old > 5 && new > 5, "{keep:?}: {old}, {new}");
    }
}

/// An apply that cannot go on leads back to what was there; what was known of that is known.
#[test]
fn an_apply_that_is_taken_back_keeps_what_was_known() {
    for is_known in [true, false] {
        let mut undone = 0;
        for stop in (0..).step_by(3) {
            let mut world = World::stormy(11, 12).settled();
            let before = world.outer.path().join("before");
            copy(&world.tree(), &before);
            let known = world.source.position();
            fs::remove_dir_all(&world.source.tree).unwrap();
            fs::create_dir(&world.source.tree).unwrap();
            world.source = Source::new(&world.outer.path().join("c"), &Terms::default());
            Storm::new(&world.source.tree, 12).run(8);
            world.source.scan().unwrap();
            let mut there = world.open();
            if !is_known {
                there.survey(Reading::Everything, known.number, &Progress::default()).unwrap();
            }
            there.applier_mut().limit(Steps::failing(stop, rustix::io::Errno::NOSPC));
            let taken = ship_whole(&world.source, &mut there, Keep::Quarantine);
            let is_over = there.applier().steps().taken() < stop;
            drop(there);
            let there = world.open();
            // What could not go to the quarantine for want of space is there now.
            assert!(there.applier().displaced().unwrap().is_none());
            if judge::equal(&before, &world.tree()).is_ok() {
                let position = if is_known { known } else { TreePosition::default() };
                assert_eq!((there.is_known(), there.position()), (is_known, position));
                undone += u32::from(taken.is_ok());
            } else {
                world.check(&there);
            }
            if is_over {
                break;
            }
        }
        assert!(undone > 2, "{undone}");
    }
}
