//! From the entries of a directory to its hash, and from the root directory to the root of the
//! tree.
//!
//! The children of a directory, in the order of their names, are cut into buckets after each name
//! whose hash says so: 256 names on average. Where a bucket ends depends on its last name alone, so
//! a name that comes or goes changes the bucket it stands in, and at most splits it or joins it to
//! the next.

use std::collections::BTreeSet;

use super::kept::LeaveOut;
use super::{Entry, ManifestError, Name};
use crate::units::{ResourceId, TreeRoot};

/// Hash of the canonical record of one entry.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryHash(pub [u8; 32]);

/// Hash over the names and entry hashes of one bucket.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BucketHash(pub [u8; 32]);

/// Hash over the bucket hashes of one directory.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DirectoryHash(pub [u8; 32]);

/// What makes each kind of hash another one than all others. Changing any changes every root.
const ENTRY_CONTEXT: &str = "hotpair tree entry v1";
const BUCKET_CONTEXT: &str = "hotpair tree bucket v1";
const DIRECTORY_CONTEXT: &str = "hotpair tree directory v1";
const ROOT_CONTEXT: &str = "hotpair tree root v1";
/// Format of all that the root is computed from.
const FORMAT: u32 = 1;

impl EntryHash {
    /// Of an entry.
    pub fn of(entry: &Entry) -> Self {
        Self(blake3::derive_key(ENTRY_CONTEXT, &entry.encode()))
    }
}

/// Whether a bucket ends with this name: its BLAKE3, read as a little-endian number, has eight low
/// zero bits.
pub fn ends_bucket(name: &Name) -> bool {
    let [low, ..] = *blake3::hash(name.bytes()).as_bytes();
    low == 0
}

/// Some neighbours of one directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bucket {
    /// Its first name.
    pub first: Name,
    /// How many names it has.
    pub count: u64,
    /// Hash over its names and what they stand for.
    pub hash: BucketHash,
}

/// Takes names and entry hashes in the order of the names, and gives buckets.
#[derive(Debug, Default)]
pub struct Buckets {
    open: Option<Open>,
    last: Option<Name>,
}

#[derive(Debug)]
struct Open {
    first: Name,
    count: u64,
    hasher: blake3::Hasher,
}

impl Open {
    fn close(self) -> Bucket {
        let hash = BucketHash(*self.hasher.finalize().as_bytes());
        Bucket { first: self.first, count: self.count, hash }
    }
}

impl Buckets {
    /// Takes the next entry. Gives the bucket that it ends, if it does.
    ///
    /// # Errors
    /// [`ManifestError::Order`] if `name` is not greater than the one before.
    pub fn push(&mut self, name: &Name, hash: EntryHash) -> Result<Option<Bucket>, ManifestError> {
        if self.last.as_ref().is_some_and(|last| last >= name) {
            return Err(ManifestError::Order);
        }
        self.last = Some(name.clone());
        let open = self.open.get_or_insert_with(|| Open {
            first: name.clone(),
            count: 0,
            hasher: blake3::Hasher::new_derive_key(BUCKET_CONTEXT),
        });
        // The length comes first, so that no other cut of the same bytes gives the same hash.
        let len = u8::try_from(name.bytes().len()).expect("a name has at most 255 bytes");
        open.hasher.update(&[len]).update(name.bytes()).update(&hash.0);
        open.count += 1;
        let is_last = ends_bucket(name);
        Ok(if is_last { self.finish() } else { None })
    }

    /// Whether the next name begins a bucket.
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    /// The bucket that no name ended: the last one of a directory.
    pub fn finish(&mut self) -> Option<Bucket> {
        self.open.take().map(Open::close)
    }
}

/// Hash of the directory whose buckets these are, in order. One without entries has none.
pub fn directory_hash(buckets: impl IntoIterator<Item = BucketHash>) -> DirectoryHash {
    let mut hasher = blake3::Hasher::new_derive_key(DIRECTORY_CONTEXT);
    for bucket in buckets {
        hasher.update(&bucket.0);
    }
    DirectoryHash(*hasher.finalize().as_bytes())
}

/// Hash of a directory from all its entries in order, in memory that does not depend on their
/// number.
///
/// # Errors
/// [`ManifestError::Order`] if the names do not rise strictly.
pub fn fold<'a>(
    entries: impl IntoIterator<Item = (&'a Name, EntryHash)>,
) -> Result<DirectoryHash, ManifestError> {
    let mut hasher = blake3::Hasher::new_derive_key(DIRECTORY_CONTEXT);
    let mut buckets = Buckets::default();
    for (name, hash) in entries {
        if let Some(bucket) = buckets.push(name, hash)? {
            hasher.update(&bucket.hash.0);
        }
    }
    if let Some(bucket) = buckets.finish() {
        hasher.update(&bucket.hash.0);
    }
    Ok(DirectoryHash(*hasher.finalize().as_bytes()))
}

/// What both nodes must agree on before their roots can be compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// Which resource.
    pub resource: ResourceId,
    /// Patterns of names that are never read. Their order means nothing.
    pub exclude: BTreeSet<String>,
    /// What is in the manifest of neither node.
    pub leave_out: BTreeSet<LeaveOut>,
}

