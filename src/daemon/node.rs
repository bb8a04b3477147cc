//! One node: opens its resources, starts their data threads, stops them cleanly.

use std::collections::BTreeMap;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::arbiter::{ArbiterWay, start_arbiter};
use super::audit::start_audit;
use super::controller::ControllerEnds;
use super::data_thread::{DataThread, Ends, snapshot};
use super::error::DaemonError;
use super::exports::{self, ExportOrder};
use super::fence::start_fence;
use super::guide::Guide;
use super::heartbeat::{HeartbeatWay, start_heartbeat};
use super::open::{Opened, open};
use super::outdate::OutdateEnds;
use super::services::{LeftBehinds, ServiceEnds, start_services};
use super::will::{LastWord, Said, Supervisor};
use super::{clock, random};
use crate::config::{Auto, Encryption, NodeConfig, NodeResource};
use crate::control::{
    self, ControlSocket, Facts, Handle, NodeEvent, Order, ResourceFacts, ResourceHandle,
};
use crate::link::{self, Dialler, Handover, ListenSettings, Listener, Route, Security, Trouble};
use crate::replica::Command;
use crate::store::StoreError;
use crate::units::{Instance, Side};

/// Orders, questions, connections and events that may wait.
const ORDERS_MAX: usize = 64;
const LOOKS_MAX: usize = 64;
const HANDOVERS_MAX: usize = 4;
const EVENTS_MAX: usize = 1024;
const EXPORTS_MAX: usize = 1024;

/// Runs a node until it gets SIGTERM or SIGINT. Ready is said to systemd when commands are taken,
/// or to the supervisor that started this process.
///
/// # Errors
/// [`DaemonError`] says why it cannot start.
pub fn run(node: &NodeConfig, is_supervised: bool) -> Result<(), DaemonError> {
    let security = security(node)?;
    let instance = Instance(random::instance()?);
    let control = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("hotpair-control")
        .enable_all()
        .build()
        .map_err(system("start the control runtime"))?;
    control.block_on(async {
        let mut opened = Vec::new();
        for resource in &node.resources {
            let one = open_in_turn(node, resource, instance, is_supervised).await?;
            opened.push((resource.clone(), one));
        }
        let supervision = Supervision::start(is_supervised)?;
        serve(node, &security, instance, opened, supervision).await
    })
}

