//! What `status --json` says: one JSON text for the API, the command line and scripts.
//!
//! It is stable and only grows. Units are in the key names; a value that is unknown is null, never
//! a magic number. The words come from the core ([`Status`]), the rest from [`Snapshot`].

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::tree_status::{TreeState, TreeStatus};
use crate::replica::{
    AtRisk, LinkStatus, PromotionStatus, ReplicationStatus, ResyncStatus, ServiceStatus,
    SplitBrain, Status,
};
use crate::units::{CHUNK_LEN, DiskReason, DiskState, Generation, Instant, ReplicationMode, Role};

/// A node and its resources.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Version of this text; it changes only if a key had to change its meaning.
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the node that answers.
    pub node: String,
    /// Who remembers who may serve.
    pub arbiter: ArbiterStatus,
    /// Risks that somebody accepted by name, and what needs attention, in sentences.
    pub warnings: Vec<String>,
    /// In order of name.
    pub resources: Vec<ResourceStatus>,
}

/// [`NodeStatus::format`] of this release.
pub const FORMAT: u32 = 1;

/// The arbiter.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ArbiterStatus {
    /// As in the configuration.
    pub kind: String,
    /// Whether it answers; null if there is none.
    pub reachable: Option<bool>,
}

/// What a node knows of its arbiter now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ArbiterReach {
    /// It answers.
    pub is_reachable: bool,
    /// Why not, if that is known.
    pub trouble: Option<String>,
    /// Resources of which it has stored something else than a record, and what.
    pub spoiled: BTreeMap<String, String>,
}

/// One path of heartbeats, as this node sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PathState {
    /// The peer's address.
    pub to: String,
    /// Both nodes hear each other on it.
    pub up: bool,
    /// Time there and back; null until it was measured.
    pub rtt_ms: Option<f64>,
    /// Of this node's last beats, those that the peer did not hear.
    pub loss_percent: u8,
}

/// What a node knows by heartbeats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Paths {
    /// In the order of the configuration.
    pub paths: Vec<PathState>,
    /// The peer runs with other settings.
    pub config_differs: bool,
    /// Datagrams that changed nothing; `None` without heartbeats.
    pub dropped: Option<PathDrops>,
}

/// Datagrams on the paths of heartbeats that changed nothing since the daemon started, by cause.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PathDrops {
    /// Of a length that none has.
    pub length: u64,
    /// Sealed with a key that this node does not know.
    pub unknown_key: u64,
    /// Not sealed by the peer, or sealed for it.
    pub seal: u64,
    /// Sealed by the peer, and nothing that this release knows.
    pub value: u64,
    /// They came again.
    pub replayed: u64,
    /// Of a run of either node that is over.
    pub other_run: u64,
    /// Requests on a path that may pass one way only.
    pub one_way: u64,
}

impl PathDrops {
    /// What is to be said of them. Those of a run that is over and those that come twice are nothing
    /// to worry about; keys that are not known are new ones, unless nothing else is heard.
    fn warnings(&self, peer: &str, is_up: bool) -> impl Iterator<Item = String> {
        let strange = self.length + self.seal + self.value;
        let strange = (strange > 0).then(|| {
            let Self { length, seal, value, .. } = self;
            format!(
                "{strange} datagrams on the paths of heartbeats were not of {peer}, and were dropped \
                 ({length} of a wrong length, {seal} not sealed by it, {value} that make no sense)"
            )
        });
        let count = self.unknown_key;
        let strangers = (count > 0 && !is_up).then(|| {
            format!(
                "{count} datagrams on the paths of heartbeats had a key that this node does not know: \
                 it has none in common with {peer} until the two are connected again, or another \
                 pair uses the same addresses"
            )
        });
        strange.into_iter().chain(strangers)
    }
}

