//! Growing while it runs: the resource gets longer on both nodes, or on neither.
//!
//! The node where it was typed makes room, then asks the peer to; who has room says so in its
//! record (`size_next`), and only when both do the size changes: first on the node that is not
//! primary, so that no frame of the primary is behind the end there. Each node adopts a size the
//! moment its record has it. Whatever interrupts this ends the session, and the next meeting
//! decides from both records ([`agreed_size`]): it goes forward if both have room or one has the
//! new size, else back. A node that is shorter than its peer grows before it concludes, which is
//! also how it catches up with a resize of a primary that was alone. A longer file is harmless.

use std::hash::{Hash, Hasher};

use super::desk::{answer, refuse};
use super::effect::{Effect, GrowFailed, LinkId, Ticket};
use super::exit::Asker;
use super::planted::Planted;
use super::records::Change;
use super::session::Standing;
use super::{Effects, Replica};
use crate::metadata::{DirtyMap, MapMemory};
use crate::units::{
    RESOURCE_LEN_MAX, ResourceId, ResourceSize, ServeMode, SessionId, written_size,
};
use crate::wire::message::{Ask, Hello, Message, PeerCommand, Told};

/// A resize under way, and what was prepared for one.
#[derive(Clone, Debug)]
pub(super) struct Resize<M> {
    /// Room is being made for this size.
    growing: Option<(Ticket, ResourceSize)>,
    /// The longer map that the driver handed over; [`super::Input::Grown`] says what for.
    handed: Option<M>,
    /// There is room for this size, and this is the map that is used then.
    room: Option<(ResourceSize, M)>,
    order: Option<Order>,
    /// On this connection no room could be made to follow the peer, for this reason.
    trouble: Option<(LinkId, String)>,
}

/// A resize that somebody asked for.
#[derive(Clone, Copy, Debug, Hash)]
struct Order {
    asker: Asker,
    size: ResourceSize,
    /// The session it belongs to; `None` for a primary that is alone.
    session: Option<SessionId>,
    step: Step,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Step {
    /// Room is being made.
    Growing,
    /// The peer was asked to make room, with this request.
    PeerPrepares(u64),
    /// The record is to say that there is room.
    Recording,
    /// The peer knows that there is room here; it says what follows.
    Prepared,
    /// The record is to have the new size.
    Committing,
    /// The peer was asked to have it, with this request.
    PeerCommits(u64),
}

/// The maps differ from the one in use by their length only.
impl<M> Hash for Resize<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.growing.map(|(_, size)| size), &self.order, &self.trouble).hash(state);
        (self.handed.is_some(), self.room.as_ref().map(|(size, _)| *size)).hash(state);
    }
}

impl<M> Default for Resize<M> {
    fn default() -> Self {
        Self { growing: None, handed: None, room: None, order: None, trouble: None }
    }
}

impl<M> Resize<M> {
    /// An operator says that what stood in the way is gone.
    pub(super) fn try_again(&mut self) {
        self.trouble = None;
    }

    fn has_room(&self, size: ResourceSize) -> bool {
        self.growing.is_none() && self.room.as_ref().is_some_and(|(room, _)| *room == size)
    }
}

/// The size that two nodes have after they met, in bytes, given size and `size_next` of both. Only
/// if both have room a resize goes forward; else the longer one is right, since it has that size
/// only if both had room, or if it was a primary alone.
fn agreed_size(mine: (u64, u64), theirs: (u64, u64)) -> u64 {
    let longer = mine.0.max(theirs.0);
    if mine == theirs { longer.max(mine.1) } else { longer }
}

impl<M: MapMemory> Replica<M> {
    /// Takes the longer map, mapped anew; [`super::Input::Grown`] follows.
    pub fn hand_map(&mut self, memory: M) {
        self.resize.handed = Some(memory);
    }

    /// Whether the size may change in this session, so that both nodes may disagree on the end.
    pub(super) fn is_resizing(&self) -> bool {
        self.resize.order.is_some() || self.records.stable().size_next != 0
    }

