//! The cable of one path: what one node sends comes out at the other, unless it is cut.
//!
//! Each node is told an address of the relay as that of its peer. Where a node is, its first
//! datagram says, so no node needs a port that is known before it starts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Datagrams that are remembered of each direction.
const RECORDED_MAX: usize = 4096;

pub(crate) struct Relay {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Socket `i` faces node `i`.
    sockets: [UdpSocket; 2],
    nodes: [Mutex<Option<SocketAddr>>; 2],
    /// Nothing is passed to that node.
    is_cut: [AtomicBool; 2],
    /// What was passed on, or would have been, to that node.
    recorded: [Mutex<Vec<Vec<u8>>>; 2],
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let socket = || UdpSocket::bind("127.0.0.7:0");
        let shared = Arc::new(Shared {
            sockets: [socket().await.unwrap(), socket().await.unwrap()],
            nodes: Default::default(),
            is_cut: Default::default(),
            recorded: Default::default(),
        });
        let tasks = [0, 1].map(|from| tokio::spawn(carry(Arc::clone(&shared), from)));
        Self { shared, tasks: tasks.into() }
    }

    /// Where that node finds its peer.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.shared.sockets[node].local_addr().unwrap()
    }

    /// Nothing comes to that node, or everything again.
    pub(crate) fn cut(&self, to: usize) {
        self.shared.is_cut[to].store(true, Ordering::SeqCst);
    }

    pub(crate) fn heal(&self, to: usize) {
        self.shared.is_cut[to].store(false, Ordering::SeqCst);
    }

    /// What was sent to that node so far.
    pub(crate) fn recorded(&self, to: usize) -> Vec<Vec<u8>> {
        self.shared.recorded[to].lock().unwrap().clone()
    }

    /// Sends something to that node, which cannot tell it from what its peer sends.
    pub(crate) async fn send(&self, to: usize, bytes: &[u8]) {
        let node = self.shared.nodes[to].lock().unwrap().expect("it has sent something");
        self.shared.sockets[to].send_to(bytes, node).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn carry(shared: Arc<Shared>, from: usize) {
    let to = 1 - from;
    let mut buffer = [0; 2048];
    loop {
        // An error is what an earlier datagram met: a node that is not there.
        let Ok((len, source)) = shared.sockets[from].recv_from(&mut buffer).await else { continue };
        *shared.nodes[from].lock().unwrap() = Some(source);
        {
            let mut recorded = shared.recorded[to].lock().unwrap();
            if recorded.len() < RECORDED_MAX {
                recorded.push(buffer[..len].to_vec());
            }
        }
        let target = *shared.nodes[to].lock().unwrap();
        if let Some(target) = target
            && !shared.is_cut[to].load(Ordering::SeqCst)
        {
            // A node that is not there hears nothing.
            let _ = shared.sockets[to].send_to(&buffer[..len], target).await;
        }
    }
}