/// Opens a resource. A worker whose supervisor was killed ends a moment later, and holds its files
/// until then: the next one waits for that.
async fn open_in_turn(
    node: &NodeConfig,
    resource: &NodeResource,
    instance: Instance,
    is_supervised: bool,
) -> Result<Opened, DaemonError> {
    let deadline = tokio::time::Instant::now() + HELD_MAX;
    loop {
        match open(node, resource, instance) {
            Err(DaemonError::Store { source: StoreError::Locked { .. }, .. })
                if is_supervised && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(HELD_LOOK_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

/// Time that an earlier worker may need to end.
const HELD_MAX: Duration = Duration::from_secs(5);
const HELD_LOOK_AGAIN: Duration = Duration::from_millis(20);

fn system(action: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::System { action, source }
}

fn security(node: &NodeConfig) -> Result<Security, DaemonError> {
    if node.encryption == Encryption::None {
        return Ok(Security::Plain);
    }
    let peer = node.peer.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let peers = [(node.peer.name.clone(), peer)];
    Security::tls(&node.node.state_dir, &peers).map_err(|source| DaemonError::Identity { source })
}

/// Who is told how far this process is: its supervisor, or systemd.
struct Supervision {
    said: Option<mpsc::Sender<Said>>,
    /// What the supervisor says to the peer once this process is dead.
    will: watch::Sender<Vec<LastWord>>,
    /// What it stops before that.
    left: watch::Sender<LeftBehinds>,
}

impl Supervision {
    fn start(is_supervised: bool) -> Result<Self, DaemonError> {
        let (will, wills) = watch::channel(Vec::new());
        let (left, lefts) = watch::channel(LeftBehinds::new());
        if !is_supervised {
            return Ok(Self { said: None, will, left });
        }
        let (said, said_out) = mpsc::channel(1);
        tokio::spawn(Supervisor::of_this_process()?.keep_informed(said_out, wills, lefts));
        Ok(Self { said: Some(said), will, left })
    }

    async fn say(&self, what: Said) {
        if let Some(said) = &self.said {
            // Without a supervisor this process ends, too.
            let _ = said.send(what).await;
            return;
        }
        let state = match what {
            Said::Ready => sd_notify::NotifyState::Ready,
            Said::Stopping => sd_notify::NotifyState::Stopping,
            Said::LastWord(_) | Said::Left { .. } | Said::Will => return,
        };
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[state]);
    }
}

/// The threads and channels of one resource.
struct Running {
    name: String,
    thread: JoinHandle<()>,
    orders: mpsc::Sender<Order>,
}

async fn serve(
    node: &NodeConfig,
    security: &Security,
    instance: Instance,
    opened: Vec<(NodeResource, Opened)>,
    supervision: Supervision,
) -> Result<(), DaemonError> {
    let mut end = EndSignals::new()?;
    let (events, events_out) = mpsc::channel(EVENTS_MAX);
    let (exports, exports_out) = mpsc::channel(EXPORTS_MAX);
    let socket = ControlSocket::bind(&node.node.control)
        .map_err(|source| DaemonError::Control { source })?;
    let mut routes = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let mut handles = Vec::new();
    let mut running = Vec::new();
    let dials = link::dials(&node.node.name, &node.peer.name);
    let (turned_away, turned_away_out) = watch::channel(None);
    let stop = CancellationToken::new();
    let mut arbiter = start_arbiter(node, instance)?;
    let mut heartbeat = start_heartbeat(node, instance, supervision.will.clone(), stop.clone())?;
    for (resource, opened) in opened {
        let (handovers, handovers_out) = mpsc::channel(HANDOVERS_MAX);
        let (wants_link, wanted) = watch::channel(false);
        let mut trouble = turned_away_out.clone();
        if dials {
            trouble = spawn_dialler(node, security, handovers, wanted);
        } else {
            let route = Route { peer: node.peer.name.clone(), connections: handovers };
            routes.insert(resource.name.clone(), route);
        }
        addresses.insert(resource.name.clone(), resource.local.export.clone());
        let channels = Channels {
            handovers: handovers_out,
            wants_link,
            trouble,
            guide: Guide::new(node, security, &resource.name),
            prefer: name_of(node, resource.prefer),
            controller: controller_ends(node, &resource, arbiter.as_mut(), heartbeat.as_mut()),
            outdate: heartbeat.as_mut().and_then(|way| way.outdate.remove(&resource.name)),
            services: start_services(node, &resource, &supervision.left, stop.clone()),
            exports: exports.clone(),
            events: events.clone(),
        };
        let (handle, started) = start_resource(&resource, opened, channels)?;
        handles.push(handle);
        running.push(started);
    }
    let audit = start_audit(node, instance, events)?;
    drop(exports);
    if !dials {
        listen(node, security, routes, turned_away).await?;
    }
    tokio::spawn(exports::serve(addresses, node.peer.name.clone(), exports_out));
    let handle = Handle {
        facts: facts(node, security),
        arbiter: arbiter.map(|way| way.reach),
        paths: heartbeat.map(|way| way.paths),
        resources: handles,
        events: events_out,
        audit,
    };
    let api = tokio::spawn(control::serve(socket, handle, stop.clone()));
    info!(node = %node.node.name, resources = running.len(), "started");
    supervision.say(Said::Ready).await;
    end.wait().await;
    info!("stopping");
    supervision.say(Said::Stopping).await;
    stop_resources(running).await;
    stop.cancel();
    if let Ok(Err(source)) = api.await {
        warn!(error = &source as &dyn std::error::Error, "the control socket failed");
    }
    info!("stopped");
    Ok(())
}

/// What asks this process to end.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn new() -> Result<Self, DaemonError> {
        let terminate = signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?;
        let interrupt = signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?;
        Ok(Self { terminate, interrupt })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Where the controller of a resource asks and hears, if there is an arbiter or a node is promoted
/// without one: then there are heartbeats, too.
fn controller_ends(
    node: &NodeConfig,
    resource: &NodeResource,
    arbiter: Option<&mut ArbiterWay>,
    heartbeat: Option<&mut HeartbeatWay>,
) -> Option<ControllerEnds> {
    let name = &resource.name;
    let arbiter = arbiter.and_then(|way| way.resources.remove(name));
    if arbiter.is_none() && !node.promotion.auto.promotes() {
        return None;
    }
    let heartbeat = heartbeat?.resources.remove(name)?;
    Some(ControllerEnds::new(name.clone(), arbiter, heartbeat, start_fence(node, resource)))
}

/// The name of a place in the pair.
fn name_of(node: &NodeConfig, side: Option<Side>) -> Option<String> {
    side.map(|side| if side == node.side { &node.node } else { &node.peer })
        .map(|node| node.name.clone())
}

fn spawn_dialler(
    node: &NodeConfig,
    security: &Security,
    connections: mpsc::Sender<Handover>,
    wanted: watch::Receiver<bool>,
) -> watch::Receiver<Option<Trouble>> {
    let (trouble, trouble_out) = watch::channel(None);
    let source = node.node.replication.ip();
    let dialler = Dialler {
        address: node.peer.replication,
        source: (!source.is_unspecified()).then_some(source),
        peer: node.peer.name.clone(),
        security: security.clone(),
        suspect_after: node.suspect_after,
        connections,
        wanted,
        trouble,
    };
    tokio::spawn(dialler.run());
    trouble_out
}

async fn listen(
    node: &NodeConfig,
    security: &Security,
    routes: BTreeMap<String, Route>,
    trouble: watch::Sender<Option<Trouble>>,
) -> Result<(), DaemonError> {
    let address = node.node.replication;
    let settings = ListenSettings {
        cluster: node.cluster.clone(),
        security: security.clone(),
        suspect_after: node.suspect_after,
        handshake_timeout: link::HANDSHAKE_TIMEOUT,
        peer_addresses: vec![node.peer.replication.ip()],
        routes,
        trouble,
    };
    let listener = Listener::bind(address, settings)
        .await
        .map_err(|source| DaemonError::Listen { address, source })?;
    tokio::spawn(listener.run());
    Ok(())
}

fn facts(node: &NodeConfig, security: &Security) -> Facts {
    let mut warnings = Vec::new();
    if !security.is_encrypted() {
        let warning = "encryption is \"none\": whoever can reach the link can read and change data";
        warnings.push(warning.to_owned());
    }
    if node.promotion.auto == Auto::HeartbeatOnly {
        let warning = "auto is \"heartbeat-only\": two primaries are possible when the nodes miss each \
                       other";
        warnings.push(warning.to_owned());
    }
    if std::env::var_os("HOTPAIR_ONE_THREAD").is_some() {
        warnings.push("HOTPAIR_ONE_THREAD is set: slow, for debugging only".to_owned());
    }
    Facts {
        cluster: node.cluster.clone(),
        node: node.node.name.clone(),
        peer: node.peer.name.clone(),
        encrypted: security.is_encrypted(),
        arbiter: node.promotion.arbiter.name(),
        warnings,
    }
}

/// What a data thread shares with the rest of the node.
struct Channels {
    handovers: mpsc::Receiver<Handover>,
    wants_link: watch::Sender<bool>,
    trouble: watch::Receiver<Option<Trouble>>,
    guide: Guide,
    prefer: Option<String>,
    controller: Option<ControllerEnds>,
    outdate: Option<OutdateEnds>,
    services: Option<ServiceEnds>,
    exports: mpsc::Sender<ExportOrder>,
    events: mpsc::Sender<NodeEvent>,
}

fn start_resource(
    resource: &NodeResource,
    opened: Opened,
    channels: Channels,
) -> Result<(ResourceHandle, Running), DaemonError> {
    let name = resource.name.clone();
    let (orders, orders_out) = mpsc::channel(ORDERS_MAX);
    let (looks, looks_out) = mpsc::channel(LOOKS_MAX);
    let (sender, receiver) = watch::channel(snapshot(&opened.core, 0, clock::now()));
    let ends = Ends {
        name: name.clone(),
        orders: orders_out,
        looks: looks_out,
        handovers: channels.handovers,
        wants_link: channels.wants_link,
        trouble: channels.trouble,
        guide: channels.guide,
        controller: channels.controller,
        outdate: channels.outdate,
        services: channels.services,
        exports: channels.exports,
        snapshot: sender,
        events: channels.events,
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime of a data thread"))?;
    let thread = std::thread::Builder::new()
        .name(format!("data-{name}"))
        .spawn(move || {
            runtime.block_on(async { Box::pin(DataThread::new(opened, ends).run()).await });
        })
        .map_err(system("start a data thread"))?;
    let facts = ResourceFacts {
        name: name.clone(),
        mode: resource.mode,
        prefer: channels.prefer,
        export: resource.local.export.to_string(),
    };
    let handle = ResourceHandle { facts, snapshot: receiver, orders: orders.clone(), looks };
    Ok((handle, Running { name, thread, orders }))
}

/// Every resource drains, flushes and writes its clean flag; all at the same time.
async fn stop_resources(running: Vec<Running>) {
    let mut answers = Vec::new();
    for resource in &running {
        let (answer, answered) = oneshot::channel();
        let order = Order { command: Command::Stop, answer };
        if resource.orders.send(order).await.is_ok() {
            answers.push(answered);
        }
    }
    for answer in answers {
        // A data thread that ended has answered or failed, and said so in the log.
        let _ = answer.await;
    }
    for Running { name, thread, orders } in running {
        drop(orders);
        if thread.join().is_err() {
            error!(resource = name, "the data thread failed");
        }
    }
}
