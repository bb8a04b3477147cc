//! What the file says: every key a user may write, nothing derived.
//!
//! Unknown keys and wrong types stop here; what the values mean together is up to `check`. Keys of
//! releases to come are known by name, so that one file serves both.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::directory::{
    Every, FreezeLabel, Generations, Guard, LeaveOut, MassDelete, Pattern, Percent, WatchWord,
};
use super::etcd::{EtcdEndpoint, EtcdUser};
use super::moving::{Failback, FlapLimit};
use super::multicast::Group;
use super::values::{
    AbsolutePath, AddressWord, ArbiterLoss, ArbiterWord, AutoWord, ByteCount, DeviceWord,
    Encryption, Export, FlushOn, HookWord, Identity, Kind, Name, PeerAddress, SocketPath, TimeSpan,
    Written,
};
use crate::units::ReplicationMode;

/// A checked value and where it stands in the file.
pub(super) type Field<T> = Option<Spanned<Written<T>>>;
/// Checked values in a list, and where it stands.
pub(super) type Words<T> = Spanned<Vec<Spanned<Written<T>>>>;
/// Such a list, if there is one.
pub(super) type List<T> = Option<Words<T>>;
/// A key of a release to come: its place is kept, its value is not looked at.
pub(super) type Later = Option<Spanned<IgnoredAny>>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Name both nodes must share.
    pub(super) cluster: Field<Name>,
    /// The two nodes.
    #[serde(default)]
    pub(super) node: BTreeMap<Spanned<String>, NodeSection>,
    /// How the nodes talk.
    #[serde(default)]
    pub(super) link: LinkSection,
    /// When a silent peer is given up.
    #[serde(default)]
    pub(super) heartbeat: HeartbeatSection,
    /// Who may serve when a node is gone.
    #[serde(default)]
    pub(super) promotion: PromotionSection,
    /// What is kept identical.
    #[serde(default)]
    pub(super) resource: BTreeMap<Spanned<String>, ResourceSection>,
}

/// `[node.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeSection {
    /// Address the other node dials, or that this one dials from.
    pub(super) replication: Field<PeerAddress>,
    /// Paths of heartbeats.
    pub(super) heartbeat: Option<Spanned<Vec<Spanned<Written<PeerAddress>>>>>,
    /// The node's public key.
    pub(super) identity: Field<Identity>,
    /// Folder of keys and metadata.
    pub(super) state_dir: Field<AbsolutePath>,
    /// Socket for commands.
    pub(super) control: Field<SocketPath>,
    /// Address of the dashboard.
    pub(super) http: Later,
}

/// Of a file only what says where the nodes keep their keys. The rest may be unfinished: it holds
/// fingerprints, which are made first.
#[derive(Debug, Deserialize)]
pub(super) struct KeyFolders {
    /// The two nodes.
    #[serde(default)]
    pub(super) node: BTreeMap<Spanned<String>, KeyFolder>,
}

/// `[node.NAME]`, with all its keys, so that one that is mistyped does not hide the folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their names are looked at")]
pub(super) struct KeyFolder {
    replication: Later,
    heartbeat: Later,
    identity: Later,
    /// Folder of keys and metadata.
    pub(super) state_dir: Field<AbsolutePath>,
    control: Later,
    http: Later,
}

/// `[link]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkSection {
    /// TLS, unless it is written out that there is none.
    pub(super) encryption: Field<Encryption>,
}

/// `[heartbeat]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeartbeatSection {
    /// Time between two beats.
    pub(super) interval: Field<TimeSpan>,
    /// Silence after which the peer is suspected; at least four intervals.
    pub(super) suspect_after: Field<TimeSpan>,
    /// Group for one more path.
    pub(super) multicast: Field<Group>,
}

