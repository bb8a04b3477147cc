//! The connection to the peer, and the session that both agreed on.
//!
//! A connection begins with Hello and Verdict (`meet.rs`); a change of state on either side begins
//! them anew on the same connection, with another session id, so that nothing said before can be
//! taken for something said after.

use super::effect::{Effect, LinkId};
use super::explain::Obstacle;
use super::source::Source;
use super::target::Target;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::units::{
    Applied, BlockRange, Epoch, Instant, Outcome, ResourceSize, Role, SessionId, Transfer,
};
use crate::wire::message::{Beat, Credit, Frame, Hello, Message, Refusal, RefusalCode, Verdict};

/// The connection, if there is one.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Link {
    pub(super) up: Option<Box<Up>>,
    /// What the peer said last, on this connection or an earlier one.
    pub(super) last_hello: Option<Hello>,
    /// The newest reason why the two stay apart, or why there is no connection; none once both
    /// have said who they are and nothing stands in the way.
    pub(super) obstacle: Option<Obstacle>,
    /// The peer's round trip and silence are measured by the driver; this is its stable version.
    pub(super) peer_stable: Applied,
}

/// A connection.
#[derive(Clone, Debug, Hash)]
pub(super) struct Up {
    pub(super) id: LinkId,
    pub(super) nonce: [u8; 32],
    pub(super) exporter: [u8; 32],
    /// Our last Hello; it counts only once it was sent.
    pub(super) mine: Option<Hello>,
    pub(super) counter: u32,
    pub(super) theirs: Option<Hello>,
    pub(super) phase: Phase,
    /// When the nodes began to meet.
    pub(super) since: Instant,
    pub(super) last_heard: Instant,
    pub(super) last_sent: Instant,
    pub(super) session: Option<SessionId>,
    /// Counter of the peer's Hello that this node looked at for its pledge.
    pub(super) pledge_seen: u32,
    pub(super) ended: Vec<SessionId>,
}

/// How far the meeting is.
#[derive(Clone, Debug, Hash)]
pub(super) enum Phase {
    /// Our Hello waits until nothing of the last session is under way.
    Draining,
    /// Our Hello is sent.
    Waiting { verdict: Option<Box<Verdict>> },
    /// The verdicts agree that nothing is replicated.
    Apart(Outcome),
    /// They agree on a session.
    Session(Box<Session>),
}

/// A session in which one node follows the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Following {
    /// The connection.
    pub link: LinkId,
    /// Its name; frames carry it.
    pub session: SessionId,
    /// The epoch of its frames.
    pub epoch: Epoch,
    /// Whether the peer follows this node.
    pub is_source: bool,
}

/// What both agreed on.
#[derive(Clone, Debug, Hash)]
pub(super) struct Session {
    /// The primary's epoch, or the sender's own if there is none.
    pub(super) epoch: Epoch,
    pub(super) transfer: Transfer,
    pub(super) part: SessionPart,
    /// What the peer was when this session began is stable here.
    pub(super) is_joined: bool,
    /// This node vetoed itself in it, and told the peer or will: no end of a transfer lifts that.
    pub(super) is_vetoed: bool,
    /// What was said of the pledge.
    pub(super) pledge: super::pledge::PledgeTalk,
    /// What the peer lets us have in motion.
    pub(super) client_credit: Credit,
    pub(super) resync_credit: Credit,
}

/// This node's part in it.
#[derive(Clone, Debug, Hash)]
pub(super) enum SessionPart {
    /// Equal, and nobody is primary: nothing to do.
    Idle,
    Source(Box<Source>),
    Target(Box<Target>),
}

/// What the peer can be asked for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Standing {
    /// There is no connection.
    Down,
    /// The nodes are finding out what they have.
    Meeting,
    /// They are connected and agree that nothing is replicated.
    Apart,
    /// A session runs.
    Running {
        /// Every acknowledgement needs the peer; else it is the target of a resync and does not
        /// count yet.
        peer_acknowledges: bool,
    },
}

