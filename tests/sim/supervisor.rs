//! The supervisor of a worker that was killed: it stops the services, then says by datagram that the
//! dead run serves nothing more. It repeats that until another worker runs.

use hotpair::units::{Epoch, Instance};

use crate::net::Time;
use crate::witness::{Message, Party, WitnessEvent};
use crate::world::{Event, World, millis, nanos};

/// That run serves nothing more up to this epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LastWord {
    pub(crate) instance: Instance,
    pub(crate) epoch: Epoch,
}

/// What it does after the death of a worker; nothing once another one runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SupervisorEvent {
    node: usize,
    /// The node has not started since.
    life: u64,
    word: LastWord,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The services were stopped, or could not be.
    Stopped { fails: bool },
    /// The word was sent so often.
    Said(u32),
}

/// It is said so often, so far apart, and then less often.
const SOON_COUNT: u32 = 5;
const SOON: Time = 20_000_000;
const LATER: Time = 200_000_000;

impl World {
    /// What the worker of a node leaves, if it served: to be asked before it ends.
    pub(crate) fn last_word(&self, at: usize) -> Option<LastWord> {
        let has_supervisor = self.plan.witness.as_ref().is_some_and(|it| it.has_supervisor);
        let core = self.nodes[at].core().filter(|core| has_supervisor && core.is_primary())?;
        Some(LastWord { instance: core.instance(), epoch: core.superblock().epoch })
    }

    /// A worker is dead, and its sockets are closed.
    pub(crate) fn worker_died(&mut self, node: usize, word: LastWord) {
        let (mut delay, mut fails) = (self.witness.rng.u64(millis(1)..millis(30)), false);
        if let Some(plan) = &self.plan.services {
            fails = self.witness.rng.u8(..100) < plan.failures;
            let within = nanos(plan.stop_within);
            delay = if fails { within } else { self.witness.rng.u64(millis(1)..within) };
        }
        self.plan_supervisor(delay, node, word, Step::Stopped { fails });
    }

    fn plan_supervisor(&mut self, delay: Time, node: usize, word: LastWord, step: Step) {
        let life = self.nodes[node].life;
        let event = SupervisorEvent { node, life, word, step };
        self.after(delay, Event::Witness(WitnessEvent::Supervisor(event)));
    }

    pub(crate) fn on_supervisor(&mut self, event: SupervisorEvent) {
        let SupervisorEvent { node, life, word, step } = event;
        if self.nodes[node].life != life {
            return;
        }
        let said = match step {
            // What may run on is no reason to let the peer begin.
            Step::Stopped { fails: true } => return,
            Step::Stopped { fails: false } => {
                self.services_lose_power(node);
                0
            }
            Step::Said(count) => count,
        };
        self.say(Party::Node(node), Party::Node(1 - node), &Message::Release(word));
        let delay = if said < SOON_COUNT { SOON } else { LATER };
        self.plan_supervisor(delay, node, word, Step::Said(said + 1));
    }
}
