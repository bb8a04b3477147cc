//! Two nodes of a pair, as far as the link needs them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hotpair::link::{
    Connection, Dialler, Handover, LinkError, ListenSettings, Listener, Refusals, Route, Security,
    Trouble,
};
use hotpair::units::{
    Applied, ByteRange, ChunkIndex, DiskReason, DiskState, Epoch, Instance, ReplicaId,
    ReplicationMode, ResourceId, ResourceSize, Role, Sequence, ServeMode, SessionId,
};
use hotpair::wire::message::{Beat, ChunkData, Frame, Hello, Message, Write};
use hotpair::wire::payload::{BufferPool, Payload, PoolLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Both ends agree on it.
pub(crate) fn size() -> ResourceSize {
    ResourceSize::new(64 << 20).unwrap()
}

/// How a pair talks.
pub(crate) struct Pair {
    pub(crate) alpha: Security,
    pub(crate) beta: Security,
    /// Keys live in here.
    _folders: Vec<tempfile::TempDir>,
}

impl Pair {
    pub(crate) fn plain() -> Self {
        Self { alpha: Security::Plain, beta: Security::Plain, _folders: Vec::new() }
    }

    #[cfg(feature = "_tls")]
    pub(crate) fn tls() -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [alpha, beta] =
            folders.each_ref().map(|folder| hotpair::link::fingerprint_of(folder.path()).unwrap());
        let [of_alpha, of_beta] = folders.each_ref().map(tempfile::TempDir::path);
        Self {
            alpha: Security::tls(of_alpha, &[("beta".to_owned(), beta)]).unwrap(),
            beta: Security::tls(of_beta, &[("alpha".to_owned(), alpha)]).unwrap(),
            _folders: folders.into(),
        }
    }

    /// Every way in which a pair can talk in this build.
    pub(crate) fn each() -> Vec<Self> {
        vec![
            Self::plain(),
            #[cfg(feature = "_tls")]
            Self::tls(),
        ]
    }
}

/// Node beta, listening for resource vm1, whose other replica is on alpha.
pub(crate) struct Beta {
    pub(crate) address: SocketAddr,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) trouble: watch::Receiver<Option<Trouble>>,
    pub(crate) arrivals: mpsc::Receiver<Handover>,
}

impl Beta {
    pub(crate) async fn start(security: &Security) -> Self {
        Self::start_with(security, Duration::from_secs(30)).await
    }

    pub(crate) async fn start_with(security: &Security, handshake_timeout: Duration) -> Self {
        let (connections, arrivals) = mpsc::channel(4);
        let route = Route { peer: "alpha".to_owned(), connections };
        let (trouble_sender, trouble) = watch::channel(None);
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = ListenSettings {
            cluster: "office".to_owned(),
            security: security.clone(),
            suspect_after: Duration::from_secs(30),
            handshake_timeout,
            peer_addresses: vec![address.ip()],
            routes: BTreeMap::from([("vm1".to_owned(), route)]),
            trouble: trouble_sender,
        };
        let listener = Listener::bind(address, settings).await.unwrap();
        let address = listener.local_addr().unwrap();
        let refusals = listener.refusals();
        tokio::spawn(listener.run());
        Self { address, refusals, trouble, arrivals }
    }

    /// The next connection that is let through.
    pub(crate) async fn connection(&mut self) -> Connection {
        attach(self.arrivals.recv().await.unwrap())
    }
}

/// Node alpha's dialler.
pub(crate) struct Alpha {
    pub(crate) arrivals: mpsc::Receiver<Handover>,
    pub(crate) wanted: watch::Sender<bool>,
    pub(crate) trouble: watch::Receiver<Option<Trouble>>,
}

impl Alpha {
    pub(crate) fn start(security: &Security, address: SocketAddr) -> Self {
        let (connections, arrivals) = mpsc::channel(4);
        let (wanted, wanted_receiver) = watch::channel(true);
        let (trouble_sender, trouble) = watch::channel(None);
        let dialler = Dialler {
            address,
            source: Some(address.ip()),
            peer: "beta".to_owned(),
            security: security.clone(),
            suspect_after: Duration::from_secs(30),
            connections,
            wanted: wanted_receiver,
            trouble: trouble_sender,
        };
        tokio::spawn(dialler.run());
        Self { arrivals, wanted, trouble }
    }

    pub(crate) async fn connection(&mut self) -> Connection {
        attach(self.arrivals.recv().await.unwrap())
    }
}

pub(crate) fn attach(handover: Handover) -> Connection {
    let pool = BufferPool::new(PoolLimits::default());
    handover.attach(pool, size()).unwrap()
}

