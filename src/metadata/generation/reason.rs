//! Why a row matched, in words for people.

use super::Standpoint;
use crate::units::Side;

/// Why a row matched. Where there is a node, it is the one that the sentence is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    SamePlace,
    OtherResource,
    SameReplica,
    Size,
    Contradiction,
    NoDisk(Side),
    BothFresh,
    Fresh(Side),
    NoUsableCopy,
    Resolved(Side),
    BothPrimary,
    Resume(Side),
    SourceWentBack(Side),
    FilledFromElsewhere(Side),
    Unrelated,
    Diverged,
    Ahead(Side),
    Proven,
    BothBackInTime,
    BackInTime(Side),
    Doubtful(Side),
    Primary(Side),
    BothLostPower(Side),
    ServedLast(Side),
    UpToDate(Side),
    AppliedMore(Side),
    NothingTellsApart(Side),
    TargetIsPrimary(Side),
}

impl Why {
    /// A sentence as `mine` says it: the nodes are "this node" and "the peer", and commands name
    /// [`super::RESOURCE`].
    pub(super) fn sentence(self, mine: &Standpoint, theirs: &Standpoint) -> String {
        let (subject, sentence) = self.template();
        let is_mine = subject == Some(mine.side);
        let (node, other) =
            if is_mine { ("this node", "the peer") } else { ("the peer", "this node") };
        let sentence = sentence.replace("{node}", node).replace("{other}", other);
        match self.numbers(mine, theirs) {
            Some(numbers) => format!("{sentence} ({numbers})"),
            None => sentence,
        }
    }

    /// What an operator types about it at `mine`, if anything: [`super::RESOURCE`] stands for the
    /// name of the resource, [`super::PEER`] for that of the peer. The sentence has the command too;
    /// here it comes with what it needs, as that `init` needs a daemon that is stopped.
    pub(super) fn mend(self, mine: &Standpoint, theirs: &Standpoint) -> Option<String> {
        let at = |side: Side| if side == mine.side { "" } else { "on PEER: " };
        let anew = |place: &str| {
            format!(
                "{place}: stop hotpair, type hotpair init RESOURCE --from peer --rebuild, and \
                 start it again"
            )
        };
        match self {
            Self::SameReplica => Some(anew("on the copy")),
            Self::Contradiction => Some(anew("on the node that is not genuine")),
            Self::Unrelated | Self::BothBackInTime => {
                Some(anew("on the node whose data may be overwritten"))
            }
            Self::FilledFromElsewhere(side) => {
                Some(anew(if side == mine.side { "here" } else { "on PEER" }))
            }
            Self::OtherResource => Some(
                "make `path` and `state_dir` right in the configuration of both nodes, check it \
                 with hotpair config check, and restart both daemons"
                    .to_owned(),
            ),
            Self::Size if mine.size < theirs.size => {
                Some("make room for the greater size, then type: hotpair connect RESOURCE".into())
            }
            Self::Size | Self::NoDisk(_) => Some("on PEER: hotpair explain RESOURCE".to_owned()),
            Self::BothFresh | Self::NoUsableCopy => Some(
                "on the node whose data file is to be taken as it is: stop hotpair, type hotpair \
                 init RESOURCE --from this --rebuild, and start it again"
                    .to_owned(),
            ),
            Self::BothPrimary => {
                let lower = if mine.epoch < theirs.epoch { mine.side } else { theirs.side };
                Some(format!("{}hotpair demote RESOURCE", at(lower)))
            }
            Self::TargetIsPrimary(side) => Some(format!("{}hotpair demote RESOURCE", at(side))),
            Self::SourceWentBack(_) | Self::Diverged => {
                Some("hotpair split-brain show RESOURCE".to_owned())
            }
            Self::SamePlace
            | Self::Fresh(_)
            | Self::Resolved(_)
            | Self::Resume(_)
            | Self::Ahead(_)
            | Self::Proven
            | Self::BackInTime(_)
            | Self::Doubtful(_)
            | Self::Primary(_)
            | Self::BothLostPower(_)
            | Self::ServedLast(_)
            | Self::UpToDate(_)
            | Self::AppliedMore(_)
            | Self::NothingTellsApart(_) => None,
        }
    }

