//! The configuration: TOML text in, checked [`Config`] out.
//!
//! One file describes the pair and is the same on both nodes; [`Config::for_node`] is one node's
//! view of it. What the file says (`file`) and what the program uses (here) are two types with one
//! function between them (`check`). Reading the file is left to the caller, who asks [`check_file`]
//! before trusting it.

mod check;
mod directory;
mod etcd;
mod fence;
mod file;
mod hooks;
mod mistake;
mod moving;
mod multicast;
mod nesting;
mod promotion;
mod resources;
mod values;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::check::{parse, state_dirs};
pub use self::directory::{
    Directory, FreezeHooks, FreezeLabel, Guard, LeaveOut, MassDelete, Watch,
};
pub use self::etcd::{EtcdAt, EtcdEndpoint};
pub use self::fence::{AutoMistake, Fence};
pub use self::hooks::{HOOKS_MAX, Hook, Hooks, VirtualIp};
use self::mistake::Marked;
pub use self::mistake::{Caution, ConfigError, Mistake, Warning};
pub use self::moving::{Failback, FlapLimit};
pub use self::multicast::Multicast;
pub use self::promotion::{Arbiter, Auto, PATHS_MAX, Promotion, WitnessAt};
pub use self::values::{Encryption, Export, Identity, is_name, parse_size, parse_time};
use crate::units::{ReplicationMode, ResourceSize, Side};

/// Largest configuration in bytes; one of 256 resources has about 100 KiB.
pub const FILE_LEN_MAX: u64 = 1 << 20;
/// Most resources of a pair; each has a data thread and buffers of its own.
pub const RESOURCES_MAX: usize = 256;
/// Where a node keeps keys and metadata, unless the file says otherwise.
pub const STATE_DIR: &str = "/var/lib/hotpair";
/// Where a node takes commands, unless the file says otherwise.
pub const CONTROL: &str = "/run/hotpair/control.sock";

/// A checked file: the pair as both nodes see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// Both nodes, in order of name, so that [`Side::First`] is the first one.
    pub nodes: [Node; 2],
    /// How the nodes talk.
    pub encryption: Encryption,
    /// Nothing sent for this long: a ping is sent.
    pub interval: Duration,
    /// Nothing heard for this long: the link is lost. At least four intervals.
    pub suspect_after: Duration,
    /// A group for one more path of heartbeats.
    pub multicast: Option<SocketAddr>,
    /// Who may serve when a node is gone.
    pub promotion: Promotion,
    /// What is kept identical, in order of name.
    pub resources: Vec<Resource>,
}

/// One node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The address it listens on, or dials from, for the other node.
    pub replication: SocketAddr,
    /// Where it sends heartbeats from and hears them, one address for each path. Empty: there are
    /// none.
    pub heartbeat: Vec<SocketAddr>,
    /// Its public key; present whenever the nodes talk by TLS.
    pub identity: Option<Identity>,
    /// Folder of its keys and metadata.
    pub state_dir: PathBuf,
    /// Unix socket on which it takes commands.
    pub control: PathBuf,
}

/// One resource, as both nodes have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its size when it is made; a resize changes what metadata says, and wins. A directory has one
    /// block: which of its generations is the newest is all that is replicated write by write.
    pub size: ResourceSize,
    /// When a write is acknowledged.
    pub mode: ReplicationMode,
    /// FLUSH waits for both nodes; always true unless the mode is `async`.
    pub flush_both: bool,
    /// The node that should serve it while both are well.
    pub prefer: Option<Side>,
    /// What a directory has beside; `None` of a block resource.
    pub directory: Option<Directory>,
    /// What each node has of it, in the order of [`Config::nodes`].
    pub on: [Local; 2],
}

/// What may differ from node to node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Local {
    /// The file or device; or the directory.
    pub path: PathBuf,
    /// Where clients connect while this node is primary. A directory has no clients: it is not used.
    pub export: Export,
    /// `async`: most acknowledged bytes that the peer has not applied.
    pub at_risk_bytes: u64,
    /// `async`: greatest age of the oldest of them.
    pub at_risk_age: Duration,
    /// Cap of a resync in bytes per second.
    pub resync_rate: Option<u64>,
    /// What starts and stops with the role, if anything does.
    pub hooks: Option<Hooks>,
    /// What holds the writers of a directory while a generation is captured, if anything does.
    pub freeze: Option<FreezeHooks>,
    /// Where a directory's generations are staged and kept, if not beside or in it.
    pub work_dir: Option<PathBuf>,
}

/// The view of one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeConfig {
    /// Name of the cluster.
    pub cluster: String,
    /// Its place in the pair.
    pub side: Side,
    /// The node itself.
    pub node: Node,
    /// The other one.
    pub peer: Node,
    /// How the two talk.
    pub encryption: Encryption,
    /// Nothing sent for this long: a ping is sent.
    pub interval: Duration,
    /// Nothing heard for this long: the link is lost.
    pub suspect_after: Duration,
    /// One more path of heartbeats.
    pub multicast: Option<Multicast>,
    /// Who may serve when a node is gone.
    pub promotion: Promotion,
    /// What it keeps, in order of name.
    pub resources: Vec<NodeResource>,
}

impl NodeConfig {
    /// Age of the oldest unacknowledged write at which the link is lost; three times
    /// `suspect_after`.
    pub fn io_timeout(&self) -> Duration {
        self.suspect_after * 3
    }

    /// The resource of this name.
    pub fn resource(&self, name: &str) -> Option<&NodeResource> {
        self.resources.iter().find(|resource| resource.name == name)
    }
}

