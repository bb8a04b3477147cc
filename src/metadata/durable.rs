//! A value of which only the stable version can be read.

/// A value on disk: reads show what was synced, and one change is under way at a time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Durable<T> {
    stable: T,
    writing: Option<T>,
}

impl<T> Durable<T> {
    /// Holds `stable`, which is on disk already.
    pub fn new(stable: T) -> Self {
        Self { stable, writing: None }
    }

    /// What is stable.
    pub fn get(&self) -> &T {
        &self.stable
    }

    /// Whether a change is under way.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The change under way. To build the next change on, never to rely on.
    pub fn writing(&self) -> Option<&T> {
        self.writing.as_ref()
    }

    /// Begins to change it to `next`; [`Durable::get`] still shows the old value.
    ///
    /// # Panics
    /// If a change is under way: the disk would be asked to order two writes.
    pub fn begin(&mut self, next: T) {
        assert!(self.writing.is_none(), "one change at a time");
        self.writing = Some(next);
    }

    /// The change under way is stable: it is what reads show from here on.
    ///
    /// # Panics
    /// If none is under way.
    pub fn written(&mut self) {
        self.stable = self.writing.take().expect("only a change that was begun can be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_only_when_it_is_written() {
        let mut value = Durable::new(1);
        value.begin(2);
        assert_eq!((*value.get(), value.is_writing(), value.writing()), (1, true, Some(&2)));
        value.written();
        assert_eq!((*value.get(), value.is_writing(), value.writing()), (2, false, None));
    }

    #[test]
    #[should_panic(expected = "one change at a time")]
    fn two_changes_at_once_are_refused() {
        let mut value = Durable::new(1);
        value.begin(2);
        value.begin(3);
    }
}
