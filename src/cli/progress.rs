//! Bars for long work: on stderr, and only where that is a terminal.

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
