//! What an operator can ask of a resource, and what is told to people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::promotion::arbiter;
use crate::units::{Epoch, Generation, Side};

/// What was typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// `promote`, with `--force --peer-is-fenced` and `--accept-data-loss`.
    Promote {
        /// The peer cannot be asked; the operator vouches that it is off.
        force: bool,
        /// Writes acknowledged since this copy was current are given up.
        accept_data_loss: bool,
    },
    /// `demote`.
    Demote,
    /// `switchover`.
    Switchover,
    /// `connect`.
    Connect,
    /// `disconnect`.
    Disconnect,
    /// `pause-resync`.
    PauseResync,
    /// `resume-resync`.
    ResumeResync,
    /// `verify`.
    Verify {
        /// Send what differs from the primary.
        repair: bool,
    },
    /// `invalidate`.
    Invalidate,
    /// `split-brain resolve --keep NODE`.
    Resolve {
        /// Whose data stays.
        keep: Side,
    },
    /// `resize`.
    Resize {
        /// New size in bytes.
        size: u64,
    },
    /// What is for directories only. Who drives a directory takes it before the core does.
    Tree(TreeCommand),
    /// What the resource agent of a cluster asks for. Where no cluster says who serves it is as good as
    /// typed.
    Agent(AgentCommand),
    /// SIGTERM: drain, flush, write the clean flag. Answered when the process may end.
    Stop,
}

/// What only a directory can be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TreeCommand {
    /// `sync --wait`: answered when the peer has applied a generation that was captured from now on.
    Sync {
        /// Run the hooks that hold writers around the capture.
        freeze: bool,
    },
    /// `generations`: answered with [`Answer::generations`].
    Generations,
    /// `rollback --to N`.
    Rollback {
        /// Number of the generation whose content is to come back.
        to: u64,
    },
    /// `resume-resync --accept-deletes COUNT`.
    AcceptDeletes {
        /// Exactly as many as the refusal named.
        count: u64,
    },
}

/// A change of role that a resource agent asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AgentCommand {
    /// `promote`, with the flags of [`Command::Promote`].
    Promote {
        /// As there.
        force: bool,
        /// As there.
        accept_data_loss: bool,
    },
    /// `demote`.
    Demote,
    /// `switchover`.
    Switchover,
}

impl AgentCommand {
    /// The same, as an operator would type it.
    pub fn as_typed(self) -> Command {
        match self {
            Self::Promote { force, accept_data_loss } => {
                Command::Promote { force, accept_data_loss }
            }
            Self::Demote => Command::Demote,
            Self::Switchover => Command::Switchover,
        }
    }
}

/// A command was carried out, or what it asked for was so already.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// One sentence for people.
    pub text: String,
    /// The newest first; `None` unless they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generations: Option<Vec<KeptGeneration>>,
}

impl Answer {
    /// A sentence and nothing else.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), generations: None }
    }
}

/// A generation of a tree that a node can go back to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeptGeneration {
    /// Its number.
    pub number: u64,
    /// How much it promises: `fuzzy`, `stable`, `frozen` or `quiesced`.
    pub label: String,
    /// When the node that keeps it had all of it.
    pub captured_at: Option<Timestamp>,
    /// One hash over all of it, in hexadecimal digits.
    pub root: String,
    /// Names in it.
    pub entries: Option<u64>,
    /// Entries that are not as in the one before.
    pub changed: Option<u64>,
    /// Names of the one before that are not in it.
    pub deleted: Option<u64>,
    /// What is held only to get back to it.
    pub held_bytes: u64,
    /// Why it is kept: `current`, `recent`, `stable`, `pinned`, `on the way to a pinned one`, or `spare` if
    /// the next apply gives it up.
    pub kept: String,
}

/// A command was refused: a valid answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refused {
    /// Why, as a sentence.
    pub why: String,
    /// What to type next.
    pub next: String,
}

/// A change that people are told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Short constant name, as `role-changed`.
    pub kind: &'static str,
    /// The node's epoch at that moment.
    pub epoch: Epoch,
    /// One sentence.
    pub reason: String,
}

