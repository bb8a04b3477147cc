//! What can be typed. The doc comments are the help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use crate::config;
use crate::daemon::InitFrom;
use crate::units::BLOCK_LEN;

/// Keeps a block file identical on two nodes, and fails over without losing an acknowledged write.
///
/// Exit codes: 0 done, 1 refused or failed, 2 usage, 3 daemon not reachable. Results go to stdout,
/// everything else to stderr. Every refusal says why, and what to type next.
#[derive(Debug, clap::Parser)]
#[command(name = "hotpair", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The configuration, the same file on both nodes [default: /etc/hotpair/hotpair.toml].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HOTPAIR_CONFIG",
        hide_env_values = true
    )]
    pub(super) config: Option<PathBuf>,
    /// The node of the configuration that this is [default: the host name].
    #[arg(long, global = true, value_name = "NAME", display_order = 901)]
    pub(super) node: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Demo(Demo),
    Identity(Identity),
    Init(Init),
    Run(Run),
    Witness(Witness),
    Status(Status),
    Events(Events),
    Promote(Promote),
    /// Make this node secondary: answer what is under way, flush both nodes, let the clients go.
    ///
    /// With an arbiter no node is promoted by itself afterwards, until `promote` is typed.
    Demote {
        /// Name of the resource.
        #[arg(value_parser = resource)]
        resource: String,
    },
    /// Exchange the roles of two nodes that are in sync; typed on either node.
    ///
    /// The primary answers what is under way and both nodes flush before the other one serves.
    Switchover {
        /// Name of the resource.
        #[arg(value_parser = resource)]
        resource: String,
    },
    /// Connect to the other node again after `disconnect`.
    Connect {
        /// Name of the resource.
        #[arg(value_parser = resource)]
        resource: String,
    },
    /// Stop replicating until `connect`. The primary goes on alone.
    Disconnect {
        /// Name of the resource.
        #[arg(value_parser = resource)]
        resource: String,
    },
    /// Let a running resync wait. What clients write is replicated nevertheless.
    PauseResync {
        /// Name of the resource.
        #[arg(value_parser = resource)]
        resource: String,
    },
    ResumeResync(ResumeResync),
    Verify(Verify),
    /// Give this copy up as outdated: all of it is compared with the peer's, which is right.
    ///
    /// Only what differs is sent. Refused on the primary.
    Invalidate {
        /// Name of the resource.
        #[arg(value_parser = resource)]
        resource: String,
    },
    /// Show or settle a split brain: both nodes took writes while apart.
    SplitBrain {
        #[command(subcommand)]
        command: SplitBrainCommand,
    },
    Sync(Sync),
    Generations(Generations),
    Rollback(Rollback),
    Explain(Explain),
    Resize(Resize),
    Check(Check),
    /// Work with the configuration file.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print completions for a shell.
    ///
    /// For bash: `hotpair completions bash > /etc/bash_completion.d/hotpair`
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Later(Later),
}

/// Show a whole pair on this machine: write, kill the primary, fail over, read back, resync.
///
/// Two real daemons and a witness in a temporary folder, with keys, configuration and clients of
/// their own. Nobody promotes: the nodes do it by themselves. Every acknowledged write, or everything
/// that was synced, is looked for on the node that is left, and in the end in both copies. Nothing is
/// left behind, unless a check fails: then it says where the logs are. Exit code 0 if every check held.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// What is replicated.
    #[arg(long, value_name = "KIND", default_value = "block")]
    pub(super) kind: Kind,
    /// The size of the block file or of all files, with a binary unit, from 1MiB to 4GiB. There are
    /// two copies [default: 128MiB, of a directory 8MiB].
    #[arg(long, value_parser = demo_size)]
    pub(super) size: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    /// A file of fixed size, used through NBD.
    Block,
    /// A tree of files, that applications use as any other.
    Directory,
}

/// Make this node's key once, and print its fingerprint.
///
/// The fingerprint goes into the configuration of both nodes, as `identity` of this node. A key
/// that is there is never replaced.
#[derive(Debug, clap::Args)]
pub(super) struct Identity {
    /// Folder of the key [default: `state_dir` of the node, or /var/lib/hotpair].
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
}

/// Make the metadata of this node's copy. It says first what happens to data.
///
/// The first node starts with `--from this` (the file is the data) or `--from empty`, the second
/// one with `--from peer`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Name of the resource; without it, every resource of the configuration.
    #[arg(value_parser = resource)]
    pub(super) resource: Option<String>,
    /// Where the data is.
    #[arg(long, value_name = "WHERE")]
    pub(super) from: From,
    /// Give up metadata that is there and make it anew from the data.
    #[arg(long)]
    pub(super) rebuild: bool,
    /// Do not ask. Without a terminal nothing is asked anyway.
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum From {
    /// In the file or device on this node.
    This,
    /// On the other node: what differs here is overwritten.
    Peer,
    /// Nowhere: the resource is all zero.
    Empty,
}