/// Why the peer's message cannot be: it breaks the order of the protocol. The connection is
/// closed, and nothing changes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub(super) enum Fault {
    /// A write skipped or repeated a number.
    #[error("write {found} after {last}")]
    SequenceGap {
        /// The number that came.
        found: u64,
        /// The last one before it.
        last: u64,
    },
    /// An acknowledgement of something that was not sent.
    #[error("acknowledgement of {sequence}, which was not sent")]
    UnknownSequence {
        /// Its number.
        sequence: u64,
    },
    /// An answer to something that was not asked.
    #[error("answer to request {request}, which was not asked")]
    UnknownRequest {
        /// Its number.
        request: u64,
    },
    /// A message that cannot come now.
    #[error("{message} cannot come now")]
    Unexpected {
        /// Its name.
        message: &'static str,
    },
    /// A frame of a session that never was.
    #[error("a frame of another session")]
    OtherSession,
    /// More was sent than was granted.
    #[error("more than the granted {limit} {what} are in motion")]
    Credit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// So little credit that nothing could ever be sent.
    #[error("no room for {what}: credit for {frames} frames with {bytes} bytes")]
    NoCredit {
        /// What it is for.
        what: &'static str,
        /// Frames granted.
        frames: u32,
        /// Bytes granted.
        bytes: u32,
    },
    /// A chunk or page that the resource does not have.
    #[error("{what} {index} is outside the resource")]
    Outside {
        /// What it names.
        what: &'static str,
        /// Its index.
        index: u64,
    },
}

impl Up {
    /// Late frames of `session` mean nothing.
    pub(super) fn end(&mut self, session: SessionId) {
        self.ended.push(session);
        if self.ended.len() > ENDED_MAX {
            self.ended.remove(0);
        }
    }
}

impl Link {
    pub(super) fn standing(&self) -> Standing {
        let Some(up) = &self.up else { return Standing::Down };
        match &up.phase {
            Phase::Draining | Phase::Waiting { .. } => Standing::Meeting,
            Phase::Apart(_) => Standing::Apart,
            Phase::Session(session) => match &session.part {
                SessionPart::Idle if session.is_joined => {
                    Standing::Running { peer_acknowledges: true }
                }
                SessionPart::Idle => Standing::Meeting,
                SessionPart::Source(source) if source.is_running() => Standing::Running {
                    peer_acknowledges: session.transfer == Transfer::Replay || source.is_gated(),
                },
                SessionPart::Target(_) if session.is_joined => {
                    Standing::Running { peer_acknowledges: true }
                }
                SessionPart::Source(_) | SessionPart::Target(_) => Standing::Meeting,
            },
        }
    }

    /// The session, once both agreed on it.
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.up.as_ref()?.phase {
            Phase::Session(session) => Some(session),
            Phase::Draining | Phase::Waiting { .. } | Phase::Apart(_) => None,
        }
    }

    /// This node vetoes itself: whatever still comes in this session does not make it complete.
    pub(super) fn note_veto(&mut self) {
        if let Some(session) = self.session_mut() {
            session.is_vetoed = true;
        }
    }

    /// Whether this node vetoed itself in this session.
    pub(super) fn is_vetoed(&self) -> bool {
        self.session().is_some_and(|session| session.is_vetoed)
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.up.as_mut()?.phase {
            Phase::Session(session) => Some(session),
            Phase::Draining | Phase::Waiting { .. } | Phase::Apart(_) => None,
        }
    }

    pub(super) fn source(&self) -> Option<&Source> {
        match &self.session()?.part {
            SessionPart::Source(source) => Some(source),
            SessionPart::Idle | SessionPart::Target(_) => None,
        }
    }

    pub(super) fn source_mut(&mut self) -> Option<&mut Source> {
        match &mut self.session_mut()?.part {
            SessionPart::Source(source) => Some(source),
            SessionPart::Idle | SessionPart::Target(_) => None,
        }
    }

    pub(super) fn target(&self) -> Option<&Target> {
        match &self.session()?.part {
            SessionPart::Target(target) => Some(target),
            SessionPart::Idle | SessionPart::Source(_) => None,
        }
    }

    pub(super) fn target_mut(&mut self) -> Option<&mut Target> {
        match &mut self.session_mut()?.part {
            SessionPart::Target(target) => Some(target),
            SessionPart::Idle | SessionPart::Source(_) => None,
        }
    }

    /// What the peer said on this connection.
    pub(super) fn peer_hello(&self) -> Option<&Hello> {
        self.up.as_ref()?.theirs.as_ref()
    }

    pub(super) fn peer_is_primary(&self) -> bool {
        self.peer_hello().is_some_and(|hello| hello.role == Role::Primary)
    }

    /// Whether a chunk that `blocks` touches is being transferred.
    pub(super) fn moves(&self, blocks: BlockRange) -> bool {
        self.source().is_some_and(|source| source.moves(blocks))
    }

    /// Blocks of chunks that are being written here.
    pub(super) fn in_motion(&self, size: ResourceSize) -> impl Iterator<Item = BlockRange> {
        self.target().into_iter().flat_map(Target::chunks).map(move |chunk| chunk.blocks(size))
    }
}

