//! Where in a tree something changed: the kernel's events as hints.
//!
//! A watch belongs to a directory *object*, so it stays right when a directory is moved. A thread of its
//! own always drains the kernel's queue, whatever else goes on, and hands each hint on at once. What the
//! kernel dropped for want of room is said, too, with [`Hint::Lost`].

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};
use rustix::io::{Errno, write};

use super::attributes::path_of;
use super::folder::Folder;
use crate::manifest::Name;
use crate::units::ObjectId;

/// Bytes of events that are read at once.
const EVENTS_LEN: usize = 64 << 10;

/// What may have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hint {
    /// An entry of a directory.
    Entry(ObjectId, Name),
    /// A directory itself: its mode, owner or times, or it is gone.
    Directory(ObjectId),
    /// A file in the folder of cookies appeared: everything that was done before it was said.
    Cookie(Name),
    /// Anything: events were lost.
    Lost,
}

/// Why a directory is not watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WatchError {
    /// The kernel allows no more.
    #[error(
        "the kernel allows no more watches: raise fs.inotify.max_user_watches \
         (sysctl -w fs.inotify.max_user_watches=1048576)"
    )]
    TooMany,
    /// It is gone, or may not be read.
    #[error("{0}")]
    Kernel(Errno),
}

/// What a watch stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Tree(ObjectId),
    Cookies,
}

#[derive(Debug, Default)]
struct Watches {
    by_watch: BTreeMap<i32, Place>,
    by_object: BTreeMap<ObjectId, i32>,
}

/// The events of one tree.
#[derive(Debug)]
pub struct Watch {
    inotify: Arc<OwnedFd>,
    watches: Arc<Mutex<Watches>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins without any directory. `take` is called by the thread that drains the kernel's queue; while
    /// it works, the queue fills.
    ///
    /// # Errors
    /// What the kernel says: it allows 128 of these to a user, if nobody raised that.
    pub fn start(take: impl FnMut(Hint) + Send + 'static) -> rustix::io::Result<Self> {
        let inotify = Arc::new(init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let watches = Arc::default();
        let drain = Drain {
            inotify: Arc::clone(&inotify),
            stop: Arc::clone(&stop),
            watches: Arc::clone(&watches),
            take,
        };
        let thread = Builder::new()
            .name("tree-events".to_owned())
            .spawn(move || drain.run())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self { inotify, watches, stop, thread: Some(thread) })
    }

    /// Watches a directory of the tree. To watch it first and list it then misses nothing.
    ///
    /// # Errors
    /// [`WatchError`]; the others stay watched.
    pub fn add(&self, object: ObjectId, folder: &Folder) -> Result<(), WatchError> {
        self.add_as(Place::Tree(object), folder)
    }

