//! A whole tree compared with its index: who else has written to it.
//!
//! What a delta touches is compared before each apply; this finds the rest, also what was added beside it. An
//! entry costs one look, and its content is read only where the stamp proves nothing. Of what a generation brought
//! it proves nothing at first, so all of that is read once. Whoever has something else to do ends it at any entry
//! or chunk, and goes on there another time.

use std::collections::VecDeque;

use tracing::warn;

use super::super::capture::{Named, judge_path};
use super::super::index::{Index, IndexError, Rows};
use super::super::{Exclude, Folder};
use super::doors::Doors;
use super::foreign::Looker;
use super::reading::{Part, Reading, Until};
use super::staging::Site;
use super::{Base, Foreign, ForeignWhy, ReceiveError, failed};
use crate::manifest::{Kind, Name, Row, Stamp, TreeClock};
use crate::units::ObjectId;

/// Entries of the index that are read at once.
const READ_COUNT: usize = 1024;

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Compared {
    /// What is not as the index says. There may be more behind each of them, and behind the last one if they
    /// are very many.
    pub foreign: Vec<Foreign>,
    /// Objects that are what the index says, with stamps that prove it from now on.
    settled: Vec<(ObjectId, Stamp, bool)>,
    /// Where the next comparison goes on; from the root if this one came to the end.
    pub(in super::super) rest: Rest,
    /// Bytes of content that were read.
    pub(in super::super) read_bytes: u64,
}

/// What a comparison has left for the next one.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Directories that were not looked at, or not to their ends; the one of `at` last.
    pending: Vec<ObjectId>,
    /// The first entry that was not looked at.
    at: Option<(ObjectId, Name)>,
    /// A file that was not read to its end.
    part: Option<Part>,
}

