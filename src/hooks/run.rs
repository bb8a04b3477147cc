//! A run of hooks: its commands in order, each tried again if it fails.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::command::{HookError, execute};
use super::plan::{Plan, Step};

/// What a run tells while it is under way.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// A command wrote a line.
    Line {
        /// Which.
        program: &'a str,
        /// What.
        text: &'a str,
    },
    /// A command runs in this process group, or none does.
    Group(Option<i32>),
}

/// Carries the plan out. Dropped before its end, it kills the command that runs.
///
/// # Errors
/// The first failure of a command that failed each time, or took longer than it may.
pub async fn run(plan: &Plan, tell: &mut (dyn FnMut(Told<'_>) + Send)) -> Result<(), HookError> {
    let deadline = Instant::now() + Duration::from_millis(plan.all_ms);
    let mut failed = None;
    for step in &plan.steps {
        if step.needs.as_ref().is_some_and(|path| !Path::new(path).exists()) {
            continue;
        }
        if let Err(error) = insist(step, plan, deadline, tell).await {
            failed = failed.or(Some(error));
            if !plan.goes_on {
                break;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Tries a command as often as it may be tried.
async fn insist(
    step: &Step,
    plan: &Plan,
    deadline: Instant,
    tell: &mut (dyn FnMut(Told<'_>) + Send),
) -> Result<(), HookError> {
    let mut tries = 1;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Duration::from_millis(plan.step_ms).min(left);
        match execute(step, &plan.environment, limit, tell).await {
            Err(HookError::Failed { .. }) if tries < TRIES => {
                tries += 1;
                let pause = PAUSE.min(deadline.saturating_duration_since(Instant::now()));
                tokio::time::sleep(pause).await;
            }
            ended => return ended,
        }
    }
}

/// A command that fails is run twice more.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
