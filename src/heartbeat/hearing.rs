//! What a node knows of its peer by heartbeats: which run of it lives, on which paths the two hear
//! each other, and whether it is silent. Told the time; no I/O.
//!
//! A path is up only as far as its echo is fresh: what passes one way is no path. What was missed
//! while this process did not run is no silence.

use std::collections::VecDeque;
use std::time::Duration;

use crate::promotion::Clocks;
use crate::promotion::controller::PeerWord;
use crate::replica::{OutdateAsk, OutdateNews};
use crate::units::{Epoch, Instance, Instant};
use crate::wire::heartbeat::{BeatEntry, BeatHead, Datagram, ENTRIES_MAX, Said};
use crate::wire::outdate::{ExchangeEntry, ExchangeHead};

/// Ticks that are remembered, and the width of the window in which each is taken once.
const TICKS_MAX: u64 = 64;
/// Runs of the peer that are remembered as over. What they said is never believed again.
const RETIRED_MAX: usize = 16;
/// Ticks for which a run that does not know this one is answered.
const STRANGER_TICKS: u64 = 8;
/// Most parts of a tick: 256 resources.
const PARTS_MAX: usize = 256usize.div_ceil(ENTRIES_MAX);
/// Ticks until what the peer says of itself is passed on though it is the same.
const WORD_EVERY: u64 = 16;
/// A task that woke so late did not run: what it missed is no silence.
const TILT_MAX: Duration = Duration::from_millis(250);

/// What one node must know.
#[derive(Clone, Debug)]
pub(super) struct HearingSettings {
    pub(super) me: Instance,
    pub(super) interval: Duration,
    pub(super) suspect_after: Duration,
    pub(super) paths: usize,
    /// By tag, in the order of the ends.
    pub(super) resources: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hearing {
    settings: HearingSettings,
    /// The run of the peer that lives: it named this run of ours.
    peer: Option<Instance>,
    /// Another run that says it is the peer, as after a restart, and the tick in which it did.
    stranger: Option<(Instance, u64)>,
    retired: VecDeque<Instance>,
    paths: Vec<Path>,
    /// The newest tick of ours that a run of the peer told of.
    echoed: u64,
    tick: u64,
    sent: VecDeque<Sent>,
    last_tick: Clocks,
    tilt_until: Instant,
    /// By resource: the newest tick of the peer whose request was passed on.
    asked: Vec<u64>,
    /// By resource: the newest tick of ours that was granted.
    granted: Vec<u64>,
    /// By resource: when the peer told of it.
    told_of: Vec<Instant>,
    /// By resource: the last word of the peer that was passed on.
    words: Vec<PeerWord>,
    /// By resource: the newest request of the peer that was passed on.
    requested: Vec<u64>,
}

/// A tick that was sent.
#[derive(Debug)]
struct Sent {
    tick: u64,
    at: Clocks,
    /// By resource: whether it asked for a lease.
    wants_lease: Vec<bool>,
}

#[derive(Debug)]
struct Path {
    windows: Vec<Window>,
    /// Of requests and replies, which are counted by themselves.
    exchanges: Window,
    /// When the peer was heard.
    heard_at: Instant,
    /// When that was sent of which the peer says that it heard it.
    echoed_at: Instant,
    rtt: Option<Duration>,
    /// Of the ticks that the peer tells of, those that it did not hear.
    loss_percent: u8,
}

/// Which ticks of one path and part were taken.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    newest: u64,
    /// Bit N: the tick N below the newest one.
    taken: u64,
}

/// What came of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// The peer asks for a lease of a resource.
    LeaseAsked { resource: usize, instance: Instance, epoch: Epoch, tick: u64 },
    /// The peer grants what was asked for then.
    LeaseGranted { resource: usize, asked: Clocks },
    /// What the peer says of itself, beside leases.
    Word { resource: usize, word: PeerWord },
    /// A run of the peer serves nothing more.
    Released { resource: usize, instance: Instance, epoch: Epoch },
    /// A request or reply of the peer, for this run.
    Outdate { resource: usize, news: OutdateNews },
}

