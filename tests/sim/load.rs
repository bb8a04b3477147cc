//! Where clients write, and what they ask.
//!
//! A *spot* is a run of registers: at the beginning, across the border of an extent or a chunk, at
//! the odd end of the resource, anywhere. All clients share all spots, so that they overlap.

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use hotpair::replica::{PART_LEN_MAX, RequestKind};
use hotpair::units::{ByteRange, CHUNK_LEN, EXTENT_LEN, ResourceSize, ZeroKind};
use hotpair::wire::payload::Payload;

use crate::oracle::stamp::{CELL_LEN, SECTOR_LEN, Stamp};
use crate::oracle::{INITIAL, Value};
use crate::plan::Load;

/// A run of registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) start: u64,
    pub(crate) count: u64,
    pub(crate) register_len: u64,
}

/// Some registers of a spot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) start: u64,
    pub(crate) count: u64,
    pub(crate) register_len: u64,
}

impl Registers {
    /// The byte offset of each register.
    pub(crate) fn offsets(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |at| self.start + at * self.register_len)
    }

    /// Whether a write of them is admitted in one piece.
    pub(crate) fn are_one_part(self) -> bool {
        self.start / PART_LEN_MAX == (self.start + self.len_bytes() - 1) / PART_LEN_MAX
    }

    pub(crate) fn len_bytes(self) -> u64 {
        self.count * self.register_len
    }
}

/// What a client asks, apart from its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Read(Registers),
    Write { registers: Registers, fua: bool },
    Zero { registers: Registers, kind: ZeroKind, fua: bool, fast_only: bool },
    Flush,
}

/// Chooses spots that do not overlap, the awkward places first.
pub(crate) fn draw_spots(load: &Load, size: ResourceSize, rng: &mut Rng) -> Vec<Spot> {
    let len = size.bytes();
    let mut wanted: Vec<(u64, u64)> = vec![(0, 8192), (len.saturating_sub(2048) / 32 * 32, 2048)];
    for border in [CHUNK_LEN, EXTENT_LEN, 2 * EXTENT_LEN, len / EXTENT_LEN * EXTENT_LEN] {
        wanted.push((border.saturating_sub(8192), 16_384));
    }
    if len > 16 << 20 && rng.u8(..6) == 0 {
        wanted.push(((8 << 20) + 4096, 3 << 20));
    }
    rng.shuffle(&mut wanted);
    while wanted.len() < load.spots {
        let spot_len = *rng.choice(&[4096, 4096, 8192, 16_384, 65_536]).unwrap();
        wanted.push((rng.u64(0..len) / 4096 * 4096, spot_len));
    }
    wanted.truncate(load.spots);
    let mut spots: Vec<Spot> = Vec::new();
    for (start, spot_len) in wanted {
        let register_len =
            if start % SECTOR_LEN != 0 || rng.u8(..8) == 0 { CELL_LEN } else { SECTOR_LEN };
        let spot_len = if register_len == CELL_LEN { spot_len.min(4096) } else { spot_len };
        let count = spot_len.min(len.saturating_sub(start)) / register_len;
        let is_free =
            spots.iter().all(|spot| start + spot_len <= spot.start || spot.end() <= start);
        if count > 0 && is_free {
            spots.push(Spot { start, count, register_len });
        }
    }
    spots
}

/// Chooses spots in what a resize adds, at both of its ends.
pub(crate) fn draw_late_spots(size: u64, grown: &[u64], rng: &mut Rng) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut from = size;
    for to in grown {
        let first = from.next_multiple_of(CELL_LEN);
        let middle = rng.u64(from..*to).next_multiple_of(4096);
        let last = to.saturating_sub(2048) / CELL_LEN * CELL_LEN;
        for start in [first, middle, last] {
            let is_free =
                start >= from && spots.last().is_none_or(|spot: &Spot| spot.end() <= start);
            let register_len = if start % SECTOR_LEN == 0 { SECTOR_LEN } else { CELL_LEN };
            let count = to.saturating_sub(start).min(2048) / register_len;
            if is_free && count > 0 {
                spots.push(Spot { start, count, register_len });
            }
        }
        from = *to;
    }
    spots
}

