//! `fence`, `fence_timeout` and `fence_delay`, and which `auto` goes with which `arbiter`.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::check::{Check, LEASE, Timer, of, span_of};
use super::file::{File, PromotionSection};
use super::mistake::{Caution, Mistake};
use super::{Arbiter, Auto, Node};

/// The command that cuts the other node off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fence {
    /// It is run without a shell, with the name of the other node as its argument.
    pub command: PathBuf,
    /// Under Pacemaker: what undoes it. Never the same by default: a command that switches a machine off
    /// must not run for a peer that is well.
    pub unfence: Option<PathBuf>,
    /// Longest run; then it is killed, and has confirmed nothing.
    pub timeout: Duration,
    /// Without an arbiter: the time that a silent primary has before a secondary fences it.
    pub delay: Duration,
}

impl Auto {
    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Arbiter => "arbiter",
            Self::Fenced => "fenced",
            Self::HeartbeatOnly => "heartbeat-only",
        }
    }

    /// Whether a node of such a pair may be promoted without an operator.
    pub fn promotes(self) -> bool {
        match self {
            Self::Off => false,
            Self::Arbiter | Self::Fenced | Self::HeartbeatOnly => true,
        }
    }
}

/// How `auto` does not fit what else there is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AutoMistake {
    /// Nobody to ask.
    #[error("auto = \"arbiter\" needs an arbiter")]
    NeedsArbiter,
    /// Whoever is asked for nothing decides nothing.
    #[error("auto = \"heartbeat-only\" asks no arbiter, and there is arbiter = \"{arbiter}\"")]
    ArbiterUnasked {
        /// Which.
        arbiter: &'static str,
    },
    /// Nothing to fence with.
    #[error("auto = \"fenced\" needs a fence command")]
    NeedsFence,
    /// Pacemaker decides, or somebody else does.
    #[error("arbiter = \"pacemaker\" needs auto = \"arbiter\", and there is auto = \"{auto}\"")]
    NotPacemakers {
        /// Which.
        auto: &'static str,
    },
    /// Pacemaker would promote a node that lacks what the other one wrote alone.
    #[error("arbiter = \"pacemaker\" needs a fence command")]
    PacemakerNeedsFence,
    /// What is never removed keeps the peer from being promoted for ever.
    #[error("arbiter = \"pacemaker\" needs an unfence command")]
    PacemakerNeedsUnfence,
    /// Two would start the same services.
    #[error(
        "with arbiter = \"pacemaker\" Pacemaker starts and stops the services, and there are hooks"
    )]
    PacemakerHasHooks,
    /// One cable would decide alone.
    #[error("auto = \"heartbeat-only\" needs two paths of heartbeats")]
    SinglePath,
}

impl AutoMistake {
    /// How to mend it, as a sentence.
    pub(super) fn mend(self) -> &'static str {
        match self {
            Self::NeedsArbiter => {
                "add arbiter = \"witness\" and witness = \"ADDRESS:PORT\", or set auto = \"off\""
            }
            Self::ArbiterUnasked { .. } => {
                "set auto = \"arbiter\", which never makes two primaries, or arbiter = \"none\""
            }
            Self::NeedsFence => {
                "add a line such as: fence = \"/etc/hotpair/fence\"; it must end with 0 only if the \
                 other node is off"
            }
            Self::NotPacemakers { .. } => {
                "set auto = \"arbiter\": Pacemaker promotes, or who promotes is not arbiter = \
                 \"pacemaker\""
            }
            Self::PacemakerNeedsFence => {
                "add the script that comes with hotpair as tools/pacemaker-fence, such as: fence = \
                 \"/usr/lib/hotpair/pacemaker-fence\"; a primary that loses its peer holds writes until \
                 it has kept Pacemaker from promoting that one"
            }
            Self::PacemakerNeedsUnfence => {
                "add the same script, such as: unfence = \"/usr/lib/hotpair/pacemaker-fence\"; it is run when \
                 both copies are the same again, so never name a command that switches a machine off"
            }
            Self::PacemakerHasHooks => {
                "make each of them a resource of Pacemaker that is ordered after the promotion, and \
                 remove it here"
            }
            Self::SinglePath => {
                "add a second network on both nodes: heartbeat = [\"192.0.2.1:7789\", \
                 \"198.51.100.1:7789\"]; or use a witness, with auto = \"arbiter\""
            }
        }
    }
}

impl Check {
    /// Pairs of `auto` and `arbiter` that mean something.
    pub(super) fn who_promotes(
        &mut self,
        section: &PromotionSection,
        auto: Auto,
        arbiter: &Arbiter,
    ) {
        let has_arbiter = *arbiter != Arbiter::None;
        let span = place(section);
        if *arbiter == Arbiter::Pacemaker && auto != Auto::Arbiter {
            let written = section.arbiter.as_ref().map_or(0..0, Spanned::span);
            let span = section.auto.as_ref().map_or(written, Spanned::span);
            self.misfit(span, AutoMistake::NotPacemakers { auto: auto.name() });
            return;
        }
        match auto {
            Auto::Arbiter if !has_arbiter => self.misfit(span, AutoMistake::NeedsArbiter),
            Auto::HeartbeatOnly if has_arbiter => {
                self.misfit(span, AutoMistake::ArbiterUnasked { arbiter: arbiter.name() });
            }
            Auto::HeartbeatOnly => self.warn(span, Caution::TwoPrimaries),
            Auto::Fenced if section.fence.is_none() => self.misfit(span, AutoMistake::NeedsFence),
            Auto::Off | Auto::Arbiter | Auto::Fenced => {}
        }
    }