/// `[promotion]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromotionSection {
    /// Who promotes by itself.
    pub(super) auto: Field<AutoWord>,
    /// Who remembers who may serve.
    pub(super) arbiter: Field<ArbiterWord>,
    /// When a resource moves back.
    pub(super) failback: Field<Failback>,
    /// How long a grant holds; at least three times `suspect_after`.
    pub(super) lease: Field<TimeSpan>,
    /// How long an arbiter may be away; at least three leases.
    pub(super) arbiter_grace: Field<TimeSpan>,
    /// Pause before fencing; at least twice `suspect_after`.
    pub(super) fence_delay: Field<TimeSpan>,
    /// Longest run of the fence command.
    pub(super) fence_timeout: Field<TimeSpan>,
    /// Address of the witness.
    pub(super) witness: Field<PeerAddress>,
    /// Its public key.
    pub(super) witness_identity: Field<Identity>,
    /// What happens without an arbiter.
    pub(super) arbiter_loss: Field<ArbiterLoss>,
    /// Most automatic promotions in a time.
    pub(super) flap_limit: Field<FlapLimit>,
    /// Command that cuts the peer off.
    pub(super) fence: Field<AbsolutePath>,
    /// Command that lets Pacemaker promote the peer again.
    pub(super) unfence: Field<AbsolutePath>,
    /// Members of etcd.
    pub(super) etcd: Option<Spanned<Vec<Spanned<Written<EtcdEndpoint>>>>>,
    /// Who vouches for them.
    pub(super) etcd_ca: Field<AbsolutePath>,
    /// Our certificate for them.
    pub(super) etcd_cert: Field<AbsolutePath>,
    /// The key of that.
    pub(super) etcd_key: Field<AbsolutePath>,
    /// Our user there.
    pub(super) etcd_user: Field<EtcdUser>,
    /// File with the password of that.
    pub(super) etcd_password_file: Field<AbsolutePath>,
}

/// `[resource.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceSection {
    /// Block file or directory.
    pub(super) kind: Field<Kind>,
    /// The file or device.
    pub(super) path: Field<AbsolutePath>,
    /// Its size, the same on both nodes.
    pub(super) size: Field<ByteCount>,
    /// When a write is acknowledged.
    pub(super) mode: Field<ReplicationMode>,
    /// `async`: what a FLUSH waits for.
    pub(super) flush: Field<FlushOn>,
    /// Where clients connect.
    pub(super) export: Field<Export>,
    /// `async`: what may be lost.
    pub(super) at_risk_budget: Option<Spanned<BudgetSection>>,
    /// Cap of a resync per second.
    pub(super) resync_rate: Field<ByteCount>,
    /// What differs on one node.
    #[serde(default)]
    pub(super) on: BTreeMap<Spanned<String>, OverrideSection>,
    /// Where the primary should normally be.
    pub(super) prefer: Field<Name>,
    /// What runs at a change of role.
    pub(super) hooks: Option<Spanned<HooksSection>>,
    /// Directories only, as are all below.
    pub(super) exclude: List<Pattern>,
    pub(super) max_lag: Field<TimeSpan>,
    pub(super) keep_generations: Option<Spanned<Generations>>,
    pub(super) settle: Field<TimeSpan>,
    pub(super) full_scan: Field<TimeSpan>,
    pub(super) max_delete: Field<Percent>,
    pub(super) mass_delete: Field<MassDelete>,
    pub(super) watch: Field<WatchWord>,
    pub(super) guard: Field<Guard>,
    pub(super) work_dir: Field<AbsolutePath>,
    pub(super) leave_out: List<LeaveOut>,
    pub(super) keep_limit: Field<ByteCount>,
    pub(super) freeze_label: Field<FreezeLabel>,
    pub(super) freeze_every: Field<Every>,
    pub(super) freeze_limit: Field<TimeSpan>,
}

/// `at_risk_budget = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetSection {
    /// Most acknowledged bytes that the peer lacks.
    pub(super) bytes: Field<ByteCount>,
    /// Greatest age of the oldest of them.
    pub(super) age: Field<TimeSpan>,
}

/// `[resource.NAME.on.NODE]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverrideSection {
    /// As in [`ResourceSection`], as are the four below.
    pub(super) path: Field<AbsolutePath>,
    pub(super) export: Field<Export>,
    pub(super) at_risk_budget: Option<Spanned<BudgetSection>>,
    pub(super) resync_rate: Field<ByteCount>,
    pub(super) work_dir: Field<AbsolutePath>,
    /// What runs at a change of role on this node.
    pub(super) hooks: Option<Spanned<HooksSection>>,
    /// Refused here, as are all below: both nodes must agree on them.
    pub(super) kind: Later,
    pub(super) size: Later,
    pub(super) mode: Later,
    pub(super) flush: Later,
    pub(super) prefer: Later,
    pub(super) exclude: Later,
    pub(super) max_lag: Later,
    pub(super) keep_generations: Later,
    pub(super) settle: Later,
    pub(super) full_scan: Later,
    pub(super) max_delete: Later,
    pub(super) mass_delete: Later,
    pub(super) watch: Later,
    pub(super) guard: Later,
    pub(super) leave_out: Later,
    pub(super) keep_limit: Later,
    pub(super) freeze_label: Later,
    pub(super) freeze_every: Later,
    pub(super) freeze_limit: Later,
}

