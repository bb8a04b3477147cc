//! What the foreign clients talk to: the primary of a real pair, or the control, a plain nbdkit
//! that serves a file.
//!
//! A case that both pass says something about hotpair; one that both fail says something about the
//! client.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::real::nbd_client::NbdClient;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::process::{News, Process};
pub(crate) use crate::real::volume::uri;

/// An export and the files behind it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Size of the export in bytes.
    pub(crate) size: u64,
    behind: Behind,
    scratch: TempDir,
}

#[derive(Debug)]
enum Behind {
    Pair(Box<Pair>),
    Control { image: PathBuf, socket: PathBuf, _nbdkit: Process },
}

impl Server {
    /// A pair that holds zeroes.
    pub(crate) fn pair(size: u64) -> Self {
        let pair = Pair::start_empty(Plan { size, ..Plan::default() });
        drop(pair.nodes[0].connect());
        Self { size, behind: Behind::Pair(Box::new(pair)), scratch: scratch() }
    }

    /// nbdkit with a file of zeroes.
    pub(crate) fn control(size: u64) -> Self {
        let (news, scratch) = (News::default(), scratch());
        let (image, socket) = (scratch.path().join("control.img"), scratch.path().join("control"));
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        let words = ["-f", "-U", text(&socket), "file", text(&image)];
        let nbdkit = Process::start("nbdkit", "nbdkit", &words, &news);
        news.wait_for("nbdkit", || NbdClient::connect(&socket, RESOURCE).ok().map(drop));
        Self { size, behind: Behind::Control { image, socket, _nbdkit: nbdkit }, scratch }
    }

    pub(crate) fn is_pair(&self) -> bool {
        matches!(self.behind, Behind::Pair(_))
    }

    /// Where clients connect.
    pub(crate) fn socket(&self) -> &Path {
        match &self.behind {
            Behind::Pair(pair) => &pair.nodes[0].export,
            Behind::Control { socket, .. } => socket,
        }
    }

    pub(crate) fn uri(&self) -> String {
        uri(self.socket(), RESOURCE)
    }

    pub(crate) fn connect(&self) -> NbdClient {
        NbdClient::connect(self.socket(), RESOURCE).unwrap()
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// What lies on the disk, on both disks of a pair alike, once all is quiet.
    pub(crate) fn image_at_rest(&self) -> Vec<u8> {
        self.connect().flush().unwrap();
        match &self.behind {
            Behind::Pair(pair) => {
                pair.wait_in_sync();
                pair.equal_image()
            }
            Behind::Control { image, .. } => fs::read(image).unwrap(),
        }
    }

    /// Bytes that the disks of this export take; of a pair, the larger one.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        let blocks_of = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
        match &self.behind {
            Behind::Pair(pair) => {
                pair.nodes.iter().map(|node| blocks_of(&node.data)).max().expect("two nodes")
            }
            Behind::Control { image, .. } => blocks_of(image),
        }
    }
}

/// The words of a path, for a command line.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("an ASCII path")
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("hotpair-interop-").tempdir().unwrap()
}

/// Bytes that do not repeat, and are the same for the same seed.
pub(crate) fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; usize::try_from(len).expect("64 bit")];
    rng.fill(&mut bytes);
    bytes
}
