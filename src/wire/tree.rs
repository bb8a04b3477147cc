//! What the two nodes of a directory resource say to each other about the tree.
//!
//! The *source* is the primary's side, the *target* the secondary's. One type of frame carries all of it,
//! so notes arrive in the order in which they were said, and bulk of a tree competes with a resync only.
//! Who serves, and which generation counts, is said in other messages.

use serde::{Deserialize, Serialize};

use super::bounded;
use super::kind::{TREE_CHUNKS_MAX, TREE_RECORDS_AHEAD_MAX};
use super::packing::Packing;
use super::payload::Payload;
use super::plausible::Checked;
use crate::units::{
    CHUNK_LEN, Label, ObjectId, RESOURCE_LEN_MAX, TreeNumber, TreePosition, TreeRoot,
};

/// A note, and the bytes that come with it: none, but for records and chunks.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct TreeMessage {
    /// What is said.
    pub note: TreeNote,
    /// Whole canonical records, or chunks one behind the other, as the packing of the note says.
    pub payload: Payload,
}

impl TreeMessage {
    /// A note that needs no payload.
    pub fn bare(note: TreeNote) -> Self {
        Self { note, payload: Payload::unhashed(bytes::Bytes::new()) }
    }
}

/// What is said about a tree.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum TreeNote {
    /// Target: what it has. The first note of a session, and said again after each apply.
    Position {
        /// The generation that its tree is, or goes to across any crash.
        position: TreePosition,
        /// BLAKE3 of what is excluded and left out.
        scope_digest: [u8; 32],
        /// What it has staged, in bytes.
        staged_bytes: u64,
        /// Free space in bytes.
        free_bytes: u64,
    },
    /// Source: a delta begins; what was begun before is not continued.
    DeltaOpen {
        /// The generation that it starts from; the zero position for one that describes a whole tree.
        base: TreePosition,
        /// The generation that it leads to.
        number: TreeNumber,
        /// Records in it, about.
        entries: u64,
        /// Bytes of the files in it, about.
        bytes: u64,
    },
    /// Source: the next records of the delta, whole ones, in order.
    DeltaRecords {
        /// How they travel.
        packing: Packing,
    },
    /// Source: all records were sent.
    DeltaEnd {
        /// The generation that they lead to.
        position: TreePosition,
        /// How much it promises.
        label: Label,
        /// Entries that did not hold still.
        fuzzy_count: u64,
    },
    /// Target: chunks that it found nowhere on its own disks.
    Want {
        /// Runs of them, in the order in which they are best sent.
        #[serde(deserialize_with = "bounded::list_at_most::<_, _, TREE_CHUNKS_MAX>")]
        chunks: Vec<WantedChunks>,
    },
    /// Source: chunks that were wanted.
    Chunks {
        /// Which, in the order of their bytes.
        #[serde(deserialize_with = "bounded::list_at_most::<_, _, TREE_CHUNKS_MAX>")]
        table: Vec<ChunkPlace>,
        /// How their bytes travel.
        packing: Packing,
    },
    /// Source: a chunk that was wanted is not what it was, so this delta is given up. The target repeats the
    /// note: from there on it wants nothing of that delta, and another one may follow.
    ChunkGone {
        /// Of which file.
        object: ObjectId,
        /// Which of its chunks.
        chunk: u64,
    },
    /// Target: this generation can be committed.
    Staged {
        /// Which.
        position: TreePosition,
    },
    /// Target: its tree goes to this generation across any crash.
    Committed {
        /// Which.
        position: TreePosition,
    },
    /// Target: its tree and its index are this generation, durably.
    Applied {
        /// Which.
        position: TreePosition,
    },
    /// Either: the delta is not taken, or none is sent.
    TreeRefused {
        /// Why.
        why: TreeRefusal,
        /// For people; cut to 512 bytes when sent.
        #[serde(
            deserialize_with = "bounded::text_at_most::<_, { bounded::TEXT_LEN_MAX }>",
            serialize_with = "bounded::cut_text"
        )]
        words: String,
    },
    /// Target: it took so many batches of records. No more than [`TREE_RECORDS_AHEAD_MAX`] are under way.
    RecordsTaken {
        /// How many more than it said before.
        count: u32,
    },
}

