//! The witness as a process: its folder, its key, its disk thread, its end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::audit::note_witness;
use super::clock;
use super::error::DaemonError;
use super::random;
use crate::arbiter::{
    Disk, Key, Patience, STORE_ORDERS_MAX, ServerSecurity, StoreOrder, Stored, Witness,
    WitnessSettings,
};
use crate::config::Encryption;
use crate::promotion::arbiter::{Allowed, parse_allowed};
use crate::store::{WitnessFolder, WitnessStart};
use crate::units::ArbiterId;

/// What was asked for.
#[derive(Debug)]
pub struct WitnessPlan {
    /// Where nodes reach it.
    pub listen: SocketAddr,
    /// Its folder.
    pub state_dir: PathBuf,
    /// Make a new store and forget all records.
    pub new_identity: bool,
    /// How connections are protected.
    pub encryption: Encryption,
}

/// What came of it, once nodes can connect.
#[derive(Debug)]
pub struct WitnessStarted {
    /// Where it listens; the port is another one if zero was asked for.
    pub address: SocketAddr,
    /// What nodes must have as `witness_identity`; `None` without encryption.
    pub fingerprint: Option<String>,
    /// Its store.
    pub arbiter: ArbiterId,
    /// Records that it has.
    pub records: usize,
}

/// Runs a witness until it gets SIGTERM or SIGINT. `started` is told when nodes can connect, and
/// so is systemd.
///
/// # Errors
/// [`DaemonError`] says why it cannot start.
pub fn run_witness(
    plan: &WitnessPlan,
    started: impl FnOnce(&WitnessStarted),
) -> Result<(), DaemonError> {
    let start = if plan.new_identity { WitnessStart::Forget } else { WitnessStart::Keep };
    let new_id = ArbiterId(random::id()?);
    let state = |source| DaemonError::WitnessState { source };
    let (folder, found) = WitnessFolder::open(&plan.state_dir, start, new_id).map_err(state)?;
    let allowed = allowed(&folder)?;
    let (security, fingerprint) = security(plan)?;
    if !security.is_encrypted() {
        warn!("encryption is \"none\": whoever can reach the port can make and change records");
    }
    if allowed.is_none() {
        info!("there is no file `allow`: every node that reaches the port may enroll");
    }
    let mut records = Vec::new();
    let mut damaged = BTreeSet::new();
    for it in found {
        let key = Key { cluster: it.cluster, resource: it.resource };
        if let Some(record) = it.record {
            records.push((key, record));
        } else {
            let (cluster, resource) = (&key.cluster, &key.resource);
            error!(cluster, resource, "the record cannot be read: everything is refused");
            damaged.insert(key);
        }
    }
    // Any other start is none of an operator's decisions.
    if folder.id() == new_id {
        let words = format!("store {:032x} is new", folder.id().0);
        note_witness(&plan.state_dir, plan.new_identity, &words);
    }
    let facts = Facts { arbiter: folder.id(), records: records.len(), fingerprint };
    let settings = WitnessSettings {
        id: folder.id(),
        records,
        damaged,
        allowed,
        security,
        clock: Arc::new(clock::both),
        patience: Patience::default(),
    };
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("hotpair-witness")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { action: "start the runtime", source })?;
    runtime.block_on(serve(plan, settings, folder, |address| {
        let Facts { arbiter, records, fingerprint } = facts;
        started(&WitnessStarted { address, fingerprint, arbiter, records });
    }))
}

/// What is known before it listens.
struct Facts {
    arbiter: ArbiterId,
    records: usize,
    fingerprint: Option<String>,
}

async fn serve(
    plan: &WitnessPlan,
    settings: WitnessSettings,
    folder: WitnessFolder,
    started: impl FnOnce(SocketAddr),
) -> Result<(), DaemonError> {
    let system = |action| move |source| DaemonError::System { action, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?;
    let listen = |source| DaemonError::WitnessListen { address: plan.listen, source };
    let witness = Witness::bind(plan.listen, settings).await.map_err(listen)?;
    let address = witness.local_addr().map_err(listen)?;
    let (disk, thread) = start_disk(folder)?;
    info!(%address, "started");
    started(address);
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = witness.run(disk) => error!("the thread of the disk ended"),
    }
    info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // A record that is being written becomes stable; nobody hears of it, and asks again.
    if thread.join().is_err() {
        error!("the thread of the disk failed");
    }
    info!("stopped");
    Ok(())
}

/// The thread that waits for the disk, so that renewals need not.
fn start_disk(
    mut folder: WitnessFolder,
) -> Result<(Disk, std::thread::JoinHandle<()>), DaemonError> {
    let (orders, mut orders_out) = mpsc::channel::<StoreOrder>(STORE_ORDERS_MAX);
    let (stored, stored_out) = mpsc::channel(STORE_ORDERS_MAX);
    let thread = std::thread::Builder::new()
        .name("witness-store".to_owned())
        .spawn(move || {
            while let Some(StoreOrder { key, record }) = orders_out.blocking_recv() {
                let written = folder.write(&key.cluster, &key.resource, &record);
                if let Err(error) = &written {
                    let (cluster, resource) = (&key.cluster, &key.resource);
                    let error: &dyn std::error::Error = error;
                    error!(cluster, resource, error, "a record could not be made stable");
                }
                if stored.blocking_send(Stored { key, is_stable: written.is_ok() }).is_err() {
                    return;
                }
            }
        })
        .map_err(|source| DaemonError::System { action: "start the disk thread", source })?;
    Ok((Disk { orders, stored: stored_out }, thread))
}

fn allowed(folder: &WitnessFolder) -> Result<Option<Vec<Allowed>>, DaemonError> {
    let text = folder.read_allow().map_err(|source| DaemonError::WitnessState { source })?;
    let lines = text.map(|text| parse_allowed(&text, key_of)).transpose();
    lines.map_err(|line| DaemonError::WitnessAllow { path: folder.allow_path(), line })
}

/// The hash in a fingerprint as it is printed.
#[cfg(feature = "_tls")]
pub(super) fn key_of(word: &str) -> Option<[u8; 32]> {
    let fingerprint: crate::link::identity::Fingerprint = word.parse().ok()?;
    Some(fingerprint.bytes())
}

#[cfg(not(feature = "_tls"))]
pub(super) fn key_of(_word: &str) -> Option<[u8; 32]> {
    None
}

/// How it protects its connections, and what nodes must pin.
fn security(plan: &WitnessPlan) -> Result<(ServerSecurity, Option<String>), DaemonError> {
    match plan.encryption {
        Encryption::None => Ok((ServerSecurity::Plain, None)),
        #[cfg(feature = "_tls")]
        Encryption::Tls => {
            let made = crate::link::witness_server(&plan.state_dir)
                .map_err(|source| DaemonError::Identity { source })?;
            let crate::link::WitnessServer { config, key_of, fingerprint } = made;
            Ok((ServerSecurity::Tls { config, key_of }, Some(fingerprint.to_string())))
        }
        #[cfg(not(feature = "_tls"))]
        Encryption::Tls => Err(DaemonError::Identity { source: crate::link::IdentityError::NoTls }),
    }
}
