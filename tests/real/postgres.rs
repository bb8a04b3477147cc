//! PostgreSQL on ext4 on the export of a node, and a client that notes what was committed.
//!
//! The ledger client commits one number after the other and notes each one after its COMMIT returned.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::harness::Need;
use super::pair::{Pair, RESOURCE};
use super::process::{News, PATIENCE, Process, run, run_well};
use super::volume::{self, Volume, uri};

pub(crate) const NEEDS: &[Need] = &[
    Need::All(volume::NEEDS),
    Need::FileSystem("ext4"),
    Need::Program("mkfs.ext4"),
    Need::Program("e2fsck"),
    Need::Program("stdbuf"),
    Need::File("/usr/lib/postgresql/15/bin/postgres"),
    Need::File("/usr/lib/postgresql/15/bin/pgbench"),
    Need::File("/usr/lib/postgresql/15/bin/pg_amcheck"),
];
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Room for the database.
pub(crate) const SIZE: u64 = 512 << 20;
/// Numbers that are committed before each loss.
const COMMITS: usize = 150;
/// More than are ever committed between two losses.
const NUMBERS: u64 = 100_000;

/// pgbench and the ledger client under way, with some numbers committed.
pub(crate) struct Clients {
    bench: Process,
    ledger: Ledger,
}

impl Clients {
    /// Starts them; `turn` says which numbers are committed.
    pub(crate) fn start(place: &Place, turn: u64, news: &News) -> Self {
        let bench = place.start("pgbench", &["-n", "-c", "4", "-T", "3600"], news);
        let mut ledger = Ledger::start(place, turn * NUMBERS, news);
        news.wait_for("numbers to be committed", || {
            assert!(ledger.client.is_running(), "the client ended: {:?}", ledger.client.lines());
            (ledger.noted().len() >= COMMITS).then_some(())
        });
        Self { bench, ledger }
    }

    /// Waits until the loss was noticed, and returns what was committed before.
    pub(crate) fn join(mut self, news: &News) -> Vec<u64> {
        let ended = || (!self.ledger.client.is_running()).then_some(());
        news.wait_for("the ledger client to notice", ended);
        drop(self.bench);
        self.ledger.noted()
    }
}

/// Panics unless the database has every noted number once, and PostgreSQL finds heap and indexes sound.
pub(crate) fn check(place: &Place, noted: &[u64]) {
    check_ledger(place, noted);
    let all = ["-a", "--install-missing", "--heapallindexed"];
    run_well(&program("pg_amcheck"), &place.words(&all));
}

/// Panics unless every noted number is in the table, and none twice.
fn check_ledger(place: &Place, noted: &[u64]) {
    let said = place.tell("SELECT number, count(*) FROM ledger GROUP BY number");
    let rows: BTreeMap<u64, u64> = said
        .lines()
        .map(|line| line.split_once('|').expect("two columns"))
        .map(|(number, count)| (number.parse().unwrap(), count.parse().unwrap()))
        .collect();
    let lost: Vec<_> = noted.iter().filter(|number| !rows.contains_key(number)).collect();
    assert!(lost.is_empty(), "committed and lost: {lost:?}");
    let doubled: Vec<_> = rows.iter().filter(|(_, count)| **count != 1).collect();
    assert!(doubled.is_empty(), "there more than once: {doubled:?}");
}

fn program(name: &str) -> String {
    format!("{PROGRAMS}/{name}")
}

/// Runs a program as the user that a database belongs to, and lets it end with the test: the
/// kernel forgets that wish when the user changes.
fn as_postgres(program: &str) -> Vec<&str> {
    let user = ["--reuid", "postgres", "--regid", "postgres", "--init-groups"];
    [&user[..], &["--pdeathsig", "KILL", "--", program]].concat()
}

/// Where the volumes and the socket of the database are, which its user must reach.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hotpair-pg-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { folder };
        own(&place.sockets());
        place
    }

    fn sockets(&self) -> PathBuf {
        self.folder.path().join("sockets")
    }

    /// The words of a client's command line, which say where the database is.
    fn words(&self, words: &[&str]) -> Vec<String> {
        let sockets = self.sockets();
        let common = ["-h", text(&sockets), "-U", "postgres"];
        common.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    /// Runs one statement and returns its rows.
    fn tell(&self, statement: &str) -> String {
        run_well(&program("psql"), &self.words(&["-q", "-A", "-t", "-c", statement]))
    }

    fn start(&self, client: &str, words: &[&str], news: &News) -> Process {
        let words = self.words(&[words, &["postgres"]].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Process::start(client, &program(client), &words, news)
    }
}

/// Makes a folder for the user that the database belongs to.
fn own(path: &Path) {
    run_well("install", &["-d", "-o", "postgres", "-g", "postgres", "-m", "700", text(path)]);
}

/// The processes of a database. None of them outlives it, whatever state their disk is in.
struct Server {
    postmaster: Process,
    data: PathBuf,
    news: News,
}

impl Server {
    fn start(place: &Place, data: PathBuf, news: &News) -> Self {
        let postgres = program("postgres");
        let sockets = format!("unix_socket_directories={}", place.sockets().display());
        let mut words = as_postgres(&postgres);
        words.extend(["-D", text(&data), "-c", &sockets, "-c", "listen_addresses="]);
        words.extend(["-c", "max_wal_size=64MB", "-c", "min_wal_size=16MB"]);
        words.extend(["-c", "restart_after_crash=off"]);
        let postmaster = Process::start("postgres", "setpriv", &words, news);
        let mut server = Self { postmaster, data, news: news.clone() };
        let psql = program("psql");
        news.wait_for("PostgreSQL", || {
            let lines = server.postmaster.lines();
            assert!(server.postmaster.is_running(), "PostgreSQL ended: {lines:?}");
            let said = run(&psql, &place.words(&["-c", "SELECT 1"]));
            (said.code == Some(0)).then_some(())
        });
        server
    }

    /// Shuts down as it should.
    fn stop(&mut self) {
        self.postmaster.signal(Signal::TERM);
        // What it said last may be read after its end.
        self.news.wait_for("PostgreSQL to shut down", || {
            let lines = self.postmaster.lines();
            assert!(!lines.iter().any(|line| line.contains("PANIC")), "{lines:?}");
            let is_said = lines.iter().any(|line| line.contains("system is shut down"));
            (is_said && !self.postmaster.is_running()).then_some(())
        });
    }

    /// Those of its processes that are there: each has its data as working directory.
    fn processes(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let works_here = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder == self.data)
        };
        let id_of = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        entries.filter(works_here).filter_map(id_of).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that waits for a lock of another one does not notice that the postmaster died.
        let is_over = || {
            let processes = self.processes();
            for id in &processes {
                // It may be gone already.
                let _ = kill_process(*id, Signal::KILL);
            }
            processes.is_empty().then_some(())
        };
        self.news.wait_within(PATIENCE, is_over);
    }
}