/// Chunks of one file that follow each other.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct WantedChunks {
    /// Which file.
    pub object: ObjectId,
    /// The first of its chunks.
    pub first: u64,
    /// How many; at least one.
    pub count: u32,
}

/// A chunk in a payload.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ChunkPlace {
    /// Which file.
    pub object: ObjectId,
    /// Which of its chunks.
    pub chunk: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// Why a delta is not taken; the list only grows.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum TreeRefusal {
    /// It starts from a generation that the target does not have.
    Position,
    /// What is excluded or left out is not the same on both nodes.
    Scope,
    /// It is larger than the target takes.
    Limit,
    /// A record, or what they say together, is not allowed.
    Record,
    /// The result would not be the announced one.
    Root,
    /// There is no room for it.
    Space,
    /// The tree of the target is not what its index says.
    Foreign,
    /// The target cannot show an object of this kind.
    Kind,
}

impl TreeRefusal {
    /// As `status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Scope => "scope",
            Self::Limit => "limit",
            Self::Record => "record",
            Self::Root => "root",
            Self::Space => "space",
            Self::Foreign => "foreign",
            Self::Kind => "kind",
        }
    }
}

/// Most records of a delta: each entry before and after may cost a name and an object.
const DELTA_RECORDS_MAX: u64 = 1 << 34;
/// More bytes than any disk holds; sums of a few do not overflow.
const BYTES_MAX: u64 = 1 << 62;

impl TreeMessage {
    /// Refuses what no node can mean, before anything depends on it.
    pub(super) fn check(&self) -> Checked {
        let may_be = match self.note {
            TreeNote::DeltaRecords { .. } => !self.payload.is_empty(),
            // Compared with the table.
            TreeNote::Chunks { .. } => true,
            TreeNote::Position { .. }
            | TreeNote::DeltaOpen { .. }
            | TreeNote::DeltaEnd { .. }
            | TreeNote::Want { .. }
            | TreeNote::ChunkGone { .. }
            | TreeNote::Staged { .. }
            | TreeNote::Committed { .. }
            | TreeNote::Applied { .. }
            | TreeNote::TreeRefused { .. }
            | TreeNote::RecordsTaken { .. } => self.payload.is_empty(),
        };
        if !may_be {
            return Err("records without bytes, or bytes that belong to nothing");
        }
        self.check_note()
    }

    fn check_note(&self) -> Checked {
        match &self.note {
            TreeNote::Position { position, staged_bytes, free_bytes, .. } => {
                check_position(*position)?;
                check_below(*staged_bytes.max(free_bytes), BYTES_MAX)
            }
            TreeNote::DeltaOpen { base, number, entries, bytes } => {
                check_position(*base)?;
                if number <= &base.number || *number > TreeNumber::MAX {
                    return Err("a delta that leads to no later generation");
                }
                check_below(*entries, DELTA_RECORDS_MAX)?;
                check_below(*bytes, BYTES_MAX)
            }
            TreeNote::DeltaEnd { position, fuzzy_count, .. } => {
                check_generation(*position)?;
                check_below(*fuzzy_count, DELTA_RECORDS_MAX)
            }
            TreeNote::Want { chunks } => {
                check_some(chunks)?;
                chunks.iter().try_for_each(|it| check_chunks(it.object, it.first, it.count))
            }
            TreeNote::Chunks { table, packing } => {
                packing.check(self.payload.len())?;
                check_table(table, packing.raw_len(self.payload.len()))
            }
            TreeNote::DeltaRecords { packing } => packing.check(self.payload.len()),
            TreeNote::ChunkGone { object, chunk } => check_chunks(*object, *chunk, 1),
            TreeNote::Staged { position }
            | TreeNote::Committed { position }
            | TreeNote::Applied { position } => check_generation(*position),
            TreeNote::TreeRefused { .. } => Ok(()),
            TreeNote::RecordsTaken { count: 1..=TREE_RECORDS_AHEAD_MAX } => Ok(()),
            TreeNote::RecordsTaken { .. } => Err("batches of records that were not sent"),
        }
    }
}

/// Number zero is the tree before the first generation, and has no root.
fn check_position(position: TreePosition) -> Checked {
    let is_zero = position.number == TreeNumber(0);
    if position.number > TreeNumber::MAX {
        return Err("a tree generation's number that no tree reaches");
    }
    if is_zero != (position.root == TreeRoot::default()) {
        return Err("a tree generation with a number or a root alone");
    }
    Ok(())
}

