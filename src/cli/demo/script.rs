//! The story: write, kill, fail over, read back, rejoin, crash, compare. Nobody types a promotion.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Found, Ledger};
use super::load::{DEPTH, Load, examine, read_back};
use super::nbd_client::NbdClient;
use super::node::Node;
use super::pair::{self, Pair};
use super::scene::Scene;
use super::witness::Witness;
use super::{ENCRYPTION, failed};
use crate::cli::events;
use crate::cli::failure::Failure;
use crate::cli::say;

/// How long alpha is written to before it dies, and how much at least.
const WRITE_FOR: Duration = Duration::from_millis(1500);
const WRITES_MIN: usize = 500;
/// Writes that beta takes alone.
const WRITES_ALONE: u64 = 500;
/// Writes that both nodes take after the resync.
const WRITES_TOGETHER: u64 = 500;

/// What is worth telling at the end.
#[derive(Debug, Default)]
struct Numbers {
    unanswered: usize,
    outage: Duration,
    short_outage: Duration,
    resync_bytes: u64,
    copies: String,
}

/// Plays all of it.
pub(super) async fn play(pair: &mut Pair, scene: &Scene, size: u64) -> Result<(), Failure> {
    let shown = say::size(size);
    scene.title(&format!(
        "two nodes and a witness on this machine, a file of {shown} on both, encryption \
         {ENCRYPTION}"
    ))?;
    let mut ledger = Ledger::new(fastrand::u64(..), pair::blocks(size));
    let mut numbers = Numbers::default();
    // It ends with this function.
    let _witness = prepare(pair, scene, &ledger, size).await?;
    join(pair, scene, &shown).await?;
    let lost_at = lose_alpha(pair, scene, &mut ledger, &mut numbers).await?;
    let client = fail_over(pair, scene, &mut ledger, lost_at, &mut numbers).await?;
    let client = verify_on(scene, "beta", client, &ledger).await?;
    let client = rejoin(pair, scene, client, &mut ledger, &mut numbers).await?;
    let client = crash(pair, scene, client, &mut ledger, &mut numbers).await?;
    let found = compare(pair, scene, client, &ledger, &mut numbers).await?;
    scene.numbers(&in_words(&ledger, found, &numbers, size))
}

/// Keys, configuration, a file with content, metadata.
async fn prepare(
    pair: &Pair,
    scene: &Scene,
    ledger: &Ledger,
    size: u64,
) -> Result<Witness, Failure> {
    scene.goes_on("making keys, a configuration and a file");
    let witness = Witness::start(scene, pair).await?;
    pair.configure(scene, size, &witness).await?;
    pair.fill(ledger).await?;
    pair.alpha.type_in(scene, &["init", pair.alpha.resource, "--from", "this"]).await?;
    pair.beta.type_in(scene, &["init", pair.beta.resource, "--from", "peer"]).await?;
    let blocks = ledger.len();
    scene.done(&format!(
        "keys, a configuration, and a file of {blocks} blocks with content on alpha,\n\
         all in {}",
        pair.folder.display()
    ))?;
    Ok(witness)
}

/// Two daemons, the first copy, and a primary.
async fn join(pair: &mut Pair, scene: &Scene, shown: &str) -> Result<(), Failure> {
    pair.alpha.start(scene)?;
    pair.beta.start(scene)?;
    scene.goes_on("copying the file to beta");
    pair.wait_for("both nodes to be in sync", pair::are_in_sync).await?;
    scene.done(&format!("both daemons run, beta has all {shown}: in sync"))?;
    pair.wait_for("alpha to serve", |[alpha, _]| pair::serves(alpha.as_ref())).await?;
    scene.done("the witness made alpha primary; it serves the file over NBD")
}

/// Writes with a full queue and kills the primary; returns when that was.
async fn lose_alpha(
    pair: &mut Pair,
    scene: &Scene,
    ledger: &mut Ledger,
    numbers: &mut Numbers,
) -> Result<Instant, Failure> {
    scene.goes_on(&format!("writing to alpha, {DEPTH} writes under way at a time"));
    let client = connect(&pair.alpha).await?;
    let before = ledger.acknowledged;
    let started = Instant::now();
    let mut load = Load::new(client, ledger);
    let is_enough = |count| count >= WRITES_MIN && started.elapsed() >= WRITE_FOR;
    load.write_until(is_enough).await.map_err(|error| on(&pair.alpha, &error))?;
    somewhere_in(started.elapsed(), load.rounds()).await;
    pair.alpha.kill();
    let lost_at = Instant::now();
    numbers.unanswered = load.outlive().await;
    let (count, unanswered) = (ledger.acknowledged - before, numbers.unanswered);
    let per_second = rate(count, lost_at - started);
    scene.happens("kill -9 of all of alpha, in the middle of writes, as if its power was cut")?;
    scene.done(&format!(
        "{count} writes of 4 KiB were acknowledged by then, {per_second}/s;\n\
         {unanswered} were sent and had no answer yet"
    ))?;
    Ok(lost_at)
}

