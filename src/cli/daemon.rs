//! `hotpair run` and `hotpair witness`: logging, and the end of the process if anything is
//! impossible.

use std::ffi::OsString;
use std::io;

use rustix::process::{self, Pid, Signal};
use tracing::level_filters::LevelFilter;

use super::Outcome;
use super::args::{Common, Log, LogFormat, LogLevel, Run, Witness, WitnessEncryption};
use super::configuration;
use super::failure::Failure;
use super::say;
use crate::config::{Arbiter, Encryption};
use crate::daemon::{self, WitnessPlan, WitnessStarted};

pub(super) fn run(common: &Common, run: &Run) -> Result<(), Failure> {
    if let Some(parent) = run.ends_with {
        end_with(parent)?;
    }
    let text = configuration::read(common)?;
    let warnings = text.parse()?.warnings;
    for warning in warnings.iter().filter(|_| !run.supervised) {
        say::talk(&text.show(warning));
    }
    let node = configuration::node(common)?;
    start_log(&run.log);
    end_with_a_panic();
    // Where nobody is promoted by itself nobody waits for a worker that is dead, and Pacemaker sees to it
    // itself: a worker that came back by itself would not be the run that Pacemaker had started.
    let is_manual = match node.promotion.arbiter {
        Arbiter::None => !node.promotion.auto.promotes(),
        Arbiter::Pacemaker => true,
        Arbiter::Witness(_) | Arbiter::Etcd(_) => false,
    };
    if run.supervised || is_manual {
        return Ok(daemon::run(&node, run.supervised)?);
    }
    let binary = std::env::current_exe().map_err(|error| {
        let error = anyhow::Error::new(error).context("cannot find this program");
        Failure::failed(&error, "start it by its path")
    })?;
    let words: Vec<OsString> = words_of_worker(std::env::args_os().skip(1)).collect();
    let status = daemon::supervise(|| {
        let mut worker = std::process::Command::new(&binary);
        worker.args(&words);
        worker
    })?;
    let Some(status) = status else { return Ok(()) };
    if status.code().is_some() {
        // It has said why.
        return Err(Failure::Said(Outcome::Refused));
    }
    let why = format!("the worker was ended by the system: {status}");
    Err(Failure::Failed { why, next: "start it again: hotpair run".to_owned() })
}

/// What a worker is started with: what this process was, but for whom it ends with.
fn words_of_worker(mine: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut is_value = false;
    let mine = mine.filter(move |word| {
        let is_dropped = is_value || word.as_encoded_bytes().starts_with(b"--ends-with");
        is_value = word == "--ends-with";
        !is_dropped
    });
    let me = process::getpid().as_raw_nonzero().to_string();
    mine.chain(["--supervised", "--ends-with"].map(OsString::from)).chain([me.into()])
}

/// Runs a witness. What it prints is read by people and by whoever starts it: when the last line is
/// there, nodes can connect.
pub(super) fn witness(witness: &Witness) -> Result<(), Failure> {
    if let Some(parent) = witness.ends_with {
        end_with(parent)?;
    }
    start_log(&witness.log);
    end_with_a_panic();
    let plan = WitnessPlan {
        listen: witness.listen,
        state_dir: witness.state_dir.clone(),
        new_identity: witness.new_identity,
        encryption: match witness.encryption {
            WitnessEncryption::Tls => Encryption::Tls,
            WitnessEncryption::None => Encryption::None,
        },
    };
    let show = |started: &WitnessStarted| {
        let WitnessStarted { address, fingerprint, arbiter, records } = started;
        let fingerprint = fingerprint.as_deref().unwrap_or("none: nothing is encrypted");
        // It serves also when nobody reads this.
        let _ = say::result(&format!(
            "identity {fingerprint}\nstore {:032x} with {records} records\nlistening {address}\n\
             ready",
            arbiter.0
        ));
    };
    Ok(daemon::run_witness(&plan, show)?)
}

/// Lets the kernel end this process when the thread that started it ends, however that happens.
fn end_with(parent: i32) -> Result<(), Failure> {
    process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        let error = anyhow::Error::new(error).context("cannot ask to end with another process");
        Failure::failed(&error, "run it without --ends-with")
    })?;
    // A parent that ended before the kernel was told is told of by nobody.
    if process::getppid() == Pid::from_raw(parent) {
        return Ok(());
    }
    let why = format!("process {parent} did not start this one, or has ended");
    Err(Failure::refused(why, "run it without --ends-with"))
}

fn start_log(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let has_colour = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    match log.format {
        LogFormat::Text => lines.with_ansi(has_colour).with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Builds that unwind would go on with half of a node: one thread is gone and the other ones lack
/// it. The process ends instead, as release builds do, and the other node takes over.
fn end_with_a_panic() {
    if cfg!(panic = "unwind") {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            std::process::abort();
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_gets_the_words_of_its_supervisor_and_ends_with_it() {
        for mine in [
            "run --node a --ends-with 12 --log debug",
            "run --ends-with=12 --node a --log debug",
            "run --node a --log debug --ends-with 12",
        ] {
            let words = mine.split(' ').map(OsString::from);
            let worker: Vec<_> = words_of_worker(words).collect();
            let me = std::process::id().to_string();
            let expected = ["run", "--node", "a", "--log", "debug", "--supervised", "--ends-with"];
            assert_eq!(worker[..7], expected.map(OsString::from), "{mine}");
            assert_eq!(worker[7..], [OsString::from(me)], "{mine}");
        }
    }
}
