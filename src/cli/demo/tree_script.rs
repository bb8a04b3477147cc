//! The story of a directory: change, sync, change, kill, fail over, look, rejoin, crash, compare. Nobody
//! types a promotion.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Node;
use super::pair::{self, Looks, Pair};
use super::scene::Scene;
use super::tree_ledger::{Survived, Version};
use super::tree_load::{self, Application};
use super::tree_walk::{self, Entries, walk};
use super::witness::Witness;
use super::{ENCRYPTION, failed};
use crate::cli::failure::Failure;
use crate::cli::say;
use crate::control::status::ResourceStatus;
use crate::units::Role;

/// How long the application works each time.
const WORK_FOR: Duration = Duration::from_millis(1500);
/// Changes just before a kill, too late for any generation.
const LAST_CHANGES: u32 = 10;

/// What is worth telling at the end.
#[derive(Debug, Default)]
struct Numbers {
    changes: usize,
    patch: String,
    rename: String,
    loss: Duration,
    outage: Duration,
    short_outage: Duration,
    resync_bytes: u64,
    quarantined: usize,
}

/// The generation that a node hands out when it takes over.
#[derive(Clone, Debug)]
struct HandedOut {
    number: u64,
    label: String,
}

/// Who is on the stage.
struct Story<'a> {
    pair: &'a mut Pair,
    scene: &'a Scene,
    /// Writes to the tree of the primary.
    application: Application,
    numbers: Numbers,
}

/// Plays all of it.
pub(super) async fn play(pair: &mut Pair, scene: &Scene, size: u64) -> Result<(), Failure> {
    scene.title(&format!(
        "two nodes and a witness on this machine, a directory of {} on both, encryption {ENCRYPTION}",
        say::size(size)
    ))?;
    // It ends with this function.
    let _witness = prepare(pair, scene, size).await?;
    let application = begin(&pair.alpha).await?;
    let mut story = Story { pair, scene, application, numbers: Numbers::default() };
    story.join().await?;
    story.small_changes().await?;
    let synced = story.sync_under_load().await?;
    let (lost_at, last) = story.lose_alpha().await?;
    let handed_out = story.fail_over(lost_at).await?;
    story.check_what_survived(&handed_out, synced, lost_at).await?;
    story.rejoin(&last).await?;
    story.crash().await?;
    let copies = story.compare().await?;
    scene.numbers(&in_words(&story.numbers, &copies))
}

/// Keys, configuration, a tree, metadata.
async fn prepare(pair: &Pair, scene: &Scene, size: u64) -> Result<Witness, Failure> {
    scene.goes_on("making keys, a configuration and a directory");
    let witness = Witness::start(scene, pair).await?;
    pair.configure(scene, size, &witness).await?;
    tree_load::make_tree(&pair.alpha.data, size).await.map_err(|error| {
        let error = anyhow::Error::new(error)
            .context(format!("cannot write to {}", pair.alpha.data.display()));
        Failure::failed(&error, "the demo needs room for two trees: --size SIZE")
    })?;
    let resource = pair.alpha.resource;
    pair.alpha.type_in(scene, &["init", resource, "--from", "this"]).await?;
    pair.beta.type_in(scene, &["init", resource, "--from", "peer"]).await?;
    let entries = tree_of(&pair.alpha).await?;
    scene.done(&format!(
        "keys, a configuration, and a directory of {} entries on alpha,\nall in {}",
        entries.len(),
        pair.folder.display()
    ))?;
    Ok(witness)
}