/// A database on the export of one node. Its processes go before its disk.
pub(crate) struct Database {
    server: Server,
    volume: Volume,
}

impl Database {
    /// Makes the file system, the database, and the tables.
    pub(crate) fn create(place: &Place, pair: &Pair, at: usize) -> Self {
        let volume = attach(place, pair, at);
        run_well("mkfs.ext4", &["-q", volume.device()]);
        volume.mount("ext4");
        let data = data_of(&volume);
        own(&data);
        let initdb = program("initdb");
        let options = ["-k", "-N", "-A", "trust", "--wal-segsize=4", "-D", text(&data)];
        run_well("setpriv", &[as_postgres(&initdb), options.to_vec()].concat());
        run_well("sync", &["-f", text(&data)]);
        let database = Self::run(place, volume, &pair.news);
        place.tell("CREATE TABLE ledger (number bigint NOT NULL)");
        place.tell("CREATE INDEX ledger_number ON ledger (number)");
        run_well(&program("pgbench"), &place.words(&["-q", "-i", "-s", "2", "postgres"]));
        database
    }

    /// Opens what is on the export; PostgreSQL recovers it.
    pub(crate) fn open(place: &Place, pair: &Pair, at: usize) -> Self {
        let volume = attach(place, pair, at);
        volume.mount("ext4");
        Self::run(place, volume, &pair.news)
    }

    fn run(place: &Place, volume: Volume, news: &News) -> Self {
        let server = Server::start(place, data_of(&volume), news);
        Self { server, volume }
    }

    /// Its disk is dead; nothing more comes of it.
    pub(crate) fn abandon(self) {
        drop(self.server);
        assert!(self.volume.detach(), "the kernel holds on to the disk of the dead node");
    }

    /// Shuts down, and has everything checked that can be while nobody uses it.
    pub(crate) fn stop(mut self) {
        self.server.stop();
        let (pg_checksums, data) = (program("pg_checksums"), data_of(&self.volume));
        let words = [as_postgres(&pg_checksums), vec!["--check", "-D", text(&data)]].concat();
        run_well("setpriv", &words);
        self.volume.unmount();
        run_well("e2fsck", &["-fn", self.volume.device()]);
        assert!(self.volume.detach(), "the kernel holds on to the disk");
    }
}

fn attach(place: &Place, pair: &Pair, at: usize) -> Volume {
    let node = &pair.nodes[at];
    drop(node.connect());
    let folder = place.folder.path().join(node.name);
    Volume::attach(&folder, &uri(&node.export, RESOURCE), &pair.news)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("an ASCII path")
}

fn data_of(volume: &Volume) -> PathBuf {
    volume.mount_point().join("database")
}

/// A client that commits one number after the other.
struct Ledger {
    client: Process,
    noted: PathBuf,
}

impl Ledger {
    fn start(place: &Place, first: u64, news: &News) -> Self {
        let mut script = String::new();
        for number in first..first + NUMBERS {
            let insert = format!("INSERT INTO ledger VALUES ({number})");
            let _ = writeln!(script, "BEGIN;\n{insert};\nCOMMIT;\n\\echo {number}");
        }
        let path = place.folder.path().join("ledger.sql");
        fs::write(&path, script).unwrap();
        let noted = place.folder.path().join(format!("noted-{first}"));
        // A line is in the file as soon as it is said.
        let shell = "noted=$1; shift; exec stdbuf -oL \"$@\" >\"$noted\"";
        let psql = program("psql");
        let psql_words = place.words(&["-q", "-v", "ON_ERROR_STOP=1", "-f", text(&path)]);
        let mut words = vec!["-c", shell, "sh", text(&noted), psql.as_str()];
        words.extend(psql_words.iter().map(String::as_str));
        let client = Process::start("ledger", "sh", &words, news);
        Self { client, noted }
    }

    /// The numbers whose COMMIT returned.
    fn noted(&self) -> Vec<u64> {
        let said = fs::read_to_string(&self.noted).unwrap_or_default();
        let whole = said.rfind('\n').map_or("", |end| &said[..end]);
        whole.lines().map(|line| line.parse().unwrap()).collect()
    }
}