impl Scope {
    /// The root of a tree with this record of its root directory.
    pub fn root(&self, record: EntryHash) -> TreeRoot {
        let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        hasher.update(&FORMAT.to_le_bytes());
        hasher.update(&self.resource.0.to_le_bytes());
        hasher.update(&(self.exclude.len() as u64).to_le_bytes());
        for pattern in &self.exclude {
            hasher.update(&(pattern.len() as u64).to_le_bytes()).update(pattern.as_bytes());
        }
        hasher.update(&(self.leave_out.len() as u64).to_le_bytes());
        for one in &self.leave_out {
            hasher.update(&[one.number()]);
        }
        hasher.update(&record.0);
        TreeRoot(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn name(number: u64) -> Name {
        Name::new(format!("{number:08}").as_bytes()).unwrap()
    }

    fn entry(number: u64) -> EntryHash {
        EntryHash(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn buckets(names: &BTreeMap<Name, EntryHash>) -> Vec<Bucket> {
        let mut cut = Buckets::default();
        let mut all = Vec::new();
        for (name, hash) in names {
            all.extend(cut.push(name, *hash).unwrap());
        }
        all.extend(cut.finish());
        all
    }

    /// Buckets of `mine` that `theirs` has not.
    fn only_in(mine: &[Bucket], theirs: &[Bucket]) -> usize {
        mine.iter().filter(|bucket| !theirs.contains(bucket)).count()
    }

    fn large() -> BTreeMap<Name, EntryHash> {
        (0..100_000).map(|number| (name(number), entry(number))).collect()
    }

    #[test]
    fn buckets_hold_256_names_on_average() {
        let all = buckets(&large());
        assert!((300..500).contains(&all.len()), "{}", all.len());
        assert_eq!(all.iter().map(|bucket| bucket.count).sum::<u64>(), 100_000);
    }

    #[test]
    fn an_entry_that_changes_among_100_000_changes_one_bucket() {
        let mut names = large();
        let before = buckets(&names);
        for at in [0, 1, 50_000, 99_999] {
            names.insert(name(at), entry(at + 1_000_000));
            let after = buckets(&names);
            assert_eq!((only_in(&before, &after), only_in(&after, &before)), (1, 1));
            names.insert(name(at), entry(at));
        }
    }

    #[test]
    fn a_name_that_comes_or_goes_among_100_000_splits_or_joins_neighbours_at_most() {
        let mut names = large();
        let before = buckets(&names);
        let cuts: Vec<_> = (0..100_000).map(name).filter(ends_bucket).take(3).collect();
        let plain: Vec<_> = (400..410).map(name).filter(|name| !ends_bucket(name)).collect();
        for (gone, is_cut) in
            cuts.iter().map(|name| (name, true)).chain(plain.iter().map(|name| (name, false)))
        {
            let hash = names.remove(gone).unwrap();
            let after = buckets(&names);
            let expected = if is_cut { (2, 1) } else { (1, 1) };
            assert_eq!((only_in(&before, &after), only_in(&after, &before)), expected);
            names.insert(gone.clone(), hash);
        }
        assert_eq!(buckets(&names), before);
    }

    #[test]
    fn the_hash_from_a_stream_is_that_from_its_buckets() {
        let names = large();
        let whole = fold(names.iter().map(|(name, hash)| (name, *hash))).unwrap();
        let buckets = buckets(&names);
        assert_eq!(directory_hash(buckets.iter().map(|bucket| bucket.hash)), whole);
        let mut again = buckets;
        let second = &mut again[1];
        let rest = names.range(second.first.clone()..);
        let mut alone = Buckets::default();
        let one = rest.map(|(name, hash)| alone.push(name, *hash).unwrap()).find_map(|b| b);
        assert_eq!(one.as_ref(), Some(&*second), "one bucket can be computed by itself");
    }

    #[test]
    fn names_that_do_not_rise_are_refused() {
        let (a, b) = (name(1), name(2));
        for wrong in [[&b, &a], [&a, &a]] {
            let entries = wrong.map(|name| (name, entry(0)));
            assert_eq!(fold(entries), Err(ManifestError::Order));
        }
        assert_eq!(fold([]).unwrap(), directory_hash([]));
    }

    #[test]
    fn everything_that_must_agree_is_in_the_root() {
        let scope = |resource, exclude: &[&str], leave_out: &[LeaveOut]| Scope {
            resource: ResourceId(resource),
            exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
            leave_out: leave_out.iter().copied().collect(),
        };
        let scopes = [
            scope(1, &[], &[]),
            scope(2, &[], &[]),
            scope(1, &["ab"], &[]),
            scope(1, &["a", "b"], &[]),
            scope(1, &[], &[LeaveOut::Owner]),
            scope(1, &[], &[LeaveOut::Acl]),
        ];
        let mut roots: Vec<_> = scopes.iter().map(|scope| scope.root(entry(1))).collect();
        roots.push(scopes[0].root(entry(2)));
        assert_eq!(roots.iter().collect::<BTreeSet<_>>().len(), roots.len());
        assert_eq!(scope(1, &["b", "a"], &[]).root(entry(1)), roots[3], "order means nothing");
    }
}
