//! The part of the thread that has the tree.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{info, warn};

use super::super::super::clock;
use super::super::orders::Report;
use super::super::start::time_of_day;
use super::super::worker::{Terms, Worker, in_one_line, local_register};
use super::flags::{leaves_way_back, mend_way_back, set_foreign, set_went_back};
use super::{Usage, Wanted};
use crate::manifest::source::{Closed, Register};
use crate::manifest::target::{ApplyEnd, Space};
use crate::manifest::{FileTime, Name};
use crate::replica::KeptGeneration;
use crate::store::tree::apply::{ApplyError, Outcome};
use crate::store::tree::index::Rows as _;
use crate::store::tree::receive::{Foreign, ForeignWhy, Prepare, Prepared, Until};
use crate::store::tree::target::{self, Quarantined, Target, TargetError, UNKNOWN_BYTES};
use crate::units::{Instant, TreeNumber, TreePosition};

/// Bytes of content that one look at the tree reads at most. What it leaves the next one reads, so a tree is read
/// in turns of `full_scan`, and the disk has time for others.
const COMPARED_BYTES: u64 = 4 << 30;
/// Entries that are compared although there is something else to do.
const COMPARED_ENTRIES: u64 = 256;
/// How long a tree is compared between two generations.
const COMPARED_TIME: Duration = Duration::from_millis(50);
/// Nothing has to become free.
const NO_WANT: u64 = 0;

impl Worker {
    /// Looks whether the tree is what the index says, until there is an order or all of it was looked at.
    pub(in super::super) fn compare(&mut self) {
        self.compare_until(None);
    }

    /// The same between two generations of a pair that is always busy, which would never come to it else.
    pub(in super::super) fn compare_a_while(&mut self) {
        if self.is_compare_wanted {
            self.compare_until(Some(clock::now().plus(COMPARED_TIME)));
        }
    }

    fn compare_until(&mut self, end: Option<Instant>) {
        self.is_compare_wanted = false;
        if self.observer.is_some() {
            return;
        }
        let Self { target, orders, progress, ahead, .. } = self;
        let stop = || {
            end.map_or_else(|| !orders.is_empty(), |end| clock::now() >= end)
                || progress.stop.load(Ordering::Relaxed)
                || ahead.serves.load(Ordering::Relaxed)
        };
        let until = Until { stop: &stop, entries: COMPARED_ENTRIES, bytes: COMPARED_BYTES };
        let found = target.look_for_foreign(&until);
        // Whatever is in the tree of a node that serves is a generation by that.
        if self.ahead.serves.load(Ordering::Relaxed) {
            return;
        }
        match found {
            Ok((found, is_all)) if found.is_empty() => self.is_compare_wanted = !is_all,
            Ok((found, _)) => self.found_foreign(&found),
            // The next generation meets whatever it is.
            Err(error) => warn!(error = %in_one_line(&error), "the tree cannot be compared"),
        }
    }

    /// Nobody knows what the tree is, and that is remembered.
    pub(in super::super) fn found_foreign(&mut self, found: &[Foreign]) {
        let first = found.first().map_or_else(String::new, |it| tell(&self.target, it));
        self.target.doubt();
        let mut register = self.target.applier().records().register;
        set_foreign(&mut register);
        // A start knows it, too; the register that comes with the next generation says nothing of it.
        if let Err(error) = self.target.applier_mut().write_register(&register) {
            return self.fail("the records of the tree cannot be written", &error);
        }
        self.say(Report::Foreign { count: found.len(), first });
    }

    /// After an apply: gives up what nobody wants, and counts what is there.
    pub(in super::super) fn keep_house(&mut self) {
        self.prune(NO_WANT);
        self.say_usage();
    }

    /// Gives up earlier generations if room is what was missing. Whoever needs it tries again by itself.
    pub(in super::super) fn make_room(&mut self, error: &TargetError) {
        let Some(bytes) = error.missing_bytes() else { return };
        self.make_room_for(bytes);
    }

    pub(in super::super) fn make_room_after(&mut self, why: Option<&ApplyError>) {
        if matches!(why, Some(ApplyError::NoSpace { .. })) {
            self.make_room_for(UNKNOWN_BYTES);
        }
    }

    /// If the kernel said that there is no space, but the file system of the tree has some, then something else is
    /// missing: inodes, a quota, or room in the state folder. What is given up here helps none of that.
    fn make_room_for(&mut self, bytes: u64) {
        if bytes > UNKNOWN_BYTES || self.target.is_short_of_room() {
            self.prune(bytes);
            self.say_usage();
        }
    }

