//! Command line: what was typed, and what is printed. It decides nothing.
//!
//! `args.rs` is what can be typed, `configuration.rs` finds the node it is typed for, `client.rs`
//! asks the daemon. `orders.rs` and `tree.rs` give orders to it, `status.rs`, `events.rs` and
//! `verify.rs` show what it says; `offline.rs` and `daemon.rs` work without one, and `demo` brings its own.
//! `failure.rs` is how all of it ends.
//! Results go to stdout, talk to stderr (`say.rs`), and a closed pipe is success.

mod args;
mod client;
mod configuration;
mod daemon;
mod demo;
mod events;
mod failure;
mod later;
mod offline;
mod orders;
mod progress;
mod say;
mod split_brain;
mod status;
mod table;
mod tree;
mod tree_table;
mod verify;

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser as _};

use self::args::{Args, Command, Common, ConfigCommand, Resize, ResumeResync, SplitBrainCommand};
use self::client::Client;
use self::failure::Failure;

/// How a command ended; `main` knows which number that is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was done, or was so already.
    Done,
    /// It was refused, or it failed.
    Refused,
    /// What was typed is no command.
    Usage,
    /// There is no daemon to ask.
    NotReachable,
}

/// Carries out what was typed and prints what comes of it.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Outcome {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are results: they go to stdout, and may meet a closed pipe.
            let _ = error.print();
            return if error.use_stderr() { Outcome::Usage } else { Outcome::Done };
        }
    };
    match carry_out(&args.common, args.command) {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.show(),
    }
}

fn carry_out(common: &Common, command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(demo) => demo::demo(&demo),
        Command::Identity(identity) => offline::identity(common, &identity),
        Command::Init(init) => offline::init(common, &init),
        Command::Check(check) => offline::check(common, &check),
        Command::Config { command: ConfigCommand::Check } => offline::config_check(common),
        Command::Completions { shell } => completions(shell),
        Command::Run(run) => daemon::run(common, &run),
        Command::Witness(witness) => daemon::witness(&witness),
        Command::Resize(resize) => resize_copy(common, &resize),
        Command::Later(later) => Err(later::refuse(&later)),
        Command::ResumeResync(resume) if resume.without_undo => {
            Err(later::refuse_without_undo(&resume.resource))
        }
        online => {
            let client = Client::new(&configuration::node(common)?);
            client::block_on(ask(&client, online))
        }
    }
}

/// A daemon that runs decides; one that is stopped leaves the copy to this command.
fn resize_copy(common: &Common, resize: &Resize) -> Result<(), Failure> {
    let node = configuration::node(common)?;
    let client = Client::new(&node);
    match client::block_on(orders::resize(&client, resize)) {
        Err(Failure::NotReachable { .. }) => offline::resize(&node, resize),
        answered => answered,
    }
}

/// Everything that needs a daemon.
async fn ask(client: &Client, command: Command) -> Result<(), Failure> {
    match command {
        Command::Status(status) => status::status(client, &status).await,
        Command::Events(events) => events::events(client, &events).await,
        Command::Explain(explain) => orders::explain(client, &explain).await,
        Command::Verify(verify) => verify::verify(client, &verify).await,
        Command::SplitBrain { command: SplitBrainCommand::Show(show) } => {
            split_brain::show(client, &show).await
        }
        Command::SplitBrain { command: SplitBrainCommand::Resolve(resolve) } => {
            split_brain::resolve(client, &resolve).await
        }
        Command::Promote(promote) => orders::promote(client, &promote).await,
        Command::Demote { resource } => orders::change_role(client, &resource, "demote").await,
        Command::Switchover { resource } => {
            orders::change_role(client, &resource, "switchover").await
        }
        Command::Connect { resource } => orders::plain(client, &resource, "connect").await,
        Command::Disconnect { resource } => orders::plain(client, &resource, "disconnect").await,
        Command::PauseResync { resource } => orders::plain(client, &resource, "pause-resync").await,
        Command::ResumeResync(ResumeResync { resource, accept_deletes, .. }) => {
            match accept_deletes {
                None => orders::plain(client, &resource, "resume-resync").await,
                Some(count) => tree::accept_deletes(client, &resource, count).await,
            }
        }
        Command::Sync(sync) => tree::sync(client, &sync).await,
        Command::Generations(asked) => tree::generations(client, &asked).await,
        Command::Rollback(rollback) => tree::rollback(client, &rollback).await,
        Command::Invalidate { resource } => orders::plain(client, &resource, "invalidate").await,
        Command::Demo(_)
        | Command::Identity(_)
        | Command::Init(_)
        | Command::Check(_)
        | Command::Config { .. }
        | Command::Completions { .. }
        | Command::Run(_)
        | Command::Witness(_)
        | Command::Resize(_)
        | Command::Later(_) => unreachable!("carried out without a daemon"),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "hotpair", &mut script);
    say::bytes(&script)
}