/// One resource on one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeResource {
    /// Its name.
    pub name: String,
    /// Its size when it is made.
    pub size: ResourceSize,
    /// When a write is acknowledged.
    pub mode: ReplicationMode,
    /// FLUSH waits for both nodes.
    pub flush_both: bool,
    /// What this node has of it.
    pub local: Local,
    /// Folder of its metadata.
    pub metadata_dir: PathBuf,
    /// How long what runs beside the resource on the peer may take to stop once the peer's right to
    /// serve is over.
    pub peer_stop_budget: Duration,
    /// The node that should serve it while both are well.
    pub prefer: Option<Side>,
    /// What a directory has beside; `None` of a block resource.
    pub directory: Option<Directory>,
    /// Hash of the settings both nodes must agree on; the same on both if the files are.
    pub settings_hash: u32,
}

impl Local {
    /// How long what hooks started may go on once this node's right to serve is over.
    fn stop_budget(&self) -> Duration {
        self.hooks.as_ref().map_or(Duration::ZERO, Hooks::stop_budget)
    }
}

impl Config {
    /// The view of the node `name`, if there is one.
    pub fn for_node(&self, name: &str) -> Option<NodeConfig> {
        let [first, second] = &self.nodes;
        let (side, node, peer) = if first.name == name {
            (Side::First, first, second)
        } else if second.name == name {
            (Side::Second, second, first)
        } else {
            return None;
        };
        let resources = self.resources.iter();
        Some(NodeConfig {
            cluster: self.cluster.clone(),
            side,
            node: node.clone(),
            peer: peer.clone(),
            encryption: self.encryption,
            interval: self.interval,
            suspect_after: self.suspect_after,
            multicast: self.multicast.and_then(|group| {
                let local = node.heartbeat_of_family(group)?;
                Some(Multicast { group, local })
            }),
            promotion: self.promotion.clone(),
            resources: resources.map(|resource| self.on_node(resource, side)).collect(),
        })
    }

    fn on_node(&self, resource: &Resource, side: Side) -> NodeResource {
        let [first, second] = &self.nodes;
        let [on_first, on_second] = &resource.on;
        let (node, local, theirs) = match side {
            Side::First => (first, on_first, on_second),
            Side::Second => (second, on_second, on_first),
        };
        NodeResource {
            name: resource.name.clone(),
            size: resource.size,
            mode: resource.mode,
            flush_both: resource.flush_both,
            local: local.clone(),
            metadata_dir: node.state_dir.join(&resource.name),
            peer_stop_budget: theirs.stop_budget(),
            prefer: resource.prefer,
            directory: resource.directory.clone(),
            settings_hash: self.settings_hash(resource),
        }
    }

    /// Hash of what both nodes must agree on for `resource`. Left out is what a node may have for
    /// itself (paths, keys, rates) and the size, which a resize changes while both run.
    fn settings_hash(&self, resource: &Resource) -> u32 {
        let [first, second] = &self.nodes;
        let budgets = resource.on.each_ref().map(|on| (on.at_risk_bytes, on.at_risk_age));
        let kind = if resource.directory.is_some() { "directory" } else { "block" };
        let of_directory =
            resource.directory.as_ref().map_or_else(String::new, Directory::settings_text);
        let text = format!(
            "v1 cluster={} nodes={},{} encryption={} interval={} suspect_after={} {} resource={} \
             kind={kind} mode={} flush_both={} budgets={budgets:?}{of_directory}",
            self.cluster,
            first.name,
            second.name,
            self.encryption,
            self.interval.as_nanos(),
            self.suspect_after.as_nanos(),
            self.promotion.settings_text(),
            resource.name,
            resource.mode,
            resource.flush_both,
        );
        // Left out where nothing has to stop, so that such a pair is the same as one without hooks.
        let stop_budgets = resource.on.each_ref().map(Local::stop_budget);
        let budgets = if stop_budgets.iter().all(Duration::is_zero) {
            String::new()
        } else {
            format!(" stop_budgets={stop_budgets:?}")
        };
        let is_asked = self.promotion.arbiter.is_asked();
        let prefer = resource.prefer.filter(|_| is_asked);
        let prefer =
            prefer.map_or_else(String::new, |prefer| format!(" prefer={}", prefer.index()));
        crc32c::crc32c((text + &budgets + &prefer).as_bytes())
    }
}

/// A checked file, and what is worth saying about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parsed {
    /// The pair.
    pub config: Config,
    /// What has no effect, and risks accepted by name, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// What the file system says about a configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileFacts {
    /// Length in bytes.
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
    /// User it belongs to.
    pub owner: u32,
    /// User that asks.
    pub me: u32,
}

/// Whether what is in a file may be believed: nobody but root and this user can have written it.
///
/// # Errors
/// If others can write it, or if it is longer than [`FILE_LEN_MAX`].
pub fn check_file(facts: FileFacts) -> Result<(), ConfigError> {
    let what = if facts.mode & 0o022 != 0 {
        Mistake::Writable { mode: facts.mode & 0o7777 }
    } else if facts.owner != 0 && facts.owner != facts.me {
        Mistake::Owner { owner: facts.owner }
    } else if facts.len > FILE_LEN_MAX {
        Mistake::TooLong { len: facts.len, max: FILE_LEN_MAX }
    } else {
        return Ok(());
    };
    Err(ConfigError::new(vec![Marked { span: 0..0, what }]))
}

/// The bytes of a file as text.
///
/// # Errors
/// If they are not UTF-8.
pub fn text_of(bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes)
        .map_err(|_| ConfigError::new(vec![Marked { span: 0..0, what: Mistake::NotText }]))
}
