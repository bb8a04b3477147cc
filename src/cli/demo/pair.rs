//! Both nodes, their folder and configuration, and waiting for them.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use super::node::Node;
use super::scene::Scene;
use super::witness::Witness;
use super::{ENCRYPTION, HAS_TLS, Subject, failed};
use crate::cli::args::Kind;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::control::status::ResourceStatus;
use crate::replica::ReplicationStatus;
use crate::units::{BLOCK_LEN, DiskState, Role};

/// The configuration, in the folder of the demo.
pub(super) const CONFIG_FILE: &str = "hotpair.toml";

/// Two nodes in one folder.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) alpha: Node,
    pub(super) beta: Node,
    pub(super) folder: PathBuf,
    pub(super) binary: PathBuf,
    subject: Subject,
    /// A part of the loopback network that nobody else uses, or hardly.
    network: [u8; 2],
}

/// What both daemons say of the resource, alpha first.
pub(super) type Looks = [Option<ResourceStatus>; 2];

/// Longest that anything is waited for. It is a guard against hanging, no claim about speed.
const WAIT_MAX: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longest path of the demo's folder: with what is below it, the path of a unix socket has at most
/// 107 bytes. Source: unix(7).
const FOLDER_LEN_MAX: usize = 80;

impl Pair {
    /// Makes the folder and chooses what is in it.
    pub(super) fn make(subject: Subject) -> Result<Self, Failure> {
        let name = format!("hotpair-demo-{:08x}", fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        if folder.as_os_str().len() > FOLDER_LEN_MAX || folder.to_str().is_none() {
            let why = format!("{} is too long a path for sockets, or no text", folder.display());
            return Err(Failure::refused(why, "TMPDIR=/tmp hotpair demo"));
        }
        let make = || -> anyhow::Result<PathBuf> {
            let binary = std::env::current_exe().context("cannot find this program")?;
            let homes = [folder.clone(), folder.join("alpha"), folder.join("beta")];
            for home in homes {
                DirBuilder::new()
                    .mode(0o700)
                    .create(&home)
                    .with_context(|| format!("cannot make the folder {}", home.display()))?;
            }
            Ok(binary)
        };
        let binary = make().map_err(|error| {
            Failure::failed(&error, "name another folder: TMPDIR=FOLDER hotpair demo")
        })?;
        let [alpha, beta] =
            ["alpha", "beta"].map(|name| Node::new(name, subject, &folder, &binary));
        let octet = || fastrand::u8(1..=254);
        Ok(Self { alpha, beta, folder, binary, subject, network: [octet(), octet()] })
    }

    /// An address of the demo's own.
    pub(super) fn address(&self, host: u8) -> Ipv4Addr {
        let [second, third] = self.network;
        Ipv4Addr::new(127, second, third, host)
    }

    /// Makes the keys, and writes what both nodes read: the same file.
    pub(super) async fn configure(
        &self,
        scene: &Scene,
        size: u64,
        witness: &Witness,
    ) -> Result<(), Failure> {
        let mut identities = [String::new(), String::new()];
        if HAS_TLS {
            for (node, identity) in self.nodes().into_iter().zip(&mut identities) {
                let state_dir = node.state_dir.to_string_lossy();
                let words = ["identity", "--state-dir", &*state_dir];
                let printed = node.type_in(scene, &words).await?;
                printed.trim().clone_into(identity);
            }
        }
        let write = || -> anyhow::Result<()> {
            let text = self.config(size, &self.places()?, &identities, witness);
            private(&self.folder.join(CONFIG_FILE))?.write_all(text.as_bytes())?;
            Ok(())
        };
        let written = write().context("cannot write the configuration");
        written.map_err(|error| Failure::failed(&error, ""))
    }

    fn config(
        &self,
        size: u64,
        places: &[Place; 2],
        identities: &[String; 2],
        witness: &Witness,
    ) -> String {
        let mut text = format!("cluster = \"demo\"\n\n[link]\nencryption = \"{ENCRYPTION}\"\n");
        for ((node, place), identity) in self.nodes().iter().zip(places).zip(identities) {
            let Place { replication, heartbeat: [first, second] } = place;
            let _ = write!(
                text,
                "\n[node.{}]\nreplication = \"{replication}\"\n\
                 heartbeat = [\"{first}\", \"{second}\"]\nstate_dir = {}\ncontrol = {}\n",
                node.name,
                quoted("", &node.state_dir),
                quoted("", &node.control),
            );
            if !identity.is_empty() {
                let _ = writeln!(text, "identity = \"{identity}\"");
            }
        }
        let _ = write!(
            text,
            "\n[promotion]\nauto = \"arbiter\"\narbiter = \"witness\"\nwitness = \"{}\"\n",
            witness.address
        );
        if let Some(identity) = &witness.identity {
            let _ = writeln!(text, "witness_identity = \"{identity}\"");
        }
        self.push_resource(&mut text, size);
        text
    }

    fn push_resource(&self, text: &mut String, size: u64) {
        let name = self.subject.name;
        let [mine, theirs] = self.nodes().map(|node| quoted("", &node.data));
        let [export, other_export] = self.nodes().map(|node| quoted("unix:", &node.export));
        let _ = match self.subject.kind {
            Kind::Block => write!(
                text,
                "\n[resource.{name}]\nkind = \"block\"\npath = {mine}\nsize = \"{size}B\"\n\
                 mode = \"sync\"\nexport = {export}\n\
                 \n[resource.{name}.on.beta]\npath = {theirs}\nexport = {other_export}\n",
            ),
            Kind::Directory => write!(
                text,
                "\n[resource.{name}]\nkind = \"directory\"\npath = {mine}\n\
                 \n[resource.{name}.on.beta]\npath = {theirs}\n",
            ),
        };
    }

    /// Addresses for each node. Nothing keeps the ports free until the daemons use them, but among so
    /// many addresses nobody meets by chance.
    fn places(&self) -> io::Result<[Place; 2]> {
        let tcp = |host| TcpListener::bind((self.address(host), 0))?.local_addr();
        let udp = |host| UdpSocket::bind((self.address(host), 0))?.local_addr();
        let place = |host| -> io::Result<Place> {
            Ok(Place { replication: tcp(host)?, heartbeat: [udp(host)?, udp(host + 10)?] })
        };
        Ok([place(1)?, place(2)?])
    }

    /// Makes alpha's block file, every block with the content that the ledger starts from.
    pub(super) async fn fill(&self, ledger: &Ledger) -> Result<(), Failure> {
        let wrong = |error: io::Error| {
            let error = anyhow::Error::new(error)
                .context(format!("cannot write {}", self.alpha.data.display()));
            Failure::failed(&error, "the demo needs room for two files: --size SIZE")
        };
        let mut file = BufWriter::with_capacity(1 << 20, private(&self.alpha.data).map_err(wrong)?);
        for block in 0..ledger.len() {
            file.write_all(&ledger.first_bytes(block)).map_err(wrong)?;
            if block.is_multiple_of(BLOCKS_BETWEEN_YIELDS) {
                tokio::task::yield_now().await;
            }
        }
        file.flush().map_err(wrong)
    }

    pub(super) fn nodes(&self) -> [&Node; 2] {
        [&self.alpha, &self.beta]
    }

    fn nodes_mut(&mut self) -> [&mut Node; 2] {
        [&mut self.alpha, &mut self.beta]
    }

    /// Looks at both nodes until `is_so`.
    pub(super) async fn wait_for(
        &mut self,
        what: &str,
        is_so: impl Fn(&Looks) -> bool,
    ) -> Result<(), Failure> {
        let clients: [Client; 2] = [self.alpha.client()?, self.beta.client()?];
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            for node in self.nodes_mut() {
                node.check_alive()?;
            }
            let looks = [self.alpha.look(&clients[0]).await?, self.beta.look(&clients[1]).await?];
            if is_so(&looks) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(failed(format!(
                    "waited {} s for {what}; alpha: {}; beta: {}",
                    WAIT_MAX.as_secs(),
                    in_words(looks[0].as_ref()),
                    in_words(looks[1].as_ref()),
                )));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends both daemons as a service manager does, and says whether they ended well.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        for node in self.nodes() {
            node.ask_to_stop()?;
        }
        let deadline = Instant::now() + WAIT_MAX;
        for node in self.nodes_mut() {
            let status = loop {
                if let Some(status) = node.ended() {
                    break status;
                }
                if Instant::now() >= deadline {
                    let seconds = WAIT_MAX.as_secs();
                    let why = format!("waited {seconds} s for the daemon of {} to end", node.name);
                    return Err(failed(why));
                }
                sleep(LOOK_AGAIN).await;
            };
            if !status.success() {
                return Err(failed(format!("the daemon of {} ended badly, {status}", node.name)));
            }
        }
        Ok(())
    }

    /// Ends what runs and removes the folder.
    pub(super) fn remove(mut self) -> Result<(), Failure> {
        for node in self.nodes_mut() {
            node.kill();
        }
        std::fs::remove_dir_all(&self.folder).map_err(|error| {
            let error = anyhow::Error::new(error)
                .context(format!("cannot remove the folder {}", self.folder.display()));
            Failure::failed(&error, "remove it by hand")
        })
    }
}

const BLOCKS_BETWEEN_YIELDS: u64 = 256;

/// Whether both nodes hold the same and replicate.
pub(super) fn are_in_sync(looks: &Looks) -> bool {
    are_complete(looks) && looks.iter().flatten().all(|look| look.out_of_sync_bytes == Some(0))
}

/// Whether both nodes have a whole copy and replicate.
pub(super) fn are_complete(looks: &Looks) -> bool {
    looks.iter().all(|look| {
        look.as_ref().is_some_and(|look| {
            look.disk == DiskState::UpToDate
                && look.peer.disk == Some(DiskState::UpToDate)
                && look.peer.replication == ReplicationStatus::Established
                && look.resync.is_none()
        })
    })
}

/// Whether a node is primary and takes clients.
pub(super) fn serves(look: Option<&ResourceStatus>) -> bool {
    look.is_some_and(|look| look.role == Role::Primary && look.serving)
}

/// Whether a node is promoted if the other one is lost.
pub(super) fn takes_over(look: Option<&ResourceStatus>) -> bool {
    look.is_some_and(|look| look.promotion.as_ref().is_some_and(|it| it.takes_over))
}

fn in_words(look: Option<&ResourceStatus>) -> String {
    look.map_or_else(
        || "takes no commands".to_owned(),
        |look| {
            let (role, disk) = (look.role, look.disk);
            let differs = look.out_of_sync_bytes.map_or("?".to_owned(), |it| it.to_string());
            let (link, replication) = (look.peer.link, look.peer.replication);
            format!("{role}, {disk}, {link:?}, {replication:?}, {differs} bytes differ")
        },
    )
}

/// Where a node is.
struct Place {
    replication: SocketAddr,
    heartbeat: [SocketAddr; 2],
}

/// A path as TOML has it: what JSON quotes, TOML understands.
fn quoted(scheme: &str, path: &Path) -> String {
    let text = format!("{scheme}{}", path.display());
    serde_json::to_string(&text).expect("text is fit for JSON")
}

/// Makes a file that only its owner may read.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The number of blocks of a file of `size` bytes.
pub(super) fn blocks(size: u64) -> u64 {
    size / BLOCK_LEN
}