    /// What Pacemaker needs of a pair, and what is its own business.
    pub(super) fn pacemaker(&mut self, file: &File, arbiter: &Arbiter) {
        let section = &file.promotion;
        if *arbiter != Arbiter::Pacemaker {
            if let Some(written) = &section.unfence {
                self.warn(written.span(), Caution::PacemakerOnly { key: "unfence" });
            }
            return;
        }
        if section.fence.is_none() {
            let span = section.arbiter.as_ref().map_or(0..0, Spanned::span);
            self.misfit(span, AutoMistake::PacemakerNeedsFence);
        } else if section.unfence.is_none() {
            let span = section.arbiter.as_ref().map_or(0..0, Spanned::span);
            self.misfit(span, AutoMistake::PacemakerNeedsUnfence);
        }
        if let Some(written) = &section.flap_limit {
            self.warn(written.span(), Caution::PacemakersOwn { key: "flap_limit" });
        }
        for resource in file.resource.values() {
            let own = resource.on.values().filter_map(|on| on.hooks.as_ref());
            for hooks in resource.hooks.iter().chain(own) {
                if let Some(span) = hooks.get_ref().first_that_runs() {
                    self.misfit(span, AutoMistake::PacemakerHasHooks);
                }
            }
            if let Some(prefer) = &resource.prefer {
                self.warn(prefer.span(), Caution::PacemakersOwn { key: "prefer" });
            }
        }
    }

    fn misfit(&mut self, span: Range<usize>, what: AutoMistake) {
        self.wrong(span, Mistake::Auto(what));
    }

    /// The fence command, if anything runs it.
    pub(super) fn fence(
        &mut self,
        file: &File,
        suspect_after: Duration,
        auto: Auto,
        arbiter: &Arbiter,
    ) -> Option<Fence> {
        let section = &file.promotion;
        let has_arbiter = *arbiter != Arbiter::None;
        let runs = match auto {
            Auto::Fenced => true,
            Auto::Arbiter => has_arbiter && section.fence.is_some(),
            Auto::Off | Auto::HeartbeatOnly => false,
        };
        let is_pacemaker = *arbiter == Arbiter::Pacemaker;
        let waits = runs && !has_arbiter;
        let delay = span_of(section.fence_delay.as_ref()).unwrap_or(FENCE_DELAY);
        for (key, span, counts) in [
            ("fence", section.fence.as_ref().map(Spanned::span), runs),
            ("fence_timeout", section.fence_timeout.as_ref().map(Spanned::span), runs),
            ("fence_delay", section.fence_delay.as_ref().map(Spanned::span), waits),
        ] {
            if let Some(span) = span.filter(|_| !counts) {
                let why = if is_pacemaker {
                    "Pacemaker says who is promoted, and nobody waits for the other"
                } else if runs {
                    "the arbiter says who fences, and nobody waits for the other"
                } else {
                    "nothing runs the fence command"
                };
                self.warn(span, Caution::NoFence { key, why });
            }
        }
        // The default matters only where it is waited for.
        let written = file.heartbeat.suspect_after.as_ref().filter(|_| waits);
        let suspect: Timer<'_> = ("suspect_after", written, suspect_after);
        self.timers(("fence_delay", section.fence_delay.as_ref(), delay), 2, suspect);
        let command = of(section.fence.as_ref()?).0.clone();
        let timeout = span_of(section.fence_timeout.as_ref()).unwrap_or(FENCE_TIMEOUT);
        let unfence = section.unfence.as_ref().filter(|_| is_pacemaker).map(|it| of(it).0.clone());
        runs.then_some(Fence { command, unfence, timeout, delay })
    }

    /// A pair that trusts silence alone hears each other on two networks.
    pub(super) fn enough_paths(&mut self, file: &File, nodes: &[Node; 2], auto: Auto) {
        let [first, second] = nodes.each_ref().map(|node| node.heartbeat.len());
        if auto == Auto::HeartbeatOnly && first.min(second) < 2 {
            let written = file.node.values().filter_map(|section| section.heartbeat.as_ref());
            let last = written.map(Spanned::span).max_by_key(|span| span.start);
            let span = last.unwrap_or_else(|| place(&file.promotion));
            self.misfit(span, AutoMistake::SinglePath);
        }
    }
}

/// Where `auto` stands.
fn place(section: &PromotionSection) -> Range<usize> {
    section.auto.as_ref().map_or(0..0, Spanned::span)
}

/// The lease that is counted, where one is.
pub(super) fn lease(section: &PromotionSection) -> Duration {
    span_of(section.lease.as_ref()).unwrap_or(LEASE)
}

/// Defaults. Source: promotion.md 16.
const FENCE_TIMEOUT: Duration = Duration::from_secs(30);
const FENCE_DELAY: Duration = Duration::from_secs(5);
