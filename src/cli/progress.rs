//! Bars for long work: on stderr, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far something is. It disappears when it goes.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar that says what is going on; its length is told with the first progress.
    pub(super) fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is correct");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what.to_owned());
        Self { bar }
    }

    pub(super) fn show(&self, done_bytes: u64, total_bytes: u64) {
        self.bar.set_length(total_bytes);
        self.bar.set_position(done_bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str =
    "{msg} [{wide_bar}] {percent}% of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";

/// Says what goes on while nobody knows how far it is. It disappears when it goes.
#[derive(Debug)]
pub(super) struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(SPINNER).expect("the template is correct");
        bar.set_style(style.tick_chars("|/-\\ "));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    pub(super) fn show(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Takes it off the terminal, for something that is to stay there.
    pub(super) fn hide_while<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const SPINNER: &str = "{elapsed:>8}  {spinner}   {msg}";
