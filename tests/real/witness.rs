//! A real witness beside a pair.

use std::net::SocketAddr;
use std::path::Path;

use super::pair::binary;
use super::process::{News, Process};

/// A witness that runs. It ends with the pair.
#[derive(Debug)]
pub(crate) struct Witness {
    /// Where nodes reach it.
    pub(crate) address: SocketAddr,
    /// What nodes pin, as a line of the configuration; nothing without TLS.
    pub(crate) identity_line: String,
    words: Vec<String>,
    process: Option<Process>,
    news: News,
}

impl Witness {
    /// Starts one, and waits until nodes can connect.
    pub(crate) fn start(
        folder: &Path,
        listen: SocketAddr,
        encryption: &str,
        wrapper: Vec<String>,
        news: &News,
    ) -> Self {
        let state_dir = folder.join("witness").display().to_string();
        let listen = listen.to_string();
        let plain = ["witness", "--encryption", encryption, "--state-dir", &state_dir, "--listen"];
        let words = wrapper.into_iter().chain([binary()]);
        let words = words.chain(plain.map(str::to_owned)).chain([listen.clone()]).collect();
        let mut witness = Self {
            address: listen.parse().unwrap(),
            identity_line: String::new(),
            words,
            process: None,
            news: news.clone(),
        };
        witness.run();
        witness
    }

    /// Starts it again where it was; returns what it said.
    pub(crate) fn run(&mut self) -> Vec<String> {
        assert!(self.process.is_none(), "the witness runs already");
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let mut process = Process::start("witness", words[0], &words[1..], &self.news);
        let lines = self.news.wait_for("the witness to be ready", || {
            assert!(process.is_running(), "the witness ended: {:?}", process.lines());
            let lines = process.lines();
            lines.iter().any(|line| line == "ready").then_some(lines)
        });
        self.process = Some(process);
        let said = |word: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(word));
            line.unwrap_or_else(|| panic!("the witness does not say its {word}: {lines:?}"))
        };
        self.address = said("listening ").parse().unwrap();
        *self.words.last_mut().unwrap() = self.address.to_string();
        let identity = said("identity ");
        if identity.starts_with("sha256//") {
            self.identity_line = format!("witness_identity = \"{identity}\"\n");
        }
        lines
    }

    /// SIGTERM, and waits for the end, which must be a good one.
    pub(crate) fn stop(&mut self) {
        let status = self.process.take().expect("it was started").stop(&self.news);
        assert!(status.success(), "the witness ended with {status}");
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it was started").kill();
    }

    pub(crate) fn is_started(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }
}