/// Why a datagram of the peer changed nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ignored {
    /// It was taken before, or is older than what can be told apart.
    Replayed,
    /// It is of a run of the peer that is over.
    OtherRun,
    /// It is for another run of ours, or for none: its sender may be of the past.
    Stranger,
    /// It is a request on a path that may pass one way only.
    OneWay,
    /// It is of a path or part that cannot be.
    Strange,
}

/// How a path is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PathState {
    pub(super) is_up: bool,
    pub(super) rtt: Option<Duration>,
    pub(super) loss_percent: u8,
}

impl Window {
    /// Takes `tick` if it was not taken before.
    fn take(&mut self, tick: u64) -> bool {
        if tick > self.newest {
            let ahead = tick - self.newest;
            self.taken = if ahead < TICKS_MAX { self.taken << ahead | 1 } else { 1 };
            self.newest = tick;
            return true;
        }
        let behind = self.newest - tick;
        if behind >= TICKS_MAX || self.taken >> behind & 1 == 1 {
            return false;
        }
        self.taken |= 1 << behind;
        true
    }

    /// Which of the 32 ticks before the newest one were taken.
    fn mask(self) -> u32 {
        u32::try_from(self.taken >> 1 & u64::from(u32::MAX)).expect("masked")
    }
}

impl Hearing {
    /// Nothing was heard yet, and that is no silence before `suspect_after`.
    pub(super) fn new(settings: HearingSettings, now: Clocks) -> Self {
        let path = || Path {
            windows: vec![Window::default(); PARTS_MAX],
            exchanges: Window::default(),
            heard_at: now.boottime,
            echoed_at: now.boottime,
            rtt: None,
            loss_percent: 0,
        };
        let count = settings.resources.len();
        Self {
            peer: None,
            stranger: None,
            retired: VecDeque::new(),
            paths: std::iter::repeat_with(path).take(settings.paths).collect(),
            echoed: 0,
            tick: 0,
            sent: VecDeque::new(),
            last_tick: now,
            tilt_until: Instant(0),
            asked: vec![0; count],
            granted: vec![0; count],
            told_of: vec![now.boottime; count],
            words: vec![PeerWord::default(); count],
            requested: vec![0; count],
            settings,
        }
    }

    /// The next tick is due: what it asks for counts from `now`.
    pub(super) fn begin_tick(&mut self, now: Clocks, wants_lease: Vec<bool>) {
        self.look_for_tilt(now);
        self.last_tick = now;
        self.tick += 1;
        if self.sent.len() >= usize::try_from(TICKS_MAX).expect("64") {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent { tick: self.tick, at: now, wants_lease });
    }

    /// A task that woke late, and clocks that moved apart, are no reason to suspect the peer.
    fn look_for_tilt(&mut self, now: Clocks) {
        let limit = TILT_MAX.min(self.settings.suspect_after / 4);
        let most = now.most_since(self.last_tick);
        let is_late = most >= self.settings.interval + limit;
        let is_apart = most.saturating_sub(now.least_since(self.last_tick)) >= limit;
        if is_late || is_apart {
            self.tilt_until = now.boottime.plus(2 * self.settings.suspect_after);
            for path in &mut self.paths {
                path.heard_at = now.boottime;
                path.echoed_at = now.boottime;
            }
            self.told_of.fill(now.boottime);
        }
    }

    /// Whether this node did not run for a while, or its clocks cannot be believed.
    pub(super) fn is_tilted(&self, now: Clocks) -> bool {
        now.boottime < self.tilt_until
    }

    /// The run that the current tick is for: the peer, and every other time whoever says that it is
    /// its next run, since one that is of the past must not turn this node away from the peer.
    pub(super) fn to(&self) -> Instance {
        let stranger = self.stranger.filter(|(_, told)| self.tick - told < STRANGER_TICKS);
        match (self.peer, stranger) {
            (Some(_), Some((stranger, _))) if self.tick.is_multiple_of(2) => stranger,
            (Some(peer), _) => peer,
            (None, Some((stranger, _))) => stranger,
            (None, None) => Instance(0),
        }
    }

