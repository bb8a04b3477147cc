//! How much may happen in one search, and where it begins.

use std::time::Duration;

use hotpair::promotion::arbiter::Arbiter;
#[cfg(feature = "planted-bugs")]
use hotpair::promotion::controller::planted::PlantedRule;
use hotpair::promotion::controller::{ControllerSettings, Moving};
use hotpair::replica::Settings;
#[cfg(feature = "planted-bugs")]
use hotpair::replica::planted::Planted;

use crate::ghost::Broken;
use crate::pair::{Action, Pair, Typed, Wanted, side};
use crate::third::{ThirdLeft, Word};

/// What may still happen; it only falls.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Left {
    pub(crate) writes: u8,
    pub(crate) reads: u8,
    pub(crate) flushes: u8,
    pub(crate) kills: u8,
    pub(crate) power_losses: u8,
    pub(crate) cuts: u8,
    pub(crate) commands: u8,
    pub(crate) time: u8,
    /// Old images that are put back.
    pub(crate) put_backs: u8,
    /// Connections that may be made.
    pub(crate) connections: u8,
    /// Counts requests.
    pub(crate) next_request: u8,
    /// An operator typed `--accept-data-loss`.
    pub(crate) has_accepted_loss: bool,
}

/// Where a search begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begin {
    /// Both nodes are complete, the first is primary.
    InSync,
    /// The same, after the first write.
    Written,
    /// The second node was killed, and the first went on alone and wrote.
    Alone,
    /// With an arbiter that both nodes have missed, so that the time of grace runs.
    Missing,
    /// The same, and the pledge was given.
    Pledged,
    /// The first node does not reach the arbiter, and serves by its peer's lease.
    Unheard,
    /// The second node does not reach the arbiter.
    Deaf,
    /// The second node asked for its promotion, which is on its way, and follows the first again.
    Followed,
    /// Both have been restarted since the images of them were taken.
    Restarted,
}

/// The bounds of one search.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Bounds {
    pub(crate) name: &'static str,
    pub(crate) begin: Begin,
    pub(crate) left: Left,
    pub(crate) typed: &'static [Typed],
    /// Nodes that may be killed or lose power.
    pub(crate) mortal: &'static [usize],
    /// The operator says that a node is fenced which is not.
    pub(crate) lies: bool,
    /// Clients wait for the target of a resync from its beginning, or from its end only.
    pub(crate) gates_early: bool,
    /// The peer is asked to flush after every write, or only when time passes.
    pub(crate) flushes_at_once: bool,
    /// What must happen in some state, so that the search is not vacuous.
    pub(crate) expected: &'static [&'static str],
    /// What happens to the arbiter; `None` without one.
    pub(crate) third: Option<ThirdLeft>,
    /// The secondary pledges when both have missed the arbiter for long.
    pub(crate) pledges: bool,
    /// What never waits.
    pub(crate) quick: Quick,
    /// Who grants a lease may believe that it is over before its holder does.
    pub(crate) is_clock_broken: bool,
    /// Nothing but this is looked for.
    pub(crate) only: Option<Broken>,
    /// This is not looked for.
    pub(crate) but: Option<Broken>,
    /// From each state service must come back.
    pub(crate) comes_back: bool,
    /// The rule that the world breaks, to see that the checks notice.
    pub(crate) flaw: Option<Flaw>,
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: Option<Planted>,
    #[cfg(feature = "planted-bugs")]
    pub(crate) rule: Option<PlantedRule>,
}

/// What ends or arrives at once, before anything else happens. Each search leaves its own things
/// slow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Quick {
    /// Reads, writes and syncs of data, the activity log and the map.
    pub(crate) data: bool,
    /// Writes of the node's record.
    pub(crate) records: bool,
    /// Frames between the nodes.
    pub(crate) frames: bool,
    /// What passes between the nodes and the arbiter.
    pub(crate) words: bool,
}

/// What the world forgets although it must not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flaw {
    /// A sync of the data is answered, and nothing was made stable.
    Syncs,
    /// The marks of a process that ends are gone.
    Marks,
    /// A record is answered as stable, and the one before it stays.
    Records,
}

/// Timers are either never due or due after [`Action::PassTime`].
const NEVER: Duration = Duration::from_secs(1 << 32);