impl<M: MapMemory> Replica<M> {
    /// Whether the session is past its beginning, so that frames of clients may be sent.
    pub(super) fn session_is_running(&self) -> bool {
        matches!(self.link.standing(), Standing::Running { .. })
    }

    /// Whether both copies are the same, but for writes in motion.
    pub(super) fn is_in_sync(&self) -> bool {
        self.link.session().is_some_and(|session| {
            session.is_joined
                && match &session.part {
                    SessionPart::Idle => true,
                    SessionPart::Source(source) => source.is_complete(),
                    SessionPart::Target(target) => target.is_complete(),
                }
        })
    }

    /// Whether the peer's copy is being filled from here, so that it lacks nothing we lack.
    pub(super) fn peer_is_behind(&self) -> bool {
        self.link.source().is_some()
    }

    pub(super) fn on_link_up(
        &mut self,
        id: LinkId,
        nonce: [u8; 32],
        exporter: [u8; 32],
        effects: &mut Effects,
    ) {
        if let Some(old) = &self.link.up {
            let old = old.id;
            effects.push(Effect::CloseLink { link: old, back_off: false });
            self.lose_link(effects);
        }
        self.link.up = Some(Box::new(Up {
            id,
            nonce,
            exporter,
            mine: None,
            counter: 0,
            theirs: None,
            phase: Phase::Draining,
            since: self.now,
            last_heard: self.now,
            last_sent: self.now,
            session: None,
            pledge_seen: 0,
            ended: Vec::new(),
        }));
        if self.records.has_failed() {
            // Whatever a Hello says counts as stable, and the peer goes on by it.
            self.refuse_link(METADATA_LOST, effects);
        } else if self.records.stable().stand_alone || self.desk.is_disconnecting() {
            let text = "an operator disconnected this node";
            self.send_refusal(RefusalCode::Disconnected, text, effects);
            self.close_link(true, effects);
        } else if self.desk.is_stopping() {
            self.send_refusal(RefusalCode::NotReady, "this node stops", effects);
            self.close_link(true, effects);
        }
    }

    pub(super) fn on_link_lost(&mut self, id: LinkId, effects: &mut Effects) {
        if self.link.up.as_ref().is_some_and(|up| up.id == id) {
            self.event("link-lost", "the connection to the peer is lost");
            self.lose_link(effects);
        }
    }

    /// Closes the connection from here.
    pub(super) fn close_link(&mut self, back_off: bool, effects: &mut Effects) {
        if let Some(up) = &self.link.up {
            effects.push(Effect::CloseLink { link: up.id, back_off });
            self.lose_link(effects);
        }
    }

    /// The peer left by itself, or the driver will find out.
    pub(super) fn drop_link(&mut self, effects: &mut Effects) {
        self.close_link(false, effects);
    }

    /// Nothing may be said any more: metadata cannot be trusted.
    pub(super) fn leave_link(&mut self, effects: &mut Effects) {
        effects.push(Effect::Connect(false));
        self.close_link(true, effects);
    }