/// One resource.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// `block` or `directory`.
    pub kind: String,
    /// When a write is acknowledged; null of a directory, which nobody writes through hotpair.
    pub mode: Option<ReplicationMode>,
    /// Whether this node serves it.
    pub role: Role,
    /// What this node's copy is worth.
    pub disk: DiskState,
    /// Why.
    pub disk_reason: DiskReason,
    /// `ok`, `slow`, `stalled` or `failed`: how the disk answers a small write and a read each
    /// `suspect_after`.
    pub disk_answers: String,
    /// Clients are served.
    pub serving: bool,
    /// This node acknowledges alone: the other one lacks what is written since.
    pub solo: bool,
    /// State of the promotion core.
    pub state: String,
    /// The node's fencing token.
    pub epoch: u64,
    /// Which data this is; null before the first copy is complete.
    pub generation: Option<String>,
    /// Size of the resource; null of a directory.
    pub size_bytes: Option<u64>,
    /// What may differ from the other node; null on a secondary that cannot know, and of a directory.
    pub out_of_sync_bytes: Option<u64>,
    /// `async`: what is acknowledged here only. A directory: what the secondary does not have yet.
    pub at_risk: AtRisk,
    /// The other node.
    pub peer: PeerState,
    /// A resync, while one runs.
    pub resync: Option<Resync>,
    /// A verify, while one runs.
    pub verify: Option<Progress>,
    /// The node that should serve it while both are well; null if that is no matter.
    pub prefer: Option<String>,
    /// Where clients connect; null of a directory, which has none.
    pub export: Option<String>,
    /// Connected clients.
    pub clients: u64,
    /// The last verify that ended since the daemon started.
    pub last_verify: Option<LastVerify>,
    /// Two histories, if there are.
    pub split_brain: Option<Histories>,
    /// With an arbiter: what it lets this node do; else null.
    pub promotion: Option<PromotionState>,
    /// With hooks: what runs beside the primary; else null.
    pub services: Option<ServiceState>,
    /// Directory: number of the newest generation that is complete on this node; null before the first.
    pub tree_generation: Option<u64>,
    /// Directory: age of the oldest change that the secondary does not have; null on a node that cannot
    /// know.
    pub lag_ms: Option<u64>,
    /// Directory: names of regular files; null before the first generation.
    pub files: Option<u64>,
    /// Directory: all else of it; null of a block resource.
    pub tree: Option<TreeState>,
    /// What needs attention, in sentences.
    pub warnings: Vec<String>,
}

/// The services that hooks start and stop.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceState {
    /// `unknown`, `stopped`, `starting`, `running`, `stopping` or `failed`.
    pub state: String,
    /// What the last run of hooks failed by; null if it went well or is under way.
    pub failure: Option<String>,
}

/// Who may serve, as far as an arbiter decides it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PromotionState {
    /// State of the promotion core.
    pub state: String,
    /// Why this primary may acknowledge alone; null if it may not, or need not.
    pub permit: Option<String>,
    /// The lease by which it answers reads; null if it holds none, or needs none.
    pub lease_ms: Option<u32>,
    /// This node has promised not to be promoted while the arbiter is away.
    pub pledge: bool,
    /// Promotions without an operator that count against `flap_limit`.
    pub promotions: usize,
    /// For so many minutes nobody is promoted without an operator; null if somebody may be.
    pub promotions_paused_min: Option<u64>,
    /// Nobody serves before an operator says so.
    pub stopped: bool,
    /// This secondary is promoted if the primary is lost.
    pub takes_over: bool,
    /// This copy may lack acknowledged writes.
    pub doubtful: bool,
    /// Why this node has promised not to be promoted before a primary lifts that; null if it has not.
    pub veto: Option<String>,
}

/// The other node, as this one knows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PeerState {
    /// Its name.
    pub node: String,
    /// State of the connection.
    pub link: LinkStatus,
    /// Its role, as it said when the two last met.
    pub role: Option<Role>,
    /// What its copy is worth, as it said.
    pub disk: Option<DiskState>,
    /// What is replicated.
    pub replication: ReplicationStatus,
    /// The connection is encrypted and authenticated.
    pub encrypted: bool,
    /// Paths of heartbeats; empty without any.
    pub paths: Vec<PathState>,
    /// What came on them and changed nothing; null without any.
    pub dropped: Option<PathDrops>,
}