    /// `resize`, typed here.
    pub(super) fn on_resize(&mut self, request: u64, bytes: u64, effects: &mut Effects) {
        if bytes == self.size.bytes() {
            answer(request, "it has that size already", effects);
            return;
        }
        match self.check_resize(bytes) {
            Ok(size) => self.begin_resize(Asker::Local(request), size, effects),
            Err((why, next)) => refuse(request, &why, &next, effects),
        }
    }

    /// The peer wants to grow: this node makes room first.
    pub(super) fn on_resize_prepare(&mut self, there: Asker, bytes: u64, effects: &mut Effects) {
        match self.check_resize(bytes) {
            Ok(size) if self.is_in_sync() => self.begin_resize(there, size, effects),
            Ok(_) => self.answer_refused(there, "the nodes are not in sync", effects),
            Err((why, _)) => self.answer_refused(there, &why, effects),
        }
    }

    /// There is room on both nodes: the peer asks for the new size.
    pub(super) fn on_resize_commit(&mut self, there: Asker, bytes: u64, effects: &mut Effects) {
        self.drop_void_order(effects);
        match &mut self.resize.order {
            Some(order) if order.step == Step::Prepared && order.size.bytes() == bytes => {
                order.asker = there;
                self.commit();
            }
            Some(_) | None => self.answer_refused(there, "no room was made for it", effects),
        }
    }

    /// Why this node cannot grow to so many bytes now, and what to type.
    fn check_resize(&self, bytes: u64) -> Result<ResourceSize, (String, String)> {
        let resource = &self.settings.resource;
        let status = format!("hotpair status {resource} --watch");
        let now = self.size.bytes();
        let Some(size) = ResourceSize::new(bytes) else {
            let why = format!("a resource has at most {RESOURCE_LEN_MAX} bytes");
            return Err((why, "type a smaller --size, or split the data over several".to_owned()));
        };
        if size <= self.size {
            let why = format!("a resource only grows, and this one has {now} bytes");
            let next = "for less, make another resource and copy the data".to_owned();
            return Err((why, next));
        }
        let why = if self.is_resizing() || self.resize.growing.is_some() {
            "a resize is under way"
        } else if self.verify.compared().is_some() {
            "a verify is running"
        } else if self.role_is_changing() {
            "a change of role is under way"
        } else if !self.is_in_sync() && !self.is_alone() {
            "the nodes are not in sync, and this node is no primary that serves alone"
        } else {
            return Ok(size);
        };
        Err((why.to_owned(), status))
    }

    fn role_is_changing(&self) -> bool {
        self.role.is_changing()
            || self.role.promoting.is_some()
            || self.role.take_over.is_some()
            || self.role.exit.is_some()
    }

    /// Whether this node serves without the peer, which learns of all that when it comes back.
    fn is_alone(&self) -> bool {
        self.role.is_primary()
            && self.records.stable().serve_mode == ServeMode::Solo
            && matches!(self.link.standing(), Standing::Down | Standing::Apart)
    }

    pub(super) fn session_now(&self) -> Option<SessionId> {
        self.link.up.as_ref()?.session
    }

    fn begin_resize(&mut self, asker: Asker, size: ResourceSize, effects: &mut Effects) {
        let session = self.session_now().filter(|_| self.is_in_sync());
        self.resize.order = Some(Order { asker, size, session, step: Step::Growing });
        self.event("resizing", format!("room is made for {} bytes", size.bytes()));
        self.grow(size, effects);
    }

    fn grow(&mut self, new: ResourceSize, effects: &mut Effects) {
        let ticket = self.io.slow_ticket();
        self.resize.growing = Some((ticket, new));
        effects.push(Effect::Grow { ticket, old: self.size, new });
    }