/// `[resource.NAME.hooks]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HooksSection {
    /// Longest time to stop when the grant is lost; at most `timeout`.
    pub(super) stop_within: Field<TimeSpan>,
    /// Longest run of one hook.
    pub(super) timeout: Field<TimeSpan>,
    /// Files that are run, and units of systemd, in order.
    pub(super) promote: List<HookWord>,
    pub(super) demote: List<HookWord>,
    /// An address that moves with the role.
    pub(super) virtual_ip: Option<Spanned<VirtualIpSection>>,
    /// Directories only.
    pub(super) freeze: List<HookWord>,
    pub(super) thaw: List<HookWord>,
}

impl ResourceSection {
    /// Where each key stands that only a directory has.
    pub(super) fn directory_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        [
            ("exclude", at(self.exclude.as_ref())),
            ("max_lag", at(self.max_lag.as_ref())),
            ("keep_generations", at(self.keep_generations.as_ref())),
            ("settle", at(self.settle.as_ref())),
            ("full_scan", at(self.full_scan.as_ref())),
            ("max_delete", at(self.max_delete.as_ref())),
            ("mass_delete", at(self.mass_delete.as_ref())),
            ("watch", at(self.watch.as_ref())),
            ("guard", at(self.guard.as_ref())),
            ("work_dir", at(self.work_dir.as_ref())),
            ("leave_out", at(self.leave_out.as_ref())),
            ("keep_limit", at(self.keep_limit.as_ref())),
            ("freeze_label", at(self.freeze_label.as_ref())),
            ("freeze_every", at(self.freeze_every.as_ref())),
            ("freeze_limit", at(self.freeze_limit.as_ref())),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
    }

    /// Where each key stands that only a block resource has.
    pub(super) fn block_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        [
            ("size", at(self.size.as_ref())),
            ("mode", at(self.mode.as_ref())),
            ("flush", at(self.flush.as_ref())),
            ("export", at(self.export.as_ref())),
            ("at_risk_budget", at(self.at_risk_budget.as_ref())),
            ("resync_rate", at(self.resync_rate.as_ref())),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
    }
}

impl OverrideSection {
    /// As [`ResourceSection::block_keys`].
    pub(super) fn block_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        [
            ("export", at(self.export.as_ref())),
            ("at_risk_budget", at(self.at_risk_budget.as_ref())),
            ("resync_rate", at(self.resync_rate.as_ref())),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
    }

    /// Keys on which both nodes must agree.
    pub(super) fn common_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        [
            ("kind", &self.kind),
            ("size", &self.size),
            ("mode", &self.mode),
            ("flush", &self.flush),
            ("prefer", &self.prefer),
            ("exclude", &self.exclude),
            ("max_lag", &self.max_lag),
            ("keep_generations", &self.keep_generations),
            ("settle", &self.settle),
            ("full_scan", &self.full_scan),
            ("max_delete", &self.max_delete),
            ("mass_delete", &self.mass_delete),
            ("watch", &self.watch),
            ("guard", &self.guard),
            ("leave_out", &self.leave_out),
            ("keep_limit", &self.keep_limit),
            ("freeze_label", &self.freeze_label),
            ("freeze_every", &self.freeze_every),
            ("freeze_limit", &self.freeze_limit),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, at(value.as_ref())?)))
    }
}

impl HooksSection {
    /// As [`ResourceSection::directory_keys`].
    pub(super) fn directory_keys(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        [("freeze", at(self.freeze.as_ref())), ("thaw", at(self.thaw.as_ref()))]
            .into_iter()
            .filter_map(|(key, span)| Some((key, span?)))
    }
}

/// Where something stands, if it does.
fn at<T>(written: Option<&Spanned<T>>) -> Option<Range<usize>> {
    written.map(Spanned::span)
}

/// `virtual_ip = { .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtualIpSection {
    pub(super) address: Field<AddressWord>,
    pub(super) device: Field<DeviceWord>,
}