    /// What belonged to the connection is over.
    fn lose_link(&mut self, effects: &mut Effects) {
        self.end_session();
        self.link.up = None;
        self.exit_lost_link(effects);
        self.desk_lost_link(effects);
    }

    /// What belonged to the session is over. Marks stay, acknowledgements do not count.
    fn end_session(&mut self) {
        self.end_write_session();
        self.flushes.end_session();
        self.verify.end_session();
        self.end_take_over();
        self.orphan_session_writes();
        self.applier.end_session();
        if let Some(exit) = &mut self.role.exit {
            exit.end_session();
        }
        self.io.end_session();
        if let Some(up) = &mut self.link.up
            && let Some(session) = up.session.take()
        {
            up.end(session);
        }
    }

    /// This node's state changed: both say anew what they have.
    pub(super) fn restart_session(&mut self) {
        if self.link.up.is_none() {
            return;
        }
        self.end_session();
        if let Some(up) = &mut self.link.up {
            up.phase = Phase::Draining;
            up.since = self.now;
        }
    }

    /// Sends `message` in the current session.
    pub(super) fn send(&mut self, message: Message, effects: &mut Effects) {
        let record_epoch = self.records.stable().epoch;
        let Some(up) = &mut self.link.up else { return };
        let epoch = match &up.phase {
            Phase::Session(session) => session.epoch,
            Phase::Draining | Phase::Waiting { .. } | Phase::Apart(_) => record_epoch,
        };
        let has_none = matches!(message, Message::Hello(_) | Message::Refusal(_));
        let needs_one = !has_none
            && !matches!(message, Message::Verdict(_) | Message::Ping(_) | Message::Pong(_));
        let is_agreed = matches!(up.phase, Phase::Session(_) | Phase::Apart(_));
        if needs_one && !is_agreed {
            return; // what it answers was asked in a session that is over
        }
        let session = up.session.filter(|_| !has_none).unwrap_or_default();
        up.last_sent = self.now;
        effects.push(Effect::Send { link: up.id, frame: Frame { session, epoch, message } });
    }

    pub(super) fn send_refusal(&mut self, code: RefusalCode, text: &str, effects: &mut Effects) {
        self.send(Message::Refusal(Refusal { code, text: text.to_owned() }), effects);
    }

    /// Refuses what the peer asked and closes the connection.
    pub(super) fn refuse_link(&mut self, text: &str, effects: &mut Effects) {
        self.send_refusal(RefusalCode::NotReady, text, effects);
        self.close_link(true, effects);
    }

    /// Whether a node that serves at `epoch` may not be followed any more by one that promised
    /// another.
    pub(super) fn is_over(&self, epoch: Epoch, promised: Epoch) -> bool {
        epoch < promised && !self.is_planted(super::planted::Planted::LowerEpochAccepted)
    }

