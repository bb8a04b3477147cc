//! The `hotpair` binary: the one place that knows exit codes.

use std::process::ExitCode;

use hotpair::cli::{self, Outcome};

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Refused => ExitCode::from(1),
        Outcome::Usage => ExitCode::from(2),
        Outcome::NotReachable => ExitCode::from(3),
    }
}