/// A resync that runs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Resync {
    /// `source`: this node sends; `target`: it receives.
    pub direction: Direction,
    /// What could differ when it started.
    pub total_bytes: u64,
    /// What may still differ.
    pub remaining_bytes: u64,
    /// Over the last seconds.
    pub rate_bytes_per_s: u64,
    /// Time to the end at this rate; null while nothing moves.
    pub eta_s: Option<u64>,
    /// An operator paused it.
    pub paused: bool,
    /// Data that was sent or received for it.
    pub payload_bytes: u64,
}

/// Which way a resync goes, seen from the node that answers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It sends.
    Source,
    /// It receives.
    Target,
}

/// How far something is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// Behind us.
    pub done_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// How a verify ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LastVerify {
    /// When.
    pub at: Timestamp,
    /// Blocks of 4 KiB that differ.
    pub differences: u64,
    /// The first places that differ.
    pub ranges: Vec<Range>,
}

/// A place in a resource.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Range {
    /// Where it starts.
    pub start_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
}

/// The two histories of a split brain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Histories {
    /// The last generation that both nodes had; null if they share none.
    pub since_generation: Option<String>,
    /// This node's.
    pub mine: History,
    /// The other node's.
    pub theirs: History,
}

/// What one node made of the data since the two parted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct History {
    /// The node.
    pub node: String,
    /// Its generation; null of a node that has not said so since the daemon started.
    pub generation: Option<String>,
    /// What it changed; null as well then.
    pub changed_bytes: Option<u64>,
}

/// What does not change while a daemon runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    /// Name of the other one.
    pub peer: String,
    /// The nodes talk by TLS.
    pub encrypted: bool,
    /// The kind of arbiter, as in the configuration.
    pub arbiter: &'static str,
    /// Said at every status.
    pub warnings: Vec<String>,
}

/// What does not change of a resource while a daemon runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceFacts {
    /// Its name.
    pub name: String,
    /// When a write is acknowledged.
    pub mode: ReplicationMode,
    /// Name of the node that should serve it while both are well.
    pub prefer: Option<String>,
    /// Where clients connect, as in the configuration.
    pub export: String,
}

/// One resource at one moment, as its data thread publishes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// What the core says.
    pub core: Status,
    /// What a directory has beside; `None` of a block resource.
    pub tree: Option<TreeStatus>,
    /// Connected clients.
    pub clients: u64,
    /// What the daemon found, as that the file system has less room than the file has holes.
    pub warnings: Vec<String>,
    /// The core's clock at that moment.
    pub taken: Instant,
    /// The wall clock at that moment, to show times of the core to people.
    pub taken_at: Timestamp,
}

impl NodeStatus {
    /// The node with `resources`, which are in order of name. `reach` is there if an arbiter is.
    pub fn new(
        facts: &Facts,
        reach: Option<&ArbiterReach>,
        paths: &Paths,
        mut resources: Vec<ResourceStatus>,
    ) -> Self {
        let mut warnings = facts.warnings.clone();
        if paths.config_differs {
            warnings.push(format!(
                "the configuration of {} is another one: use one file on both nodes, and restart \
                 both daemons",
                facts.peer
            ));
        }
        let is_up = paths.paths.iter().any(|path| path.up);
        warnings.extend(paths.dropped.iter().flat_map(|it| it.warnings(&facts.peer, is_up)));
        for resource in &mut resources {
            resource.peer.paths.clone_from(&paths.paths);
            resource.peer.dropped = paths.dropped;
        }
        for (resource, why) in reach.iter().flat_map(|reach| &reach.spoiled) {
            warnings.push(format!(
                "{resource}: nobody can be promoted by the {}: {why}; see \"When etcd holds \
                 something else\" in the operations manual",
                facts.arbiter
            ));
        }
        if let Some(ArbiterReach { is_reachable: false, trouble, .. }) = reach {
            let why = trouble.as_deref().unwrap_or("it has not answered yet");
            warnings.push(format!(
                "the {} is not reachable, so nobody can be promoted by it: {why}",
                facts.arbiter
            ));
        }
        let reachable = reach.map(|reach| reach.is_reachable);
        Self {
            format: FORMAT,
            cluster: facts.cluster.clone(),
            node: facts.node.clone(),
            arbiter: ArbiterStatus { kind: facts.arbiter.to_owned(), reachable },
            warnings,
            resources,
        }
    }
}