    /// What the current tick says on a path, all but who sends it.
    pub(super) fn head(&self, now: Clocks, path: usize) -> BeatHead {
        let state = &self.paths[path];
        let window = state.windows[0];
        let held = now.boottime.since(state.heard_at).as_micros();
        BeatHead {
            path: u8::try_from(path).expect("at most 8 paths"),
            part: 0,
            config: 0,
            to: self.to(),
            tick: self.tick,
            heard: window.newest,
            held_us: u32::try_from(held).unwrap_or(u32::MAX),
            mask: window.mask(),
            flags: if self.is_tilted(now) { BeatHead::TILT } else { 0 },
        }
    }

    /// A datagram of the peer came on a path.
    pub(super) fn hear(
        &mut self,
        now: Clocks,
        path: usize,
        datagram: &Datagram,
    ) -> Result<Vec<Heard>, Ignored> {
        match &datagram.said {
            Said::Release(entries) => {
                // It stays true for ever, so it matters neither when nor how often it comes.
                let heard = entries.iter().filter_map(|(tag, epoch)| {
                    let resource = self.resource(*tag)?;
                    let (instance, epoch) = (datagram.from, *epoch);
                    Some(Heard::Released { resource, instance, epoch })
                });
                Ok(heard.collect())
            }
            Said::Request(head, entries) => {
                self.hear_exchange((now, path), datagram.from, (*head, entries), false)
            }
            Said::Reply(head, entries) => {
                self.hear_exchange((now, path), datagram.from, (*head, entries), true)
            }
            Said::Beat(head, entries) => self.hear_beat(now, path, datagram.from, (head, entries)),
        }
    }

    /// The run of the peer that lives, if one is known.
    pub(super) fn peer(&self) -> Option<Instance> {
        self.peer
    }

    /// Whether a request on a path finds its way and its reply the way back. A connection that was lost
    /// by silence is as old as `suspect_after`: what was cut with it, one way or both, is not fresh.
    /// Else the peer would veto itself, and this node never learn of it.
    pub(super) fn is_fresh(&self, now: Clocks, path: usize) -> bool {
        let path = &self.paths[path];
        let age = now.boottime.since(path.heard_at.min(path.echoed_at));
        age < self.settings.suspect_after * 3 / 4
    }

    /// A request or reply decides something, so it counts only between two runs that know each other.
    fn hear_exchange(
        &mut self,
        (now, path): (Clocks, usize),
        from: Instance,
        (head, entries): (ExchangeHead, &[ExchangeEntry]),
        is_reply: bool,
    ) -> Result<Vec<Heard>, Ignored> {
        if usize::from(head.path) != path {
            return Err(Ignored::Strange);
        }
        if self.peer != Some(from) || head.to != self.settings.me {
            return Err(Ignored::OtherRun);
        }
        if !self.paths[path].exchanges.take(head.number) {
            return Err(Ignored::Replayed);
        }
        if !is_reply && !self.is_fresh(now, path) {
            return Err(Ignored::OneWay);
        }
        let mut told = Vec::new();
        for entry in entries {
            let Some(resource) = self.resource(entry.tag) else { continue };
            let ask = OutdateAsk { number: entry.ask, epoch: entry.epoch };
            let news = if is_reply {
                OutdateNews::Answered { ask, promised: entry.promised }
            } else if head.number > self.requested[resource] {
                self.requested[resource] = head.number;
                OutdateNews::Asked { by: from, ask }
            } else {
                continue; // it came on another path, or is overtaken
            };
            told.push(Heard::Outdate { resource, news });
        }
        Ok(told)
    }

    fn hear_beat(
        &mut self,
        now: Clocks,
        path: usize,
        from: Instance,
        (head, entries): (&BeatHead, &[BeatEntry]),
    ) -> Result<Vec<Heard>, Ignored> {
        let part = usize::from(head.part);
        if usize::from(head.path) != path || part >= PARTS_MAX {
            return Err(Ignored::Strange);
        }
        if self.retired.contains(&from) {
            return Err(Ignored::OtherRun);
        }
        // Whoever does not know this run may be of the past: it is answered, and decides nothing.
        // What an earlier run said to this one, and somebody kept back, tells of older ticks. A new
        // run tells of a newer one as soon as it was answered.
        let is_newer = self.peer.is_none() || head.heard > self.echoed;
        if head.to != self.settings.me || (self.peer != Some(from) && !is_newer) {
            self.stranger = Some((from, self.tick));
            return Err(Ignored::Stranger);
        }
        if self.peer != Some(from) {
            self.begin_peer(from);
        }
        self.echoed = self.echoed.max(head.heard);
        if !self.paths[path].windows[part].take(head.tick) {
            return Err(Ignored::Replayed);
        }
        if part == 0 {
            self.note_path(now, path, head);
        }
        Ok(self.note_entries(now, from, head, entries))
    }