    /// What an operator went back to was left, or could not be: what is remembered of it is what the tree is now.
    /// False if that cannot be written.
    pub(in super::super) fn left_way_back(&mut self) -> bool {
        let records = self.target.applier().records();
        let (register, tree) = (records.register, records.applied.position);
        if !leaves_way_back(&register) {
            return true;
        }
        let Some(mended) = mend_way_back(&register, tree, None) else { return true };
        let written = self.target.applier_mut().write_register(&mended);
        if let Err(error) = &written {
            self.fail("the records of the tree cannot be written", error);
            self.say(Report::Applied { end: ApplyEnd::Failed, space: Space::default() });
        }
        written.is_ok()
    }

    fn prune(&mut self, wanted_bytes: u64) {
        let policy = self.terms.wanted.policy(wanted_bytes);
        match self.target.prune(&policy) {
            Ok(pruned) => {
                let numbers = |all: &[TreeNumber]| all.iter().map(|it| it.0).collect();
                if wanted_bytes > NO_WANT && !pruned.dropped.is_empty() {
                    let (numbers, freed_bytes) = (numbers(&pruned.dropped), pruned.freed_bytes);
                    self.say(Report::Dropped { numbers, freed_bytes });
                }
                if !pruned.cut_off.is_empty() {
                    self.say(Report::CutOff { numbers: numbers(&pruned.cut_off) });
                }
            }
            // What is left goes the next time; a disk that has failed says so where it matters.
            Err(error) => warn!(error = %in_one_line(&error), "generations are not given up"),
        }
    }

    pub(in super::super) fn say_usage(&mut self) {
        // A look at each file in the quarantine, so only if there is something new.
        let brought = self.target.applier().quarantined();
        if self.counted.is_none_or(|(of, _)| of != brought) {
            match self.target.quarantined() {
                Ok(found) => self.counted = Some((brought, found)),
                Err(error) => warn!(error = %in_one_line(&error), "the quarantine is not counted"),
            }
        }
        let quarantined = self.counted.map_or_else(Quarantined::default, |(_, found)| found);
        match usage(&self.target, self.terms.wanted) {
            Ok(usage) => self.say(Report::Usage(Usage { quarantined, ..usage })),
            Err(error) => warn!(error = %in_one_line(&error), "what is kept is not counted"),
        }
    }

    /// Brings the content of an earlier generation back, as a new one.
    pub(in super::super) fn go_back(&mut self, request: u64, to: TreeNumber) {
        let result = self.try_to_go_back(to);
        self.keep_house();
        let result = result.map(|position| (position, to));
        self.say(Report::WentBack { request, result });
    }

    fn try_to_go_back(&mut self, to: TreeNumber) -> Result<TreePosition, String> {
        if self.observer.is_some() {
            return Err("this node serves the tree".to_owned());
        }
        if !self.target.is_known() {
            return Err(
                "nobody knows which generation the tree is: it has to follow a primary first"
                    .to_owned(),
            );
        }
        // Above whatever the register that the core has names.
        let at_least = TreeNumber(self.terms.at_least.0.saturating_add(1));
        let prepared = match self.target.roll_back(to, at_least) {
            Ok(Prepare::Ready(prepared)) => Ok(prepared),
            Ok(Prepare::Foreign(_, list)) => Err(list),
            Err(error) => return Err(in_one_line(&error)),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(list) => {
                if let Some(it) = list.iter().find(|it| it.why.is_obstacle()) {
                    return Err(format!("it cannot be brought back: {}", tell(&self.target, it)));
                }
                self.found_foreign(&list);
                return Err(
                    "somebody else has written to the tree: it has to follow a primary first"
                        .to_owned(),
                );
            }
        };
        self.bring_back(prepared)
    }

    fn bring_back(&mut self, prepared: Box<Prepared>) -> Result<TreePosition, String> {
        let (position, label) = (prepared.received.target(), prepared.label);
        let register = Register::Complete { position, label };
        let mut register = local_register(Some(&register), false);
        set_went_back(&mut register);
        if self.ahead.serves.load(Ordering::Relaxed) {
            return Err("this node is about to serve the tree".to_owned());
        }
        let before = self.target.applier().records().register;
        if let Err(error) = self.target.commit(&prepared, &register) {
            self.make_room(&error);
            return Err(in_one_line(&error));
        }
        let moment = self.moment();
        match self.target.apply(*prepared, moment) {
            Ok(Outcome::Applied(_) | Outcome::Rest) => {
                self.newest = Some(Closed { position, label, fuzzy_count: 0 });
                info!(generation = position.number.0, "the tree went back");
                Ok(position)
            }
            Ok(Outcome::Undone { why, .. }) => {
                // The tree is what it was, so what is said of it is that, too.
                if let Err(error) = self.target.applier_mut().write_register(&before) {
                    self.fail("the records of the tree cannot be written", &error);
                }
                Err(why.map_or_else(|| "it had to be undone".to_owned(), |why| in_one_line(&why)))
            }
            Err(error) => {
                self.fail("an earlier generation cannot be brought back", &error);
                Err(in_one_line(&error))
            }
        }
    }
}