    /// Room was made, or could not be.
    pub(super) fn on_grown(
        &mut self,
        ticket: Ticket,
        result: Result<(), GrowFailed>,
        effects: &mut Effects,
    ) {
        let Some((_, size)) = self.resize.growing.take_if(|(waiting, _)| *waiting == ticket) else {
            return;
        };
        let memory = self.resize.handed.take();
        if result.is_ok() {
            let memory = memory.expect("the driver hands the map over before it says so");
            self.resize.room = Some((size, memory));
        }
        self.drop_void_order(effects);
        let order = self.resize.order.filter(|it| it.step == Step::Growing && it.size == size);
        match (order, result) {
            (Some(_), Ok(())) => self.go_on_with_room(effects),
            (Some(_), Err(failed)) => self.refuse_order(&failed.to_string(), effects),
            (None, result) => self.on_grown_for_meeting(size, result),
        }
    }

    fn go_on_with_room(&mut self, effects: &mut Effects) {
        let Some(order) = self.resize.order else { return };
        match (order.asker, order.session) {
            (_, None) => self.commit(),
            (Asker::Peer(_), Some(_)) => self.record_room(),
            (Asker::Local(_), Some(_)) => {
                let request = self.desk.next_ask();
                self.set_step(Step::PeerPrepares(request));
                let command = PeerCommand::ResizePrepare(order.size.bytes());
                self.send(Message::Ask(Ask { request, command }), effects);
            }
        }
    }

    fn set_step(&mut self, step: Step) {
        if let Some(order) = &mut self.resize.order {
            order.step = step;
        }
    }

    fn record_room(&mut self) {
        let Some(order) = self.resize.order else { return };
        self.set_step(Step::Recording);
        self.records.change(Change::SizeNext(order.size.bytes()));
    }

    /// The record says whether there is room.
    pub(super) fn on_room_recorded(&mut self, effects: &mut Effects) {
        self.drop_void_order(effects);
        if let Some(order) = self.resize.order.filter(|order| order.step == Step::Recording) {
            match order.asker {
                Asker::Peer(request) => {
                    self.set_step(Step::Prepared);
                    self.tell(request, Ok(None), effects);
                }
                Asker::Local(_) if self.role.is_primary() => self.ask_to_commit(effects),
                Asker::Local(_) => self.commit(),
            }
        } else if self.link.standing() == Standing::Meeting {
            self.restart_session();
        }
    }

    fn ask_to_commit(&mut self, effects: &mut Effects) {
        let Some(order) = self.resize.order else { return };
        let request = self.desk.next_ask();
        self.set_step(Step::PeerCommits(request));
        let command = PeerCommand::ResizeCommit(order.size.bytes());
        self.send(Message::Ask(Ask { request, command }), effects);
    }

    fn commit(&mut self) {
        let Some(order) = self.resize.order else { return };
        self.set_step(Step::Committing);
        self.records.change(Change::Size(order.size.bytes()));
    }

    /// The record has the new size, and this node adopted it.
    pub(super) fn on_size_recorded(&mut self, effects: &mut Effects) {
        let Some(order) = self.resize.order.filter(|order| order.step == Step::Committing) else {
            return;
        };
        let peer_is_next = order.session.is_some() && !self.role.is_primary();
        match order.asker {
            Asker::Local(_) if peer_is_next => self.ask_to_commit(effects),
            Asker::Local(_) | Asker::Peer(_) => self.finish_resize(effects),
        }
    }

    /// The peer's answer to what this node asked it; says whether it is one.
    pub(super) fn on_resize_told(&mut self, told: &Told, effects: &mut Effects) -> bool {
        self.drop_void_order(effects);
        let Some(order) = self.resize.order else { return false };
        let is_last = match order.step {
            Step::PeerPrepares(request) if request == told.request => false,
            Step::PeerCommits(request) if request == told.request => true,
            Step::Growing
            | Step::PeerPrepares(_)
            | Step::Recording
            | Step::Prepared
            | Step::Committing
            | Step::PeerCommits(_) => return false,
        };
        if let Some(why) = &told.refused {
            let why = format!("{}: {why}", self.settings.peer);
            self.refuse_order(&why, effects);
        } else if !is_last {
            self.record_room();
        } else if self.size == order.size {
            self.finish_resize(effects);
        } else {
            self.commit();
        }
        true
    }

