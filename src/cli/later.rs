//! Commands and flags of stages to come: refused by name, with what there is instead.

use super::args::{Later, ResumeResync};
use super::failure::Failure;

/// Refuses a command.
pub(super) fn refuse(command: &Later) -> Failure {
    let (name, stage, instead) = match command {
        Later::Scrub(typed) => {
            let resource = typed.words.iter().find(|word| !word.starts_with('-'));
            let resource = resource.map_or("RESOURCE", String::as_str);
            let instead = format!("to compare the two copies: hotpair verify {resource}");
            return Failure::refused(comes_with("scrub", "integrity"), instead);
        }
        Later::Sync(_) => ("sync", "directory", BLOCK_NEEDS_NONE),
        Later::Generations(_) => ("generations", "directory", BLOCK_NEEDS_NONE),
        Later::Rollback(_) => ("rollback", "directory", BLOCK_NEEDS_NONE),
        Later::Top(_) => ("top", "trust", "hotpair status --watch"),
    };
    Failure::refused(comes_with(name, stage), instead)
}

/// Refuses a flag of `resume-resync`.
pub(super) fn refuse_resume(resume: &ResumeResync) -> Failure {
    let why = if resume.without_undo {
        comes_with("--without-undo", "integrity")
    } else {
        comes_with("--accept-deletes", "directory")
    };
    Failure::refused(why, format!("hotpair resume-resync {}", resume.resource))
}

/// Refuses a demo of what is not there yet.
pub(super) fn refuse_directory_demo() -> Failure {
    Failure::refused(comes_with("--kind directory", "directory"), "hotpair demo --kind block")
}

fn comes_with(name: &str, stage: &str) -> String {
    format!("`{name}` comes with the stage \"{stage}\"; this release has the stage \"pair\"")
}

const BLOCK_NEEDS_NONE: &str =
    "it is for directories: a block resource is replicated write by write, see hotpair status";
