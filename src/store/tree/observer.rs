//! What is known to have changed in a tree, and how far events have been read.
//!
//! Events go into a [`DirtySet`] as they come, also while a generation is captured. A *cookie* is a file
//! that is made in the work area: its event comes after all earlier ones, so once it was read, whatever
//! changed before is in the set; and its ctime is what the file system calls now.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::folder::{Folder, look_at};
use super::watch::{Hint, Watch, WatchError};
use super::work_area::WorkArea;
use crate::manifest::{DirtySet, Due, Granularity, Name, Pace, TreeClock};
use crate::units::{Instant, ObjectId};

/// The event of a cookie comes within it, or events are not to be relied on.
const COOKIE_WAIT: Duration = Duration::from_secs(10);
/// What is shared with the thread that reads events.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    has_cookie: Condvar,
}

#[derive(Debug, Default)]
struct State {
    dirty: DirtySet,
    /// The newest cookie whose event was read.
    cookie: u64,
    /// How often events were lost.
    overflows: u64,
    /// When something was said last.
    seen: Instant,
    /// When the first thing was said of what was taken out and is not dealt with.
    taken: Option<Instant>,
}

impl State {
    fn take(&mut self, now: Instant, pace: Pace) -> Due {
        let due = self.dirty.take_due(now, pace);
        self.taken = self.taken.into_iter().chain(due.oldest).min();
        due
    }
}

/// What is known to have changed, for whoever looks on from another thread.
#[derive(Clone, Debug)]
pub struct DirtyLook(Arc<Shared>);

impl DirtyLook {
    /// When something will have settled, if nothing more is said.
    pub fn next_due(&self, pace: Pace) -> Option<Instant> {
        self.0.state().dirty.next_due(pace)
    }

    /// When the first thing was said that is in no generation yet: also of what a capture has taken
    /// out and is looking at.
    pub fn oldest(&self) -> Option<Instant> {
        let state = self.0.state();
        state.taken.into_iter().chain(state.dirty.oldest()).min()
    }

    /// Entries that may differ, as far as they are known one by one.
    pub fn count(&self) -> usize {
        self.0.state().dirty.count()
    }

    /// How often events were lost.
    pub fn overflows(&self) -> u64 {
        self.0.state().overflows
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, now: Instant, hint: Hint) {
        let mut state = self.state();
        state.seen = now;
        match hint {
            Hint::Entry(directory, name) => state.dirty.touch(now, directory, name),
            Hint::Directory(directory) => state.dirty.touch_directory(now, directory),
            Hint::Lost => {
                state.overflows += 1;
                state.dirty.suspect(now);
            }
            Hint::Cookie(name) => {
                let number = std::str::from_utf8(name.bytes()).ok().and_then(|it| it.parse().ok());
                state.cookie = state.cookie.max(number.unwrap_or_default());
                self.has_cookie.notify_all();
            }
        }
    }
}

/// Watches one tree.
#[derive(Debug)]
pub struct Observer {
    watch: Option<Watch>,
    shared: Arc<Shared>,
    cookies: Folder,
    next_cookie: u64,
    granularity: Granularity,
}

impl Observer {
    /// Begins without any directory, and suspects that anything may have changed. Without `events` only
    /// scans tell of changes. `now` is the clock of the node; `heard` is called after each hint, by the
    /// thread that reads events.
    ///
    /// # Errors
    /// What the kernel says: it allows 128 observers to a user, if nobody raised that.
    pub fn start(
        area: &WorkArea,
        events: bool,
        now: impl Fn() -> Instant + Send + 'static,
        heard: impl Fn() + Send + 'static,
    ) -> Result<Self, Errno> {
        let cookies = area.cookies().again()?;
        for name in cookies.list()?.names {
            // Left by a run before this one.
            cookies.remove_file(&name)?;
        }
        let granularity = area.granularity()?;
        let shared = Arc::<Shared>::default();
        shared.take(now(), Hint::Lost);
        shared.state().overflows = 0;
        let heard_there = Arc::clone(&shared);
        let take = move |hint| {
            heard_there.take(now(), hint);
            heard();
        };
        let watch = if events { Some(Watch::start(take)?) } else { None };
        if let Some(watch) = &watch {
            watch.add_cookies(&cookies).map_err(|error| match error {
                WatchError::TooMany => Errno::NOSPC,
                WatchError::Kernel(errno) => errno,
            })?;
        }
        Ok(Self { watch, shared, cookies, next_cookie: 1, granularity })
    }

    /// The watches, if events are used.
    pub fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// What the file system calls now; all that changed before it is in the dirty set when this returns.
    ///
    /// # Errors
    /// What the kernel says of a file in the work area; `TIMEDOUT` if its event does not come.
    pub fn cookie(&mut self) -> Result<TreeClock, Errno> {
        let number = self.next_cookie;
        self.next_cookie += 1;
        let name = Name::new(number.to_string().as_bytes()).expect("a number is a name");
        let file = self.cookies.make_file(&name)?;
        let now = look_at(&file)?.stamp.ctime;
        if self.watch.is_some() {
            let state = self.shared.state();
            let missing = |state: &mut State| state.cookie < number;
            let (state, _) = self
                .shared
                .has_cookie
                .wait_timeout_while(state, COOKIE_WAIT, missing)
                .unwrap_or_else(PoisonError::into_inner);
            if state.cookie < number {
                return Err(Errno::TIMEDOUT);
            }
        }
        self.cookies.remove_file(&name)?;
        Ok(TreeClock { now, granularity: self.granularity })
    }

    /// Takes out what has settled.
    pub fn take_due(&self, now: Instant, pace: Pace) -> Due {
        self.shared.state().take(now, pace)
    }

    /// Takes out everything, settled or not.
    pub fn take_all(&self) -> Due {
        let pace = Pace { settle: Duration::ZERO, oldest_max: Duration::ZERO };
        self.shared.state().take(Instant(u64::MAX), pace)
    }

    /// What was taken out is in a generation.
    pub fn dealt_with(&self) {
        self.shared.state().taken = None;
    }

    /// A way to look on from another thread.
    pub fn look(&self) -> DirtyLook {
        DirtyLook(Arc::clone(&self.shared))
    }

    /// Puts back what was taken out and not dealt with.
    pub fn put_back(&self, due: Due) {
        let mut state = self.shared.state();
        let seen = state.seen;
        state.taken = None;
        state.dirty.put_back(seen, due);
    }

    /// An entry may have changed.
    pub fn touch(&self, now: Instant, directory: ObjectId, name: Name) {
        self.shared.state().dirty.touch(now, directory, name);
    }

    /// Anything may have changed.
    pub fn suspect(&self, now: Instant) {
        self.shared.state().dirty.suspect(now);
    }

    /// When something will have settled, if nothing more is said.
    pub fn next_due(&self, pace: Pace) -> Option<Instant> {
        self.shared.state().dirty.next_due(pace)
    }

    /// When the first thing was said that nobody has looked at.
    pub fn oldest(&self) -> Option<Instant> {
        self.shared.state().dirty.oldest()
    }

    /// Entries that may differ, as far as they are known one by one.
    pub fn count(&self) -> usize {
        self.shared.state().dirty.count()
    }

    /// How often events were lost.
    pub fn overflows(&self) -> u64 {
        self.shared.state().overflows
    }

    /// A directory is gone.
    pub fn forget(&self, directory: ObjectId) {
        if let Some(watch) = &self.watch {
            watch.remove(directory);
        }
        self.shared.state().dirty.forget_directory(directory);
    }
}
