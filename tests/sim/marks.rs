//! Sometimes: proof that rare paths ran.
//!
//! A check that never had anything to check proves nothing, so each path that matters leaves a
//! mark, and the sum over all seeds is printed.

use std::collections::BTreeMap;

use hotpair::replica::{Closing, Effect};
use hotpair::units::Transfer;
use hotpair::wire::message::{HandOver, Message};

/// How often each path ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    counts: BTreeMap<&'static str, u64>,
}

impl Marks {
    /// This path ran.
    pub(crate) fn add(&mut self, mark: &'static str) {
        *self.counts.entry(mark).or_default() += 1;
    }

    /// How often this path ran.
    pub(crate) fn count(&self, mark: &str) -> u64 {
        self.counts.get(mark).copied().unwrap_or_default()
    }

    /// Adds those of another world.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mark, count) in &other.counts {
            *self.counts.entry(mark).or_default() += count;
        }
    }

    /// All of them, for people.
    pub(crate) fn list(&self) -> String {
        let words: Vec<String> =
            self.counts.iter().map(|(mark, count)| format!("{mark} {count}")).collect();
        words.join(", ")
    }

    /// Notes what an effect shows.
    pub(crate) fn see(&mut self, effect: &Effect) {
        match effect {
            Effect::Send { frame, .. } => self.see_message(&frame.message),
            Effect::AppendLog { append, .. } if append.bytes.len() > 4096 => {
                self.add("activity log changes its area");
            }
            Effect::CloseExport(Closing::Fenced) => self.add("export closes fenced"),
            Effect::CloseExport(Closing::Drained) => self.add("export closes drained"),
            Effect::Event(event) if event.kind == "forced" => self.add("forced"),
            Effect::Event(event) if event.kind == "failback" => self.add("failback"),
            Effect::Event(event) if event.kind == "failback-failed" => self.add("failback failed"),
            Effect::Event(event) if event.kind == "flap-limit" => self.add("flap limit"),
            Effect::Event(event) if event.kind == "stop-without-switchover" => {
                self.add("stop without a switchover");
            }
            Effect::Event(event) if event.kind == "resized" => self.add("resized"),
            Effect::Event(event) if event.kind == "resize-refused" => self.add("resize refused"),
            Effect::Event(event) if event.kind.contains("split") => self.add("split brain event"),
            _ => {}
        }
    }

    fn see_message(&mut self, message: &Message) {
        match message {
            Message::ResyncStart(start) => self.add(match start.transfer {
                Transfer::Replay => "replay",
                Transfer::Resync => "resync",
                Transfer::ResyncAll => "resync of everything",
            }),
            Message::ResyncDone(_) => self.add("transfer done"),
            Message::HandDone(HandOver { .. }) => self.add("handover"),
            Message::Refusal(_) => self.add("refusal"),
            Message::OutdateDone(_) => self.add("veto given"),
            Message::ChunkAcks(acks) => {
                use hotpair::wire::message::ChunkStage;
                if acks.iter().any(|ack| ack.stage == ChunkStage::Again) {
                    self.add("chunk asked again");
                }
            }
            _ => {}
        }
    }
}