/// Passes a random part of the time that a full queue takes, too short for a timer: so the kill meets
/// writes that nobody read yet, and some that are done.
async fn somewhere_in(time: Duration, rounds: u32) {
    let sent = Instant::now();
    let pause = (time / rounds.max(1)).mul_f64(fastrand::f64());
    while sent.elapsed() < pause {
        tokio::task::yield_now().await;
    }
}

/// Beta promotes itself once alpha's lease is over, and takes a write.
async fn fail_over(
    pair: &mut Pair,
    scene: &Scene,
    ledger: &mut Ledger,
    lost_at: Instant,
    numbers: &mut Numbers,
) -> Result<NbdClient, Failure> {
    scene.goes_on("waiting until the lease of alpha is over, and beta serves");
    pair.wait_for("beta to serve", |[_, beta]| pair::serves(beta.as_ref())).await?;
    let mut load = Load::new(connect(&pair.beta).await?, ledger);
    load.write_some(1).await.map_err(|error| on(&pair.beta, &error))?;
    numbers.outage = lost_at.elapsed();
    let outage = numbers.outage.as_millis();
    scene.done(&format!(
        "beta promoted itself and acknowledged a write, {outage} ms after the kill"
    ))?;
    Ok(load.client)
}

/// Every block is read back.
async fn verify_on(
    scene: &Scene,
    node: &str,
    mut client: NbdClient,
    ledger: &Ledger,
) -> Result<NbdClient, Failure> {
    scene.goes_on(&format!("reading everything back from {node}"));
    let found = read_back(&mut client, ledger)
        .await
        .map_err(|error| failed(format!("reading back from {node}: {error}")))?;
    check_whole(found, ledger)?;
    let [old, new, mixed] = found.unanswered;
    scene.done(&format!(
        "all {} blocks read back from {node}: every acknowledged write is there;\n\
         of those without an answer {new} happened, {old} did not, {mixed} in part",
        found.blocks
    ))?;
    Ok(client)
}

/// Beta goes on alone, alpha comes back and gets what it missed.
async fn rejoin(
    pair: &mut Pair,
    scene: &Scene,
    client: NbdClient,
    ledger: &mut Ledger,
    numbers: &mut Numbers,
) -> Result<NbdClient, Failure> {
    let client = write_some(&pair.beta, client, ledger, WRITES_ALONE).await?;
    scene.done(&format!("beta acknowledged {WRITES_ALONE} more writes alone"))?;
    pair.alpha.start(scene)?;
    scene.goes_on("alpha gets what it missed");
    pair.wait_for("alpha to be in sync again", pair::are_in_sync).await?;
    numbers.resync_bytes = sent_by(&pair.beta).await?;
    let sent = say::size(numbers.resync_bytes);
    scene.done(&format!("alpha is back and in sync, as secondary: {sent} were sent"))?;
    let client = write_some(&pair.beta, client, ledger, WRITES_TOGETHER).await?;
    scene.done(&format!("both nodes took {WRITES_TOGETHER} more writes"))?;
    Ok(client)
}

/// The worker of beta dies alone: its supervisor says so, and alpha need not wait for any lease.
async fn crash(
    pair: &mut Pair,
    scene: &Scene,
    client: NbdClient,
    ledger: &mut Ledger,
    numbers: &mut Numbers,
) -> Result<NbdClient, Failure> {
    client.leave().await.map_err(|error| on(&pair.beta, &error))?;
    scene.goes_on("waiting until alpha has been up for a lease");
    pair.wait_for("alpha to be eligible", |[alpha, _]| pair::takes_over(alpha.as_ref())).await?;
    pair.beta.kill_worker()?;
    let lost_at = Instant::now();
    scene.happens("kill -9 of beta's worker; its supervisor tells alpha that it is dead")?;
    pair.wait_for("alpha to serve", |[alpha, _]| pair::serves(alpha.as_ref())).await?;
    let mut load = Load::new(connect(&pair.alpha).await?, ledger);
    load.write_some(1).await.map_err(|error| on(&pair.alpha, &error))?;
    numbers.short_outage = lost_at.elapsed();
    let outage = numbers.short_outage.as_millis();
    scene.done(&format!(
        "alpha promoted itself and acknowledged a write, {outage} ms after the crash"
    ))?;
    let client = load.client;
    pair.wait_for("beta to be in sync again", pair::are_in_sync).await?;
    let client = verify_on(scene, "alpha", client, ledger).await?;
    let client = write_some(&pair.alpha, client, ledger, WRITES_TOGETHER).await?;
    scene.done(&format!("both nodes took {WRITES_TOGETHER} more writes"))?;
    Ok(client)
}