impl Bounds {
    /// Nothing happens; tests fill in what does.
    pub(crate) fn nothing(name: &'static str, begin: Begin) -> Self {
        Self {
            name,
            begin,
            left: Left::default(),
            typed: &[],
            mortal: &[],
            lies: false,
            gates_early: true,
            flushes_at_once: true,
            expected: &[],
            third: None,
            pledges: false,
            quick: Quick::default(),
            is_clock_broken: false,
            only: None,
            but: None,
            comes_back: false,
            flaw: None,
            #[cfg(feature = "planted-bugs")]
            planted: None,
            #[cfg(feature = "planted-bugs")]
            rule: None,
        }
    }

    /// What node `at` is told of its configuration: limits so small that they are met.
    pub(crate) fn settings(&self, at: usize) -> Settings {
        let name = |at: usize| ["a", "b"][at].to_owned();
        Settings {
            side: side(at),
            node: name(at),
            peer: name(1 - at),
            in_flight_parts_max: 2,
            in_flight_bytes_max: 2,
            unflushed_blocks_max: if self.flushes_at_once { 2 } else { 64 },
            resync_chunks_max: 1,
            gate_bytes: if self.gates_early { 4096 } else { 0 },
            ping_interval: NEVER,
            suspect_after: NEVER,
            io_timeout: NEVER,
            unflushed_age: NEVER,
            asks_by_datagram: self.third.is_some_and(|third| third.datagrams > 0),
            controller: self.third.map(|_| ControllerSettings {
                side: side(at),
                promotes: true,
                lease: Duration::from_secs(3),
                stop_budget: Duration::ZERO,
                fence: None,
                arbiter_grace: self.pledges.then(|| Duration::from_secs(10)),
                identities: [[0; 32]; 2],
                moving: Moving::default(),
                #[cfg(feature = "planted-bugs")]
                planted: self.rule,
            }),
            #[cfg(feature = "planted-bugs")]
            planted: self.planted,
            ..Settings::default()
        }
    }

    /// A property does not hold.
    pub(crate) fn breaks(&self, name: Broken) -> Result<(), Broken> {
        if self.is_of_interest(Some(name)) { Err(name) } else { Ok(()) }
    }

    /// Whether a state that breaks this is one that is looked for.
    pub(crate) fn is_of_interest(&self, broken: Option<Broken>) -> bool {
        let Some(broken) = broken else { return true };
        self.only.is_none_or(|only| only == broken) && self.but != Some(broken)
    }

    /// Plants a bug of the arbiter.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plant_at_arbiter(&self, seat: &mut Arbiter) {
        seat.plant(self.rule);
    }

    /// None, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "same shape as with the feature planted-bugs")]
    pub(crate) fn plant_at_arbiter(&self, _seat: &mut Arbiter) {}

    /// The state in which the search begins.
    pub(crate) fn first_state(&self) -> Pair {
        let left = Left { commands: 1, connections: 1, writes: 2, kills: 1, ..Left::default() };
        let mut pair = Pair::new(left);
        let mut prelude = vec![
            Action::Start { at: 0 },
            Action::Start { at: 1 },
            Action::Connect,
            Action::Type { at: 0, typed: Typed::Promote },
        ];
        let write = Action::Ask { at: 0, what: Wanted::Write };
        match self.begin {
            Begin::InSync | Begin::Missing | Begin::Pledged => {}
            Begin::Unheard | Begin::Deaf | Begin::Followed | Begin::Restarted => {}
            Begin::Written => prelude.push(write),
            Begin::Alone => prelude.extend([
                write,
                Action::Kill { at: 1, is_landed: false },
                Action::Notice { at: 0 },
                write,
            ]),
        }
        let sound = Self { flaw: None, ..self.clone() };
        if self.third.is_some() {
            return self.first_state_with_arbiter();
        }
        for action in prelude {
            pair = pair.happens(action, &sound).expect("nothing refuses it");
            pair.settles(&sound);
            assert_eq!(pair.broken, None, "while the first state is made");
        }
        pair.left = Left { next_request: pair.left.next_request, ..self.left };
        pair
    }
}

impl Pair {
    /// Everything that is under way ends.
    pub(crate) fn settles(&mut self, bounds: &Bounds) {
        loop {
            let mut actions = Vec::new();
            self.progress(&mut actions);
            let inner = |action: &&Action| {
                let is_word = matches!(
                    action,
                    Action::Word(
                        Word::Ask { .. }
                            | Word::Tell { .. }
                            | Word::Push { .. }
                            | Word::Grant { .. }
                            | Word::Stored
                    )
                );
                matches!(action, Action::Deliver { .. } | Action::End { .. } | Action::Tick { .. })
                    || is_word
            };
            let Some(action) = actions.iter().find(inner) else { return };
            *self = self.happens(*action, bounds).expect("progress is never refused");
        }
    }

