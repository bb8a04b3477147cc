//! Accepts clients at one address, while at least one export there is served.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use super::exports::{Export, Exports};
use super::handshake::Accepted;
use crate::config::Export as Address;

/// Most connections in handshake.
pub(super) const HANDSHAKES_MAX: usize = 32;
/// Connections that the kernel holds until we accept them.
const BACKLOG: i32 = 128;
/// Pause after the system refused to accept, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest path of a unix socket in bytes. Source: unix(7), `sun_path` less its NUL.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Why nobody can connect at an address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system refused.
    #[error("{place}: cannot {action}")]
    Io {
        /// Path or address.
        place: String,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A path that the system has no room for.
    #[error("{}: a socket path has at most {SOCKET_PATH_LEN_MAX} bytes: choose a shorter one", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error("{}: others can write to this folder: chmod go-w, or choose another one", folder.display())]
    FolderNotOurs {
        /// The folder.
        folder: PathBuf,
    },
    /// What is there is not a socket of ours.
    #[error("{}: this exists and is not a socket of this user: move it away", path.display())]
    NotOurSocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process accepts there.
    #[error("{}: another process is listening there", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
}

/// Accepts and haggles on the runtime that it was made on. Connections are refused again when it
/// is dropped.
#[derive(Debug)]
pub struct Listener {
    exports: watch::Sender<Exports>,
    tcp_address: Option<SocketAddr>,
    accepting: AbortHandle,
    _file: Option<SocketFile>,
}

enum Accepting {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at `address` with no export yet. Call it on the control runtime.
    ///
    /// # Errors
    /// [`ListenError`] says what is in the way.
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        let (accepting, tcp_address, file) = match address {
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                (Accepting::Unix(listener), None, Some(file))
            }
            Address::Tcp(address) => {
                let (listener, bound) = bind_tcp(*address)?;
                (Accepting::Tcp(listener), Some(bound), None)
            }
        };
        let (exports, offered) = watch::channel(Exports::default());
        let accepting = tokio::spawn(accept_all(accepting, offered)).abort_handle();
        Ok(Self { exports, tcp_address, accepting, _file: file })
    }

    /// Serves `export`, in place of an earlier one of that name.
    pub fn offer(&self, export: Export) {
        self.exports.send_modify(|exports| exports.offer(export));
    }

    /// Serves `name` no longer. Clients that ask for it are told which node does.
    pub fn withdraw(&self, name: &str, primary: Option<&str>) {
        self.exports.send_modify(|exports| exports.withdraw(name, primary));
    }

    /// Opens no further export, while clients in a handshake are told so.
    pub fn shut_down(&self) {
        self.exports.send_modify(|exports| exports.is_closing = true);
    }

    /// Whether no export is served at this address.
    pub fn is_idle(&self) -> bool {
        self.exports.borrow().served.is_empty()
    }

    /// The TCP address, with the port that the system chose if it was asked to.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts until it is aborted; the handshakes end with it.
async fn accept_all(listener: Accepting, exports: watch::Receiver<Exports>) {
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        match accepted {
            // Dropped: at the limit a connection is accepted and closed.
            Ok(_) if handshakes.len() >= HANDSHAKES_MAX => debug!("too many clients in handshake"),
            Ok(accepted) => {
                let exports = exports.clone();
                handshakes.spawn(async move {
                    if let Err(error) = accepted.negotiate(exports).await {
                        debug!(%error, "handshake ended");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Accepting {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                prepare_tcp(&stream);
                Ok(Accepted::Tcp(stream))
            }
        }
    }
}

/// Sends replies at once (N47), and notices a host that is gone for good: a quiet client may stay
/// for ever, but not one whose host no longer answers.
fn prepare_tcp(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_mins(1))
        .with_interval(Duration::from_secs(10));
    let socket = socket2::SockRef::from(stream);
    // A socket that refuses these still works.
    if let Err(error) = socket.set_tcp_nodelay(true).and(socket.set_tcp_keepalive(&keepalive)) {
        debug!(%error, "cannot tune the socket");
    }
}

fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed =
        |action| move |source| ListenError::Io { place: address.to_string(), action, source };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)
        .map_err(failed("make a socket"))?;
    socket.set_reuse_address(true).map_err(failed("make a socket"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    let listener = TcpListener::from_std(socket.into()).map_err(failed("listen"))?;
    let bound = listener.local_addr().map_err(failed("listen"))?;
    Ok((listener, bound))
}

/// Makes a socket that only this user can connect to, in a folder that only this user or root can
/// change.
fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |action| {
        move |source| ListenError::Io { place: path.display().to_string(), action, source }
    };
    if path.as_os_str().len() > SOCKET_PATH_LEN_MAX {
        return Err(ListenError::PathTooLong { path: path.to_owned() });
    }
    check_folder(path)?;
    remove_stale(path)?;
    let address = SockAddr::unix(path).map_err(failed("use this path"))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .map_err(failed("make a socket"))?;
    // The file inherits the mode of the socket, so it is never open to others, not even briefly.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)
        .map_err(io::Error::from)
        .map_err(failed("set the mode of the socket"))?;
    socket.bind(&address).map_err(failed("bind"))?;
    let file = SocketFile::at(path).map_err(failed("examine the socket"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed("listen"))?;
    Ok((listener, file))
}

/// The folder exists, is made if it does not, and cannot be changed by others. In a sticky folder
/// others cannot replace what is ours.
fn check_folder(path: &Path) -> Result<(), ListenError> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = |action| {
        move |source| ListenError::Io { place: folder.display().to_string(), action, source }
    };
    if !folder.exists() {
        DirBuilder::new().mode(0o700).create(folder).map_err(failed("make this folder"))?;
    }
    let found = fs::metadata(folder).map_err(failed("examine this folder"))?;
    let is_ours = is_our_user(&found) || found.uid() == 0;
    let is_closed = found.mode() & WRITABLE_BY_OTHERS == 0 || found.mode() & STICKY != 0;
    if !is_ours || !is_closed {
        return Err(ListenError::FolderNotOurs { folder: folder.to_owned() });
    }
    Ok(())
}

/// Removes the socket of a process that ended without doing so. Anything else stays: a file, a
/// link, a socket of another user, one that somebody listens on.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |action| {
        move |source| ListenError::Io { place: path.display().to_string(), action, source }
    };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed("examine what is there"))?,
    };
    if !found.file_type().is_socket() || !is_our_user(&found) {
        return Err(ListenError::NotOurSocket { path: path.to_owned() });
    }
    let address = SockAddr::unix(path).map_err(failed("use this path"))?;
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .map_err(failed("make a socket"))?;
    match probe.connect(&address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        // Connected, or its queue is full: somebody is there.
        Ok(()) | Err(_) => Err(ListenError::InUse { path: path.to_owned() }),
    }
}

fn is_our_user(found: &Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

/// The file of a unix socket; removed when dropped, unless another one took its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && (found.dev(), found.ino()) == (self.device, self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}
