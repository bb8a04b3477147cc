//! The unix socket on which a node takes commands: who may connect, and what lies at its path.
//!
//! The folder keeps others away (0700), so does the socket (0600), and the kernel names the user
//! of each connection. Nothing that is found at the path is followed or removed unless it is a
//! socket that nobody listens on.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A system call failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Other users reach into the folder.
    #[error("{path}: others can reach into this folder (mode {mode:04o}): chmod 700 it")]
    OpenFolder {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The folder belongs to somebody else.
    #[error("{path}: this folder belongs to user {owner}, give each user a folder of its own")]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Something else is at the path, as a symbolic link.
    #[error("{path}: this is no socket and not ours to remove: move it away")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// A daemon answers there.
    #[error("{path}: a daemon listens here already: stop it, or give this node its own `control`")]
    InUse {
        /// The path.
        path: PathBuf,
    },
}

/// A bound control socket. The file goes when this goes.
#[derive(Debug)]
pub struct ControlSocket {
    listener: tokio::net::UnixListener,
    permits: Arc<Semaphore>,
    path: PathBuf,
    /// Device and inode of the file, so that only our own is removed.
    file: (u64, u64),
}

/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;

impl ControlSocket {
    /// Listens at `path`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the folder is open to others, if something that is not a forgotten socket is at `path`,
    /// or if a daemon listens there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        own_folder(dir)?;
        clear(path)?;
        let failed = |action| move |source| SocketError::Io { path: path.into(), action, source };
        let listener = UnixListener::bind(path).map_err(failed("listen"))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("chmod"))?;
        let found = fs::symlink_metadata(path).map_err(failed("stat"))?;
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(failed("listen"))?;
        Ok(Self {
            listener,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            path: path.to_owned(),
            file: (found.dev(), found.ino()),
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|f| (f.dev(), f.ino()) == self.file);
        if is_ours && let Err(err) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), error = %err, "control socket stays");
        }
    }
}

/// Makes the folder, or checks that it is one that nobody else reaches into.
fn own_folder(dir: &Path) -> Result<(), SocketError> {
    let failed = |action| move |source| SocketError::Io { path: dir.into(), action, source };
    match fs::symlink_metadata(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(dir).map_err(failed("make this folder"))
        }
        Err(err) => Err(failed("stat")(err)),
        Ok(found) if !found.is_dir() => Err(SocketError::NoSocket { path: dir.to_owned() }),
        Ok(found) => {
            let me = rustix::process::geteuid().as_raw();
            let mode = found.mode() & 0o7777;
            if found.uid() != me {
                Err(SocketError::ForeignFolder { path: dir.to_owned(), owner: found.uid() })
            } else if mode & 0o077 != 0 {
                Err(SocketError::OpenFolder { path: dir.to_owned(), mode })
            } else {
                Ok(())
            }
        }
    }
}

/// Removes a socket that a killed daemon left, and nothing else.
fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |action| move |source| SocketError::Io { path: path.into(), action, source };
    match fs::symlink_metadata(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(failed("stat")(err)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => (),
    }
    match UnixStream::connect(path) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(err) => Err(failed("connect")(err)),
    }
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Its user; `None` if the kernel would not say.
    pub(super) uid: Option<u32>,
    /// Its process, for the log.
    pub(super) pid: Option<i32>,
}

impl Caller {
    /// Root, and the user that runs the daemon, may ask for anything; nobody else for anything.
    pub(super) fn is_allowed(self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
    }
}

impl Listener for ControlSocket {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Connection, Caller) {
        let permits = Arc::clone(&self.permits);
        let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
        let (stream, _) = Listener::accept(&mut self.listener).await;
        let caller = match stream.peer_cred() {
            Ok(cred) => Caller { uid: Some(cred.uid()), pid: cred.pid() },
            Err(_) => Caller { uid: None, pid: None },
        };
        (Connection { stream, _permit: permit }, caller)
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller { uid: Some(rustix::process::geteuid().as_raw()), pid: None })
    }
}

impl Connected<IncomingStream<'_, ControlSocket>> for Caller {
    fn connect_info(stream: IncomingStream<'_, ControlSocket>) -> Self {
        *stream.remote_addr()
    }
}

/// A connection and its place among [`CONNECTIONS_MAX`].
#[derive(Debug)]
pub struct Connection {
    stream: tokio::net::UnixStream,
    _permit: OwnedSemaphorePermit,
}

mod io_impl {
    //! A connection reads and writes as its stream does.

    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Connection;

    impl AsyncRead for Connection {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Connection {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> Result<ControlSocket, SocketError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        ControlSocket::bind(path)
    }

    fn folder() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    #[test]
    fn only_the_owner_reaches_the_socket_and_it_goes_with_the_daemon() {
        let dir = folder();
        let path = dir.path().join("run/control.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_forgotten_socket_is_replaced_and_a_live_one_is_not() {
        let dir = folder();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let socket = bind(&path).unwrap();
        let said = bind(&path).unwrap_err().to_string();
        assert!(said.ends_with(
            ": a daemon listens here already: stop it, or give this node its own `control`"
        ));
        assert!(path.exists(), "the second attempt leaves the first one alone");
        drop(socket);
    }

    #[test]
    fn what_is_not_a_socket_is_neither_followed_nor_removed() {
        let dir = folder();
        let real = dir.path().join("real.sock");
        drop(UnixListener::bind(&real).unwrap());
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let file = dir.path().join("file.sock");
        fs::write(&file, "x").unwrap();
        for path in [&link, &file] {
            assert!(matches!(bind(path), Err(SocketError::NoSocket { .. })), "{path:?}");
            assert!(fs::symlink_metadata(path).is_ok());
        }
        let dir_link = dir.path().join("dir");
        std::os::unix::fs::symlink(dir.path(), &dir_link).unwrap();
        assert!(matches!(bind(&dir_link.join("c.sock")), Err(SocketError::NoSocket { .. })));
    }

    #[test]
    fn a_folder_that_others_reach_into_is_refused() {
        let dir = folder();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let err = bind(&dir.path().join("c.sock")).unwrap_err();
        assert!(err.to_string().ends_with("(mode 0755): chmod 700 it"), "{err}");
    }

    #[test]
    fn only_root_and_the_own_user_are_allowed() {
        let me = rustix::process::geteuid().as_raw();
        let caller = |uid| Caller { uid, pid: None };
        assert!(caller(Some(0)).is_allowed() && caller(Some(me)).is_allowed());
        assert!(!caller(Some(me + 1)).is_allowed() && !caller(None).is_allowed());
    }
}
