//! `hotpair demo`: a whole pair on this machine that loses a node in the middle of writes, and goes
//! on by itself.
//!
//! `pair.rs` and `node.rs` are two real daemons in a folder of their own, `witness.rs` is the third party
//! that lets one of them serve, `scene.rs` what is shown. `script.rs` is the story of a block file,
//! `load.rs` and `nbd_client.rs` the client that writes, `ledger.rs` and `stamp.rs` what it must read
//! afterwards. `tree_script.rs` is the story of a directory, `tree_load.rs` the application that writes
//! to it, `tree_ledger.rs` and `tree_walk.rs` what must be there afterwards. Nothing is left behind
//! unless a check failed: then the folder stays, and its logs are named.

mod ledger;
mod load;
mod nbd_client;
mod node;
mod pair;
mod scene;
mod script;
mod stamp;
mod tree_ledger;
mod tree_load;
mod tree_script;
mod tree_walk;
mod witness;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::pair::Pair;
use self::scene::Scene;
use super::args::{Demo, Kind};
use super::client::block_on;
use super::failure::Failure;
use super::say::{self, BOLD, DIM};

/// What is replicated.
#[derive(Clone, Copy, Debug)]
struct Subject {
    kind: Kind,
    /// The resource.
    name: &'static str,
    /// The file or folder that it is on each node.
    file: &'static str,
    /// Its size in bytes, unless somebody wants another one.
    size: u64,
}

impl Subject {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Block => Self { kind, name: "vm1", file: "vm1.img", size: 128 << 20 },
            Kind::Directory => Self { kind, name: "uploads", file: "uploads", size: 8 << 20 },
        }
    }
}

/// What this build has.
const ENCRYPTION: &str = if HAS_TLS { "tls" } else { "none" };
const HAS_TLS: bool = cfg!(feature = "_tls");
const HAS_DIRECTORIES: bool = cfg!(feature = "directory");

pub(super) fn demo(demo: &Demo) -> Result<(), Failure> {
    if matches!(demo.kind, Kind::Directory) && !HAS_DIRECTORIES {
        let why = "this build of hotpair keeps block files only";
        return Err(Failure::refused(why, "hotpair demo --kind block"));
    }
    let subject = Subject::of(demo.kind);
    block_on(show(subject, demo.size.unwrap_or(subject.size)))
}

async fn show(subject: Subject, size: u64) -> Result<(), Failure> {
    // Before anything is made that somebody would have to remove.
    let mut interrupt = Interrupt::listen()?;
    let mut pair = Pair::make(subject)?;
    let scene = Scene::new();
    let play = async {
        match subject.kind {
            Kind::Block => script::play(&mut pair, &scene, size).await,
            Kind::Directory => tree_script::play(&mut pair, &scene, size).await,
        }
    };
    let played = tokio::select! {
        biased;
        () = interrupt.recv() => None,
        played = play => Some(played),
    };
    match played {
        Some(Ok(())) => {
            pair.remove()?;
            scene.end()
        }
        None => {
            drop(scene);
            pair.remove()?;
            let why = "the demo was interrupted; its daemons have ended and its folder is gone";
            Err(Failure::refused(why, "hotpair demo"))
        }
        Some(Err(failure)) => {
            drop(scene);
            Err(keep_for_a_look(&pair, failure))
        }
    }
}

/// What failed, with the last words of both daemons, and where the rest is.
fn keep_for_a_look(pair: &Pair, failure: Failure) -> Failure {
    for node in pair.nodes() {
        say::talk(&format!("{BOLD}{}, the end of {}{BOLD:#}", node.name, node.log.display()));
        for line in node.log_tail() {
            say::talk(&format!("{DIM}{}| {line}{DIM:#}", node.name));
        }
    }
    let (alpha, beta) = (pair.alpha.log.display(), pair.beta.log.display());
    let folder = pair.folder.display();
    let next = format!("read {alpha} and {beta}; everything stays in {folder} until you remove it");
    match failure {
        Failure::Refused(refused) => Failure::Failed { why: refused.why, next },
        Failure::Failed { why, .. } | Failure::NotReachable { why, .. } => {
            Failure::Failed { why, next }
        }
        Failure::Configuration(why) => Failure::Failed { why, next },
        Failure::Said(outcome) => Failure::Said(outcome),
        Failure::ClosedPipe => Failure::ClosedPipe,
    }
}

/// Ctrl-C and its relatives.
struct Interrupt([Signal; 3]);

impl Interrupt {
    fn listen() -> Result<Self, Failure> {
        let listen = || -> std::io::Result<Self> {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [interrupt, terminate, hangup] = kinds.map(signal);
            Ok(Self([interrupt?, terminate?, hangup?]))
        };
        listen().map_err(|error| failed(format!("cannot wait for signals: {error}")))
    }

    async fn recv(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A check that did not hold.
fn failed(why: String) -> Failure {
    Failure::Failed { why, next: String::new() }
}