/// Both daemons stop, and both files are read from the disk.
async fn compare(
    pair: &mut Pair,
    scene: &Scene,
    mut client: NbdClient,
    ledger: &Ledger,
    numbers: &mut Numbers,
) -> Result<Found, Failure> {
    scene.goes_on("stopping both nodes");
    client.flush().await.map_err(|error| on(&pair.alpha, &error))?;
    client.leave().await.map_err(|error| on(&pair.alpha, &error))?;
    pair.alpha.type_in(scene, &["demote", pair.alpha.resource]).await?;
    pair.wait_for("both nodes to be in sync after the demotion", pair::are_in_sync).await?;
    pair.stop().await?;
    scene.done("alpha is secondary again; both daemons stopped cleanly")?;
    scene.goes_on("comparing both files");
    let mut hashes = Vec::new();
    let mut all = Found::default();
    for node in pair.nodes() {
        let (found, hash) = examine(&node.data, ledger)
            .await
            .map_err(|error| failed(format!("the file of {}: {error}", node.name)))?;
        check_whole(found, ledger)?;
        all = found;
        hashes.push(hash);
    }
    if hashes[0] != hashes[1] {
        let (alpha, beta) = (hashes[0].to_hex(), hashes[1].to_hex());
        return Err(failed(format!("the files differ: BLAKE3 {alpha} on alpha, {beta} on beta")));
    }
    hashes[0].to_hex()[..16].clone_into(&mut numbers.copies);
    scene.done("both files hold every acknowledged write and are equal, by BLAKE3")?;
    Ok(all)
}

fn in_words(
    ledger: &Ledger,
    found: Found,
    numbers: &Numbers,
    size: u64,
) -> Vec<(&'static str, String)> {
    let Numbers { unanswered, outage, short_outage, resync_bytes, copies } = numbers;
    let (acknowledged, shown) = (ledger.acknowledged, say::size(size));
    let share = resync_bytes.saturating_mul(1000) / size;
    let (percent, tenths) = (share / 10, share % 10);
    let (blocks, rewritten) = (found.blocks, found.rewritten);
    let (outage, short, sent) =
        (outage.as_millis(), short_outage.as_millis(), say::size(*resync_bytes));
    vec![
        (
            "acknowledged",
            format!("{acknowledged} writes; {unanswered} more were under way at the kill"),
        ),
        ("verified", format!("{blocks} blocks, {rewritten} of them rewritten; 0 writes lost")),
        ("node lost", format!("{outage} ms from the kill to the first write on the other node")),
        ("crash", format!("{short} ms from the crash to the first write on the other node")),
        ("resync", format!("{sent} sent for a file of {shown}: {percent}.{tenths} %")),
        ("copies", format!("equal, BLAKE3 {copies}..")),
    ]
}

/// That nothing was left out.
fn check_whole(found: Found, ledger: &Ledger) -> Result<(), Failure> {
    if found.blocks == ledger.len() {
        return Ok(());
    }
    Err(failed(format!("{} blocks were read, of {}", found.blocks, ledger.len())))
}

async fn write_some(
    node: &Node,
    client: NbdClient,
    ledger: &mut Ledger,
    count: u64,
) -> Result<NbdClient, Failure> {
    let mut load = Load::new(client, ledger);
    load.write_some(count).await.map_err(|error| on(node, &error))?;
    Ok(load.client)
}

async fn connect(node: &Node) -> Result<NbdClient, Failure> {
    NbdClient::connect(&node.export, node.resource).await.map_err(|error| on(node, &error))
}

/// Bytes that the last resync sent, as the node reported it.
async fn sent_by(node: &Node) -> Result<u64, Failure> {
    let told = events::remembered(&node.client()?).await?;
    let last = told.iter().rev().find(|event| event.kind == "in-sync");
    let words = last.map(|event| event.reason.as_str()).unwrap_or_default();
    let number = words
        .split_once(" bytes were sent")
        .and_then(|(before, _)| before.rsplit(' ').next().and_then(|number| number.parse().ok()));
    number.ok_or_else(|| failed(format!("{} does not say what it sent: {words:?}", node.name)))
}

fn on(node: &Node, error: &io::Error) -> Failure {
    failed(format!("the client of {}: {error}", node.name))
}

fn rate(count: u64, time: Duration) -> u128 {
    u128::from(count) * 1_000_000 / time.as_micros().max(1)
}
