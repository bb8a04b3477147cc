//! Generations that a target can go back to: which they are, and which are given up.
//!
//! Each apply leaves three things: its journal, its folder in `undo/`, and the file of `kept`. The journal says
//! that the generation before can be gone back to, so it goes first; the folder follows, then the file. What a
//! crash leaves of that is removed with the next ones. The file of the newest generation stays whatever becomes
//! of the one before, because it says what the tree is.
//!
//! Where a file cannot be read, nothing is known to lead to what is older. It stays for a while, because a disk
//! may read tomorrow what it does not read today.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::io::Errno;

use super::{Target, TargetError};
use crate::manifest::apply::JournalNumber;
use crate::manifest::{FileTime, Kept, Name, Policy, Reason, reasons, retain};
use crate::store::tree::folder::Folder;
use crate::store::tree::index::Rows;
use crate::store::tree::kept::{About, FILE_PREFIX, Head, KeptError, Writer, head, number_of};
use crate::store::tree::receive::Prepared;
use crate::units::TreeNumber;

/// How the name of an empty file begins that pins the generation before a journal; its number follows.
const PIN_PREFIX: &str = "pinned-";

/// A generation that the tree is, or that it can go back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeptGeneration {
    /// What is known of it.
    pub about: About,
    /// Since its capture began; `None` if it is not known when that was.
    pub age: Option<Duration>,
    /// What is held in `undo/` only to get back to it, in bytes; zero for what the tree is.
    pub held_bytes: u64,
    /// Why it is kept.
    pub why: Reason,
}

/// What was given up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// Generations that cannot be gone back to any more, the oldest first.
    pub dropped: Vec<TreeNumber>,
    /// What was held for them, in bytes.
    pub freed_bytes: u64,
    /// Generations that nothing led back to any more, though all of it was there: the records of a whole tree
    /// were taken since, or a file between cannot be read.
    pub cut_off: Vec<TreeNumber>,
}

/// The generations from what the tree is on backwards.
#[derive(Debug)]
pub(super) struct Chain {
    /// What the tree is.
    pub(super) now: About,
    /// The apply that led there, if it is known, whatever became of what it left.
    newest: Option<JournalNumber>,
    /// Each of these leads back from the generation before in the list, the first one from what the tree is.
    pub(super) links: Vec<Head>,
    /// All that can be read, whether or not anything leads there.
    heads: Vec<Head>,
    /// The newest that cannot be read.
    unreadable: Option<JournalNumber>,
    /// The way back ends where the records of a whole tree were taken.
    ends_by_whole: bool,
}