    fn finish_resize(&mut self, effects: &mut Effects) {
        let Some(order) = self.resize.order.take() else { return };
        let size = order.size.bytes();
        let text = format!(
            "the size is {size} bytes, and clients see it when they connect again; write size = \
             \"{}\" into the configuration of both nodes before a daemon starts again",
            written_size(size)
        );
        self.answer_done(order.asker, &text, effects);
    }

    fn refuse_order(&mut self, why: &str, effects: &mut Effects) {
        let Some(order) = self.resize.order.take() else { return };
        self.event("resize-refused", why);
        match order.asker {
            Asker::Local(request) => {
                let next = format!("hotpair status {}", self.settings.resource);
                refuse(request, why, &next, effects);
            }
            // It was told already, or finds out by itself that the session is over.
            Asker::Peer(_) if order.step == Step::Prepared => {}
            Asker::Peer(_) if order.session != self.session_now() => {}
            Asker::Peer(_) => self.answer_refused(order.asker, why, effects),
        }
    }

    /// Gives up an order that cannot go on; so every wait of it has an end.
    pub(super) fn pump_resize(&mut self, effects: &mut Effects) {
        self.drop_void_order(effects);
    }

    /// What was decided before a wait is decided again.
    fn drop_void_order(&mut self, effects: &mut Effects) {
        let Some(order) = self.resize.order else { return };
        let is_there = match order.session {
            None => self.is_alone(),
            Some(_) => order.session == self.session_now() && self.is_in_sync(),
        };
        let why = if self.background.disk_has_failed() {
            "the local disk failed"
        } else if order.step == Step::Committing || (is_there && !self.desk.is_stopping()) {
            return;
        } else if self.desk.is_stopping() {
            "this daemon stops"
        } else if order.session.is_none() {
            "the peer came back meanwhile: type it again when both are in sync"
        } else {
            "the connection was lost or began anew; when both nodes have met again they have one \
             size, the old one or the new one"
        };
        self.refuse_order(why, effects);
    }

    /// The record has another size: this node has it from here on.
    pub(super) fn adopt_size(&mut self) {
        let bytes = self.records.stable().size;
        if bytes == self.size.bytes() {
            return;
        }
        let (size, memory) = self.resize.room.take().expect("room is made before it is recorded");
        assert_eq!(size.bytes(), bytes, "the record has the size that there is room for");
        self.size = size;
        if self.is_planted(Planted::MarksLostByResize) {
            self.dirty = DirtyMap::open(memory, size).expect("it was made for this size");
        } else {
            self.dirty.grow(memory, size);
        }
        self.background.note_change();
        self.event("resized", format!("the size is {bytes} bytes"));
    }

    /// Whether a verdict can be acted upon: there is room for the size that it gives this node.
    pub(super) fn has_room_for_meeting(&self, mine: &Hello, theirs: &Hello) -> bool {
        let Some(wanted) = self.growth_at_meeting(mine, theirs) else { return true };
        mine.size_next == wanted.bytes() && self.resize.has_room(wanted)
    }

    /// The size to which this node must grow to go on with the peer. `None` if it need not, or may
    /// not: then the sizes do not fit, and the verdict says so.
    fn growth_at_meeting(&self, mine: &Hello, theirs: &Hello) -> Option<ResourceSize> {
        let wanted = agreed_size((mine.size, mine.size_next), (theirs.size, theirs.size_next));
        let wanted = ResourceSize::new(wanted).filter(|wanted| *wanted > self.size)?;
        let is_fresh = mine.resource_id == ResourceId::default();
        let is_known =
            theirs.generation.is_some() && (is_fresh || mine.resource_id == theirs.resource_id);
        let is_recorded = mine.size_next == wanted.bytes();
        let is_in_trouble =
            self.link.up.as_ref().is_some_and(|up| Some(up.id) == self.link_in_trouble());
        (is_recorded || (is_known && !is_in_trouble)).then_some(wanted)
    }

