//! The fence command: when it runs, what its answer is worth, and when it runs again.
//!
//! Only an answer that names what became of the peer counts. That it cannot be reached is no news:
//! a node that is cut off says the same of a peer that lives.

use std::fmt;
use std::time::Duration;

use crate::units::Epoch;

/// How a run of the fence command ended. The codes are those of DRBD's fence-peer handlers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FenceAnswer {
    /// It ended by itself, with this code.
    Exit(i32),
    /// It was killed since it took too long.
    TookTooLong,
    /// It could not be started, or a signal ended it.
    Broken,
}

impl FenceAnswer {
    /// Whether the peer is off: then it neither serves nor acknowledges.
    pub fn is_off(self) -> bool {
        match self {
            Self::Exit(code) => matches!(code, OFF | STONITH),
            Self::TookTooLong | Self::Broken => false,
        }
    }

    /// Whether the peer cannot be promoted: it is off, or durably outdated. That is enough for a
    /// primary that goes on alone, and not for a promotion.
    pub fn is_no_candidate(self) -> bool {
        self.is_off() || self == Self::Exit(OUTDATED)
    }

    /// Whether a run that was to let the peer be promoted again did so.
    pub fn is_lifted(self) -> bool {
        self == Self::Exit(OFF)
    }
}

impl FenceAnswer {
    /// How the command ended, without what that says of the peer.
    pub fn ended(self) -> String {
        match self {
            Self::Exit(code) => format!("ended with exit code {code}"),
            Self::TookTooLong => "took too long and was killed".to_owned(),
            Self::Broken => "could not be run to its end".to_owned(),
        }
    }
}

impl fmt::Display for FenceAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, says) = match *self {
            Self::TookTooLong => return f.write_str("it took too long and was killed"),
            Self::Broken => return f.write_str("it could not be run to its end"),
            Self::Exit(code) => match code {
                OFF | STONITH => (code, "the peer is off"),
                INCONSISTENT => {
                    (code, "the peer is inconsistent, which does not say that it is off")
                }
                OUTDATED => (code, "the peer is durably outdated"),
                UNREACHABLE => (code, "the peer cannot be reached, so it may serve"),
                PRIMARY => (code, "the peer is primary"),
                _ => (code, "which confirms nothing"),
            },
        };
        write!(f, "exit code {code}: {says}")
    }
}

const OFF: i32 = 0;
const INCONSISTENT: i32 = 3;
const OUTDATED: i32 = 4;
const UNREACHABLE: i32 = 5;
const PRIMARY: i32 = 6;
const STONITH: i32 = 7;

/// What a run of the fence command is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FenceAction {
    /// The peer is to be off, or kept from being promoted.
    Fence,
    /// Under Pacemaker: the peer may be promoted again, since it lacks nothing.
    Unfence,
    /// Under Pacemaker: what this node had placed was for nothing, and what the peer placed stays.
    Withdraw,
}

impl FenceAction {
    /// As the command is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Unfence => "unfence",
            Self::Withdraw => "withdraw",
        }
    }
}

/// One run of the fence command. A newer one takes the place of the one that is under way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FenceOrder {
    /// What it is for.
    pub action: FenceAction,
    /// Counts up; the answer names it.
    pub run: u64,
    /// The epoch of the record.
    pub epoch: Epoch,
}

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FenceStep {
    /// To be called again after so long.
    Wait(Duration),
    /// The command runs, under this number.
    Run(u64),
}

/// The runs of one node for one loss of its peer.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Fencing {
    state: State,
    run: u64,
    failures: u32,
    failed: Option<FenceAnswer>,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum State {
    /// The peer is not to be fenced.
    #[default]
    Idle,
    /// The peer has this time to come back, or to fence this node first.
    Delaying,
    Running,
    /// The last run confirmed nothing.
    Pausing,
    /// The peer is as it has to be.
    Confirmed(FenceAnswer),
}

impl Fencing {
    /// The peer is to be fenced, after so long. Does nothing if that began before.
    pub(super) fn begin(&mut self, after: Duration) -> Option<FenceStep> {
        if self.state != State::Idle {
            return None;
        }
        if after.is_zero() {
            return Some(self.start());
        }
        self.state = State::Delaying;
        Some(FenceStep::Wait(after))
    }

    /// Nothing is to be waited for any more before the first run.
    pub(super) fn hurry(&mut self) -> Option<FenceStep> {
        (self.state == State::Delaying).then(|| self.start())
    }

    /// The time is over that was to be waited for.
    pub(super) fn on_timer(&mut self) -> Option<FenceStep> {
        match self.state {
            State::Delaying | State::Pausing => Some(self.start()),
            State::Idle | State::Running | State::Confirmed(_) => None,
        }
    }

