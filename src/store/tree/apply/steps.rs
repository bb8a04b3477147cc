//! How many steps an apply may take: unlimited, but for tests that stop it at each one.
//!
//! A step is a call that changes something on disk, or a few that are always made anew together.
//! Each is asked for before it is taken, so an apply that stops here leaves on disk what one leaves
//! whose process was killed at this point.

use std::cell::Cell;

use rustix::io::Errno;

use super::error::ApplyError;

/// The steps that are left.
#[derive(Debug, Default)]
pub struct Steps {
    left: Cell<Option<u64>>,
    taken: Cell<u64>,
    fault: Cell<Option<Errno>>,
    #[cfg(test)]
    disturbance: Disturbance,
}

/// What somebody else does while an apply stands at a step.
#[cfg(test)]
#[derive(Default)]
struct Disturbance(Cell<Option<(u64, Act)>>);

#[cfg(test)]
type Act = Box<dyn FnOnce() + Send>;

#[cfg(test)]
impl std::fmt::Debug for Disturbance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disturbance")
    }
}

impl Steps {
    /// As many as it takes.
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// This many; then [`ApplyError::Stopped`], again and again.
    pub fn until(count: u64) -> Self {
        Self { left: Cell::new(Some(count)), ..Self::default() }
    }

    /// This many; the one after that fails once as if the kernel had said `errno`.
    pub fn failing(count: u64, errno: Errno) -> Self {
        Self { fault: Cell::new(Some(errno)), ..Self::until(count) }
    }

    /// As many as it takes; before the one after `count`, somebody else does something.
    #[cfg(test)]
    pub(super) fn disturbed(count: u64, by: impl FnOnce() + Send + 'static) -> Self {
        let disturbance = Disturbance(Cell::new(Some((count, Box::new(by)))));
        Self { disturbance, ..Self::default() }
    }

    #[cfg(test)]
    fn disturb(&self) {
        match self.disturbance.0.take() {
            Some((count, by)) if count == self.taken.get() => by(),
            later => self.disturbance.0.set(later),
        }
    }

    /// How many were taken.
    pub fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Asks for the next one, which is to do `action` at `path`.
    pub(in crate::store::tree) fn take(
        &self,
        action: &'static str,
        path: impl FnOnce() -> String,
    ) -> Result<(), ApplyError> {
        #[cfg(test)]
        self.disturb();
        match self.left.get() {
            None => {}
            Some(0) => {
                let Some(errno) = self.fault.take() else { return Err(ApplyError::Stopped) };
                self.left.set(None);
                return Err(match action {
                    "sync" => ApplyError::sync(path(), errno),
                    action => ApplyError::kernel(action, path(), errno),
                });
            }
            Some(left) => self.left.set(Some(left - 1)),
        }
        self.taken.set(self.taken.get() + 1);
        Ok(())
    }
}