impl Rest {
    /// Whether there are entries that were not looked at.
    pub fn has_entries(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// Compares the tree at `site` with `base`, of what an earlier comparison has left. `clock` is that of the tree
/// just before. It ends as `until` says, and where what it found is to be noted. A directory that cannot be read is
/// passed by: all that is behind it counts as well.
///
/// # Errors
/// [`ReceiveError::Index`]; [`ReceiveError::Kernel`] if an entry cannot be looked at.
pub fn compare(
    site: Site<'_>,
    (base, clock): (&Base, &TreeClock),
    exclude: &Exclude,
    until: &Until<'_>,
    rest: Rest,
) -> Result<Compared, ReceiveError> {
    let root = site.tree.look_at_self().map_err(failed("look at the root of the tree"))?;
    let mut looker = Looker::new(site.left_out, base, clock, root.mount);
    let Rest { mut pending, mut at, part } = rest;
    looker.reading = Reading::within(until, part);
    if base.view().object(ObjectId::ROOT)?.is_none() {
        return Ok(Compared::default());
    }
    if pending.is_empty() {
        let row = looker.row(ObjectId::ROOT)?;
        let why = looker.judge((site.tree, None), ObjectId::ROOT, &row, &root)?;
        looker.note((ObjectId::ROOT, None), Some(ObjectId::ROOT), why);
        pending.push(ObjectId::ROOT);
    }
    let mut doors = Doors::new(site.tree);
    while let Some(id) = pending.pop().filter(|_| !looker.is_full()) {
        let from = at.take().filter(|(directory, _)| *directory == id).map(|(_, name)| name);
        let above = match base.view().names_above(id) {
            Ok(above) => above,
            // A generation has removed it since an earlier comparison came by.
            Err(IndexError::Missing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let above: Vec<&[u8]> = above.iter().map(Name::bytes).collect();
        let above = above.join(&b'/');
        // Gone since its parent was looked at, which the next comparison finds.
        let Some(folder) = doors.folder(id, base)? else { continue };
        let is_kept = |name: &Name| judge_path(exclude, &above, name) == Named::Kept;
        let (inner, left) = compare_one(&mut looker, (id, folder), from, &is_kept)?;
        if let Some(name) = left {
            at = Some((id, name));
            // What is in it was found before that, and comes after it.
            pending.extend(inner);
            pending.push(id);
            break;
        }
        pending.extend(inner);
    }
    let rest = Rest { pending, at, part: looker.reading.part() };
    let read_bytes = looker.reading.read_bytes();
    Ok(Compared { foreign: looker.look.foreign, settled: looker.settled, rest, read_bytes })
}

/// Compares one directory, from a name on; gives those in it, and the first name that was not looked at.
fn compare_one(
    looker: &mut Looker<'_>,
    (id, folder): (ObjectId, &Folder),
    from: Option<Name>,
    is_kept: &dyn Fn(&Name) -> bool,
) -> Result<(Vec<ObjectId>, Option<Name>), ReceiveError> {
    let base = looker.base();
    let mut names = match folder.list() {
        Ok(listing) => listing.names,
        Err(errno) => {
            warn!(directory = id.0, error = %errno, "a directory cannot be compared");
            return Ok((Vec::new(), None));
        }
    };
    names.drain(..names.partition_point(|name| from.as_ref().is_some_and(|from| name < from)));
    let mut found = names.into_iter();
    let mut found_name = found.next();
    let mut inner = Vec::new();
    let mut entries = Entries::new(id, from);
    let mut entry = entries.next(base)?;
    loop {
        let order = match (&entry, &found_name) {
            (None, None) => return Ok((inner, None)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((name, _)), Some(found)) => name.cmp(found),
        };
        if looker.is_laden() || looker.reading.is_stopped() {
            let known = entry.map(|(name, _)| name).filter(|_| order.is_le());
            return Ok((inner, known.or(found_name)));
        }
        if order.is_gt() {
            if let Some(name) = found_name.take() {
                let is_added = is_kept(&name) && looker.is_added(folder, &name)?;
                let why = is_added.then_some(ForeignWhy::Occupied);
                looker.note((id, Some(&name)), None, why);
            }
        } else if let Some((name, object)) = &entry {
            let why = looker.look_at(Some(folder), name, *object)?;
            if looker.reading.is_cut() {
                return Ok((inner, Some(name.clone())));
            }
            let is_it = matches!(why, None | Some(ForeignWhy::Changed));
            if is_it && looker.row(*object)?.entry.object().kind() == Kind::Directory {
                inner.push(*object);
            }
            looker.note((id, Some(name)), Some(*object), why);
        }
        if order.is_le() {
            entry = entries.next(base)?;
        }
        if order.is_ge() {
            found_name = found.next();
        }
    }
}

/// The entries of one directory of an index, page by page.
struct Entries {
    directory: ObjectId,
    page: VecDeque<(Name, ObjectId)>,
    from: Option<Vec<u8>>,
}

impl Entries {
    fn new(directory: ObjectId, from: Option<Name>) -> Self {
        let from = from.map_or_else(Vec::new, |name| name.bytes().to_vec());
        Self { directory, page: VecDeque::new(), from: Some(from) }
    }

    fn next(&mut self, base: &Base) -> Result<Option<(Name, ObjectId)>, IndexError> {
        if self.page.is_empty()
            && let Some(from) = self.from.take()
        {
            self.page = base.view().entries(self.directory, &from, READ_COUNT)?.into();
            // The least bytes above a name are the name and a zero.
            let full = self.page.back().filter(|_| self.page.len() == READ_COUNT);
            self.from = full.map(|(name, _)| [name.bytes(), &[0]].concat());
        }
        Ok(self.page.pop_front())
    }
}

impl Compared {
    /// Notes in `index`, which it was compared with, the stamps that prove what was read.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn settle(&self, index: &Index) -> Result<(), IndexError> {
        if self.settled.is_empty() {
            return Ok(());
        }
        index.change(|tables| {
            for (id, stamp, is_unsure) in &self.settled {
                if let Some(old) = tables.object(*id)? {
                    let row = Row { stamp: *stamp, is_unsure: *is_unsure, ..old };
                    tables.put_object(*id, &row)?;
                }
            }
            Ok(())
        })
    }
}
