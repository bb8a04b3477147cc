//! A file of one node, and what is left of it when things go wrong.
//!
//! The medium is as hotpair assumes it to be: what was written and not synced lands per sector,
//! in any order and in any of its versions (M2); a sector that is not being written does not
//! change (M3); a failed sync drops what was pending, and the next one succeeds (M4); the page
//! cache survives the process (M5).

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;

/// Length of a sector in bytes, as an index and as an offset.
pub(crate) const SECTOR: usize = 512;
const SECTOR_LEN: u64 = 512;
const BLOCK_LEN: u64 = 4096;

/// Content of a sector; `None` reads as zero.
type Sector = Option<Bytes>;

/// A sparse file with its unsynced past.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// What a read sees.
    sectors: BTreeMap<u64, Bytes>,
    /// For each sector that is not stable: what is, and then each version written since.
    pending: BTreeMap<u64, Vec<Version>>,
    /// What the medium holds where a failed sync dropped what the cache still shows.
    dropped: BTreeMap<u64, Sector>,
    /// Number of the newest write.
    newest: u64,
    /// Blocks whose content may have changed since the last [`File::take_changed`].
    changed: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Version {
    number: u64,
    content: Sector,
}

/// How much of what is pending a power loss takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Damage {
    /// Everything that was pending reached the medium.
    Nothing,
    /// Nothing did.
    Everything,
    /// Any version, sector by sector.
    Any,
}

impl Damage {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..10) {
            0 => Self::Nothing,
            1..=3 => Self::Everything,
            _ => Self::Any,
        }
    }
}

impl File {
    /// A file that holds `image` and is stable.
    pub(crate) fn stable(image: &[u8]) -> Self {
        let mut file = Self::default();
        file.write(0, &Bytes::copy_from_slice(image), &mut |_| true);
        file.sync(file.newest);
        file.changed.clear();
        file
    }

    /// Reads `len` bytes.
    pub(crate) fn read(&self, start: u64, len: usize) -> Bytes {
        if let (0, Some(sector), SECTOR) =
            (start % SECTOR_LEN, self.sectors.get(&(start / SECTOR_LEN)), len)
        {
            return sector.clone();
        }
        let mut bytes = BytesMut::zeroed(len);
        let end = start + u64::try_from(len).unwrap();
        for (index, sector) in self.sectors.range(start / SECTOR_LEN..end.div_ceil(SECTOR_LEN)) {
            let at = index * SECTOR_LEN;
            let from = usize::try_from(start.saturating_sub(at)).unwrap();
            let to = SECTOR - usize::try_from((at + SECTOR_LEN).saturating_sub(end)).unwrap();
            let into = usize::try_from(at.saturating_sub(start)).unwrap();
            bytes[into..into + to - from].copy_from_slice(&sector[from..to]);
        }
        bytes.freeze()
    }

    /// Whether nothing but zeroes is in the range.
    pub(crate) fn is_zero(&self, start: u64, len: u64) -> bool {
        let sectors = start / SECTOR_LEN..(start + len).div_ceil(SECTOR_LEN);
        self.sectors.range(sectors).next().is_none()
    }

    /// Writes `bytes` where `lands` says of a sector that it does.
    pub(crate) fn write(&mut self, start: u64, bytes: &Bytes, lands: &mut dyn FnMut(u64) -> bool) {
        self.newest += 1;
        let mut at = 0;
        while at < bytes.len() {
            let offset = start + u64::try_from(at).unwrap();
            let inside = usize::try_from(offset % SECTOR_LEN).unwrap();
            let len = (SECTOR - inside).min(bytes.len() - at);
            let sector = offset / SECTOR_LEN;
            if lands(sector) {
                let part = bytes.slice(at..at + len);
                let content = if len == SECTOR { part } else { self.merged(sector, inside, &part) };
                self.put(sector, content);
            }
            at += len;
        }
    }