impl From {
    pub(super) fn place(self) -> InitFrom {
        match self {
            Self::This => InitFrom::This,
            Self::Peer => InitFrom::Peer,
            Self::Empty => InitFrom::Empty,
        }
    }
}

/// Run the daemon of this node, in the foreground, until SIGTERM or SIGINT.
///
/// With an arbiter it is a supervisor and a worker, which is started again if it crashes; the other
/// node is told that it is dead.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) log: Log,
    /// The process that started the daemon, which ends at once when that one does.
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) ends_with: Option<i32>,
    /// That process is a supervisor, and listens at the other end of the standard input.
    #[arg(long, hide = true, requires = "ends_with")]
    pub(super) supervised: bool,
}

/// What a daemon logs.
#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// The least important messages that are logged, to stderr.
    #[arg(long = "log", value_name = "LEVEL", default_value = "info")]
    pub(super) level: LogLevel,
    /// How they look.
    #[arg(long = "log-format", value_name = "FORMAT", default_value = "text")]
    pub(super) format: LogFormat,
}

/// Run a witness, the small third party that says which node of a pair may serve.
///
/// It belongs on a third machine, never on storage that the pair serves. It makes its key at the
/// first start, prints the fingerprint and the address it listens on, and runs in the foreground
/// until SIGTERM or SIGINT. A file `allow` in its folder limits who may enroll: on each line a
/// cluster, a fingerprint of a node, or both.
#[derive(Debug, clap::Args)]
pub(super) struct Witness {
    /// Address and port where nodes reach it, such as 192.0.2.3:7787.
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: std::net::SocketAddr,
    /// Folder of its key and its records; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: PathBuf,
    /// Forget every record and be another witness to the nodes, which have to enroll again. A
    /// folder that was restored or copied must be started so.
    #[arg(long)]
    pub(super) new_identity: bool,
    /// With "none", whoever can reach the port can make and change records.
    #[arg(long, value_name = "HOW", default_value = "tls")]
    pub(super) encryption: WitnessEncryption,
    #[command(flatten)]
    pub(super) log: Log,
    /// The process that started the witness, which ends at once when that one does.
    #[arg(long, value_name = "PID", hide = true)]
    pub(super) ends_with: Option<i32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum WitnessEncryption {
    /// TLS 1.3; every node proves a key.
    Tls,
    /// In the clear.
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogLevel {
    /// Somebody must act.
    Error,
    /// Something is wrong, and the daemon goes on by itself.
    Warn,
    /// Every change of state.
    Info,
    /// Every request.
    Debug,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people.
    Text,
    /// A line of JSON.
    Json,
}

/// Show the state of this node and what it knows of the other one.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Name of the resource, which is then shown with all details.
    #[arg(value_parser = resource)]
    pub(super) resource: Option<String>,
    /// Print JSON; with --watch, one line for each change.
    #[arg(long)]
    pub(super) json: bool,
    /// Go on showing it until interrupted.
    #[arg(long)]
    pub(super) watch: bool,
}

/// Show what happened since the daemon started, and then what happens, until interrupted.
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Only what is about this resource.
    #[arg(value_parser = resource)]
    pub(super) resource: Option<String>,
    /// Print a line of JSON for each.
    #[arg(long)]
    pub(super) json: bool,
    /// End after what is remembered.
    #[arg(long)]
    pub(super) no_follow: bool,
}

/// Make this node the primary of a resource.
///
/// The connected peer must consent or, with an arbiter, the arbiter. It is what an operator types
/// where nobody promotes by itself: without an arbiter, with auto = "off", and after `demote`.
#[derive(Debug, clap::Args)]
pub(super) struct Promote {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Promote although the peer cannot be asked. No arbiter is asked, or told.
    #[arg(long, requires = "peer_is_fenced")]
    pub(super) force: bool,
    /// You have made sure that the peer is powered off, or cut from its clients and its disk.
    #[arg(long, requires = "force")]
    pub(super) peer_is_fenced: bool,
    /// Promote data that is not up to date: writes acknowledged since then are lost.
    #[arg(long, requires = "force")]
    pub(super) accept_data_loss: bool,
}

/// Let a paused resync go on, or a directory whose deletes wait to be accepted.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeResync {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Comes with the stage "integrity".
    #[arg(long, hide = true)]
    pub(super) without_undo: bool,
    /// Directory: so many entries may be deleted on the other node; exactly the number that `status`
    /// names.
    #[arg(long, value_name = "COUNT")]
    pub(super) accept_deletes: Option<u64>,
}

