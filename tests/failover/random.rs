//! Parties that are killed at moments that nobody chose.

#![expect(clippy::print_stdout, reason = "tools/failover reads these lines")]

use std::time::Duration;

use rustix::process::Signal;

use super::scene::{Scene, cycles};

/// The time in which a second party is lost: detection, the lease, the promotion, and the way back.
const SOON_MS: u64 = 5_000;

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Party {
    Worker(usize),
    /// Nobody tells of its worker, which the kernel ends.
    Supervisor(usize),
    /// First the one that would be told of by the other.
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
            Self::Node(at) if nodes[at].is_started() => {
                nodes[at].daemon().signal(Signal::STOP);
                nodes[at].try_kill_worker();
                nodes[at].kill();
            }
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
/// are back one of them does, with all that was acknowledged.
pub(crate) fn parties() {
    let mut scene = Scene::new(51);
    let mut rng = fastrand::Rng::new();
    for turn in 0..cycles(3) {
        let first = Party::draw(&mut rng);
        let second = rng.bool().then(|| (rng.u64(..SOON_MS), Party::draw(&mut rng)));
        println!("of {}: {first:?}, then {second:?}", scene.primary);
        one(&mut scene, &mut rng, first, second);
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
            node.run();
        }
    }
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
        load.wait_for_answers(100);
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
    scene.is_whole_again();
}
