//! What people are told of a pair whose roles Pacemaker decides: what is its business, what stands in
//! its way, and which `pcs` command says the same.
//!
//! Commands of `pcs` name the clone of the resource as `pcs resource create .. promotable` does:
//! `vm1-clone` for `vm1`.

use super::Replica;
use super::operator::{Command, Refused};
use crate::metadata::MapMemory;
use crate::units::{Role, ServeMode, Side};

impl<M: MapMemory> Replica<M> {
    /// Why a change of role is not taken from whoever is no resource agent, and what to type; `None` if
    /// it may be.
    pub(super) fn refuse_behind_pacemaker(&self, typed: &Command) -> Option<Refused> {
        if !self.is_under_pacemaker() {
            return None;
        }
        let next = match typed {
            Command::Promote { force: true, accept_data_loss } => {
                let accepts = if *accept_data_loss { " --accept-data-loss" } else { "" };
                format!("{}{accepts}", self.way_to_force())
            }
            Command::Promote { force: false, .. } => self.way_to_promote(),
            Command::Demote => {
                let Self { settings, .. } = self;
                format!("pcs resource ban {}-clone {} --promoted", settings.resource, settings.node)
            }
            Command::Switchover if self.role.is_primary() => self.move_to(&self.settings.peer),
            Command::Switchover => self.move_to(&self.settings.node),
            Command::Resolve { keep } => self.way_to_end_role_before(*keep)?,
            Command::Connect
            | Command::Disconnect
            | Command::PauseResync
            | Command::ResumeResync
            | Command::Verify { .. }
            | Command::Invalidate
            | Command::Resize { .. }
            | Command::Tree(_)
            | Command::Agent(_)
            | Command::Stop => return None,
        };
        let why = "Pacemaker decides who is primary, and it did not ask for this: OCF_RESOURCE_INSTANCE is \
                   not set";
        Some(Refused { why: why.to_owned(), next })
    }

    /// What ends the role of the node whose data would be given up, if it is primary: it would stop
    /// serving without Pacemaker's word.
    fn way_to_end_role_before(&self, keep: Side) -> Option<String> {
        let Self { settings, link, .. } = self;
        let is_mine = keep == settings.side;
        let serves_there = link.peer_hello().is_some_and(|hello| hello.role == Role::Primary);
        let ends = if is_mine { serves_there } else { self.role.is_primary() };
        let (loser, kept) = if is_mine {
            (&settings.peer, &settings.node)
        } else {
            (&settings.node, &settings.peer)
        };
        let resource = &settings.resource;
        ends.then(|| {
            format!(
                "pcs resource ban {resource}-clone {loser} --promoted, then: hotpair split-brain resolve \
                 {resource} --keep {kept}"
            )
        })
    }

    /// What makes that node primary.
    pub(super) fn move_to(&self, node: &str) -> String {
        format!("pcs resource move {}-clone {node} --promoted", self.settings.resource)
    }

    /// What makes this node primary where nothing stands in the way.
    pub(super) fn way_to_promote(&self) -> String {
        if self.is_under_pacemaker() {
            self.move_to(&self.settings.node)
        } else {
            format!("hotpair promote {}", self.settings.resource)
        }
    }

    /// What exchanges the roles.
    pub(super) fn way_to_switch(&self) -> String {
        if self.is_under_pacemaker() {
            self.way_to_promote()
        } else {
            format!("hotpair switchover {}", self.settings.resource)
        }
    }

    /// What makes this node primary by force. Pacemaker must look away meanwhile.
    pub(super) fn way_to_force(&self) -> String {
        let resource = &self.settings.resource;
        let forced = format!("hotpair promote {resource} --force --peer-is-fenced");
        if self.is_under_pacemaker() {
            format!(
                "pcs property set maintenance-mode=true && OCF_RESOURCE_INSTANCE={resource} {forced}"
            )
        } else {
            forced
        }
    }

    /// What ends the role of this node.
    pub(super) fn way_to_demote(&self) -> String {
        let (resource, node) = (&self.settings.resource, &self.settings.node);
        if self.is_under_pacemaker() {
            format!("pcs resource ban {resource}-clone {node} --promoted")
        } else {
            format!("hotpair demote {resource}")
        }
    }

    /// A secondary that lacks nothing.
    pub(super) fn explain_secondary_under_pacemaker(&self) -> Option<Refused> {
        let alone = self.alone.as_ref()?;
        if !self.is_in_sync() {
            return None;
        }
        let peer = &self.settings.peer;
        if !self.link.peer_is_primary() {
            return Some(Refused {
                why: "in sync; no node is primary: Pacemaker promotes one".to_owned(),
                next: "pcs status".to_owned(),
            });
        }
        let why = match alone.obstacle_after_loss(&self.facts()) {
            None => {
                format!("in sync; {peer} is primary, and Pacemaker may promote this node instead")
            }
            Some(obstacle) => {
                format!("in sync; {peer} is primary; if it were lost now: {obstacle}")
            }
        };
        Some(Refused { why, next: String::new() })
    }

    /// A secondary without a peer that Pacemaker may promote.
    pub(super) fn explain_promotable_under_pacemaker(&self) -> Refused {
        let resource = &self.settings.resource;
        Refused {
            why: "this node is secondary, and Pacemaker can promote it".to_owned(),
            next: format!(
                "pcs status; if Pacemaker does not promote it: pcs constraint config (the constraint \
                 hotpair-fence-{resource} names the only node that has everything)"
            ),
        }
    }

    /// A primary whose peer cannot be promoted though it lacks nothing.
    pub(super) fn explain_not_lifted(&self) -> Option<Refused> {
        let answer = self.alone.as_ref()?.not_lifted()?;
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let is_paired = self.records.stable().serve_mode == ServeMode::Paired;
        (is_paired && self.is_in_sync()).then(|| Refused {
            why: format!(
                "in sync; this node serves, but Pacemaker is kept from promoting {peer}: the fence command \
                 {}; it is run again",
                answer.ended()
            ),
            next: format!(
                "hotpair events (what it said); by hand: pcs constraint delete hotpair-fence-{resource}"
            ),
        })
    }
}
