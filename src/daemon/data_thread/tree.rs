//! A directory on its data thread: what of the core's effects and of the peer's messages is the tree's.

use std::task::Context;

use bytes::Bytes;
use tracing::warn;

use super::super::clock;
use super::super::tree::{Around, Deed, TreeDesk};
use super::DataThread;
use crate::replica::{Effect, Event, Input};
use crate::wire::message::{Frame, Message};

impl DataThread {
    /// What the peer says about the tree goes past the core, which only hears that the peer lives.
    pub(super) fn take_tree_message(&mut self, input: Input) -> Input {
        let Some(tree) = &mut self.tree else { return input };
        match input {
            Input::Peer { link, frame: Frame { session, message: Message::Tree(message), .. } } => {
                let following = self.core.following();
                // What is said in another session is about something that is over.
                if following.is_some_and(|it| it.link == link && it.session == session) {
                    tree.on_message(message);
                }
                Input::Heard { link }
            }
            input => input,
        }
    }

    pub(super) fn poll_tree(&mut self, cx: &mut Context<'_>) {
        let Some(tree) = &mut self.tree else { return };
        let around = Around {
            now: clock::now(),
            serve_mode: self.core.superblock().serve_mode,
            accepts_requests: self.core.accepts_requests(),
            export_epoch: self.export_epoch,
            queued: self.link.as_ref().map(|(_, connection)| connection.queued_bytes()),
        };
        tree.poll(cx, around);
        self.carry_out_deeds();
    }

    /// Does what the desk of the tree wants done.
    pub(super) fn carry_out_deeds(&mut self) {
        while let Some(deed) = self.tree.as_mut().and_then(TreeDesk::next_deed) {
            let done = match deed {
                Deed::Input(input) => {
                    self.inputs.push_back(input);
                    None
                }
                Deed::Write { io, block } => {
                    let range = self.core.size().whole();
                    self.store.write(io, range, Bytes::copy_from_slice(&*block))
                }
                Deed::Sync { io } => self.store.sync_data(io),
                Deed::Say { to, message } => {
                    let message = Message::Tree(message);
                    let frame = Frame { session: to.session, epoch: to.epoch, message };
                    if let Some((id, connection)) = &mut self.link
                        && *id == to.link
                    {
                        connection.send(&frame);
                    }
                    None
                }
                Deed::CloseLink { what } => {
                    warn!(resource = %self.ends.name, what, "the peer broke a rule");
                    if let Some((link, _)) = &self.link {
                        let link = *link;
                        self.close_link(link, true);
                        self.inputs.push_back(Input::LinkLost { link });
                    }
                    None
                }
                Deed::Answer { request, result } => {
                    self.answer(request, result);
                    None
                }
                Deed::Event { kind, reason } => {
                    self.tell(Event { kind, epoch: self.core.superblock().epoch, reason });
                    None
                }
            };
            if let Some(completion) = done {
                self.complete(completion);
            }
        }
    }

    /// What of a directory is not done with a data file and clients; gives back the rest.
    pub(super) fn carry_out_by_tree(&mut self, effect: Effect) -> Option<Effect> {
        let Some(tree) = &mut self.tree else { return Some(effect) };
        match effect {
            Effect::Write { io, range, bytes } => tree.on_write(io, range, &bytes),
            Effect::Zero { io, range, kind: _ } => tree.on_zero(io, range),
            Effect::SyncData { io } => tree.on_sync(io),
            Effect::Reply { request, result } => tree.on_reply(request, result),
            Effect::OpenExport(grant) => {
                self.export_epoch = Some(grant.epoch());
                tree.on_open();
            }
            Effect::CloseExport(closing) => {
                self.export_epoch = None;
                tree.on_close(closing);
            }
            Effect::Settle => tree.on_settle(),
            effect => return Some(effect),
        }
        self.has_news = true;
        None
    }
}