/// What the tree is, and what it can go back to, the newest first.
pub(in super::super) fn list(
    target: &Target,
    terms: &Terms,
) -> Result<Vec<KeptGeneration>, String> {
    if !target.is_known() || target.position().number == TreeNumber(0) {
        return Ok(Vec::new());
    }
    let found = target.generations(&terms.wanted.policy(NO_WANT), time_of_day());
    found.map(|found| found.iter().map(shown).collect()).map_err(|error| in_one_line(&error))
}

/// Of a tree that is served, and was captured as this: nothing leads back to what it was before.
pub(in super::super) fn captured(closed: Closed) -> KeptGeneration {
    KeptGeneration {
        number: closed.position.number.0,
        label: closed.label.name().to_owned(),
        captured_at: None,
        root: closed.position.root.to_string(),
        entries: None,
        changed: None,
        deleted: None,
        held_bytes: 0,
        kept: "current".to_owned(),
    }
}

fn shown(one: &target::KeptGeneration) -> KeptGeneration {
    let about = one.about;
    // Of one that was not taken from a peer since the files of it are kept only number and root are known.
    let is_told = about.captured_at != FileTime::default();
    let told = |count: u64| is_told.then_some(count);
    let at = about.captured_at;
    let nanos = i32::try_from(at.nanos).unwrap_or_default();
    KeptGeneration {
        number: about.position.number.0,
        label: about.label.name().to_owned(),
        captured_at: jiff::Timestamp::new(at.seconds, nanos).ok().filter(|_| is_told),
        root: about.position.root.to_string(),
        entries: Some(about.entries),
        changed: told(about.changed),
        deleted: told(about.deleted),
        held_bytes: one.held_bytes,
        kept: one.why.name().to_owned(),
    }
}

fn usage(target: &Target, wanted: Wanted) -> Result<Usage, TargetError> {
    let all = target.generations(&wanted.policy(NO_WANT), FileTime::default())?;
    let mut usage = Usage::default();
    for one in all.iter().skip(1) {
        usage.generations += 1;
        usage.bytes = usage.bytes.saturating_add(one.held_bytes);
        if one.why == crate::manifest::Reason::Pinned {
            usage.pinned.push(one.about.position.number.0);
        }
    }
    if target.is_known() {
        usage.entries = Some(target.index().view()?.name_count()?);
    }
    Ok(usage)
}

/// Path and kind of a foreign write, for people.
pub(in super::super) fn tell(target: &Target, foreign: &Foreign) -> String {
    let above = target.index().view().and_then(|view| view.names_above(foreign.directory));
    let names = above.unwrap_or_default().into_iter().chain(foreign.name.clone());
    let parts: Vec<String> = names.map(|name: Name| name.to_string()).collect();
    let path = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
    format!("{path} ({})", why_of(foreign.why))
}

fn why_of(why: ForeignWhy) -> &'static str {
    match why {
        ForeignWhy::Missing => "it is gone",
        ForeignWhy::Replaced => "it is another object",
        ForeignWhy::Changed => "it was changed",
        ForeignWhy::Occupied => "it was added",
        ForeignWhy::Flags => "it is immutable or append-only",
        ForeignWhy::Mount => "another file system is mounted there",
        ForeignWhy::InTheWay => "it is in the way, and nothing that is kept",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tree::About;
    use crate::units::{Label, TreeRoot};

    #[test]
    fn of_a_generation_of_which_nothing_was_told_nothing_is_made_up() {
        let position = TreePosition { number: TreeNumber(7), root: TreeRoot([1; 32]) };
        let about = About { entries: 3, ..About::unknown(position) };
        let why = crate::manifest::Reason::Current;
        let one = target::KeptGeneration { about, age: None, held_bytes: 0, why };
        let said = shown(&one);
        assert_eq!((said.number, said.entries, said.changed), (7, Some(3), None));
        assert_eq!((said.captured_at, said.label.as_str()), (None, "fuzzy"));
        let captured_at = FileTime { seconds: 1_767_225_600, nanos: 0 };
        let about = About { captured_at, changed: 2, label: Label::Stable, ..about };
        let said = shown(&target::KeptGeneration { about, ..one });
        assert_eq!((said.changed, said.label.as_str()), (Some(2), "stable"));
        assert_eq!(said.captured_at, "2026-01-01T00:00:00Z".parse().ok());
    }
}
