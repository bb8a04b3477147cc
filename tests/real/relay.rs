//! A TCP relay between the two nodes that counts what passes and can cut it.
//!
//! Each node is told the relay's address as that of its peer, so that a test holds the cable.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Connections that one relay carries at a time.
const CONNECTIONS_MAX: usize = 64;

/// One direction of dialling: whoever connects here is connected to `target`.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    is_over: AtomicBool,
    bytes: AtomicU64,
    /// Cut as soon as this many bytes have passed in all; 0 means never.
    cut_at: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens on a free port of the loopback.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for dialled in listener.incoming().map_while(Result::ok) {
                if shared.is_over.load(Ordering::Acquire) {
                    return;
                }
                if !shared.is_cut.load(Ordering::Acquire) {
                    // A target that does not answer is what the dialler finds out by the close.
                    drop(shared.join(dialled, target));
                }
            }
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that passed in both directions so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Acquire)
    }

    /// Breaks every connection and lets no new one through.
    pub(crate) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::Release);
        self.state.close_all();
    }

    /// Cuts as soon as `bytes` more have passed.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.state.cut_at.store(self.bytes() + bytes, Ordering::Release);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state.is_cut.load(Ordering::Acquire)
    }

    /// Lets connections through again.
    pub(crate) fn heal(&self) {
        self.state.cut_at.store(0, Ordering::Release);
        self.state.is_cut.store(false, Ordering::Release);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
        self.state.close_all();
        // Wakes the thread that accepts, which then ends.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

impl State {
    fn close_all(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Carries bytes both ways on two threads until either side closes.
    fn join(self: &Arc<Self>, dialled: TcpStream, target: SocketAddr) -> io::Result<()> {
        let onward = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= 2 * CONNECTIONS_MAX {
            open.drain(..CONNECTIONS_MAX);
        }
        open.extend([dialled.try_clone()?, onward.try_clone()?]);
        drop(open);
        for (from, to) in [(dialled.try_clone()?, onward.try_clone()?), (onward, dialled)] {
            from.set_nodelay(true)?;
            let state = Arc::clone(self);
            std::thread::spawn(move || state.carry(from, to));
        }
        Ok(())
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let passed =
                self.bytes.fetch_add(u64::try_from(len).expect("64 bit"), Ordering::AcqRel);
            let cut_at = self.cut_at.load(Ordering::Acquire);
            if cut_at != 0 && passed >= cut_at {
                self.is_cut.store(true, Ordering::Release);
                self.close_all();
            }
            if self.is_cut.load(Ordering::Acquire) || to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    }
}