impl Story<'_> {
    /// Two daemons, a primary, and the first generation.
    async fn join(&mut self) -> Result<(), Failure> {
        let Self { pair, scene, .. } = self;
        pair.alpha.start(scene)?;
        pair.beta.start(scene)?;
        scene.goes_on("copying the tree to beta");
        pair.wait_for("beta to have the tree", have_generations).await?;
        scene.done("both daemons run and hold the same tree")?;
        scene.goes_on("waiting for the witness to let alpha serve");
        pair.wait_for("alpha to serve", |[alpha, _]| pair::serves(alpha.as_ref())).await?;
        scene.done("the witness made alpha primary; applications write to the directory itself")?;
        pair.wait_for("beta to have a complete generation", are_together).await?;
        scene.done("beta has a complete generation, and takes over if alpha is lost")
    }

    /// What is sent for a change is not the file that it is in.
    async fn small_changes(&mut self) -> Result<(), Failure> {
        let before = sent_by(&self.pair.alpha).await?;
        let patch = self.application.patch().map_err(|error| on(&self.pair.alpha, &error))?;
        self.sync().await?;
        let between = sent_by(&self.pair.alpha).await?;
        let moved = self.application.move_folder().map_err(|error| on(&self.pair.alpha, &error))?;
        self.sync().await?;
        let after = sent_by(&self.pair.alpha).await?;
        let [patched, renamed] =
            [between.saturating_sub(before), after.saturating_sub(between)].map(say::size);
        let large = say::size(self.application.patched_len());
        self.numbers.patch =
            format!("{} written into a file of {large}: {patched} sent", say::size(patch));
        self.numbers.rename = format!("a folder of {moved} entries renamed: {renamed} sent");
        self.scene.done(&format!("{};\n{}", self.numbers.patch, self.numbers.rename))
    }

    /// Waits until all that was changed is on the other node; gives the generation, in words.
    async fn sync(&mut self) -> Result<String, Failure> {
        let node = if self.application.root() == self.pair.alpha.data {
            &self.pair.alpha
        } else {
            &self.pair.beta
        };
        let said = node.type_in(self.scene, &["sync", node.resource, "--wait"]).await?;
        // NAME: generation 3 (stable) is applied ..
        let generation = said.split_once(": ").and_then(|(_, text)| text.split_once(" is applied"));
        let generation = generation.map(|(generation, _)| generation.to_owned());
        generation.ok_or_else(|| failed(format!("`hotpair sync` says {said:?}")))
    }

    async fn work(&mut self) -> Result<usize, Failure> {
        let before = self.application.ledger.version();
        let worked = self.application.work(WORK_FOR).await;
        worked.map_err(|error| failed(format!("the application: {error}")))?;
        let count = self.application.ledger.version() - before;
        self.numbers.changes += count;
        Ok(count)
    }

    /// Changes much and syncs; says up to where nothing may be lost.
    async fn sync_under_load(&mut self) -> Result<Version, Failure> {
        self.scene.goes_on("changing files on alpha");
        let count = self.work().await?;
        let synced = self.application.ledger.version();
        let generation = self.sync().await?;
        self.scene.done(&format!(
            "{count} changes, then a sync: {generation} is on both nodes,\n\
             and whichever is lost, nothing of that is"
        ))?;
        Ok(synced)
    }

    /// Changes more and kills the primary; returns when that was, and what its tree was.
    async fn lose_alpha(&mut self) -> Result<(Instant, Entries), Failure> {
        self.scene.goes_on("changing files on alpha");
        let count = self.work().await?;
        let before = self.application.ledger.version();
        let hurried = self.application.hurry(LAST_CHANGES).await;
        hurried.map_err(|error| on(&self.pair.alpha, &error))?;
        self.pair.alpha.kill();
        let lost_at = Instant::now();
        let last = self.application.ledger.version() - before;
        self.numbers.changes += last;
        self.scene.happens("kill -9 of all of alpha, in the middle of changes")?;
        self.scene.done(&format!(
            "{} changes since the sync, {last} of them in the last moment before the kill",
            count + last
        ))?;
        Ok((lost_at, tree_of(&self.pair.alpha).await?))
    }

    /// Beta promotes itself once alpha's lease is over.
    async fn fail_over(&mut self, lost_at: Instant) -> Result<HandedOut, Failure> {
        self.scene.goes_on("waiting until the lease of alpha is over, and beta serves");
        let handed_out = take_over(self.pair, 1).await?;
        self.numbers.outage = lost_at.elapsed();
        let outage = self.numbers.outage.as_millis();
        let HandedOut { number, label } = &handed_out;
        self.scene.done(&format!(
            "beta promoted itself, {outage} ms after the kill, with generation {number} ({label})"
        ))?;
        Ok(handed_out)
    }

    /// The tree that beta hands out is one moment of alpha's, and none before the sync.
    async fn check_what_survived(
        &mut self,
        handed_out: &HandedOut,
        synced: Version,
        lost_at: Instant,
    ) -> Result<(), Failure> {
        self.scene.goes_on("looking at the tree on beta");
        let found = tree_of(&self.pair.beta).await?;
        let ledger = &self.application.ledger;
        let survived = judge(&self.pair.beta, &self.application, &found, synced, handed_out)?;
        let (Survived::Whole(version) | Survived::Fuzzy { oldest: version, .. }) = survived;
        let left = ledger.left_at(version).unwrap_or(lost_at);
        self.numbers.loss = lost_at.saturating_duration_since(left);
        let (files, age) = (found.len(), self.numbers.loss.as_millis());
        let (since, of) = (version - synced, ledger.version() - synced);
        self.scene.done(&match survived {
            Survived::Whole(_) => format!(
                "all {files} entries on beta are as they were at one moment, {age} ms before the kill:\n\
                 with all that was synced, and the first {since} of the {of} changes since"
            ),
            Survived::Fuzzy { in_part, .. } => format!(
                "all {files} entries on beta are as they were at most {age} ms before the kill:\n\
                 with all that was synced; not all are of one moment, {in_part} in part"
            ),
        })
    }

    /// Beta goes on alone; alpha comes back, and nothing that only it had is lost.
    async fn rejoin(&mut self, last: &Entries) -> Result<(), Failure> {
        let handed_out = tree_of(&self.pair.beta).await?;
        self.application = begin(&self.pair.beta).await?;
        let count = self.work().await?;
        self.scene.done(&format!("{count} changes on beta, which serves alone"))?;
        let before = sent_by(&self.pair.beta).await?;
        self.pair.alpha.start(self.scene)?;
        self.scene.goes_on("alpha gets what it missed");
        self.pair.wait_for("alpha to have what beta has", are_together).await?;
        self.sync().await?;
        self.numbers.resync_bytes = sent_by(&self.pair.beta).await?.saturating_sub(before);
        let sent = say::size(self.numbers.resync_bytes);
        self.check_equal().await?;
        self.scene.done(&format!(
            "alpha is back as secondary, and both trees are equal: {sent} were sent"
        ))?;
        let (place, kept) = quarantine(&self.pair.alpha).await?;
        check_kept(last, &handed_out, &kept)?;
        self.numbers.quarantined = kept.values().filter(|entry| entry.content().is_some()).count();
        let (count, bytes) = (self.numbers.quarantined, say::size(tree_walk::bytes(&kept)));
        self.scene.done(&format!(
            "what only alpha had is set aside there, {count} files of {bytes}:\n{}",
            place.display()
        ))
    }

    /// The worker of beta dies alone: its supervisor says so, and alpha need not wait for any lease.
    async fn crash(&mut self) -> Result<(), Failure> {
        self.scene.goes_on("changing files on beta");
        self.work().await?;
        let synced = self.application.ledger.version();
        let generation = self.sync().await?;
        self.scene.done(&format!("more changes on beta, then a sync: {generation}"))?;
        self.scene.goes_on("waiting until alpha has been up for a lease");
        let is_ready = |[alpha, _]: &Looks| pair::takes_over(alpha.as_ref());
        self.pair.wait_for("alpha to be eligible", is_ready).await?;
        self.pair.beta.kill_worker()?;
        let lost_at = Instant::now();
        self.scene
            .happens("kill -9 of beta's worker; its supervisor tells alpha that it is dead")?;
        let handed_out = take_over(self.pair, 0).await?;
        self.numbers.short_outage = lost_at.elapsed();
        let found = tree_of(&self.pair.alpha).await?;
        judge(&self.pair.alpha, &self.application, &found, synced, &handed_out)?;
        let outage = self.numbers.short_outage.as_millis();
        self.scene.done(&format!(
            "alpha promoted itself, {outage} ms after the crash, and has all that was synced"
        ))?;
        self.application = begin(&self.pair.alpha).await?;
        let count = self.work().await?;
        // After so many promotions without an operator there are none for a while.
        self.pair.wait_for("beta to have what alpha has", have_generations).await?;
        self.scene.done(&format!("{count} changes on alpha; beta is back as secondary"))
    }

    /// Both daemons stop, and both trees are compared.
    async fn compare(&mut self) -> Result<Entries, Failure> {
        self.scene.goes_on("stopping both nodes");
        let resource = self.pair.alpha.resource;
        self.pair.alpha.type_in(self.scene, &["demote", resource]).await?;
        let are_equal = |looks: &Looks| {
            looks.iter().flatten().all(|look| look.role == Role::Secondary)
                && have_generations(looks)
        };
        self.pair.wait_for("both nodes to have the last generation", are_equal).await?;
        self.pair.stop().await?;
        self.scene.done("alpha is secondary again; both daemons stopped cleanly")?;
        self.scene.goes_on("comparing both trees");
        let entries = self.check_equal().await?;
        self.scene
            .done("both trees are equal: names, content by BLAKE3, links, modes and times")?;
        Ok(entries)
    }

    /// Both trees are what the application made.
    async fn check_equal(&self) -> Result<Entries, Failure> {
        let made = self.application.ledger.entries();
        for node in self.pair.nodes() {
            let found = tree_of(node).await?;
            let differences = tree_walk::differences(&made, &found);
            if let Some(first) = differences.first() {
                let (name, count) = (node.name, differences.len());
                return Err(failed(format!(
                    "the tree of {name} differs at {count} names: {first} (made, found)"
                )));
            }
        }
        Ok(made)
    }
}