impl ResourceStatus {
    /// The resource as `snapshot` has it.
    pub fn new(facts: &Facts, resource: &ResourceFacts, snapshot: &Snapshot) -> Self {
        let core = &snapshot.core;
        // What the core of a directory says of sizes is about the block that names its generation.
        let tree = snapshot.tree.as_ref();
        let is_block = tree.is_none();
        Self {
            name: resource.name.clone(),
            kind: if is_block { "block" } else { "directory" }.to_owned(),
            mode: is_block.then_some(resource.mode),
            role: core.role,
            disk: core.disk,
            disk_reason: core.disk_reason,
            disk_answers: core.disk_answers.name().to_owned(),
            serving: core.serving,
            solo: core.solo,
            state: core.state.to_owned(),
            epoch: core.epoch.0,
            generation: core.generation.map(|generation| generation.to_string()),
            size_bytes: is_block.then_some(core.size_bytes),
            out_of_sync_bytes: core.out_of_sync_bytes.filter(|_| is_block),
            at_risk: tree.map_or(core.at_risk, |tree| tree.at_risk),
            peer: PeerState {
                node: facts.peer.clone(),
                link: core.link,
                role: core.peer.map(|peer| peer.role),
                disk: core.peer.map(|peer| peer.disk),
                replication: core.replication,
                encrypted: facts.encrypted,
                paths: Vec::new(),
                dropped: None,
            },
            resync: core.resync.as_ref().filter(|_| is_block).map(Resync::new),
            verify: core.verify_progress.map(|chunks| Progress::of_chunks(chunks, core.size_bytes)),
            prefer: resource.prefer.clone(),
            export: is_block.then(|| resource.export.clone()),
            clients: snapshot.clients,
            last_verify: LastVerify::new(snapshot),
            split_brain: core.split_brain.as_ref().map(|split| Histories::new(facts, split)),
            promotion: core.promotion.map(PromotionState::new),
            services: core.services.as_ref().map(ServiceState::new),
            tree_generation: tree.and_then(|tree| tree.tree_generation),
            lag_ms: tree.and_then(|tree| tree.lag_ms),
            files: tree.and_then(|tree| tree.files),
            tree: tree.map(|tree| tree.tree.shortened()),
            warnings: warnings(resource, snapshot),
        }
    }
}

/// Those of the daemon, and what the services need.
fn warnings(resource: &ResourceFacts, snapshot: &Snapshot) -> Vec<String> {
    let failure = snapshot.core.services.as_ref().and_then(|it| it.failure.as_ref());
    let said = failure.map(|why| {
        let name = &resource.name;
        format!("the services of {name} need a look: {why} (what it said: hotpair events)")
    });
    let promotion = snapshot.core.promotion.as_ref();
    let paused = promotion.and_then(|it| Some((it.promotions, it.promotions_paused_min?)));
    let paused = paused.map(|(count, minutes)| {
        let name = &resource.name;
        format!(
            "{name} was promoted {count} times without an operator: nobody else does for another \
             {minutes} min (hotpair explain {name})"
        )
    });
    let refused = promotion.and_then(|it| it.arbiter_refused).map(|why| {
        let name = &resource.name;
        format!("nobody can be promoted for {name}: {why} (hotpair explain {name})")
    });
    snapshot.warnings.iter().cloned().chain(said).chain(paused).chain(refused).collect()
}

impl ServiceState {
    fn new(core: &ServiceStatus) -> Self {
        Self { state: core.state.to_owned(), failure: core.failure.clone() }
    }
}