    fn link_in_trouble(&self) -> Option<LinkId> {
        self.resize.trouble.as_ref().map(|(link, _)| *link)
    }

    /// The peer is longer, or a resize goes forward: room first, then another Hello.
    pub(super) fn make_room_for_meeting(&mut self, effects: &mut Effects) {
        let Some(up) = &self.link.up else { return };
        let (Some(mine), Some(theirs)) = (&up.mine, &up.theirs) else { return };
        if let Some(wanted) = self.growth_at_meeting(mine, theirs)
            && self.resize.growing.is_none()
        {
            if self.resize.has_room(wanted) && self.records.is_idle() {
                // Made for an earlier meeting, which ended before that.
                self.records.change(Change::SizeNext(wanted.bytes()));
                return;
            }
            self.event("resizing", format!("room is made for {} bytes", wanted.bytes()));
            self.grow(wanted, effects);
        }
    }

    fn on_grown_for_meeting(&mut self, size: ResourceSize, result: Result<(), GrowFailed>) {
        let Some(up) = &self.link.up else { return };
        let (Some(mine), Some(theirs)) = (&up.mine, &up.theirs) else { return };
        if self.link.standing() != Standing::Meeting {
            return;
        }
        if self.growth_at_meeting(mine, theirs) != Some(size) {
            self.restart_session(); // it was made for an order, and the meeting waited for it
            return;
        }
        let recorded = self.records.stable().size_next;
        match result {
            Ok(()) if recorded != size.bytes() => {
                self.records.change(Change::SizeNext(size.bytes()));
            }
            Ok(()) => self.restart_session(),
            Err(failed) => {
                let why = format!("this node cannot grow to {} bytes: {failed}", size.bytes());
                self.event("resize-refused", why.clone());
                self.resize.trouble = self.link.up.as_ref().map(|up| (up.id, why));
                if recorded == 0 {
                    self.restart_session();
                } else {
                    self.records.change(Change::SizeNext(0));
                }
            }
        }
    }

    /// Why the sizes do not fit, if this node knows better.
    pub(super) fn why_refused(&self, reason: String) -> String {
        match (&self.resize.trouble, &self.link.up) {
            (Some((link, why)), Some(up)) if *link == up.id => {
                format!("{why}; then type `hotpair connect {}` here", self.settings.resource)
            }
            (Some(_) | None, _) => reason,
        }
    }

    /// The size that both have once this meeting is on record.
    pub(super) fn size_after_meeting(&self) -> u64 {
        let record = self.records.stable();
        let mine = (record.size, record.size_next);
        self.link
            .peer_hello()
            .map_or(record.size, |theirs| agreed_size(mine, (theirs.size, theirs.size_next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_nodes_agree_on_one_size_and_neither_gets_shorter() {
        let sizes = || (1..4).flat_map(|size| [(size, 0), (size, size + 1), (size, size + 2)]);
        for mine in sizes() {
            for theirs in sizes() {
                let agreed = agreed_size(mine, theirs);
                assert_eq!(agreed, agreed_size(theirs, mine), "{mine:?} {theirs:?}");
                assert!(agreed >= mine.0.max(theirs.0));
                // Grown once, both have it.
                assert_eq!(agreed_size((agreed, 0), theirs), agreed, "{mine:?} {theirs:?}");
            }
        }
    }

    #[test]
    fn it_goes_forward_if_both_have_room_or_one_has_the_size_and_else_back() {
        assert_eq!(agreed_size((8, 9), (8, 9)), 9);
        assert_eq!(agreed_size((8, 9), (9, 0)), 9);
        assert_eq!(agreed_size((8, 9), (8, 0)), 8);
        assert_eq!(agreed_size((8, 9), (8, 10)), 8);
        assert_eq!(agreed_size((8, 0), (12, 0)), 12);
    }
}
