//! Parties that are killed at moments that nobody chose.

#![expect(clippy::print_stdout, reason = "a failure is read with what was drawn")]

use std::time::Duration;

use super::rivals::{Rivals, Seen};
use super::scene::{Scene, cycles, first_seed};

/// The time in which a second party is lost: detection, the lease, the promotion, and the way back.
const SOON_MS: u64 = 5_000;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Party {
    Worker(usize),
    /// Nobody tells of its worker, which the kernel ends.
    Supervisor(usize),
    Node(usize),
    Witness,
}

impl Party {
    fn draw(rng: &mut fastrand::Rng) -> Self {
        let at = rng.usize(..2);
        match rng.u8(..7) {
            0 | 1 => Self::Worker(at),
            2 | 3 => Self::Supervisor(at),
            4 | 5 => Self::Node(at),
            _ => Self::Witness,
        }
    }

    /// Kills it, if it is there.
    fn kill(self, scene: &mut Scene) {
        let nodes = &mut scene.pair.nodes;
        match self {
            Self::Worker(at) if nodes[at].is_started() => nodes[at].try_kill_worker(),
            Self::Supervisor(at) if nodes[at].is_started() => nodes[at].kill(),
            Self::Node(at) if nodes[at].is_started() => nodes[at].lose(),
            Self::Witness => {
                let witness = scene.pair.witness.as_mut().unwrap();
                if witness.is_started() {
                    witness.kill();
                }
            }
            Self::Worker(_) | Self::Supervisor(_) | Self::Node(_) => {}
        }
    }
}

/// One or two of the parties are lost under load and come back: never do both nodes serve, and once all
/// are back one of them does, with all that was acknowledged. Each turn draws by a seed of its own.
pub(crate) fn parties() {
    let mut scene = Scene::new(51);
    let rivalry = Seen::new(scene.pair.plan.size);
    let first_seed = first_seed();
    for turn in 0..cycles(3) {
        let seed = first_seed.wrapping_add(turn);
        let mut rng = fastrand::Rng::with_seed(seed);
        let first = Party::draw(&mut rng);
        let second = rng.bool().then(|| (rng.u64(..SOON_MS), Party::draw(&mut rng)));
        println!("{seed:x}, of {}: {first:?}, then {second:?}", scene.primary);
        let rivals = Rivals::start(&scene.pair, &rivalry);
        rivals.wait_for_answer(scene.primary);
        one(&mut scene, &mut rng, first, second);
        rivals.stop();
        scene.is_whole_again();
        rivalry.check(&mut scene.pair.nodes[scene.primary].connect());
        println!("random kills: cycles={} failures=0", turn + 1);
    }
}

fn one(scene: &mut Scene, rng: &mut fastrand::Rng, first: Party, second: Option<(u64, Party)>) {
    let news = scene.pair.news.clone();
    let load = scene.pair.load(scene.primary, scene.record.take().unwrap());
    load.wait_for_answers(rng.u64(1..1_000));
    first.kill(scene);
    if let Some((pause_ms, second)) = second {
        news.wait_within(Duration::from_millis(pause_ms), || {
            scene.never_two();
            None::<()>
        });
        second.kill(scene);
    }
    for node in &mut scene.pair.nodes {
        if !node.is_started() {
            node.spawn();
        }
    }
    // An old primary comes back beside the new one.
    news.wait_for("both daemons to take commands", || {
        scene.never_two();
        scene.pair.nodes.iter().all(|node| node.status().is_some()).then_some(())
    });
    let witness = scene.pair.witness.as_mut().unwrap();
    if !witness.is_started() {
        witness.run();
    }
    let now = news.wait_for("somebody to serve", || {
        scene.never_two();
        [0, 1].into_iter().find(|at| scene.serves(*at).is_some())
    });
    // The client of a primary that was replaced sees the end, the one of another may have.
    let ended = if now == scene.primary {
        load.has_answers_or_end(100);
        load.stop()
    } else {
        load.join()
    };
    ended.record.check_errors("no answer rather than an error");
    scene.record = Some(ended.record);
    // A node that comes back may have to give way to the one that was promoted meanwhile.
    let now = news.wait_for("somebody to serve", || {
        scene.never_two();
        [0, 1].into_iter().find(|at| scene.serves(*at).is_some())
    });
    scene.serves_all(now);
}