/// Waits until the node of that number serves; says with what.
async fn take_over(pair: &mut Pair, node: usize) -> Result<HandedOut, Failure> {
    // What it said last as secondary: from then on it makes generations of its own.
    let last = RefCell::new(None);
    let name = pair.nodes()[node].name;
    pair.wait_for(&format!("{name} to serve"), |looks| {
        let look = looks[node].as_ref();
        if let Some(secondary) = look.filter(|look| look.role == Role::Secondary)
            && let (Some(number), Some(tree)) = (secondary.tree_generation, &secondary.tree)
        {
            let label = tree.label.clone().unwrap_or_default();
            last.replace(Some(HandedOut { number, label }));
        }
        pair::serves(look)
    })
    .await?;
    last.into_inner().ok_or_else(|| failed(format!("{name} served without a complete generation")))
}

/// What of the application's work is in `found`.
fn judge(
    node: &Node,
    application: &Application,
    found: &Entries,
    synced: Version,
    handed_out: &HandedOut,
) -> Result<Survived, Failure> {
    let HandedOut { number, label } = handed_out;
    let survived = application.ledger.judge(found, synced, label == "fuzzy");
    survived
        .map_err(|wrong| failed(format!("generation {number} ({label}) on {}: {wrong}", node.name)))
}

/// Whatever files of `last` hold is in the tree that was handed out, or was set aside.
fn check_kept(last: &Entries, handed_out: &Entries, kept: &Entries) -> Result<(), Failure> {
    let there: BTreeSet<[u8; 32]> = handed_out
        .values()
        .chain(kept.values())
        .filter_map(|entry| entry.content().map(Into::into))
        .collect();
    let missing = last.iter().find(|(_, entry)| {
        entry.content().is_some_and(|content| !there.contains(content.as_bytes()))
    });
    missing.map_or(Ok(()), |(path, _)| {
        let path = path.display();
        Err(failed(format!("alpha had {path} alone, and it is not in the quarantine")))
    })
}