impl Spot {
    /// The first byte behind it.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.count * self.register_len
    }

    /// All registers of it.
    pub(crate) fn all(&self) -> Registers {
        Registers { start: self.start, count: self.count, register_len: self.register_len }
    }

    /// A few registers of it: mostly short runs, often aligned to blocks, sometimes all.
    fn draw(&self, rng: &mut Rng) -> Registers {
        let unit = if rng.bool() { 4096 / self.register_len } else { 1 };
        let unit = unit.min(self.count);
        let units = self.count / unit;
        let first = rng.u64(0..units);
        let rest = units - first;
        let taken = match rng.u8(..10) {
            0 => rest,
            1..=3 => rng.u64(1..=rest),
            _ => rng.u64(1..=rest.min(4)),
        };
        Registers {
            start: self.start + first * unit * self.register_len,
            count: taken * unit,
            register_len: self.register_len,
        }
    }
}

/// Draws the next question of a client.
pub(crate) fn draw_ask(load: &Load, spots: &[Spot], size: ResourceSize, rng: &mut Rng) -> Ask {
    let Some(spot) = rng.choice(spots) else { return Ask::Flush };
    if spot.end() > size.bytes() {
        return Ask::Flush; // it was not there when this client connected
    }
    let registers = spot.draw(rng);
    let fua = rng.u8(..100) < load.fua;
    let dice = rng.u8(..100);
    if dice < load.flushes {
        return Ask::Flush;
    }
    if dice < load.flushes + load.zeroes {
        let kind = *rng.choice(&[ZeroKind::Trim, ZeroKind::Punch, ZeroKind::Keep]).unwrap();
        return Ask::Zero { registers, kind, fua, fast_only: rng.u8(..8) == 0 };
    }
    if rng.u8(..100) < load.reads { Ask::Read(registers) } else { Ask::Write { registers, fua } }
}

/// The question as the core is asked it.
pub(crate) fn request_kind(ask: Ask, stamp: Stamp, size: ResourceSize) -> RequestKind {
    let range = |registers: Registers| {
        ByteRange::new(registers.start, registers.len_bytes(), size).expect("spots are inside")
    };
    match ask {
        Ask::Read(registers) => RequestKind::Read { range: range(registers) },
        Ask::Write { registers, fua } => {
            let bytes = stamped(registers, stamp);
            let range = range(registers);
            let parts = range.parts(PART_LEN_MAX).map(|part| {
                let from = usize::try_from(part.start() - range.start()).unwrap();
                let to = from + usize::try_from(part.len()).unwrap();
                Payload::hash(bytes.slice(from..to))
            });
            RequestKind::Write { range, parts: parts.collect(), fua }
        }
        Ask::Zero { registers, kind, fua, fast_only } => {
            RequestKind::Zero { range: range(registers), kind, fua, fast_only }
        }
        Ask::Flush => RequestKind::Flush,
    }
}

/// The bytes that a write of `stamp` leaves in `registers`.
pub(crate) fn stamped(registers: Registers, stamp: Stamp) -> Bytes {
    let mut bytes = BytesMut::zeroed(usize::try_from(registers.len_bytes()).unwrap());
    let register_len = usize::try_from(registers.register_len).unwrap();
    for (register, part) in registers.offsets().zip(bytes.chunks_mut(register_len)) {
        Stamp { register, ..stamp }.fill(part);
    }
    bytes.freeze()
}

/// What the image holds before the first write.
pub(crate) fn first_content(spot: &Spot, run: u32) -> Bytes {
    let stamp = Stamp { run, client: 0, register: 0, operation: INITIAL, epoch: 0 };
    stamped(spot.all(), stamp)
}

/// The stamp of one operation.
pub(crate) fn stamp(run: u32, client: usize, operation: Value, epoch: u64) -> Stamp {
    Stamp {
        run,
        client: u16::try_from(client).unwrap(),
        register: 0,
        operation,
        epoch: u32::try_from(epoch & 0xffff_ffff).unwrap(),
    }
}
