//! From the records of a whole tree to a delta for a tree that is there and has no generation in common.
//!
//! Objects that are here get the numbers that the peer has for them, in an index of their own; the one that
//! counts stays as it is until the tree has changed. To that index the records become an ordinary delta: what
//! is equal falls out, what only this node has goes. From there on nothing is special.
//!
//! The time is that of all entries of both trees. In memory are, beside all objects and names of the peer, which
//! [`Limits`] bound, those of the delta, which they bound as well, and a number for each object that is here.

use std::fs::File;
use std::sync::Arc;

use super::super::index::{Index, Rows, View};
use super::incoming::{Incoming, Limits, Received};
use super::spool::Records;
use super::{Base, ReceiveError};
use crate::manifest::{
    Keep, LeftOut, Name, Numbers, Object, Preview, Record, Scope, TreePath, Whole,
};
use crate::units::{ObjectId, TreePosition};

/// How a delta was made of all of a tree.
#[derive(Clone, Debug)]
pub struct Reconciled {
    /// The index that it is for.
    pub index: Arc<Index>,
    /// What becomes of what only this node has.
    pub keep: Keep,
    /// How the trees differ.
    pub preview: Preview,
}

/// The tree that is here, and where its delta goes.
pub struct Here<'a> {
    /// What the tree is, under whatever numbers.
    pub view: View,
    /// What it is called.
    pub position: TreePosition,
    /// An empty index for it.
    pub index: Arc<Index>,
    /// What both nodes agree on.
    pub scope: &'a Scope,
    /// The same, ready for use.
    pub left_out: &'a LeftOut,
    /// An empty file for the records of the delta.
    pub spool: File,
}

impl Incoming {
    /// Takes the records of all of a tree, for one that is here already. What it has and the peer does not is
    /// treated as `keep` says.
    ///
    /// # Errors
    /// [`ReceiveError::Kernel`], [`ReceiveError::Index`].
    pub(in crate::store::tree) fn new_whole(
        left_out: LeftOut,
        limits: Limits,
        keep: Keep,
        spool: File,
    ) -> Result<Self, ReceiveError> {
        // What is told is one whole tree only if it is one to a node that has nothing.
        let nothing = Arc::new(Base::new(Index::in_memory()?.view()?)?);
        let mut incoming = Self::new(nothing, left_out, limits, spool)?;
        incoming.whole = Some(keep);
        Ok(incoming)
    }

    /// What becomes of what only this node has, if it takes all of a tree.
    pub(in crate::store::tree) fn keep(&self) -> Option<Keep> {
        self.whole
    }

    /// The records of a whole tree end; they are said to be generation `to`.
    ///
    /// # Errors
    /// As [`Incoming::finish`]; [`ReceiveError::Index`] if the index of this node is damaged.
    pub(in crate::store::tree) fn reconcile(
        self,
        to: TreePosition,
        here: Here<'_>,
        is_excluded: impl Fn(&TreePath) -> bool,
    ) -> Result<Received, ReceiveError> {
        let keep = self.whole.unwrap_or_default();
        let limits = self.limits;
        let whole = self.finish((TreePosition::default(), to), |_| false)?;
        let Here { view, position, index, scope, left_out, spool } = here;
        let local = Base::new(view)?;
        let (mut numbers, preview) = Numbers::by_path(&whole, &local, keep);
        local.check()?;
        match keep {
            Keep::Undo => find_moved(&mut numbers, &whole, local.view())?,
            // Whoever looks for what only this node had looks for it where it was.
            Keep::Quarantine => {}
        }
        index.fill(local.view(), &mut numbers, (to.number, position), scope)?;
        drop((numbers, local));
        let base = Arc::new(Base::new(index.view()?)?);
        let mut delta = Self::new(Arc::clone(&base), left_out.clone(), limits, spool)?.unordered();
        push_objects(&mut delta, &whole, base.view())?;
        push_names(&mut delta, &whole, base.view())?;
        drop(whole);
        let mut received = delta.finish((position, to), is_excluded)?;
        received.reconciled = Some(Reconciled { index, keep, preview });
        Ok(received)
    }
}

/// Files that stand elsewhere here are found by what they hold.
fn find_moved(numbers: &mut Numbers, whole: &Received, here: &View) -> Result<(), ReceiveError> {
    let mut wanted = numbers.wanted(whole);
    if wanted.is_empty() {
        return Ok(());
    }
    here.all_objects(|id, row| -> Result<(), ReceiveError> {
        numbers.offer(&mut wanted, id, row.entry.object());
        Ok(())
    })
}

/// Objects that are other than here, with their chunks.
fn push_objects(delta: &mut Incoming, whole: &Received, here: &View) -> Result<(), ReceiveError> {
    let mut records = Records::new(0..whole.spool().len());
    let mut is_same = false;
    while let Some(record) = records.next(whole.spool())? {
        match &record {
            Record::Object { id, object } => {
                let row = here.object(*id)?;
                is_same = row.is_some_and(|row| row.entry.object() == object);
            }
            Record::Chunks { .. } | Record::Zeroes { .. } => {}
            // Names come last, and all of them are known.
            Record::Name { .. } | Record::Gone { .. } => return Ok(()),
        }
        if !is_same {
            delta.push(record)?;
        }
    }
    Ok(())
}

/// Names that lead elsewhere than here, or are here alone.
fn push_names(delta: &mut Incoming, whole: &Received, here: &View) -> Result<(), ReceiveError> {
    let told = whole.names().iter().filter_map(|(key, id)| Some((key, (*id)?)));
    let mut told = told.peekable();
    let name = |((directory, name), id): (&(ObjectId, Name), ObjectId)| Record::Name {
        directory: *directory,
        name: name.clone(),
        id,
    };
    here.all_names(|directory, mine, id| -> Result<(), ReceiveError> {
        let key = (directory, mine);
        while let Some(other) = told.next_if(|(other, _)| **other < key) {
            delta.push(name(other))?;
        }
        match told.next_if(|(other, _)| **other == key) {
            Some(same) if same.1 == id => Ok(()),
            Some(same) => delta.push(name(same)),
            None => delta.push(Record::Gone { directory: key.0, name: key.1 }),
        }
    })?;
    told.try_for_each(|other| delta.push(name(other)))
}

impl Whole for Received {
    fn object(&self, id: ObjectId) -> Option<&Object> {
        self.objects().get(&id).map(|described| &described.object)
    }

    fn entries(&self, directory: ObjectId) -> impl Iterator<Item = (&Name, ObjectId)> {
        let least = Name::new(&[1]).expect("a single byte is a name");
        let entries = self.names().range((directory, least)..);
        entries
            .take_while(move |((parent, _), _)| *parent == directory)
            .filter_map(|((_, name), id)| Some((name, (*id)?)))
    }

    fn objects(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        Self::objects(self).iter().map(|(id, described)| (*id, &described.object))
    }

    fn entry_count(&self) -> u64 {
        self.names().len() as u64
    }
}