    /// What goes on by itself.
    pub(crate) fn progress(&self, actions: &mut Vec<Action>) {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else {
                if !self.is_dead[at] {
                    actions.push(Action::Start { at });
                }
                continue;
            };
            actions.extend((0..process.works.len()).map(|work| Action::End { at, work }));
            let arrives = |link| self.net.has_frame(at, link);
            let is_idle = process.works.is_empty() && !process.link.is_some_and(arrives);
            if is_idle && self.tick_matters(at) {
                actions.push(Action::Tick { at });
            }
            let Some(link) = process.link else { continue };
            if self.net.has_frame(at, link) {
                actions.push(Action::Deliver { to: at });
            } else if self.net.is_lost(at, link) {
                actions.push(Action::Notice { at });
            }
        }
        let wants = |at: usize| self.nodes[at].process.as_ref().is_some_and(|it| it.wants_link);
        self.words_under_way(actions);
        let dialer_is_free = self.nodes[0].process.as_ref().is_some_and(|it| it.link.is_none());
        if wants(0) && wants(1) && dialer_is_free && self.left.connections > 0 {
            actions.push(Action::Connect);
        }
    }

    /// What people, clients and faults do.
    pub(crate) fn interference(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        let left = self.left;
        if left.cuts > 0 && self.net.is_alive() {
            actions.push(Action::Cut);
        }
        if left.time > 0 && !self.has_lease() {
            actions.push(Action::PassTime);
        }
        self.words_of_time(bounds, actions);
        for at in 0..2 {
            self.asks(at, actions);
            self.faults(at, bounds, actions);
            self.commands(at, bounds, actions);
            if self.left.put_backs > 0 && bounds.mortal.contains(&at) && self.would_be_noticed(at) {
                actions.push(Action::PutBack { at });
            }
        }
    }

    /// Whether the arbiter's record names a run of that node which its image does not know: only
    /// then anybody can know that it is an old one.
    fn would_be_noticed(&self, at: usize) -> bool {
        let record = self.third.as_ref().and_then(|third| third.disk.as_ref());
        let image = self.images[at].as_ref();
        record.zip(image).is_some_and(|(record, image)| {
            !image.record.instances.contains(&record.requests[at].instance)
        })
    }

    fn asks(&self, at: usize, actions: &mut Vec<Action>) {
        let Some(process) = &self.nodes[at].process else { return };
        if process.export.is_none() || !process.core.accepts_requests() {
            return;
        }
        let left = self.left;
        let wanted = [
            (Wanted::Write, left.writes),
            (Wanted::Read, left.reads),
            (Wanted::Flush, left.flushes),
        ];
        let allowed = wanted.into_iter().filter(|(_, left)| *left > 0);
        actions.extend(allowed.map(|(what, _)| Action::Ask { at, what }));
    }

    fn faults(&self, at: usize, bounds: &Bounds, actions: &mut Vec<Action>) {
        let node = &self.nodes[at];
        let Some(process) = &node.process else { return };
        if !bounds.mortal.contains(&at) {
            return;
        }
        for is_landed in [false, true] {
            if is_landed && process.works.is_empty() {
                continue;
            }
            if self.left.kills > 0 {
                actions.push(Action::Kill { at, is_landed });
            }
            if self.left.power_losses == 0 {
                continue;
            }
            let mut left = node.clone();
            left.crash(is_landed);
            for version in 0..left.files.data.version_count() {
                for map_is_kept in [true, false] {
                    if map_is_kept || left.files.map_is_unsynced() {
                        actions.push(Action::LosePower { at, is_landed, version, map_is_kept });
                    }
                }
            }
        }
    }

    fn commands(&self, at: usize, bounds: &Bounds, actions: &mut Vec<Action>) {
        let Some(process) = &self.nodes[at].process else { return };
        if self.left.commands == 0 {
            return;
        }
        let peer_is_off = self.nodes[1 - at].process.is_none();
        let is_primary = process.export.is_some();
        actions.extend(bounds.typed.iter().filter_map(|&typed| {
            let makes_sense = match typed {
                Typed::Promote => !is_primary,
                Typed::Force { .. } => !is_primary && (peer_is_off || bounds.lies),
                Typed::Demote => is_primary,
                Typed::Leave => at == 1,
                Typed::Switchover | Typed::Stop | Typed::Keep => true,
            };
            makes_sense.then_some(Action::Type { at, typed })
        }));
    }
}