    fn start(&mut self) -> FenceStep {
        self.run += 1;
        self.state = State::Running;
        FenceStep::Run(self.run)
    }

    /// A run ended. One that nobody waits for any more says nothing of the peer as it is now. Returns
    /// whether it counts, and if it confirmed nothing, when the next one follows.
    pub(super) fn on_answer(
        &mut self,
        run: u64,
        answer: FenceAnswer,
        is_enough: impl Fn(FenceAnswer) -> bool,
    ) -> Option<Result<(), FenceStep>> {
        if self.state != State::Running || run != self.run {
            return None;
        }
        if is_enough(answer) {
            self.state = State::Confirmed(answer);
            self.failed = None;
            return Some(Ok(()));
        }
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(RETRY_DOUBLED_MAX));
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(answer);
        self.state = State::Pausing;
        Some(Err(FenceStep::Wait(pause.min(RETRY_LAST))))
    }

    /// The peer is not to be fenced any more. What runs is left to end, and what it answers then counts
    /// for nothing.
    pub(super) fn stop(&mut self) {
        *self = Self { run: self.run, ..Self::default() };
    }

    /// What was confirmed.
    pub(super) fn confirmed(&self) -> Option<FenceAnswer> {
        match self.state {
            State::Confirmed(answer) => Some(answer),
            State::Idle | State::Delaying | State::Running | State::Pausing => None,
        }
    }

    /// Whether the command runs.
    pub(super) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// What the last run answered, if it confirmed nothing and the peer is still to be fenced.
    pub(super) fn failed(&self) -> Option<FenceAnswer> {
        self.failed
    }
}

/// Pause after the first failure; each next one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_mins(1);
const RETRY_DOUBLED_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_off_may_be_replaced_and_what_is_outdated_may_be_left_behind() {
        let off: Vec<i32> = (-1..256).filter(|code| FenceAnswer::Exit(*code).is_off()).collect();
        assert_eq!(off, [0, 7]);
        let out = |code: &i32| FenceAnswer::Exit(*code).is_no_candidate();
        assert_eq!((-1..256).filter(out).collect::<Vec<i32>>(), [0, 4, 7]);
        for answer in [FenceAnswer::TookTooLong, FenceAnswer::Broken] {
            assert!(!answer.is_off() && !answer.is_no_candidate(), "{answer}");
        }
    }

    #[test]
    fn a_command_that_confirms_nothing_runs_again_and_again() {
        let mut fencing = Fencing::default();
        assert_eq!(fencing.begin(Duration::from_secs(5)), Some(FenceStep::Wait(RETRY_FIRST)));
        assert_eq!(fencing.begin(Duration::from_secs(5)), None, "it began");
        let mut pauses = Vec::new();
        for run in 1..=6 {
            assert_eq!(fencing.on_timer(), Some(FenceStep::Run(run)));
            assert_eq!(fencing.on_timer(), None, "it runs");
            let answer = FenceAnswer::Exit(UNREACHABLE);
            let Some(Err(FenceStep::Wait(pause))) =
                fencing.on_answer(run, answer, FenceAnswer::is_no_candidate)
            else {
                panic!("exit code 5 is never success");
            };
            pauses.push(pause.as_secs());
            assert_eq!((fencing.confirmed(), fencing.failed()), (None, Some(answer)));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn an_answer_about_a_peer_that_was_met_since_counts_for_nothing() {
        let mut fencing = Fencing::default();
        assert_eq!(fencing.begin(Duration::ZERO), Some(FenceStep::Run(1)));
        fencing.stop();
        assert_eq!(fencing.on_answer(1, FenceAnswer::Exit(0), FenceAnswer::is_off), None);
        assert_eq!(fencing.begin(Duration::ZERO), Some(FenceStep::Run(2)));
        assert_eq!(fencing.on_answer(1, FenceAnswer::Exit(0), FenceAnswer::is_off), None);
        assert_eq!(fencing.confirmed(), None);
        assert_eq!(fencing.on_answer(2, FenceAnswer::Exit(7), FenceAnswer::is_off), Some(Ok(())));
        assert_eq!(fencing.confirmed(), Some(FenceAnswer::Exit(7)));
        fencing.stop();
        assert_eq!(fencing.confirmed(), None);
    }

    #[test]
    fn a_peer_that_is_silent_on_every_path_is_not_waited_for() {
        let mut fencing = Fencing::default();
        assert_eq!(fencing.hurry(), None);
        assert!(fencing.begin(Duration::from_secs(1)).is_some());
        assert_eq!(fencing.hurry(), Some(FenceStep::Run(1)));
        assert_eq!(fencing.hurry(), None);
        assert!(fencing.is_running());
    }
}