    /// Another run of the peer lives: what the last one said counts for nothing any more.
    fn begin_peer(&mut self, instance: Instance) {
        self.stranger = self.stranger.filter(|(stranger, _)| *stranger != instance);
        if let Some(old) = self.peer.replace(instance) {
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back(old);
        }
        for path in &mut self.paths {
            path.windows.fill(Window::default());
            path.exchanges = Window::default();
        }
        self.requested.fill(0);
        self.asked.fill(0);
        self.words.fill(PeerWord::default());
    }

    fn note_path(&mut self, now: Clocks, path: usize, head: &BeatHead) {
        let state = &mut self.paths[path];
        if state.windows[0].newest != head.tick {
            return; // an older one that came late says nothing new
        }
        state.heard_at = now.boottime;
        let Some(sent) = self.sent.iter().find(|sent| sent.tick == head.heard) else { return };
        state.echoed_at = state.echoed_at.max(sent.at.boottime);
        let passed = now.boottime.since(sent.at.boottime);
        let rtt = passed.saturating_sub(Duration::from_micros(u64::from(head.held_us)));
        state.rtt = Some(state.rtt.map_or(rtt, |before| (before * 7 + rtt) / 8));
        // Ticks before the first one of this run are not missing.
        let told = u32::try_from((head.heard - 1).min(32)).expect("at most 32");
        let there = (u64::from(head.mask) & ((1 << told) - 1)).count_ones();
        let missing = told.saturating_sub(there);
        state.loss_percent = u8::try_from(missing * 100 / (told + 1)).expect("at most 100");
    }

    fn note_entries(
        &mut self,
        now: Clocks,
        from: Instance,
        head: &BeatHead,
        entries: &[BeatEntry],
    ) -> Vec<Heard> {
        let mut news = Vec::new();
        for entry in entries {
            let Some(resource) = self.resource(entry.tag) else { continue };
            self.told_of[resource] = now.boottime;
            let wants = entry.flags & BeatEntry::WANTS_LEASE != 0;
            if wants && head.tick > self.asked[resource] && !self.is_tilted(now) {
                self.asked[resource] = head.tick;
                let (instance, epoch, tick) = (from, entry.epoch, head.tick);
                news.push(Heard::LeaseAsked { resource, instance, epoch, tick });
            }
            let word = PeerWord {
                promotions: entry.promotions.checked_sub(1),
                is_primary: entry.flags & BeatEntry::PRIMARY != 0,
                hears_arbiter: head.flags & BeatHead::ARBITER_REACHABLE != 0,
            };
            // What was passed on may be lost on its way, and is said again.
            if self.words[resource] != word || head.tick.is_multiple_of(WORD_EVERY) {
                self.words[resource] = word;
                news.push(Heard::Word { resource, word });
            }
            if entry.granted > self.granted[resource] {
                let is_it = |sent: &&Sent| sent.tick == entry.granted && sent.wants_lease[resource];
                if let Some(sent) = self.sent.iter().find(is_it) {
                    self.granted[resource] = entry.granted;
                    news.push(Heard::LeaseGranted { resource, asked: sent.at });
                }
            }
        }
        news
    }

    fn resource(&self, tag: u64) -> Option<usize> {
        self.settings.resources.iter().position(|other| *other == tag)
    }

    /// How each path is.
    pub(super) fn paths(&self, now: Clocks) -> impl Iterator<Item = PathState> {
        self.paths.iter().map(move |path| {
            let PathState { is_up, .. } = self.state(now, path);
            PathState {
                is_up: is_up && self.peer.is_some(),
                rtt: path.rtt,
                loss_percent: path.loss_percent,
            }
        })
    }