impl PromotionState {
    fn new(core: PromotionStatus) -> Self {
        Self {
            state: core.state.to_owned(),
            permit: core.permit.map(str::to_owned),
            lease_ms: core.lease_ms,
            pledge: core.pledge,
            promotions: core.promotions,
            promotions_paused_min: core.promotions_paused_min,
            stopped: core.stopped,
            takes_over: core.takes_over,
            doubtful: core.doubtful,
            veto: core.veto.map(str::to_owned),
        }
    }
}

impl Resync {
    fn new(core: &ResyncStatus) -> Self {
        let is_moving = !core.paused && core.rate_bytes_per_s > 0;
        Self {
            direction: if core.is_source { Direction::Source } else { Direction::Target },
            total_bytes: core.total_bytes,
            remaining_bytes: core.remaining_bytes,
            rate_bytes_per_s: core.rate_bytes_per_s,
            eta_s: is_moving.then(|| core.remaining_bytes.div_ceil(core.rate_bytes_per_s)),
            paused: core.paused,
            payload_bytes: core.payload_bytes,
        }
    }
}

impl Progress {
    /// From chunks done and in all; the last chunk of a resource may be short.
    fn of_chunks((done, total): (u64, u64), size_bytes: u64) -> Self {
        let bytes = |chunks: u64| chunks.saturating_mul(CHUNK_LEN).min(size_bytes);
        Self { done_bytes: bytes(done), total_bytes: bytes(total) }
    }
}

impl LastVerify {
    fn new(snapshot: &Snapshot) -> Option<Self> {
        let verify = snapshot.core.last_verify.as_ref()?;
        let age = snapshot.taken.since(verify.ended);
        let ranges = verify.ranges.iter();
        Some(Self {
            at: before(snapshot.taken_at, age),
            differences: verify.differences,
            ranges: ranges
                .map(|&(start_bytes, len_bytes)| Range { start_bytes, len_bytes })
                .collect(),
        })
    }
}

/// The second that lies `age` before `at`; a wall clock that is far off shows its own time.
fn before(at: Timestamp, age: Duration) -> Timestamp {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::ZERO);
    let then = at.checked_sub(age).unwrap_or(at);
    Timestamp::from_second(then.as_second()).unwrap_or(then)
}

impl Histories {
    fn new(facts: &Facts, split: &SplitBrain) -> Self {
        let history = |node: &str, generation: Option<Generation>, changed_bytes| History {
            node: node.to_owned(),
            generation: generation.map(|generation| generation.to_string()),
            changed_bytes,
        };
        Self {
            since_generation: split.common.map(|generation| generation.to_string()),
            mine: history(&facts.node, Some(split.mine), Some(split.my_bytes)),
            theirs: history(&facts.peer, split.theirs, split.their_bytes),
        }
    }
}

