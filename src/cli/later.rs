//! Commands and flags of stages to come: refused by name, with what there is instead.

use super::args::Later;
use super::failure::Failure;

/// Refuses a command.
pub(super) fn refuse(command: &Later) -> Failure {
    match command {
        Later::Scrub(typed) => {
            let resource = typed.words.iter().find(|word| !word.starts_with('-'));
            let resource = resource.map_or("RESOURCE", String::as_str);
            let instead = format!("to compare the two copies: hotpair verify {resource}");
            Failure::refused(comes_with("scrub", "integrity"), instead)
        }
        Later::Top(_) => Failure::refused(comes_with("top", "trust"), "hotpair status --watch"),
    }
}

/// Refuses `resume-resync --without-undo`.
pub(super) fn refuse_without_undo(resource: &str) -> Failure {
    let why = comes_with("--without-undo", "integrity");
    Failure::refused(why, format!("hotpair resume-resync {resource}"))
}

fn comes_with(name: &str, stage: &str) -> String {
    format!("`{name}` comes with the stage \"{stage}\"; this release has the stage \"pair\"")
}