/// What `status`, `explain` and `split-brain show` are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Role: see units.
    pub role: crate::units::Role,
    /// What the copy is worth.
    pub disk: crate::units::DiskState,
    /// Why.
    pub disk_reason: crate::units::DiskReason,
    /// How it answers.
    pub disk_answers: super::stall::DiskAnswers,
    /// Clients are served.
    pub serving: bool,
    /// It acknowledges alone.
    pub solo: bool,
    /// Name of the state of `promotion`.
    pub state: &'static str,
    /// Epoch.
    pub epoch: Epoch,
    /// Which data.
    pub generation: Option<Generation>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What may differ from the peer and is neither in flight nor in the unflushed window, in bytes.
    /// `None` where this node cannot know: it is secondary and has no session.
    pub out_of_sync_bytes: Option<u64>,
    /// `async`: acknowledged, not yet applied by the peer.
    pub at_risk: AtRisk,
    /// State of the connection.
    pub link: LinkStatus,
    /// What is replicated.
    pub replication: ReplicationStatus,
    /// The peer as it said in its last Hello.
    pub peer: Option<PeerStatus>,
    /// The transfer under way.
    pub resync: Option<ResyncStatus>,
    /// The last finished verify.
    pub last_verify: Option<VerifyStatus>,
    /// Verify under way: chunks compared, chunks in all.
    pub verify_progress: Option<(u64, u64)>,
    /// Split brain, if there is one.
    pub split_brain: Option<SplitBrain>,
    /// With an arbiter: what it lets this node do.
    pub promotion: Option<PromotionStatus>,
    /// With hooks: what runs beside the primary.
    pub services: Option<ServiceStatus>,
    /// Why it is (not) in sync or promotable, and what to type next.
    pub explain: Refused,
}

/// The services that hooks start and stop.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ServiceStatus {
    /// `unknown`, `stopped`, `starting`, `running`, `stopping` or `failed`.
    pub state: &'static str,
    /// What the last run of hooks failed by; `None` if it went well or is under way.
    pub failure: Option<String>,
}

/// Who may serve, as far as an arbiter decides it.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct PromotionStatus {
    /// Name of the state of `promotion`.
    pub state: &'static str,
    /// Why this primary may acknowledge alone; `None` if it may not, or need not.
    pub permit: Option<&'static str>,
    /// The lease by which it answers reads, in milliseconds; `None` if it holds none or needs none.
    pub lease_ms: Option<u32>,
    /// This node has promised not to be promoted while the arbiter is away.
    pub pledge: bool,
    /// Promotions without an operator that count against `flap_limit`.
    pub promotions: usize,
    /// For so many minutes nobody is promoted without an operator; `None`: somebody may be.
    pub promotions_paused_min: Option<u64>,
    /// Why the arbiter answers nothing that counts; `None` if it does, or is not asked.
    pub arbiter_refused: Option<arbiter::Refused>,
    /// Nobody serves before an operator says so.
    pub stopped: bool,
    /// This secondary is promoted if the primary is lost.
    pub takes_over: bool,
    /// This copy may lack acknowledged writes.
    pub doubtful: bool,
    /// Why this node has promised not to be promoted before a primary lifts that; `None` if it has not.
    pub veto: Option<&'static str>,
}

/// `async` only.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AtRisk {
    /// Writes.
    pub writes: u64,
    /// Bytes.
    pub bytes: u64,
    /// Age of the oldest in milliseconds.
    pub age_ms: u64,
}

/// State of the connection to the peer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkStatus {
    /// A session exists.
    Connected,
    /// Trying.
    Connecting,
    /// Disconnected by an operator, or split brain.
    StandAlone,
}

/// What is replicated.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicationStatus {
    /// Nothing.
    Off,
    /// Writes.
    Established,
    /// This node sends what differs.
    SyncSource,
    /// This node is sent what differs.
    SyncTarget,
    /// Both copies are compared.
    Verify,
}

/// The peer, as it said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerStatus {
    /// Its role.
    pub role: crate::units::Role,
    /// What its copy is worth.
    pub disk: crate::units::DiskState,
}

/// A transfer under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct ResyncStatus {
    /// True on the source.
    pub is_source: bool,
    /// Bytes that could differ at the start.
    pub total_bytes: u64,
    /// Bytes that may still differ.
    pub remaining_bytes: u64,
    /// Over the last seconds.
    pub rate_bytes_per_s: u64,
    /// Paused by an operator on either node.
    pub paused: bool,
    /// Payload bytes sent or received so far in this transfer.
    pub payload_bytes: u64,
}

/// Result of a verify.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VerifyStatus {
    /// Ended at, on the core's clock.
    pub ended: crate::units::Instant,
    /// Blocks that differ.
    pub differences: u64,
    /// The first differing ranges, as (byte offset, length), at most 64.
    pub ranges: Vec<(u64, u64)>,
}

/// A split brain as far as this node knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SplitBrain {
    /// Our generation.
    pub mine: Generation,
    /// The peer's; `None` until it has said so since the start.
    pub theirs: Option<Generation>,
    /// The last one both went through, as far as that is known.
    pub common: Option<Generation>,
    /// Bytes that we changed since the two parted.
    pub my_bytes: u64,
    /// Bytes that the peer changed; `None` as for `theirs`.
    pub their_bytes: Option<u64>,
}