/// Both ends of a link that works, with alpha's Hello already taken.
pub(crate) struct Joined {
    pub(crate) alpha: Connection,
    pub(crate) beta: Connection,
    pub(crate) node_alpha: Alpha,
    pub(crate) node_beta: Beta,
}

pub(crate) async fn join(pair: &Pair) -> Joined {
    let mut node_beta = Beta::start(&pair.beta).await;
    let mut node_alpha = Alpha::start(&pair.alpha, node_beta.address);
    let mut alpha = node_alpha.connection().await;
    let hello = said(Message::Hello(Box::new(hello("alpha", "vm1"))));
    alpha.send(&hello);
    flush(&mut alpha).await.unwrap();
    let mut beta = node_beta.connection().await;
    assert_eq!(receive(&mut beta, 1).await.unwrap(), [hello]);
    Joined { alpha, beta, node_alpha, node_beta }
}

impl Joined {
    /// One frame there and one back: the link works.
    pub(crate) async fn check(&mut self, number: u64) {
        let beat = Beat { sent_at: number, stable: Applied::default() };
        let (question, answer) = (said(Message::Ping(beat)), said(Message::Pong(beat)));
        exchange(&mut self.alpha, &mut self.beta, &question).await;
        exchange(&mut self.beta, &mut self.alpha, &answer).await;
    }
}

pub(crate) async fn exchange(from: &mut Connection, to: &mut Connection, frame: &Frame) {
    from.send(frame);
    flush(from).await.unwrap();
    assert_eq!(receive(to, 1).await.unwrap(), std::slice::from_ref(frame));
}

pub(crate) async fn flush(connection: &mut Connection) -> Result<(), LinkError> {
    std::future::poll_fn(|cx| connection.poll_flush(cx)).await
}

/// The next frames, at least `count` of them.
pub(crate) async fn receive(
    connection: &mut Connection,
    count: usize,
) -> Result<Vec<Frame>, LinkError> {
    let mut frames = Vec::new();
    while frames.len() < count {
        std::future::poll_fn(|cx| connection.poll_frames(cx, &mut frames)).await?;
    }
    Ok(frames)
}

/// A stranger that says `bytes` and then nothing more; what it is told until it is cut off.
pub(crate) async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The other end may have closed already, which is what is to be found out.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    answer
}

/// A frame in a session.
pub(crate) fn said(message: Message) -> Frame {
    Frame { session: SessionId(7), epoch: Epoch(5), message }
}

pub(crate) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let encoded = hotpair::wire::frame::encode(frame);
    let mut bytes = encoded.head.clone();
    bytes.extend(encoded.payload.iter().flatten());
    bytes
}

/// A write of `len` bytes that differ from those of any other number.
pub(crate) fn write(sequence: u64, len: usize) -> Frame {
    let start = (sequence * 4096) % (32 << 20);
    said(Message::Write(Write {
        sequence: Sequence(sequence),
        after: Sequence(sequence - 1),
        range: ByteRange::new(start, u64::try_from(len).unwrap(), size()).unwrap(),
        fua: false,
        payload: Payload::hash(noise(sequence, len)),
    }))
}

pub(crate) fn chunk(index: u64) -> Frame {
    let payload = Payload::hash(noise(index, 64 << 10));
    said(Message::ChunkData(ChunkData {
        chunk: ChunkIndex(index),
        mask: u16::MAX,
        hash: payload.digest(),
        more: false,
        payload,
    }))
}

fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes.into()
}

pub(crate) fn hello(node: &str, resource: &str) -> Hello {
    Hello {
        versions: (1, 1),
        cluster: "office".to_owned(),
        node: node.to_owned(),
        resource: resource.to_owned(),
        nonce: [9; 32],
        counter: 1,
        resource_id: ResourceId::default(),
        replica_id: ReplicaId::default(),
        peer_replica_id: ReplicaId::default(),
        size: size().bytes(),
        size_next: 0,
        epoch: Epoch(0),
        promised: Epoch(0),
        served_epoch: Epoch(0),
        generation: None,
        history: Vec::new(),
        disk: DiskState::UpToDate,
        disk_reason: DiskReason::None,
        role: Role::Secondary,
        serve_mode: ServeMode::None,
        mode: ReplicationMode::Sync,
        settings: 0,
        veto: None,
        hold: false,
        never_promotes: false,
        stopped: false,
        marks: 0,
        at_risk_bytes: 0,
        applied: Applied::default(),
        peer_applied: Applied::default(),
        instances: Vec::new(),
        peer_instance: Instance::default(),
        boot_id: 1,
        resync_source: None,
        resolution: None,
        zeroing_is_cheap: false,
    }
}