    /// Watches the folder of cookies.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn add_cookies(&self, folder: &Folder) -> Result<(), WatchError> {
        self.add_as(Place::Cookies, folder)
    }

    /// A directory is not in the tree any more.
    pub fn remove(&self, object: ObjectId) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watches.by_object.remove(&object) {
            watches.by_watch.remove(&watch);
            // It ends by itself with the directory.
            let _ = remove_watch(&self.inotify, watch);
        }
    }

    /// Whether a directory is watched.
    pub fn has(&self, object: ObjectId) -> bool {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.by_object.contains_key(&object)
    }

    /// Number of directories that are watched.
    pub fn count(&self) -> usize {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).by_object.len()
    }

    fn add_as(&self, place: Place, folder: &Folder) -> Result<(), WatchError> {
        let flags = WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB;
        // Held until the watch is known, so that no event of it is read before.
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = add_watch(&self.inotify, path_of(folder), flags).map_err(|errno| {
            if matches!(errno, Errno::NOSPC | Errno::NOMEM) {
                WatchError::TooMany
            } else {
                WatchError::Kernel(errno)
            }
        })?;
        // The kernel gives a directory that it watches already the same watch.
        if let Some(Place::Tree(old)) = watches.by_watch.insert(watch, place) {
            watches.by_object.remove(&old);
        }
        if let Place::Tree(object) = place
            && let Some(old) = watches.by_object.insert(object, watch)
            && old != watch
        {
            watches.by_watch.remove(&old);
            let _ = remove_watch(&self.inotify, old);
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It only fails if it was said so often that the thread must have heard it.
        let _ = write(&self.stop, &[1; 8]);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Drain<T> {
    inotify: Arc<OwnedFd>,
    stop: Arc<OwnedFd>,
    watches: Arc<Mutex<Watches>>,
    take: T,
}

impl<T: FnMut(Hint)> Drain<T> {
    fn run(mut self) {
        let mut buffer = vec![MaybeUninit::uninit(); EVENTS_LEN];
        loop {
            let mut waits = [
                PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            if !waits[1].revents().is_empty() {
                return;
            }
            if !self.take_all(&mut buffer) {
                break;
            }
        }
        // Without events only scans find what changes: that they are gone is a loss like any other.
        (self.take)(Hint::Lost);
    }

    /// Takes what the kernel has; `false` if it has no more to give, ever.
    fn take_all(&mut self, buffer: &mut [MaybeUninit<u8>]) -> bool {
        let inotify = Arc::clone(&self.inotify);
        let mut reader = Reader::new(&inotify, buffer);
        loop {
            let (watch, flags, name) = match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_vec());
                    (event.wd(), event.events(), name)
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            };
            if let Some(hint) = self.hint(watch, flags, name.as_deref()) {
                (self.take)(hint);
            }
        }
    }

    fn hint(&mut self, watch: i32, flags: ReadFlags, name: Option<&[u8]>) -> Option<Hint> {
        if flags.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
            return Some(Hint::Lost);
        }
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let place = watches.by_watch.get(&watch).copied()?;
        if flags.contains(ReadFlags::IGNORED) {
            watches.by_watch.remove(&watch);
            if let Place::Tree(object) = place
                && watches.by_object.get(&object) == Some(&watch)
            {
                watches.by_object.remove(&object);
            }
        }
        drop(watches);
        let name = name.and_then(|bytes| Name::new(bytes).ok());
        match (place, name) {
            (Place::Tree(object), Some(name)) => Some(Hint::Entry(object, name)),
            (Place::Tree(object), None) => Some(Hint::Directory(object)),
            (Place::Cookies, Some(name)) => {
                flags.contains(ReadFlags::CREATE).then_some(Hint::Cookie(name))
            }
            (Place::Cookies, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};

    use rustix::fs::{CWD, renameat};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// A watch, what it says, a tree and a folder of cookies in `outer`.
    fn watch(outer: &Path) -> (Watch, Receiver<Hint>) {
        std::fs::create_dir(outer.join("tree")).unwrap();
        std::fs::create_dir(outer.join("cookies")).unwrap();
        let (hints, taken) = channel();
        let watch = Watch::start(move |hint| drop(hints.send(hint))).unwrap();
        watch.add_cookies(&Folder::open(&outer.join("cookies")).unwrap()).unwrap();
        (watch, taken)
    }

    /// All hints up to the cookie `text`, which is made here.
    fn hints_until(taken: &Receiver<Hint>, outer: &Path, text: &str) -> Vec<Hint> {
        std::fs::write(outer.join("cookies").join(text), "").unwrap();
        let mut hints = Vec::new();
        loop {
            match taken.recv().unwrap() {
                Hint::Cookie(found) if found == name(text) => return hints,
                hint => hints.push(hint),
            }
        }
    }

    #[test]
    fn what_changed_before_a_cookie_was_said_before_it() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        let (watch, taken) = watch(outer.path());
        let root = Folder::open(&tree).unwrap();
        watch.add(ObjectId(1), &root).unwrap();
        std::fs::write(tree.join("a"), "1").unwrap();
        renameat(CWD, tree.join("a"), CWD, tree.join("b")).unwrap();
        let hints = hints_until(&taken, outer.path(), "1");
        for entry in ["a", "b"] {
            assert!(hints.contains(&Hint::Entry(ObjectId(1), name(entry))), "{hints:?}");
        }
        // A directory that was moved is still the same object.
        renameat(CWD, &tree, CWD, outer.path().join("moved")).unwrap();
        std::fs::write(outer.path().join("moved/c"), "1").unwrap();
        let hints = hints_until(&taken, outer.path(), "2");
        assert!(hints.contains(&Hint::Entry(ObjectId(1), name("c"))), "{hints:?}");
        watch.remove(ObjectId(1));
        std::fs::write(outer.path().join("moved/d"), "1").unwrap();
        assert_eq!(hints_until(&taken, outer.path(), "3"), []);
        assert_eq!(watch.count(), 0);
    }

    #[test]
    fn a_directory_that_is_gone_is_watched_no_more() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        let (watch, taken) = watch(outer.path());
        watch.add(ObjectId(5), &Folder::open(&tree).unwrap()).unwrap();
        std::fs::remove_dir(&tree).unwrap();
        let hints = hints_until(&taken, outer.path(), "1");
        assert!(hints.contains(&Hint::Directory(ObjectId(5))), "{hints:?}");
        assert_eq!(watch.count(), 0);
    }
}