/// A quiet primary, for tests of what is around it.
#[cfg(test)]
pub(crate) fn sample() -> (Facts, ResourceFacts, Snapshot) {
    use crate::replica::{PeerStatus, Refused};
    use crate::units::Epoch;

    let facts = Facts {
        cluster: "office".to_owned(),
        node: "alpha".to_owned(),
        peer: "beta".to_owned(),
        encrypted: true,
        arbiter: "none",
        warnings: Vec::new(),
    };
    let resource = ResourceFacts {
        name: "vm1".to_owned(),
        mode: ReplicationMode::Sync,
        prefer: None,
        export: "unix:/run/hotpair/vm1.nbd".to_owned(),
    };
    let core = Status {
        role: Role::Primary,
        disk: DiskState::UpToDate,
        disk_reason: DiskReason::None,
        disk_answers: crate::replica::DiskAnswers::Ok,
        serving: true,
        solo: false,
        state: "paired",
        epoch: Epoch(7),
        generation: Some(Generation { number: 12, id: 0x5f0c << 112 }),
        size_bytes: 21_474_836_480,
        out_of_sync_bytes: Some(0),
        at_risk: AtRisk::default(),
        link: LinkStatus::Connected,
        replication: ReplicationStatus::Established,
        peer: Some(PeerStatus { role: Role::Secondary, disk: DiskState::UpToDate }),
        resync: None,
        last_verify: Some(crate::replica::VerifyStatus {
            ended: Instant(1_000_000_000),
            differences: 0,
            ranges: Vec::new(),
        }),
        verify_progress: None,
        split_brain: None,
        promotion: None,
        services: None,
        explain: Refused { why: "Both nodes hold the same.".to_owned(), next: String::new() },
    };
    let snapshot = Snapshot {
        core,
        tree: None,
        clients: 1,
        warnings: Vec::new(),
        taken: Instant(61_000_000_000),
        taken_at: "2026-01-01T00:01:00.25Z".parse().expect("a timestamp"),
    };
    (facts, resource, snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(snapshot: &Snapshot) -> serde_json::Value {
        let (facts, resource, _) = sample();
        let status = ResourceStatus::new(&facts, &resource, snapshot);
        serde_json::to_value(status).unwrap()
    }

    #[test]
    fn the_text_is_the_contract() {
        let (facts, resource, snapshot) = sample();
        let status = ResourceStatus::new(&facts, &resource, &snapshot);
        let node = NodeStatus::new(&facts, None, &Paths::default(), vec![status]);
        let golden = concat!(
            r#"{"format":1,"cluster":"office","node":"alpha","#,
            r#""arbiter":{"kind":"none","reachable":null},"warnings":[],"#,
            r#""resources":[{"name":"vm1","kind":"block","mode":"sync","role":"primary","#,
            r#""disk":"up-to-date","disk_reason":"none","disk_answers":"ok","serving":true,"solo":false,"#,
            r#""state":"paired","epoch":7,"generation":"12-5f0c000000000000","#,
            r#""size_bytes":21474836480,"out_of_sync_bytes":0,"#,
            r#""at_risk":{"writes":0,"bytes":0,"age_ms":0},"#,
            r#""peer":{"node":"beta","link":"connected","role":"secondary","disk":"up-to-date","#,
            r#""replication":"established","encrypted":true,"paths":[],"dropped":null},"resync":null,"verify":null,"#,
            r#""prefer":null,"export":"unix:/run/hotpair/vm1.nbd","clients":1,"#,
            r#""last_verify":{"at":"2026-01-01T00:00:00Z","differences":0,"ranges":[]},"#,
            r#""split_brain":null,"promotion":null,"services":null,"#,
            r#""tree_generation":null,"lag_ms":null,"files":null,"tree":null,"warnings":[]}]}"#,
        );
        assert_eq!(serde_json::to_string(&node).unwrap(), golden);
        assert_eq!(serde_json::from_str::<NodeStatus>(golden).unwrap(), node);
    }

    #[test]
    fn an_arbiter_that_is_away_is_a_warning() {
        let (mut facts, _, _) = sample();
        facts.arbiter = "witness";
        let reach = |is_reachable: bool| {
            let trouble = (!is_reachable).then(|| "connection refused".to_owned());
            let reach = ArbiterReach { is_reachable, trouble, ..ArbiterReach::default() };
            NodeStatus::new(&facts, Some(&reach), &Paths::default(), Vec::new())
        };
        assert_eq!(reach(true).arbiter.reachable, Some(true));
        assert!(reach(true).warnings.is_empty());
        assert_eq!(reach(false).arbiter.reachable, Some(false));
        let spoiled = [("vm1".to_owned(), "the value of the key /k cannot be used".to_owned())];
        let reach_of =
            ArbiterReach { is_reachable: true, spoiled: spoiled.into(), ..ArbiterReach::default() };
        let status = NodeStatus::new(&facts, Some(&reach_of), &Paths::default(), Vec::new());
        let said =
            "vm1: nobody can be promoted by the witness: the value of the key /k cannot be used";
        assert!(status.warnings[0].starts_with(said), "{:?}", status.warnings);
        let said = "the witness is not reachable, so nobody can be promoted by it: connection \
                    refused";
        assert_eq!(reach(false).warnings, [said]);
    }

    #[test]
    fn each_path_of_heartbeats_is_shown() {
        let (facts, resource, snapshot) = sample();
        let to = "192.0.2.2:7789".to_owned();
        let path = PathState { to, up: true, rtt_ms: Some(0.25), loss_percent: 3 };
        let dropped = Some(PathDrops { seal: 2, unknown_key: 3, ..PathDrops::default() });
        let paths = Paths { paths: vec![path], config_differs: true, dropped };
        let status = ResourceStatus::new(&facts, &resource, &snapshot);
        let node = NodeStatus::new(&facts, None, &paths, vec![status]);
        assert_eq!(
            serde_json::to_string(&node.resources[0].peer.paths).unwrap(),
            r#"[{"to":"192.0.2.2:7789","up":true,"rtt_ms":0.25,"loss_percent":3}]"#
        );
        assert_eq!(node.warnings.len(), 2, "{:?}", node.warnings);
        assert!(node.warnings[1].starts_with("2 datagrams"), "{:?}", node.warnings);
        assert_eq!(node.resources[0].peer.dropped, dropped);
        // Keys that are not known matter where nothing else is heard.
        let mut down = paths;
        down.paths[0].up = false;
        let node = NodeStatus::new(&facts, None, &down, Vec::new());
        assert!(node.warnings[2].starts_with("3 datagrams"), "{:?}", node.warnings);
    }

    #[test]
    fn what_is_unknown_is_null() {
        let (_, _, mut snapshot) = sample();
        snapshot.core.peer = None;
        snapshot.core.generation = None;
        snapshot.core.out_of_sync_bytes = None;
        snapshot.core.last_verify = None;
        let json = json(&snapshot);
        let pointers =
            ["/peer/role", "/peer/disk", "/generation", "/last_verify", "/out_of_sync_bytes"];
        for pointer in pointers {
            assert_eq!(json.pointer(pointer), Some(&serde_json::Value::Null), "{pointer}");
        }
    }

    #[test]
    fn the_end_of_a_resync_is_known_only_while_it_moves() {
        let (_, _, mut snapshot) = sample();
        let mut resync = ResyncStatus {
            is_source: true,
            total_bytes: 1000,
            remaining_bytes: 500,
            rate_bytes_per_s: 100,
            paused: false,
            payload_bytes: 7,
        };
        snapshot.core.resync = Some(resync);
        assert_eq!(
            json(&snapshot)["resync"].to_string(),
            r#"{"direction":"source","eta_s":5,"paused":false,"payload_bytes":7,"#.to_owned()
                + r#""rate_bytes_per_s":100,"remaining_bytes":500,"total_bytes":1000}"#
        );
        resync.paused = true;
        snapshot.core.resync = Some(resync);
        assert_eq!(json(&snapshot)["resync"]["eta_s"], serde_json::Value::Null);
        resync = ResyncStatus { paused: false, rate_bytes_per_s: 0, is_source: false, ..resync };
        snapshot.core.resync = Some(resync);
        assert_eq!(json(&snapshot)["resync"]["eta_s"], serde_json::Value::Null);
        assert_eq!(json(&snapshot)["resync"]["direction"], "target");
    }

    #[test]
    fn a_split_brain_names_both_nodes() {
        let (_, _, mut snapshot) = sample();
        snapshot.core.split_brain = Some(SplitBrain {
            mine: Generation { number: 3, id: 1 << 64 },
            theirs: Some(Generation { number: 4, id: 2 << 64 }),
            common: None,
            my_bytes: 4096,
            their_bytes: Some(8192),
        });
        let split = json(&snapshot)["split_brain"].take();
        assert_eq!(split["mine"]["node"], "alpha");
        assert_eq!(split["theirs"]["node"], "beta");
        assert_eq!(split["theirs"]["changed_bytes"], 8192);
        assert_eq!(split["since_generation"], serde_json::Value::Null);
    }

    #[test]
    fn a_verify_never_counts_past_the_end() {
        let progress = Progress::of_chunks((2, 2), 100_000);
        assert_eq!(progress, Progress { done_bytes: 100_000, total_bytes: 100_000 });
    }
}