impl Target {
    /// What the tree is, and every generation that it can go back to, newest first. The first call after a
    /// start costs a look at each file in `undo/`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn generations(
        &self,
        policy: &Policy,
        now: FileTime,
    ) -> Result<Vec<KeptGeneration>, TargetError> {
        let chain = self.chain()?;
        let kept = self.rows(&chain)?;
        let abouts = [&chain.now].into_iter().chain(chain.links.iter().map(|link| &link.from));
        let rows = abouts.zip(&kept).zip(reasons(&kept, policy));
        let generation = |((about, kept), why): ((&About, &Kept), Reason)| KeptGeneration {
            about: *about,
            age: age_of(about.captured_at, now),
            held_bytes: kept.held_bytes,
            why,
        };
        Ok(rows.map(generation).collect())
    }

    /// Gives up the generations that `policy` lets go, and what is left of such ones. Never one that is pinned,
    /// never one that an apply may have to go back to.
    ///
    /// # Errors
    /// [`TargetError`]; what is not removed is with the next call.
    pub fn prune(&mut self, policy: &Policy) -> Result<Pruned, TargetError> {
        let chain = self.chain()?;
        let kept = self.rows(&chain)?;
        let dropped = retain(&kept, policy);
        let mut stays: BTreeSet<JournalNumber> = chain.links.iter().map(|it| it.journal).collect();
        let mut pruned = Pruned::default();
        // The oldest first: there is never a gap.
        for (link, row) in chain.links.iter().zip(kept.iter().skip(1)).rev() {
            if dropped.contains(&row.number) {
                stays.remove(&link.journal);
                self.applier.remove_undo(link.journal)?;
                pruned.dropped.push(row.number);
                pruned.freed_bytes = pruned.freed_bytes.saturating_add(row.held_bytes);
            }
        }
        // It is older than all of the chain, so it goes with the first of that.
        let has_dropped = !pruned.dropped.is_empty() || chain.links.is_empty();
        let is_needed = policy.wanted_bytes > 0 && has_dropped;
        let is_sparing = !is_needed && stays.len() < policy.keep;
        let spared = chain.unreadable.filter(|_| is_sparing);
        pruned.cut_off = self.cut_off(&chain, &stays, spared)?;
        self.remove_rest(&stays, chain.newest, spared)?;
        self.held.borrow_mut().retain(|number, _| stays.contains(number));
        Ok(pruned)
    }

    /// The operator has accepted what was deleted: nothing is pinned any more.
    ///
    /// # Errors
    /// [`TargetError::State`].
    pub fn unpin(&mut self) -> Result<(), TargetError> {
        for number in numbers(&self.state, PIN_PREFIX)? {
            remove(&self.state, PIN_PREFIX, number)?;
        }
        // Whoever hears of it acts on it.
        self.state.sync().map_err(TargetError::State)
    }

    /// Writes what has to be known to get back from what `prepared` leads to. It is stable when this returns.
    pub(super) fn write_kept(&self, prepared: &Prepared) -> Result<(), TargetError> {
        let chain = self.chain()?;
        let journal = prepared.journal.number;
        let (to, leads_back) = (prepared.about()?, prepared.leads_back());
        remove(&self.state, PIN_PREFIX, journal)?;
        if prepared.pins_base {
            let made = self.state.make_file(&name_of(PIN_PREFIX, journal));
            made.map_err(TargetError::State)?;
        }
        let mut writer =
            Writer::new(&self.state, &Head { journal, from: chain.now, to, leads_back })?;
        let written = if leads_back {
            prepared.before(|kept| -> Result<(), TargetError> { Ok(writer.push(kept)?) })
        } else {
            Ok(())
        };
        match written {
            Ok(()) => Ok(writer.end()?),
            Err(error) => {
                writer.give_up();
                Err(error)
            }
        }
    }

    /// What the files of `kept` say. One that is damaged ends the way back.
    pub(super) fn chain(&self) -> Result<Chain, TargetError> {
        let applied = self.applier.records().applied;
        let (mut heads, mut unreadable) = (Vec::new(), None);
        let is_applied = |number: &JournalNumber| *number <= applied.journal;
        for number in numbers(&self.state, FILE_PREFIX)?.into_iter().filter(is_applied) {
            match head(&self.state, number) {
                Ok(head) => heads.extend(head),
                Err(KeptError::Damaged { path, why }) => {
                    tracing::warn!(path, why, "earlier generations cannot be gone back to");
                    unreadable = Some(number);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let find = |position, below: Option<JournalNumber>| {
            let mut heads = heads.iter().rev();
            let is_below = |it: &Head| below.is_none_or(|below| it.journal < below);
            heads.find(|it| it.to.position == position && is_below(it)).copied()
        };
        let mut next = find(applied.position, None);
        let unknown = || -> Result<About, TargetError> {
            let entries = self.index.view()?.name_count()?;
            Ok(About { entries, ..About::unknown(applied.position) })
        };
        let now = next.map_or_else(unknown, |head| Ok(head.to))?;
        let newest = next.map(|head| head.journal);
        let (mut links, mut ends_by_whole) = (Vec::new(), false);
        while let Some(head) = next {
            ends_by_whole = !head.leads_back;
            let is_open = self.applier.has_journal(head.journal)?;
            if !is_open || !head.leads_back || head.from.position.number == TreeNumber(0) {
                break;
            }
            links.push(head);
            next = find(head.from.position, Some(head.journal));
        }
        Ok(Chain { now, newest, links, heads, unreadable, ends_by_whole })
    }

    /// The generations that are given up only because nothing leads to them any more. Of a node that has served
    /// since nobody expects that it kept them.
    fn cut_off(
        &self,
        chain: &Chain,
        stays: &BTreeSet<JournalNumber>,
        spared: Option<JournalNumber>,
    ) -> Result<Vec<TreeNumber>, TargetError> {
        if !chain.ends_by_whole && chain.unreadable.is_none() {
            return Ok(Vec::new());
        }
        let linked: BTreeSet<JournalNumber> = chain.links.iter().map(|it| it.journal).collect();
        let mut numbers = Vec::new();
        for head in &chain.heads {
            let is_rest = !stays.contains(&head.journal) && !linked.contains(&head.journal);
            let is_spared = spared.is_some_and(|spared| head.journal <= spared);
            let from = head.from.position.number;
            if is_rest
                && !is_spared
                && head.leads_back
                && from > TreeNumber(0)
                && self.applier.has_journal(head.journal)?
            {
                numbers.push(from);
            }
        }
        Ok(numbers)
    }

    /// The generations of a chain, as the policy sees them.
    fn rows(&self, chain: &Chain) -> Result<Vec<Kept>, TargetError> {
        let pins = numbers(&self.state, PIN_PREFIX)?;
        let row = |about: &About, held_bytes, is_pinned| Kept {
            number: about.position.number,
            label: about.label,
            held_bytes,
            is_pinned,
            is_in_use: false,
        };
        let mut rows = vec![row(&chain.now, 0, false)];
        for link in &chain.links {
            let held = self.held_bytes(link.journal);
            rows.push(row(&link.from, held, pins.contains(&link.journal)));
        }
        Ok(rows)
    }

    /// What becomes free with the folder of a journal in `undo/`. It is counted once: nothing changes there.
    fn held_bytes(&self, journal: JournalNumber) -> u64 {
        if let Some(bytes) = self.held.borrow().get(&journal) {
            return *bytes;
        }
        let undo = self.applier.work().undo();
        let name = Name::new(journal.0.to_string().as_bytes()).expect("digits are a name");
        let sum = match undo.child(&name) {
            Ok(folder) => super::usage::freed_with(&folder),
            Err(Errno::NOENT) => Ok(0),
            Err(errno) => Err(errno),
        };
        // Of what cannot be looked at nothing is promised, and the others are not kept for ever because of it.
        let sum = sum.unwrap_or_else(|errno| {
            tracing::warn!(journal = journal.0, error = %errno, "what is kept cannot be counted");
            0
        });
        self.held.borrow_mut().insert(journal, sum);
        sum
    }

    /// Removes what is left of journals that lead nowhere, but for those of an apply that is under way, and for
    /// those up to `spared`.
    fn remove_rest(
        &mut self,
        stays: &BTreeSet<JournalNumber>,
        newest: Option<JournalNumber>,
        spared: Option<JournalNumber>,
    ) -> Result<(), TargetError> {
        let applied = self.applier.records().applied.journal;
        // What it displaced has to be in the quarantine before it goes, and it goes with that.
        let waits = self.applier.displaced()?;
        let is_rest = |number: &JournalNumber| {
            let is_spared = spared.is_some_and(|spared| *number <= spared);
            !stays.contains(number) && *number <= applied && Some(*number) != waits && !is_spared
        };
        for number in self.applier.kept()?.into_iter().filter(is_rest) {
            self.applier.remove_undo(number)?;
        }
        for prefix in [FILE_PREFIX, PIN_PREFIX] {
            for number in numbers(&self.state, prefix)?.into_iter().filter(is_rest) {
                if prefix == PIN_PREFIX || Some(number) != newest {
                    remove(&self.state, prefix, number)?;
                }
            }
        }
        Ok(())
    }
}

fn age_of(then: FileTime, now: FileTime) -> Option<Duration> {
    let is_known = then != FileTime::default();
    let seconds = u64::try_from(now.seconds.checked_sub(then.seconds)?).ok();
    seconds.filter(|_| is_known).map(Duration::from_secs)
}

fn name_of(prefix: &str, number: JournalNumber) -> Name {
    Name::new(format!("{prefix}{}", number.0).as_bytes()).expect("a word and a number are a name")
}

/// The numbers of the files whose names begin so, in rising order.
fn numbers(state: &Folder, prefix: &str) -> Result<BTreeSet<JournalNumber>, TargetError> {
    let names = state.list().map_err(TargetError::State)?.names;
    Ok(names.iter().filter_map(|name| number_of(name, prefix)).collect())
}

fn remove(state: &Folder, prefix: &str, number: JournalNumber) -> Result<(), TargetError> {
    match state.remove_file(&name_of(prefix, number)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(TargetError::State(errno)),
    }
}
