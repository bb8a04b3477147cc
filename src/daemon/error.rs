//! Why a node cannot start, or a command without a daemon failed.

use std::io;
use std::path::PathBuf;

use crate::control::SocketError;
use crate::link::IdentityError;
use crate::metadata::{Damage, SUPERBLOCK_FILE};
use crate::store::StoreError;
use crate::units::written_size;

/// Each names the thing, and what to type.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data file or the metadata files cannot be used.
    #[error("{resource}")]
    Store {
        /// Name of the resource.
        resource: String,
        /// Why.
        source: StoreError,
    },
    /// The tree of a directory, its work area or its index cannot be used.
    #[error("{resource}: the tree at {}", path.display())]
    Tree {
        /// Name of the resource.
        resource: String,
        /// Of what.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tree carries no mark, or that of another resource.
    #[error("{resource}: {} is not marked as the tree of this resource", path.display())]
    OtherTree {
        /// Name of the resource.
        resource: String,
        /// The directory.
        path: PathBuf,
    },
    /// A directory that is to be empty is not.
    #[error("{resource}: {} is not empty: it has {entry}", path.display())]
    TreeNotEmpty {
        /// Name of the resource.
        resource: String,
        /// The directory.
        path: PathBuf,
        /// Something that is in it.
        entry: String,
    },
    /// The program was built without directories.
    #[error("{resource}: this hotpair was built without directories")]
    NoDirectories {
        /// Name of the resource.
        resource: String,
    },
    /// There is no metadata.
    #[error("{resource}: there is no metadata in {}", folder.display())]
    NotInitialised {
        /// Name of the resource.
        resource: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The metadata cannot be believed. Nothing was touched.
    #[error("{resource}: the metadata in {} cannot be used", folder.display())]
    Damaged {
        /// Name of the resource.
        resource: String,
        /// Where it is.
        folder: PathBuf,
        /// Why.
        source: Damage,
    },
    /// An address of heartbeats cannot be used.
    #[error("heartbeats")]
    Heartbeat {
        /// Which, and why.
        source: crate::heartbeat::HeartbeatError,
    },
    /// A file that the connection to etcd needs.
    #[error("`{key}` {}: {what}", path.display())]
    EtcdFile {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do about it.
        mend: String,
    },
    /// The metadata says another size than the configuration.
    #[error("{resource}: the configuration says {configured} bytes, the metadata {recorded}")]
    Size {
        /// Name of the resource.
        resource: String,
        /// What the configuration says.
        configured: u64,
        /// What the metadata says.
        recorded: u64,
    },
    /// A resize to a size that the resource cannot have.
    #[error("{resource}: it has {recorded} bytes, and cannot have {asked}")]
    BadSize {
        /// Name of the resource.
        resource: String,
        /// What it has.
        recorded: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The daemon was killed, and what it left is not settled.
    #[error("{resource}: the daemon did not stop cleanly")]
    NotClean {
        /// Name of the resource.
        resource: String,
    },
    /// `init --from empty` found data.
    #[error("{resource}: {} is not empty: byte {offset} is not zero", path.display())]
    NotEmpty {
        /// Name of the resource.
        resource: String,
        /// The data file.
        path: PathBuf,
        /// The first byte that is not zero.
        offset: u64,
    },
    /// The resource is not in the configuration.
    #[error("there is no resource {name} in the configuration")]
    UnknownResource {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The key or a fingerprint cannot be used.
    #[error("cannot use the keys")]
    Identity {
        /// Why.
        source: IdentityError,
    },
    /// The address for the peer cannot be had.
    #[error("cannot listen on {address} (`replication` of this node)")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The state folder of a witness cannot be used.
    #[error("cannot use the state of the witness")]
    WitnessState {
        /// Why.
        source: StoreError,
    },
    /// A line of the file `allow` of a witness is neither a cluster nor a fingerprint.
    #[error("{}:{line}: neither a cluster, nor a fingerprint, nor one behind the other", path.display())]
    WitnessAllow {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The address for the nodes cannot be had.
    #[error("cannot listen on {address} (`--listen` of the witness)")]
    WitnessListen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The control socket cannot be had.
    #[error("cannot take commands")]
    Control {
        /// Why.
        source: SocketError,
    },
    /// A thread or runtime cannot be started, or a signal not be waited for.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel has no randomness.
    #[error("the kernel gives no random numbers")]
    Random {
        /// Why.
        source: io::Error,
    },
}

impl DaemonError {
    /// What to type next, where that is known.
    pub fn mend(&self) -> Option<String> {
        match self {
            Self::Store { resource, source } => Some(mend_store(resource, source)),
            Self::NotInitialised { resource, .. } => Some(format!(
                "hotpair init {resource} --from this (the file is the data), --from empty, or \
                 --from peer"
            )),
            Self::Damaged { resource, source, .. } => Some(mend_damage(resource, source)),
            Self::Heartbeat { .. } => Some(
                "is another daemon running, or is the address of another machine? correct \
                 `heartbeat` of this node in the configuration"
                    .to_owned(),
            ),
            Self::EtcdFile { mend, .. } => Some(mend.clone()),
            Self::Size { recorded, configured, .. } if configured < recorded => Some(format!(
                "it has grown, and never shrinks: correct `size` in the configuration of both \
                 nodes, to \"{}\"",
                written_size(*recorded)
            )),
            Self::Size { resource, configured, .. } => Some(format!(
                "correct `size` in the configuration, or grow this copy: hotpair resize \
                 {resource} --size {}",
                written_size(*configured)
            )),
            Self::BadSize { .. } => Some("a resource only grows, and has at most 16TiB".to_owned()),
            Self::NotClean { .. } => Some(
                "start it, wait until both nodes are in sync, and stop it with SIGTERM".to_owned(),
            ),
            Self::NotEmpty { resource, .. } => {
                Some(format!("to keep the data: hotpair init {resource} --from this"))
            }
            Self::UnknownResource { known, .. } => Some(format!("it has {known}")),
            Self::Identity { source } => Some(mend_identity(source)),
            Self::Listen { .. } => {
                Some("is another daemon running? else correct `replication`".to_owned())
            }
            Self::WitnessState { source } => Some(mend_witness(source)),
            Self::WitnessAllow { .. } => Some(
                "write on each line `CLUSTER`, `sha256//..` or `CLUSTER sha256//..`; without the \
                 file everybody may enroll"
                    .to_owned(),
            ),
            Self::WitnessListen { .. } => {
                Some("is another witness running? else correct `--listen`".to_owned())
            }
            Self::Tree { resource, .. } => Some(format!(
                "look at the directory and at its file system; to read all of it anew and compare it with \
                 the peer: hotpair init {resource} --from peer --rebuild"
            )),
            Self::OtherTree { resource, .. } => Some(format!(
                "mount or restore the right directory, or make this one the resource's: hotpair init \
                 {resource} --from this --rebuild"
            )),
            Self::TreeNotEmpty { resource, .. } => {
                Some(format!("to keep what is in it: hotpair init {resource} --from this"))
            }
            Self::NoDirectories { .. } => Some(
                "install a build of hotpair that has directories: cargo build --release".to_owned(),
            ),
            Self::Control { .. } | Self::System { .. } | Self::Random { .. } => None,
        }
    }

    /// Wraps an error of the disk of `resource`.
    pub(super) fn store(resource: &str) -> impl Fn(StoreError) -> Self + '_ {
        move |source| Self::Store { resource: resource.to_owned(), source }
    }
}

fn mend_damage(resource: &str, damage: &Damage) -> String {
    let first = match damage {
        Damage::Format { .. } => "run the newer release again, or ",
        Damage::Foreign { .. } | Damage::OtherData { .. } | Damage::DataShort { .. } => {
            "put the right file back, or "
        }
        Damage::BadMagic { .. }
        | Damage::Checksum { .. }
        | Damage::BothSlots { .. }
        | Damage::Value { .. }
        | Damage::Short { .. }
        | Damage::LogUnreadable => "",
    };
    format!(
        "{first}make the metadata anew and compare all data with the peer: hotpair init \
         {resource} --from peer --rebuild"
    )
}

fn mend_identity(error: &IdentityError) -> String {
    match error {
        IdentityError::None { .. } => "hotpair identity".to_owned(),
        IdentityError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            AS_ROOT.to_owned()
        }
        IdentityError::Io { .. } => {
            "look at the disk and at its permissions, then type the same again".to_owned()
        }
        IdentityError::Exposed { path, .. } => {
            format!("if nobody read it: chmod 600 {}", path.display())
        }
        IdentityError::Foreign { path, me, .. } => format!("chown {me} {}", path.display()),
        IdentityError::Damaged { path, .. } => {
            format!("restore it, or make a new one: rm {} && hotpair identity", path.display())
        }
        IdentityError::BadFingerprint { .. }
        | IdentityError::Mine { .. }
        | IdentityError::Shared { .. } => {
            "type on each node, and correct `identity` in the configuration: hotpair identity"
                .to_owned()
        }
        IdentityError::NoTls | IdentityError::Draw { .. } => {
            "install a build of hotpair that has TLS: cargo build --release".to_owned()
        }
    }
}

const AS_ROOT: &str = "try again as root, or as the user of the daemon";

fn mend_store(resource: &str, error: &StoreError) -> String {
    match error {
        StoreError::Exists { path } if path.ends_with(SUPERBLOCK_FILE) => format!(
            "look at it with `hotpair check {resource} --offline`; to give it up and make it anew \
             from the data, add --rebuild"
        ),
        StoreError::Exists { .. } => "move it away".to_owned(),
        StoreError::Missing { .. } => format!(
            "put the file in its place; or have it made and filled by the peer: hotpair init \
             {resource} --from peer --rebuild"
        ),
        StoreError::NoFolder { path } => {
            format!("correct `path`, or make the folder: mkdir -p {}", path.display())
        }
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            AS_ROOT.to_owned()
        }
        StoreError::Locked { .. } => "stop the daemon of this node first".to_owned(),
        StoreError::Shorter { .. } | StoreError::Replaced { .. } => {
            "put the right file in its place, or correct `path` or `size`".to_owned()
        }
        StoreError::NotBlocks { .. } => "correct `path`".to_owned(),
        StoreError::NotOurs { .. } => "chown and chmod it, so that only its user can".to_owned(),
        StoreError::NoSpace { .. } => "make room, then type the same again".to_owned(),
        StoreError::Io { .. } | StoreError::FailedBefore { .. } => {
            "look at permissions and at the disk (dmesg), then type the same again".to_owned()
        }
        StoreError::Unreadable { .. } => "restore it from where it was copied".to_owned(),
        StoreError::NoDirectReads { .. } => "use another file system".to_owned(),
    }
}

fn mend_witness(error: &StoreError) -> String {
    match error {
        StoreError::Locked { .. } => {
            "stop the other witness, or give this one its own --state-dir".to_owned()
        }
        StoreError::Unreadable { source: Damage::Format { .. }, .. } => {
            "run the newer release again".to_owned()
        }
        StoreError::Unreadable { .. } => {
            "to make a new store, at which every pair has to enroll again: add --new-identity"
                .to_owned()
        }
        other => mend_store("", other),
    }
}