/// Directory: wait until everything written before now is on the other node.
///
/// It is captured, sent, and applied there when the command ends with exit code 0: the only moment at
/// which what was written to a directory is known to survive the loss of either node. Prints number,
/// label and root of the generation. Interrupting the command does not end what it started.
#[derive(Debug, clap::Args)]
pub(super) struct Sync {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Wait for it. To be told how far it is without that there is `hotpair status`.
    #[arg(long, required = true)]
    pub(super) wait: bool,
    /// Run the `freeze` and `thaw` hooks around the capture.
    #[arg(long)]
    pub(super) freeze: bool,
    /// Wait no longer than this, such as 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) timeout: Option<Duration>,
}

/// Directory: show the generations that this node can go back to.
#[derive(Debug, clap::Args)]
pub(super) struct Generations {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Directory: bring the content of an earlier generation back, as a new generation.
///
/// Typed on a node that holds it, while neither node serves. Nothing is lost by it: what is there now is
/// a generation to go back to as well.
#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Number of the generation: see `hotpair generations`.
    #[arg(long, value_name = "N")]
    pub(super) to: u64,
}

/// Compare both copies while they are used, and wait for the result; typed on either node.
///
/// Both nodes read all of their copy; only hashes travel. Exit code 0 if nothing differs, or if
/// --repair was asked for; 1 if something differs. Interrupting the command does not end the
/// comparison.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Send what differs from the primary to the other node.
    #[arg(long)]
    pub(super) repair: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SplitBrainCommand {
    Show(SplitBrainShow),
    Resolve(SplitBrainResolve),
}

/// Show what each node has that the other lacks, and the two ways out.
#[derive(Debug, clap::Args)]
pub(super) struct SplitBrainShow {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Keep the data of one node; what the other one wrote alone is lost. Typed on either node.
#[derive(Debug, clap::Args)]
pub(super) struct SplitBrainResolve {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// The node whose data stays.
    #[arg(long, value_name = "NODE")]
    pub(super) keep: String,
    /// Do not ask. Without a terminal nothing is asked anyway.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Say why a resource is, or is not, in sync and promotable, and what to type next.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Make a resource larger; it never becomes smaller.
///
/// Typed on either node while both run and are in sync, it grows both copies; clients see the new
/// size when they connect again. Change `size` in the configuration of both nodes afterwards.
/// Without a daemon to ask, it says what it does to this node's copy and does it.
#[derive(Debug, clap::Args)]
pub(super) struct Resize {
    /// Name of the resource.
    #[arg(value_parser = resource)]
    pub(super) resource: String,
    /// The new size with a binary unit, such as 20GiB.
    #[arg(long, value_parser = size)]
    pub(super) size: u64,
    /// Do not ask. Without a terminal nothing is asked anyway.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Examine metadata and data file of this node's copy without a daemon; nothing is changed.
///
/// Exit code 1 if anything is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Name of the resource; without it, every resource of the configuration.
    #[arg(value_parser = resource)]
    pub(super) resource: Option<String>,
    /// The daemon of this node is stopped. To compare running nodes there is `hotpair verify`.
    #[arg(long, required = true)]
    pub(super) offline: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what is wrong with the configuration, at its lines.
    Check,
}

/// Commands of stages to come: known by name, so that whoever read of them learns when they come.
#[derive(Debug, Subcommand)]
pub(super) enum Later {
    /// Comes with the stage "integrity".
    #[command(hide = true)]
    Scrub(Anything),
    /// Comes with the stage "trust".
    #[command(hide = true)]
    Top(Anything),
}

/// Words of a command that is not there yet.
#[derive(Debug, clap::Args)]
pub(super) struct Anything {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) words: Vec<String>,
}

fn resource(text: &str) -> Result<String, &'static str> {
    if config::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit")
    }
}

fn size(text: &str) -> Result<u64, &'static str> {
    config::parse_size(text).ok_or("a size has a binary unit, such as 64MiB or 20GiB")
}

fn time(text: &str) -> Result<Duration, &'static str> {
    config::parse_time(text).ok_or("a time has a unit, such as 500ms, 30s or 5m")
}

fn demo_size(text: &str) -> Result<u64, &'static str> {
    let is_good = |size: &u64| (1 << 20..=4 << 30).contains(size) && size.is_multiple_of(BLOCK_LEN);
    config::parse_size(text).filter(is_good).ok_or("from 1MiB to 4GiB, in blocks of 4 KiB")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }
}