/// Where a node sets aside what only it had, and what is there, without the list of reasons.
async fn quarantine(node: &Node) -> Result<(PathBuf, Entries), Failure> {
    let place = PathBuf::from(tree_status(node).await?.work_dir).join("lost+hotpair");
    let mut kept = if place.exists() {
        walk(&place).await.map_err(|error| on(node, &error))?
    } else {
        Entries::new()
    };
    kept.retain(|path, _| path.file_name().is_none_or(|name| name != "WHY.jsonl"));
    Ok((place, kept))
}

/// Whether both nodes hold a complete generation, and the secondary takes over if the primary is lost.
fn are_together(looks: &Looks) -> bool {
    have_generations(looks) && looks.iter().any(|look| pair::takes_over(look.as_ref()))
}

/// Whether both nodes hold a complete generation and replicate.
fn have_generations(looks: &Looks) -> bool {
    pair::are_complete(looks) && looks.iter().flatten().all(|look| look.tree_generation.is_some())
}

/// Bytes that a node sent for its tree.
async fn sent_by(node: &Node) -> Result<u64, Failure> {
    Ok(tree_status(node).await?.sent_bytes)
}

async fn tree_status(node: &Node) -> Result<crate::control::tree_status::TreeState, Failure> {
    let look: Option<ResourceStatus> = node.look(&node.client()?).await?;
    let tree = look.and_then(|look| look.tree);
    tree.ok_or_else(|| failed(format!("{} says nothing of its tree", node.name)))
}

async fn tree_of(node: &Node) -> Result<Entries, Failure> {
    walk(&node.data).await.map_err(|error| on(node, &error))
}

async fn begin(node: &Node) -> Result<Application, Failure> {
    Application::begin(&node.data).await.map_err(|error| on(node, &error))
}

fn on(node: &Node, error: &io::Error) -> Failure {
    failed(format!("the tree of {}: {error}", node.name))
}

fn in_words(numbers: &Numbers, copies: &Entries) -> Vec<(&'static str, String)> {
    let (entries, size) = (copies.len(), say::size(tree_walk::bytes(copies)));
    let [outage, short, loss] =
        [numbers.outage, numbers.short_outage, numbers.loss].map(|time| time.as_millis());
    let hash = tree_walk::hash(copies).to_hex();
    let (changes, kept) = (numbers.changes, numbers.quarantined);
    vec![
        ("tree", format!("{entries} entries, files of {size}")),
        ("changes", format!("{changes} in all; of what was synced, 0 lost")),
        ("sent", format!("{}; {}", numbers.patch, numbers.rename)),
        ("node lost", format!("{outage} ms from the kill until the other node served")),
        (
            "loss",
            format!("the last {loss} ms of changes before the kill, in quarantine: {kept} files"),
        ),
        ("crash", format!("{short} ms from the crash until the other node served")),
        ("resync", format!("{} sent to the node that came back", say::size(numbers.resync_bytes))),
        ("copies", format!("equal, BLAKE3 {}..", &hash[..16])),
    ]
}