    /// Whether nothing was heard of a resource for `suspect_after`: no path was up, or the peer told
    /// of other resources only, as a node does whose data thread does not run.
    pub(super) fn is_silent(&self, now: Clocks, resource: usize) -> bool {
        let is_up = self.paths.iter().any(|path| self.state(now, path).is_up);
        let age = now.boottime.since(self.told_of[resource]);
        !self.is_tilted(now) && (!is_up || age >= self.settings.suspect_after)
    }

    fn state(&self, now: Clocks, path: &Path) -> PathState {
        let age = now.boottime.since(path.heard_at.min(path.echoed_at));
        let is_up = age < self.settings.suspect_after;
        PathState { is_up, rtt: path.rtt, loss_percent: path.loss_percent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Instance = Instance(1);
    const PEER: Instance = Instance(2);
    const TAG: u64 = 77;

    fn at(ms: u64) -> Clocks {
        let nanos = Instant(ms * 1_000_000);
        Clocks { boottime: nanos, raw: nanos }
    }

    fn hearing() -> Hearing {
        let settings = HearingSettings {
            me: ME,
            interval: Duration::from_millis(200),
            suspect_after: Duration::from_secs(1),
            paths: 2,
            resources: vec![TAG],
        };
        Hearing::new(settings, at(0))
    }

    fn beat(tick: u64, heard: u64) -> BeatHead {
        BeatHead { to: ME, tick, heard, mask: u32::MAX, ..BeatHead::default() }
    }

    fn said(head: BeatHead, entries: Vec<BeatEntry>) -> Datagram {
        Datagram { from: PEER, said: Said::Beat(head, entries) }
    }

    /// Ticks up to `ms`, each heard by the peer and answered, unless `from` on nothing is heard there.
    fn talk(hearing: &mut Hearing, until_ms: u64, deaf_from_ms: u64) {
        let mut heard = 0;
        for tick in 1..=until_ms / 200 {
            let now = tick * 200;
            hearing.begin_tick(at(now), vec![true]);
            if now < deaf_from_ms {
                heard = tick;
            }
            let entry = BeatEntry { tag: TAG, ..BeatEntry::default() };
            hearing.hear(at(now + 1), 0, &said(beat(tick, heard), vec![entry])).unwrap();
        }
    }

    #[test]
    fn a_peer_that_is_heard_and_hears_is_not_silent() {
        let mut hearing = hearing();
        talk(&mut hearing, 4000, u64::MAX);
        assert!(!hearing.is_silent(at(4000), 0));
        let [first, second] = hearing.paths(at(4000)).collect::<Vec<_>>()[..] else { panic!() };
        assert!(first.is_up && !second.is_up);
        assert_eq!((first.rtt, first.loss_percent), (Some(Duration::from_millis(1)), 0));
        // Nothing more comes.
        let mut ms = 4200;
        while !hearing.is_silent(at(ms), 0) {
            hearing.begin_tick(at(ms), vec![true]);
            ms += 200;
        }
        assert_eq!(ms, 5000, "one second after what the peer heard last");
    }

    #[test]
    fn a_resource_that_the_peer_does_not_tell_of_is_silent() {
        let mut hearing = hearing();
        talk(&mut hearing, 2000, u64::MAX);
        for tick in 11..=16 {
            hearing.begin_tick(at(tick * 200), vec![true]);
            hearing.hear(at(tick * 200 + 1), 0, &said(beat(tick, tick), vec![])).unwrap();
        }
        assert!(hearing.paths(at(3201)).next().unwrap().is_up);
        assert!(hearing.is_silent(at(3201), 0) && !hearing.is_silent(at(3000), 0));
    }

    #[test]
    fn a_peer_that_does_not_hear_us_counts_as_silent() {
        let mut hearing = hearing();
        talk(&mut hearing, 4000, 2000);
        assert!(hearing.is_silent(at(4000), 0));
        assert!(!hearing.paths(at(4000)).any(|path| path.is_up));
        assert!(hearing.paths(at(4000)).next().unwrap().loss_percent == 0, "it tells of none");
    }

    #[test]
    fn what_was_missed_while_this_process_slept_is_no_silence() {
        let mut hearing = hearing();
        talk(&mut hearing, 2000, u64::MAX);
        hearing.begin_tick(at(9000), vec![true]);
        assert!(hearing.is_tilted(at(9000)) && !hearing.is_silent(at(10_900), 0));
        // It asks for a lease: none is granted by a node that cannot believe its clocks.
        let entry = BeatEntry { tag: TAG, flags: BeatEntry::WANTS_LEASE, ..BeatEntry::default() };
        let heard = hearing.hear(at(9001), 0, &said(beat(50, 10), vec![entry])).unwrap();
        assert_eq!(heard, []);
        let heard = hearing.hear(at(11_001), 0, &said(beat(51, 10), vec![entry])).unwrap();
        assert_eq!(heard.len(), 1);
    }

    #[test]
    fn clocks_that_move_apart_are_a_tilt() {
        let mut hearing = hearing();
        talk(&mut hearing, 2000, u64::MAX);
        let later = Clocks { boottime: at(2200).boottime, raw: at(2500).raw };
        hearing.begin_tick(later, vec![true]);
        assert!(hearing.is_tilted(later));
    }

    #[test]
    fn each_tick_is_taken_once() {
        let mut hearing = hearing();
        hearing.begin_tick(at(0), vec![true]);
        for (tick, is_taken) in
            [(5, true), (5, false), (4, true), (4, false), (200, true), (136, false), (137, true)]
        {
            let heard = hearing.hear(at(1), 0, &said(beat(tick, 1), vec![]));
            assert_eq!(heard.is_ok(), is_taken, "{tick}");
        }
        // Each path by itself.
        let elsewhere = BeatHead { path: 1, ..beat(5, 1) };
        assert!(hearing.hear(at(1), 1, &said(elsewhere, vec![])).is_ok());
        assert_eq!(hearing.hear(at(1), 0, &said(elsewhere, vec![])), Err(Ignored::Strange));
    }

    #[test]
    fn a_run_that_is_over_is_not_believed_and_a_stranger_decides_nothing() {
        let mut hearing = hearing();
        talk(&mut hearing, 400, u64::MAX);
        let of = |from, to, tick| Datagram {
            from: Instance(from),
            said: Said::Beat(BeatHead { to: Instance(to), ..beat(tick, 1) }, vec![]),
        };
        // Another run, which does not know this one: it is answered, no more.
        assert_eq!(hearing.hear(at(500), 0, &of(3, 0, 1)), Err(Ignored::Stranger));
        assert_eq!((hearing.peer, hearing.to()), (Some(PEER), Instance(3)));
        // It names this run, and tells of no tick that the last one has not told of: it is answered.
        hearing.stranger = None;
        assert_eq!(hearing.hear(at(500), 0, &of(3, 1, 2)), Err(Ignored::Stranger));
        assert_eq!((hearing.peer, hearing.to()), (Some(PEER), Instance(3)));
        hearing.begin_tick(at(600), vec![true]);
        // Now it tells of a newer one, so it lives; the old one never comes back.
        let newer = BeatHead { heard: 3, ..beat(3, 3) };
        let newer = Datagram { from: Instance(3), said: Said::Beat(newer, vec![]) };
        assert!(hearing.hear(at(600), 0, &newer).is_ok());
        assert_eq!(hearing.hear(at(600), 0, &of(2, 1, 60)), Err(Ignored::OtherRun));
        assert_eq!((hearing.peer, hearing.to()), (Some(Instance(3)), Instance(3)));
    }

    #[test]
    fn a_beat_of_the_past_that_comes_again_and_again_turns_nobody_away() {
        let mut hearing = hearing();
        talk(&mut hearing, 400, u64::MAX);
        let head = BeatHead { to: Instance(9), ..beat(7, 1) };
        let old = Datagram { from: Instance(3), said: Said::Beat(head, vec![]) };
        let mut to_peer = 0;
        for tick in 3..23 {
            hearing.begin_tick(at(tick * 200), vec![true]);
            assert_eq!(hearing.hear(at(tick * 200), 0, &old), Err(Ignored::Stranger));
            to_peer += u32::from(hearing.head(at(tick * 200), 0).to == PEER);
        }
        assert_eq!(to_peer, 10, "every other beat is for the peer");
    }

    #[test]
    fn leases_are_asked_for_once_a_tick_and_granted_for_what_was_asked() {
        let mut hearing = hearing();
        hearing.begin_tick(at(0), vec![true]);
        hearing.begin_tick(at(200), vec![false]);
        let asks = BeatEntry { tag: TAG, flags: BeatEntry::WANTS_LEASE, ..BeatEntry::default() };
        let heard = hearing.hear(at(201), 0, &said(beat(1, 1), vec![asks])).unwrap();
        assert_eq!(heard.len(), 1);
        let again = BeatHead { path: 1, ..beat(1, 1) };
        assert_eq!(hearing.hear(at(202), 1, &said(again, vec![asks])).unwrap(), []);
        let granted = |granted| BeatEntry { tag: TAG, granted, ..BeatEntry::default() };
        let mut tick = 2;
        let mut grants = |hearing: &mut Hearing, number| {
            tick += 1;
            hearing.hear(at(203), 0, &said(beat(tick, 1), vec![granted(number)])).unwrap()
        };
        assert_eq!(grants(&mut hearing, 2), [], "nothing was asked for in that tick");
        assert_eq!(grants(&mut hearing, 9), [], "it was never sent");
        let lease = Heard::LeaseGranted { resource: 0, asked: at(0) };
        assert_eq!(grants(&mut hearing, 1), [lease]);
        assert_eq!(grants(&mut hearing, 1), [], "once");
    }

    #[test]
    fn a_request_counts_once_and_only_between_runs_that_know_each_other() {
        let mut hearing = hearing();
        let head = ExchangeHead { path: 0, to: ME, number: 1 };
        let entry = ExchangeEntry { tag: TAG, epoch: Epoch(8), promised: Epoch(0), ask: 3 };
        let of = |from, head| Datagram { from, said: Said::Request(head, vec![entry]) };
        assert_eq!(hearing.hear(at(0), 0, &of(PEER, head)), Err(Ignored::OtherRun), "unknown yet");
        talk(&mut hearing, 400, u64::MAX);
        let ask = OutdateAsk { number: 3, epoch: Epoch(8) };
        let news = OutdateNews::Asked { by: PEER, ask };
        let asked = Heard::Outdate { resource: 0, news };
        assert_eq!(hearing.hear(at(401), 0, &of(PEER, head)), Ok(vec![asked]));
        assert_eq!(hearing.hear(at(401), 0, &of(PEER, head)), Err(Ignored::Replayed));
        let elsewhere = ExchangeHead { path: 1, ..head };
        assert_eq!(hearing.hear(at(401), 1, &of(PEER, elsewhere)), Ok(vec![]), "the same one");
        assert_eq!(hearing.hear(at(401), 0, &of(PEER, elsewhere)), Err(Ignored::Strange));
        let again = ExchangeHead { number: 2, ..head };
        let for_another = ExchangeHead { to: Instance(9), ..again };
        assert_eq!(hearing.hear(at(401), 0, &of(PEER, for_another)), Err(Ignored::OtherRun));
        assert_eq!(hearing.hear(at(401), 0, &of(Instance(3), again)), Err(Ignored::OtherRun));
        assert_eq!(hearing.hear(at(401), 0, &of(PEER, again)), Ok(vec![asked]));
        let late = ExchangeHead { number: 4, ..head };
        assert_eq!(hearing.hear(at(1_151), 0, &of(PEER, late)), Err(Ignored::OneWay));
        let entry = ExchangeEntry { promised: Epoch(8), ..entry };
        let head = ExchangeHead { number: 3, ..head };
        let reply = Datagram { from: PEER, said: Said::Reply(head, vec![entry]) };
        let news = OutdateNews::Answered { ask, promised: Epoch(8) };
        assert_eq!(
            hearing.hear(at(402), 0, &reply),
            Ok(vec![Heard::Outdate { resource: 0, news }])
        );
    }

    #[test]
    fn a_release_counts_whenever_it_comes() {
        let mut hearing = hearing();
        let release =
            Datagram { from: PEER, said: Said::Release(vec![(TAG, Epoch(8)), (5, Epoch(9))]) };
        let heard = Heard::Released { resource: 0, instance: PEER, epoch: Epoch(8) };
        for _ in 0..2 {
            assert_eq!(hearing.hear(at(1), 0, &release), Ok(vec![heard]));
        }
    }
}