    /// Who "{node}" is, and what is said of it.
    #[expect(clippy::too_many_lines, reason = "a table reads best in one piece")]
    fn template(self) -> (Option<Side>, &'static str) {
        match self {
            Self::SamePlace => {
                (None, "both nodes have the same place in the pair: give them different names")
            }
            Self::OtherResource => {
                (None, "these are two resources: check the paths of data and metadata on both")
            }
            Self::SameReplica => (
                None,
                "both nodes have the same replica, so one is a copy of the other's disk: type \
                 `hotpair init RESOURCE --from peer --rebuild` on the copy",
            ),
            Self::Size => (
                None,
                "the sizes differ, and no resize between them is under way: make `size` and both \
                 files agree",
            ),
            Self::Contradiction => (
                None,
                "each node's record says that it was made from the other's data, so one of them \
                 is not genuine: type `hotpair init RESOURCE --from peer --rebuild` on the node \
                 that has it",
            ),
            Self::NoDisk(side) => {
                (Some(side), "there is no usable disk on {node}; {other} may serve alone")
            }
            Self::BothFresh => (
                None,
                "neither node has data: type `hotpair init RESOURCE --from this --rebuild` on the \
                 one to begin with",
            ),
            Self::Fresh(side) => (Some(side), "{node} has no data yet: all of it is compared"),
            Self::NoUsableCopy => {
                let sentence = "neither node has a complete copy, so neither can fill the other: \
                                put a backup in the place of one, and type `hotpair init RESOURCE \
                                --from this --rebuild` there";
                (None, sentence)
            }
            Self::Resolved(side) => {
                (Some(side), "an operator settled the split brain: the data of {node} is kept")
            }
            Self::BothPrimary => (
                None,
                "both nodes are primary: type `hotpair demote RESOURCE` on the one with the lower \
                 epoch",
            ),
            Self::Resume(side) => {
                (Some(side), "{node} was being filled when the link was lost: that goes on")
            }
            Self::SourceWentBack(side) => (
                Some(side),
                "{node} was being filled from data that {other} no longer has: type `hotpair \
                 split-brain show RESOURCE`",
            ),
            Self::FilledFromElsewhere(side) => (
                Some(side),
                "{node} was being filled from data that {other} never had: type `hotpair init \
                 RESOURCE --from peer --rebuild` on {node}",
            ),
            Self::Unrelated => (
                None,
                "the copies have no common past: type `hotpair init RESOURCE --from peer \
                 --rebuild` on the node whose data may be overwritten",
            ),
            Self::Diverged => {
                let sentence = "both nodes wrote what the other lacks: type `hotpair split-brain show RESOURCE`";
                (None, sentence)
            }
            Self::Ahead(side) => (Some(side), "{node} has written what {other} lacks"),
            Self::Proven => (None, "both nodes have the same data"),
            Self::BothBackInTime => (
                None,
                "each node is older than the other one knows it, or its data was declared \
                 invalid: type `hotpair init RESOURCE --from peer --rebuild` on the node whose \
                 data may be overwritten",
            ),
            Self::BackInTime(side) => (
                Some(side),
                "{node} is older than {other} knows it, or its data was declared invalid: all of \
                 it is compared",
            ),
            Self::Doubtful(side) => {
                (Some(side), "{node} lost power or memory, and {other} did not")
            }
            Self::Primary(side) => (Some(side), "both have one generation, and {node} is primary"),
            Self::BothLostPower(side) => {
                (Some(side), "both lost power; unflushed writes may be missing; {node} served last")
            }
            Self::ServedLast(side) => {
                (Some(side), "both have one generation, and {node} served last")
            }
            Self::UpToDate(side) => (
                Some(side),
                "both have one generation, and {node} is up-to-date while {other} is outdated",
            ),
            Self::AppliedMore(side) => {
                (Some(side), "both have one generation, and {node} has applied more writes")
            }
            Self::NothingTellsApart(side) => (
                Some(side),
                "nothing tells the nodes apart: {node} is taken because its name sorts first",
            ),
            Self::TargetIsPrimary(side) => (
                Some(side),
                "{node} is primary, and its data would be overwritten by that of {other}: type \
                 `hotpair demote RESOURCE` on {node} first",
            ),
        }
    }

    /// What the two nodes say where they disagree.
    fn numbers(self, mine: &Standpoint, theirs: &Standpoint) -> Option<String> {
        let (here, there) = match self {
            Self::OtherResource => {
                (format!("{:032x}", mine.resource_id.0), format!("{:032x}", theirs.resource_id.0))
            }
            Self::SameReplica => {
                (format!("{:032x}", mine.replica_id.0), format!("{:032x}", theirs.replica_id.0))
            }
            Self::Size => (format!("{} bytes", mine.size), format!("{} bytes", theirs.size)),
            Self::BothPrimary => {
                (format!("epoch {}", mine.epoch), format!("epoch {}", theirs.epoch))
            }
            Self::Unrelated | Self::Diverged | Self::Ahead(_) => (current(mine), current(theirs)),
            Self::SamePlace
            | Self::Contradiction
            | Self::NoDisk(_)
            | Self::BothFresh
            | Self::Fresh(_)
            | Self::NoUsableCopy
            | Self::Resolved(_)
            | Self::Resume(_)
            | Self::SourceWentBack(_)
            | Self::FilledFromElsewhere(_)
            | Self::Proven
            | Self::BothBackInTime
            | Self::BackInTime(_)
            | Self::Doubtful(_)
            | Self::Primary(_)
            | Self::BothLostPower(_)
            | Self::ServedLast(_)
            | Self::UpToDate(_)
            | Self::AppliedMore(_)
            | Self::NothingTellsApart(_)
            | Self::TargetIsPrimary(_) => return None,
        };
        let since = if self == Self::Diverged {
            format!(", both from {}", common(mine, theirs))
        } else {
            String::new()
        };
        Some(format!("{here} here, {there} on the peer{since}"))
    }
}

fn current(node: &Standpoint) -> String {
    node.generation.map_or_else(|| "nothing".into(), |generation| generation.to_string())
}

fn common(mine: &Standpoint, theirs: &Standpoint) -> String {
    let ancestor = mine
        .lineage()
        .zip(theirs.lineage())
        .and_then(|(mine, theirs)| mine.common_ancestor(&theirs));
    ancestor.map_or_else(|| "the beginning".into(), |generation| generation.to_string())
}