    /// The peer speaks for an epoch that this node promised not to follow.
    pub(super) fn refuse_old_epoch(&mut self, effects: &mut Effects) {
        let promised = self.records.stable().promised;
        let node = &self.settings.node;
        let text = format!("{node} promised epoch {promised} and follows none below");
        self.send_refusal(RefusalCode::OldEpoch, &text, effects);
        self.close_link(true, effects);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other message needs a session")]
    pub(super) fn on_peer(&mut self, link: LinkId, frame: Frame, effects: &mut Effects) {
        let Some(up) = &mut self.link.up else { return };
        if up.id != link {
            return;
        }
        up.last_heard = self.now;
        let is_planted = self.settings.is_planted(super::planted::Planted::OldSessionAccepted);
        let result = match &frame.message {
            Message::Hello(_)
            | Message::Verdict(_)
            | Message::Refusal(_)
            | Message::Ping(_)
            | Message::Pong(_) => self.on_message(frame, effects),
            // Said before the peer knew that the session is over.
            _ if up.session.is_none() => Ok(()),
            _ if up.ended.contains(&frame.session) && !is_planted => Ok(()),
            _ if up.session != Some(frame.session) && !is_planted => Err(Fault::OtherSession),
            _ => self.on_message(frame, effects),
        };
        if let Err(fault) = result {
            self.event("protocol-error", fault.to_string());
            self.send_refusal(RefusalCode::Protocol, &fault.to_string(), effects);
            self.close_link(true, effects);
        }
    }

    pub(super) fn on_heard(&mut self, link: LinkId) {
        if let Some(up) = self.link.up.as_mut().filter(|up| up.id == link) {
            up.last_heard = self.now;
        }
    }

    /// The session that runs, if one node follows the other in it: a driver may say things of its own
    /// there.
    pub fn following(&self) -> Option<Following> {
        let up = self.link.up.as_ref()?;
        let session = self.link.session()?;
        let is_source = match &session.part {
            SessionPart::Idle => return None,
            SessionPart::Source(_) => true,
            // Before that its record may say something else than what the session is about.
            SessionPart::Target(_) if session.is_joined => false,
            SessionPart::Target(_) => return None,
        };
        Some(Following { link: up.id, session: up.session?, epoch: session.epoch, is_source })
    }

    /// A message whose session is the current one, or which needs none.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the next function names the rest")]
    fn on_message(&mut self, frame: Frame, effects: &mut Effects) -> Result<(), Fault> {
        let Frame { epoch, message, .. } = frame;
        match message {
            Message::Hello(hello) => self.on_hello(*hello, effects),
            Message::Verdict(verdict) => self.on_verdict(&verdict, effects)?,
            Message::Refusal(refusal) => self.on_refusal(&refusal, effects),
            Message::Ping(beat) => self.on_ping(beat, effects),
            Message::Pong(beat) => self.note_peer_stable(beat),
            Message::ResyncPause(is_paused) => self.on_resync_pause(is_paused),
            Message::Outdate(outdate) => {
                self.check_change_room()?;
                self.on_outdate(outdate, effects);
            }
            Message::OutdateDone(outdate) => self.on_outdate_done(outdate, effects),
            Message::Leave(outdate) => self.on_leave(outdate, effects),
            Message::HandOver(hand) => self.on_hand_over(hand, effects),
            Message::Ask(ask) => {
                self.check_change_room()?;
                self.on_ask(&ask, effects);
            }
            Message::Told(told) => self.on_told(told, effects),
            Message::Pledge(pledge) => self.on_pledge(pledge),
            Message::Pledged(pledge) => self.on_pledged(pledge),
            message => return self.on_bound_message(epoch, message, effects),
        }
        Ok(())
    }

    /// A message that can be a fault.
    fn on_bound_message(
        &mut self,
        epoch: Epoch,
        message: Message,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        match message {
            Message::Write(write) => self.on_write(epoch, write, effects),
            Message::Zero(zero) => self.on_zero(epoch, zero, effects),
            Message::Flush(flush) => self.on_flush(flush),
            Message::Heat(extents) => self.on_heat(&extents),
            Message::Acks(acks) => self.on_acks(&acks, effects),
            Message::FlushDone(done) => self.on_flush_done(done, effects),
            Message::MapPart(part) => self.on_map_part(&part),
            Message::ResyncStart(start) => self.on_resync_start(&start),
            Message::ResyncReady => self.on_resync_ready(),
            Message::HashOffer(offers) => self.on_hash_offer(&offers, effects),
            Message::HashNeed(needs) => self.on_hash_need(&needs, effects),
            Message::ChunkData(data) => self.on_chunk_data(&data),
            Message::ChunkZero(zero) => self.on_chunk_zero(zero),
            Message::ChunkAcks(acks) => self.on_chunk_acks(&acks),
            Message::ResyncEnd(end) => self.on_resync_end(end),
            Message::ResyncDone(end) => self.on_resync_done(&end),
            Message::SettleAsk(ask) => self.on_settle_ask(ask),
            Message::SettleTell(tell) => self.on_settle_tell(&tell, effects),
            Message::HandReady(hand) => self.on_hand_ready(hand),
            Message::HandDone(hand) => self.on_hand_done(hand),
            Message::Hello(_)
            | Message::Verdict(_)
            | Message::Refusal(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::ResyncPause(_)
            | Message::Outdate(_)
            | Message::OutdateDone(_)
            | Message::Leave(_)
            | Message::HandOver(_)
            | Message::Ask(_)
            | Message::Told(_)
            | Message::Pledge(_)
            | Message::Pledged(_) => Ok(()),
            // Of the tree beside a register: whoever keeps that has heard it. There is none here.
            Message::Tree(_) => Ok(()),
        }
    }

    /// Each change of the record that the peer asks for waits for a sync.
    fn check_change_room(&self) -> Result<(), Fault> {
        if self.records.waiting_count() >= CHANGES_MAX {
            return Err(Fault::Credit { what: "changes", limit: CHANGES_MAX as u64 });
        }
        Ok(())
    }

    /// Reads that the peer makes this node begin share threads with clients' reads.
    pub(super) fn check_read_room(&self) -> Result<(), Fault> {
        let limit = READS_PER_CHUNK * self.settings.resync_chunks_max;
        if self.io.session_read_count() >= limit {
            return Err(Fault::Credit { what: "reads", limit: limit as u64 });
        }
        Ok(())
    }

    fn on_ping(&mut self, beat: Beat, effects: &mut Effects) {
        self.note_peer_stable(beat);
        let stable = self.records.stable().applied;
        self.send(Message::Pong(Beat { sent_at: beat.sent_at, stable }), effects);
    }

    /// While the nodes meet this may be newer than what the peer said in its Hello, by which it is judged:
    /// it would look like a copy of yesterday.
    fn note_peer_stable(&mut self, beat: Beat) {
        if self.link.session().is_some() {
            self.link.peer_stable = beat.stable;
        }
    }

    fn on_refusal(&mut self, refusal: &Refusal, effects: &mut Effects) {
        // Its text speaks of "this node" and means the one that says so.
        let why = format!("{} says: {}", self.settings.peer, refusal.text);
        self.event("refused", why.clone());
        let next = self.way_out(refusal.code, true);
        self.link.obstacle = Some(Obstacle { why, next });
        self.close_link(true, effects);
    }

    /// Liveness: pings, and the silence or slowness after which the link counts as lost.
    pub(super) fn tick_link(&mut self, effects: &mut Effects) {
        let Some(up) = &self.link.up else { return };
        let silence = self.now.since(up.last_heard);
        let quiet = self.now.since(up.last_sent);
        let meeting = self.now.since(up.since);
        let oldest = [self.writes.oldest_sent(), self.flushes.oldest_asked()];
        let slowest = oldest.into_iter().flatten().min().map(|at| self.now.since(at));
        let why = if silence >= self.settings.suspect_after {
            Some("the peer is silent")
        } else if slowest.is_some_and(|age| age >= self.settings.peer_timeout()) {
            Some("the peer does not acknowledge")
        } else if self.link.standing() == Standing::Meeting && meeting >= self.settings.io_timeout {
            // Nothing starts here meanwhile, so neither side may try again at once: in the pause a
            // primary goes on alone.
            let why = "the nodes did not get ready to meet in time";
            self.event("link-lost", why);
            self.refuse_link(why, effects);
            return;
        } else {
            None
        };
        if let Some(why) = why {
            self.event("link-lost", why);
            self.close_link(false, effects);
        } else if quiet >= self.settings.ping_interval {
            let stable = self.records.stable().applied;
            self.send(Message::Ping(Beat { sent_at: self.now.0, stable }), effects);
        }
    }

    /// The peer's disk failed: its acknowledgements count no more, and it will say so in a Hello.
    pub(super) fn peer_disk_failed(&mut self) {
        self.event("peer-disk-failed", "the peer's disk failed");
        self.restart_session();
    }
}

/// Why a node meets nobody that cannot make anything stable.
const METADATA_LOST: &str = "this node cannot write its metadata; restart its daemon once it can";
/// Sessions of this connection whose late frames are dropped without a word.
const ENDED_MAX: usize = 16;
/// Changes of the record that may wait when the peer asks for another one.
const CHANGES_MAX: usize = 64;
/// Reads under way for this session and for those that are over, per chunk that may be in motion:
/// a source has one for each, a target and a verify two, and some may be left from before.
const READS_PER_CHUNK: usize = 8;