/// A position that some tree was captured at.
fn check_generation(position: TreePosition) -> Checked {
    check_position(position)?;
    if position.number == TreeNumber(0) { Err("a tree generation without number") } else { Ok(()) }
}

fn check_below(count: u64, most: u64) -> Checked {
    if count > most { Err("more than a tree can have") } else { Ok(()) }
}

fn check_some<T>(list: &[T]) -> Checked {
    if list.is_empty() { Err("no chunk at all") } else { Ok(()) }
}

/// No file is longer than the longest resource.
fn check_chunks(object: ObjectId, first: u64, count: u32) -> Checked {
    let end = first.checked_add(u64::from(count));
    let is_inside = end.is_some_and(|end| end <= RESOURCE_LEN_MAX / CHUNK_LEN);
    let is_object = object != ObjectId(0) && object <= ObjectId::MAX;
    if is_object && is_inside && count > 0 { Ok(()) } else { Err("chunks that no file has") }
}

fn check_table(table: &[ChunkPlace], content_len: u64) -> Checked {
    check_some(table)?;
    let mut total = 0;
    for place in table {
        check_chunks(place.object, place.chunk, 1)?;
        if place.len == 0 || u64::from(place.len) > CHUNK_LEN {
            return Err("a chunk of a length that none has");
        }
        total += u64::from(place.len);
    }
    if content_len == total { Ok(()) } else { Err("chunks that are not as long as their bytes") }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::samples::{samples, size};
    use super::*;
    use crate::units::{Epoch, SessionId};
    use crate::wire::frame::{HEADER_LEN, Limits, decode, decode_header, encode};
    use crate::wire::{Frame, Lane, Message, ProtocolError};

    const RECORDS: TreeNote = TreeNote::DeltaRecords { packing: Packing::Raw };
    const GENERATION: TreePosition =
        TreePosition { number: TreeNumber(7), root: TreeRoot([1; 32]) };

    fn said(note: TreeNote, payload_len: usize) -> TreeMessage {
        TreeMessage { note, payload: Payload::unhashed(Bytes::from(vec![5; payload_len])) }
    }

    fn arrives(tree: TreeMessage) -> Result<Message, ProtocolError> {
        let frame = Frame { session: SessionId(1), epoch: Epoch(5), message: Message::Tree(tree) };
        let encoded = encode(&frame);
        let (header, body) = encoded.head.split_first_chunk::<HEADER_LEN>().unwrap();
        let header = decode_header(header, &Limits { size: size() })?;
        decode(header, body, encoded.payload, size()).map(|frame| frame.message)
    }

    fn refused(note: TreeNote, payload_len: usize) -> bool {
        matches!(arrives(said(note, payload_len)), Err(ProtocolError::Value { .. }))
    }

    fn impossible_positions() -> [TreePosition; 4] {
        let root = GENERATION.root;
        [
            TreePosition { number: TreeNumber(TreeNumber::MAX.0 + 1), root },
            TreePosition { number: TreeNumber(u64::MAX), root },
            TreePosition { number: TreeNumber(0), root },
            TreePosition { root: TreeRoot::default(), ..GENERATION },
        ]
    }

    #[test]
    fn every_kind_of_note_has_a_sample_and_goes_behind_what_clients_wait_for() {
        let mut kinds = Vec::new();
        for (_, frame) in samples() {
            if let Message::Tree(tree) = &frame.message {
                assert_eq!(frame.message.lane(), Lane::Resync);
                kinds.push(std::mem::discriminant(&tree.note));
            }
        }
        let mut different = Vec::new();
        for kind in &kinds {
            if !different.contains(kind) {
                different.push(*kind);
            }
        }
        assert_eq!(different.len(), 12);
    }

    #[test]
    fn a_position_that_no_tree_has_is_refused_wherever_it_is_said() {
        let number = TreeNumber(8);
        for position in impossible_positions() {
            let (scope_digest, label) = ([0; 32], Label::Stable);
            let notes = [
                TreeNote::Position { position, scope_digest, staged_bytes: 0, free_bytes: 0 },
                TreeNote::DeltaOpen { base: position, number, entries: 1, bytes: 1 },
                TreeNote::DeltaEnd { position, label, fuzzy_count: 0 },
                TreeNote::Staged { position },
                TreeNote::Committed { position },
                TreeNote::Applied { position },
            ];
            for note in notes {
                assert!(refused(note.clone(), 0), "{note:?}");
            }
        }
        let position = TreePosition::default();
        assert!(refused(TreeNote::Staged { position }, 0), "nothing was captured");
        assert!(refused(TreeNote::DeltaEnd { position, label: Label::Fuzzy, fuzzy_count: 0 }, 0));
        let fresh = TreeNote::Position {
            position,
            scope_digest: [0; 32],
            staged_bytes: BYTES_MAX,
            free_bytes: BYTES_MAX,
        };
        assert!(arrives(said(fresh, 0)).is_ok());
    }

    #[test]
    fn a_delta_leads_to_a_later_generation() {
        let open = |number, base| TreeNote::DeltaOpen { base, number, entries: 1, bytes: 1 };
        assert!(arrives(said(open(TreeNumber(8), GENERATION), 0)).is_ok());
        assert!(arrives(said(open(TreeNumber(1), TreePosition::default()), 0)).is_ok());
        for number in [0, 6, 7, TreeNumber::MAX.0 + 1, u64::MAX] {
            assert!(refused(open(TreeNumber(number), GENERATION), 0), "{number}");
        }
        assert!(refused(open(TreeNumber(0), TreePosition::default()), 0));
    }

    #[test]
    fn counts_that_no_tree_has_are_refused() {
        let open = |entries, bytes| TreeNote::DeltaOpen {
            base: GENERATION,
            number: TreeNumber(8),
            entries,
            bytes,
        };
        assert!(refused(open(DELTA_RECORDS_MAX + 1, 0), 0));
        assert!(refused(open(0, BYTES_MAX + 1), 0));
        assert!(arrives(said(open(DELTA_RECORDS_MAX, BYTES_MAX), 0)).is_ok());
        let (position, label) = (GENERATION, Label::Fuzzy);
        let end = TreeNote::DeltaEnd { position, label, fuzzy_count: DELTA_RECORDS_MAX + 1 };
        assert!(refused(end, 0));
        for (staged_bytes, free_bytes) in [(BYTES_MAX + 1, 0), (0, u64::MAX)] {
            let scope_digest = [0; 32];
            let note = TreeNote::Position { position, scope_digest, staged_bytes, free_bytes };
            assert!(refused(note, 0));
        }
    }

    #[test]
    fn chunks_that_no_file_has_are_refused() {
        let last = RESOURCE_LEN_MAX / CHUNK_LEN - 1;
        let bad = [
            (0, 0, 1),
            (ObjectId::MAX.0 + 1, 0, 1),
            (3, last + 1, 1),
            (3, last, 2),
            (3, u64::MAX, 1),
            (3, 0, 0),
        ];
        let want = |object, first, count| TreeNote::Want {
            chunks: vec![WantedChunks { object: ObjectId(object), first, count }],
        };
        let chunk = |object, chunk| TreeNote::Chunks {
            table: vec![ChunkPlace { object: ObjectId(object), chunk, len: 9 }],
            packing: Packing::Raw,
        };
        for (object, first, count) in bad {
            assert!(refused(want(object, first, count), 0), "{object} {first} {count}");
            if count == 1 {
                assert!(refused(chunk(object, first), 9), "{object} {first}");
                let object = ObjectId(object);
                assert!(refused(TreeNote::ChunkGone { object, chunk: first }, 0));
            }
        }
        assert!(arrives(said(want(3, last, 1), 0)).is_ok());
        assert!(arrives(said(chunk(3, last), 9)).is_ok());
        assert!(refused(TreeNote::Want { chunks: vec![] }, 0));
        assert!(refused(TreeNote::Chunks { table: vec![], packing: Packing::Raw }, 0));
    }

    #[test]
    fn a_table_says_the_length_of_its_payload() {
        let place = |len| ChunkPlace { object: ObjectId(3), chunk: 0, len };
        let table = |lens: &[u32]| TreeNote::Chunks {
            table: lens.iter().copied().map(place).collect(),
            packing: Packing::Raw,
        };
        assert!(arrives(said(table(&[65_536, 1]), 65_537)).is_ok());
        for (lens, payload_len) in [
            (&[65_536, 1][..], 65_536),
            (&[65_536, 1], 65_538),
            (&[65_536], 0),
            (&[65_537], 65_537),
            (&[0, 9], 9),
            (&[u32::MAX, u32::MAX], 9),
        ] {
            assert!(refused(table(lens), payload_len), "{lens:?}");
        }
    }

    #[test]
    fn compressed_bytes_say_a_length_that_a_message_has() {
        let most = super::super::TREE_PAYLOAD_LEN_MAX;
        let lz4 = |raw_len| Packing::Lz4 { raw_len };
        let records = |raw_len| TreeNote::DeltaRecords { packing: lz4(raw_len) };
        assert!(arrives(said(records(most), 1)).is_ok());
        assert!(arrives(said(records(most), (1 << 20) - 1)).is_ok());
        for (raw_len, payload_len) in
            [(most + 1, 9), (u32::MAX, 9), (most, 1 << 20), (9, 9), (8, 9), (0, 9), (9, 0), (0, 0)]
        {
            assert!(refused(records(raw_len), payload_len), "{raw_len} {payload_len}");
        }
        let place = |len| ChunkPlace { object: ObjectId(3), chunk: 0, len };
        let chunks = |lens: &[u32], raw_len| TreeNote::Chunks {
            table: lens.iter().copied().map(place).collect(),
            packing: lz4(raw_len),
        };
        let whole = [65_536; 16];
        assert!(arrives(said(chunks(&whole, most), 5000)).is_ok());
        assert!(arrives(said(chunks(&[65_536, 1], 65_537), 65_536)).is_ok());
        for (lens, raw_len, payload_len) in [
            (&[65_536, 1][..], 65_536, 300),
            (&[65_536, 1], 65_538, 300),
            (&[300], 299, 300),
            (&[300], 300, 300),
            (&[300], 300, 0),
            (&[300], 0, 300),
            (&[], 300, 200),
            (&[[65_536; 16].as_slice(), &[1]].concat(), most + 1, 5000),
            (&[65_536; TREE_CHUNKS_MAX], 2048 << 16, 5000),
        ] {
            let is_refused = refused(chunks(lens, raw_len), payload_len);
            assert!(is_refused, "{} {raw_len} {payload_len}", lens.len());
        }
    }

    #[test]
    fn bytes_come_with_records_and_chunks_only() {
        assert!(refused(RECORDS, 0));
        assert!(arrives(said(RECORDS, 1 << 20)).is_ok());
        assert!(refused(TreeNote::Staged { position: GENERATION }, 1));
        let words = "no room".to_owned();
        assert!(refused(TreeNote::TreeRefused { why: TreeRefusal::Space, words }, 1));
    }

    #[test]
    fn the_longest_lists_fit_and_longer_ones_are_refused_by_their_length_alone() {
        let want = WantedChunks { object: ObjectId(3), first: 0, count: 1 };
        let full = TreeNote::Want { chunks: vec![want; TREE_CHUNKS_MAX] };
        assert!(arrives(said(full, 0)).is_ok());
        let place = ChunkPlace { object: ObjectId(3), chunk: 0, len: 1 };
        let full = TreeNote::Chunks { table: vec![place; TREE_CHUNKS_MAX], packing: Packing::Raw };
        assert!(arrives(said(full, TREE_CHUNKS_MAX)).is_ok());
        for variant in [4_u32, 5] {
            let mut body = variant.to_le_bytes().to_vec();
            body.extend_from_slice(&2049_u64.to_le_bytes());
            let kind = crate::wire::Kind::Tree;
            let taken = super::super::body::take::<TreeNote>(kind, &body);
            assert_eq!(taken, Err(ProtocolError::Body { kind }));
        }
    }

    #[test]
    fn words_arrive_cut_and_without_orders_to_a_terminal() {
        let words = format!("\u{1b}[2J{}", "x".repeat(2000));
        let arrived = arrives(said(TreeNote::TreeRefused { why: TreeRefusal::Kind, words }, 0));
        let Ok(Message::Tree(tree)) = arrived else { panic!("{arrived:?}") };
        let TreeNote::TreeRefused { words, .. } = tree.note else { panic!() };
        assert!(words.len() == 512 && words.starts_with("?[2J"), "{words}");
    }
}