    /// Makes the range read as zero where `lands` says of a sector that it does.
    pub(crate) fn zero(&mut self, start: u64, len: u64, lands: &mut dyn FnMut(u64) -> bool) {
        self.newest += 1;
        let end = start + len;
        let touched = start / SECTOR_LEN..end.div_ceil(SECTOR_LEN);
        let present: Vec<u64> = self.sectors.range(touched).map(|(index, _)| *index).collect();
        for sector in present.into_iter().filter(|sector| lands(*sector)) {
            let at = sector * SECTOR_LEN;
            let from = usize::try_from(start.saturating_sub(at)).unwrap();
            let to = SECTOR - usize::try_from((at + SECTOR_LEN).saturating_sub(end)).unwrap();
            let zeroes = Bytes::from(vec![0; to - from]);
            let content = self.merged(sector, from, &zeroes);
            self.put(sector, content);
        }
    }

    /// Number of the newest write: what a sync that begins at this moment covers.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// A sync ended that covers every write up to `covered`.
    pub(crate) fn sync(&mut self, covered: u64) {
        self.pending.retain(|_, versions| {
            let stable = versions.iter().rposition(|version| version.number <= covered);
            versions.drain(..stable.unwrap_or(0));
            versions.len() > 1
        });
    }

    /// A sync failed: each pending sector keeps any version, and no later sync changes that. The
    /// cache goes on showing the new content, or reads the old one again.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng) {
        let is_shown = rng.bool();
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let kept = rng.choice(&versions).unwrap().content.clone();
            if is_shown {
                self.dropped.insert(sector, kept);
            } else {
                self.show(sector, kept);
            }
        }
    }

    /// Reads come from the medium from here on.
    pub(crate) fn drop_cache(&mut self) {
        for (sector, content) in std::mem::take(&mut self.dropped) {
            self.show(sector, content);
        }
    }

    /// Power is gone and back.
    pub(crate) fn lose_power(&mut self, damage: Damage, rng: &mut Rng) {
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let kept = match damage {
                Damage::Nothing => versions.last(),
                Damage::Everything => versions.first(),
                Damage::Any => rng.choice(&versions),
            };
            let kept = kept.unwrap().content.clone();
            self.show(sector, kept);
        }
        self.drop_cache();
    }

    /// What is left if power is lost and everything that is pending with it.
    pub(crate) fn stable_part(&self) -> Self {
        let mut stable = self.clone();
        for (sector, versions) in std::mem::take(&mut stable.pending) {
            let kept = versions.first().unwrap().content.clone();
            stable.show(sector, kept);
        }
        stable.drop_cache();
        stable
    }

    /// Whether block `index` is the same in both files.
    pub(crate) fn has_same_block(&self, other: &Self, index: u64) -> bool {
        let sectors = || index * BLOCK_LEN / SECTOR_LEN..(index + 1) * BLOCK_LEN / SECTOR_LEN;
        self.sectors.range(sectors()).eq(other.sectors.range(sectors()))
    }

    /// Every block that is not all zero in this file.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.sectors.keys().map(|sector| sector * SECTOR_LEN / BLOCK_LEN)
    }

    /// The blocks whose content may have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.changed)
    }

    fn merged(&self, sector: u64, inside: usize, part: &[u8]) -> Bytes {
        let mut whole = BytesMut::zeroed(SECTOR);
        if let Some(old) = self.sectors.get(&sector) {
            whole.copy_from_slice(old);
        }
        whole[inside..inside + part.len()].copy_from_slice(part);
        whole.freeze()
    }

    fn put(&mut self, sector: u64, content: Bytes) {
        let content = content.iter().any(|byte| *byte != 0).then_some(content);
        let medium = self.dropped.remove(&sector);
        let stable = || medium.unwrap_or_else(|| self.sectors.get(&sector).cloned());
        let versions = self
            .pending
            .entry(sector)
            .or_insert_with(|| vec![Version { number: 0, content: stable() }]);
        versions.push(Version { number: self.newest, content: content.clone() });
        self.show(sector, content);
    }

    fn show(&mut self, sector: u64, content: Sector) {
        let block = sector * SECTOR_LEN / BLOCK_LEN;
        if self.changed.last() != Some(&block) {
            self.changed.push(block);
        }
        match content {
            Some(bytes) => self.sectors.insert(sector, bytes),
            None => self.sectors.remove(&sector),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn filled(byte: u8, len: usize) -> Bytes {
        Bytes::from(vec![byte; len])
    }

    fn after_power_loss(file: &File, seed: u64) -> u8 {
        let mut file = file.clone();
        file.lose_power(Damage::Any, &mut Rng::with_seed(seed));
        file.read(0, 1)[0]
    }

    #[test]
    fn a_read_sees_the_newest_bytes_at_any_offset() {
        let mut rng = Rng::with_seed(1);
        let mut file = File::default();
        let mut plain = vec![0_u8; 10_000];
        for round in 0..500 {
            let start = rng.usize(..9_000);
            let len = rng.usize(1..=1_000);
            let byte = rng.u8(..);
            let at = u64::try_from(start).unwrap();
            if round % 4 == 0 {
                file.zero(at, u64::try_from(len).unwrap(), &mut |_| true);
                plain[start..start + len].fill(0);
            } else {
                file.write(at, &filled(byte, len), &mut |_| true);
                plain[start..start + len].fill(byte);
            }
            let from = rng.usize(..9_000);
            let read = file.read(u64::try_from(from).unwrap(), 1_000);
            assert_eq!(&read[..], &plain[from..from + 1_000]);
        }
    }

    #[test]
    fn power_loss_leaves_any_version_since_the_last_sync_and_no_other() {
        let mut file = File::default();
        for byte in 1..=3 {
            file.write(0, &filled(byte, SECTOR), &mut |_| true);
        }
        let seen: BTreeSet<u8> = (0..100).map(|seed| after_power_loss(&file, seed)).collect();
        assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
        let covered = file.newest();
        file.write(0, &filled(4, SECTOR), &mut |_| true);
        file.sync(covered);
        let seen: BTreeSet<u8> = (0..100).map(|seed| after_power_loss(&file, seed)).collect();
        assert_eq!(seen, BTreeSet::from([3, 4]));
        file.sync(file.newest());
        assert_eq!(after_power_loss(&file, 0), 4);
    }

    #[test]
    fn sectors_of_one_write_are_lost_one_by_one() {
        let mut file = File::default();
        file.write(0, &filled(7, 8 * SECTOR), &mut |_| true);
        let kept = |seed| {
            let mut file = file.clone();
            file.lose_power(Damage::Any, &mut Rng::with_seed(seed));
            file.read(0, 8 * SECTOR).chunks(SECTOR).filter(|sector| sector[0] == 7).count()
        };
        let seen: BTreeSet<usize> = (0..200).map(kept).collect();
        assert!(seen.len() > 4, "{seen:?}");
    }

    #[test]
    fn a_failed_sync_drops_what_was_pending_for_good() {
        for seed in 0..50 {
            let mut rng = Rng::with_seed(seed);
            let mut file = File::stable(&filled(1, SECTOR));
            file.write(0, &filled(2, SECTOR), &mut |_| true);
            file.fail_sync(&mut rng);
            let shown = file.read(0, 1)[0];
            file.sync(file.newest());
            file.drop_cache();
            let medium = file.read(0, 1)[0];
            assert!(shown == 2 || shown == medium);
            file.lose_power(Damage::Any, &mut rng);
            assert_eq!(file.read(0, 1)[0], medium);
        }
    }

    #[test]
    fn blocks_are_compared_by_what_they_read_as() {
        let mut one = File::default();
        let two = File::default();
        one.write(4096, &filled(0, 4096), &mut |_| true);
        assert!(one.has_same_block(&two, 1));
        one.write(5000, &filled(1, 1), &mut |_| true);
        assert!(!one.has_same_block(&two, 1));
        assert!(one.has_same_block(&two, 0));
        assert_eq!(one.take_changed(), [1]);
    }
}
