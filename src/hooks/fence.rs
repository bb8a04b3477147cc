//! Runs the fence command of one resource, and says what its exit code was.
//!
//! What the code is worth is up to `promotion::fencing`. A command that is still running when this
//! process dies is left to end by itself: whatever it does to the other node, nobody relies on it.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::command::{HookError, execute};
use super::plan::{Scene, Step, environment};
use super::run::Told;
use crate::config::Fence;
use crate::promotion::fencing::{FenceAction, FenceAnswer, FenceOrder};
use crate::promotion::services::ServiceReason;

/// What it tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FenceNews {
    /// A run ended.
    Ended {
        /// Which.
        run: u64,
        /// How.
        answer: FenceAnswer,
    },
    /// For people.
    Event {
        /// Short constant name.
        kind: &'static str,
        /// One sentence.
        reason: String,
    },
}

/// The fence command of one resource.
#[derive(Clone, Debug)]
pub struct Fencer {
    /// What runs, and for how long.
    pub fence: Fence,
    /// What it is told.
    pub scene: Scene,
}

impl Fencer {
    /// Works until nobody orders anything any more. The newest order takes the place of the one that
    /// is under way, which is killed.
    pub async fn run(
        self,
        mut orders: watch::Receiver<Option<FenceOrder>>,
        news: mpsc::Sender<FenceNews>,
    ) {
        while orders.changed().await.is_ok() {
            let Some(order) = *orders.borrow_and_update() else { continue };
            let mut next = orders.clone();
            tokio::select! {
                answer = self.carry_out(order, &news) => {
                    // A core that hangs has room for this: it orders nothing meanwhile.
                    let _ = news.try_send(FenceNews::Ended { run: order.run, answer });
                }
                Ok(()) = next.changed() => {}
            }
        }
    }

    async fn carry_out(&self, order: FenceOrder, news: &mpsc::Sender<FenceNews>) -> FenceAnswer {
        let command = match order.action {
            FenceAction::Fence => Some(&self.fence.command),
            FenceAction::Unfence | FenceAction::Withdraw => self.fence.unfence.as_ref(),
        };
        let Some(command) = command else { return FenceAnswer::Broken };
        let program = command.display().to_string();
        let arguments = vec![self.scene.peer.clone()];
        let step = Step { program, arguments, needs: None };
        let environment =
            environment(&self.scene, order.action.name(), ServiceReason::Failover, order.epoch);
        let tell_event = |reason| {
            // Lines that nobody takes must not keep the end of a run from being told.
            if news.capacity() > FOR_ENDS {
                let _ = news.try_send(FenceNews::Event { kind: "hook-output", reason });
            }
        };
        let mut tell = |told: Told<'_>| match told {
            Told::Group(_) => {}
            Told::Line { program, text } => tell_event(format!("{program}: {text}")),
        };
        let limit: Duration = self.fence.timeout;
        let ended = execute(&step, &environment, limit, &mut tell).await;
        match ended {
            Ok(()) => FenceAnswer::Exit(0),
            Err(HookError::Failed { status, .. }) => {
                status.code().map_or(FenceAnswer::Broken, FenceAnswer::Exit)
            }
            Err(HookError::TookTooLong { .. }) => FenceAnswer::TookTooLong,
            Err(error @ HookError::NotStarted { .. }) => {
                tell_event(error.to_string());
                FenceAnswer::Broken
            }
        }
    }
}

/// Places for news that lines of output do not take.
const FOR_ENDS: usize = 8;
