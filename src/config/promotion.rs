//! `[promotion]` and the paths of heartbeats: who may serve when a node is gone.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use super::EtcdAt;
use super::check::{Check, Timer, of, span_of};
use super::fence::{Fence, lease};
use super::file::{File, NodeSection, PromotionSection};
use super::mistake::{Caution, Mistake};
use super::moving::{Failback, FlapLimit};
use super::values::{ArbiterLoss, ArbiterWord, PeerAddress, Written};
use super::{Encryption, Identity, Node};

/// Who may serve when a node is gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Promotion {
    /// Who promotes a secondary without an operator.
    pub auto: Auto,
    /// Who remembers who may serve.
    pub arbiter: Arbiter,
    /// How long a right to serve holds; at least three times `suspect_after`.
    pub lease: Duration,
    /// The command that cuts the other node off, if anything runs it.
    pub fence: Option<Fence>,
    /// When a resource moves back to the node that it prefers.
    pub failback: Failback,
    /// How often a resource may be promoted without an operator.
    pub flap_limit: FlapLimit,
    /// How long neither node must have reached the arbiter before the secondary pledges not to ask for
    /// promotion; `None` with `arbiter_loss = "symmetric"`, or without an arbiter.
    pub arbiter_grace: Option<Duration>,
}

/// Who promotes a secondary without an operator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Auto {
    /// Nobody.
    Off,
    /// The arbiter.
    Arbiter,
    /// The fence command, and with an arbiter that first.
    Fenced,
    /// The silence of the other node: two primaries are possible.
    HeartbeatOnly,
}

/// Who remembers who may serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Arbiter {
    /// Only the two nodes.
    None,
    /// `hotpair witness`.
    Witness(WitnessAt),
    /// A cluster of etcd.
    Etcd(EtcdAt),
    /// Nobody that the nodes ask: Pacemaker promotes and demotes them.
    Pacemaker,
}

/// Where a witness is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WitnessAt {
    /// Its address.
    pub address: SocketAddr,
    /// Its public key; present whenever the nodes talk by TLS.
    pub identity: Option<Identity>,
}

impl Promotion {
    /// What both nodes must agree on, as text.
    pub(super) fn settings_text(&self) -> String {
        let (auto, lease) = (self.auto.name(), self.lease.as_nanos());
        match &self.arbiter {
            Arbiter::None => match (self.auto, &self.fence) {
                (Auto::HeartbeatOnly, _) => format!("auto={auto} arbiter=none lease={lease}"),
                (_, Some(fence)) => {
                    format!("auto={auto} arbiter=none fence_delay={}", fence.delay.as_nanos())
                }
                (_, None) => format!("auto={auto} arbiter=none"),
            },
            Arbiter::Pacemaker => format!("auto={auto} arbiter=pacemaker"),
            arbiter @ (Arbiter::Witness(_) | Arbiter::Etcd(_)) => {
                let moving = self.moving_text();
                let grace = self.arbiter_grace.map_or(0, |grace| grace.as_nanos());
                let name = arbiter.name();
                format!("auto={auto} arbiter={name} lease={lease} grace={grace}{moving}")
            }
        }
    }
}

impl Arbiter {
    /// As it is written in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Witness(_) => "witness",
            Self::Etcd(_) => "etcd",
            Self::Pacemaker => "pacemaker",
        }
    }

    /// Whether it keeps a record that the nodes ask about, and lends them the right to serve.
    pub fn is_asked(&self) -> bool {
        match self {
            Self::None | Self::Pacemaker => false,
            Self::Witness(_) | Self::Etcd(_) => true,
        }
    }
}

impl Check {
    pub(super) fn promotion(
        &mut self,
        file: &File,
        encryption: Encryption,
        suspect_after: Duration,
    ) -> Option<Promotion> {
        let section = &file.promotion;
        let auto = section.auto.as_ref().map_or(Auto::Off, |written| of(written).0);
        let arbiter = self.arbiter(section, encryption);
        let failback = self.failback(section);
        let flap_limit = self.flap_limit(section, Some(auto));
        let is_asked = arbiter.as_ref().is_some_and(Arbiter::is_asked);
        let counts_lease = is_asked || auto == Auto::HeartbeatOnly;
        self.promotion_timers(file, suspect_after, counts_lease);
        let arbiter = arbiter?;
        self.who_promotes(section, auto, &arbiter);
        self.pacemaker(file, &arbiter);
        let fence = self.fence(file, suspect_after, auto, &arbiter);
        let lease = lease(section);
        let stays =
            section.arbiter_loss.as_ref().is_none_or(|it| *of(it) == ArbiterLoss::PrimaryStays);
        let grace = span_of(section.arbiter_grace.as_ref()).unwrap_or(ARBITER_GRACE.max(3 * lease));
        let arbiter_grace = (is_asked && stays).then_some(grace);
        Some(Promotion { auto, arbiter, lease, fence, failback, flap_limit, arbiter_grace })
    }

    fn arbiter(&mut self, section: &PromotionSection, encryption: Encryption) -> Option<Arbiter> {
        let Some(written) = &section.arbiter else {
            self.no_arbiter(section);
            return Some(Arbiter::None);
        };
        match of(written) {
            ArbiterWord::None => {
                self.no_arbiter(section);
                Some(Arbiter::None)
            }
            ArbiterWord::Etcd => {
                self.other_arbiter(
                    "witness",
                    [
                        ("witness", section.witness.as_ref().map(Spanned::span)),
                        ("witness_identity", section.witness_identity.as_ref().map(Spanned::span)),
                    ],
                );
                self.etcd(section, written.span()).map(Arbiter::Etcd)
            }
            ArbiterWord::Witness => {
                self.no_etcd(section);
                let span = written.span();
                let at = "[promotion]";
                let address = section.witness.as_ref().map(|address| of(address).0);
                if address.is_none() {
                    let example = "witness = \"192.0.2.3:7787\"";
                    self.missing::<()>(span.clone(), at, "witness", example);
                }
                let identity = section.witness_identity.as_ref().map(|it| of(it).clone());
                if identity.is_none() && encryption == Encryption::Tls {
                    let example = "witness_identity = \"sha256//..\", which `hotpair witness` prints when it \
                         starts";
                    self.missing::<()>(span, at, "witness_identity", example);
                    return None;
                }
                Some(Arbiter::Witness(WitnessAt { address: address?, identity }))
            }
            ArbiterWord::Pacemaker => {
                self.no_etcd(section);
                self.other_arbiter(
                    "witness",
                    [
                        ("witness", section.witness.as_ref().map(Spanned::span)),
                        ("witness_identity", section.witness_identity.as_ref().map(Spanned::span)),
                        ("lease", section.lease.as_ref().map(Spanned::span)),
                        ("arbiter_grace", section.arbiter_grace.as_ref().map(Spanned::span)),
                        ("arbiter_loss", section.arbiter_loss.as_ref().map(Spanned::span)),
                    ],
                );
                Some(Arbiter::Pacemaker)
            }
        }
    }

    fn no_arbiter(&mut self, section: &PromotionSection) {
        self.no_etcd(section);
        let spans = [
            ("witness", section.witness.as_ref().map(Spanned::span)),
            ("witness_identity", section.witness_identity.as_ref().map(Spanned::span)),
            (
                "lease",
                section.lease.as_ref().map(Spanned::span).filter(|_| !counts_silence(section)),
            ),
            ("arbiter_grace", section.arbiter_grace.as_ref().map(Spanned::span)),
            ("arbiter_loss", section.arbiter_loss.as_ref().map(Spanned::span)),
        ];
        for (key, span) in spans {
            if let Some(span) = span {
                self.warn(span, Caution::ArbiterOnly { key });
            }
        }
    }

    fn promotion_timers(&mut self, file: &File, suspect_after: Duration, counts_lease: bool) {
        let section = &file.promotion;
        let lease = lease(section);
        // Where nothing is counted by it the default lease is of no interest.
        let written = file.heartbeat.suspect_after.as_ref().filter(|_| counts_lease);
        let suspect: Timer<'_> = ("suspect_after", written, suspect_after);
        let grace = section.arbiter_grace.as_ref();
        self.timers(("lease", section.lease.as_ref(), lease), 3, suspect);
        if let Some(grace_is) = span_of(grace) {
            let lease = ("lease", section.lease.as_ref(), lease);
            self.timers(("arbiter_grace", grace, grace_is), 3, lease);
        }
    }

    /// The paths of a node, or none if it names none.
    pub(super) fn heartbeat_paths(&mut self, section: &NodeSection) -> Vec<SocketAddr> {
        let Some(written) = &section.heartbeat else { return Vec::new() };
        let all: &Vec<Spanned<Written<PeerAddress>>> = written.get_ref();
        if all.is_empty() || all.len() > PATHS_MAX {
            self.wrong(written.span(), Mistake::PathCount { found: all.len(), max: PATHS_MAX });
            return Vec::new();
        }
        let mut paths = Vec::new();
        for address in all {
            let is = of(address).0;
            if paths.contains(&is) {
                self.wrong(address.span(), Mistake::SamePath { address: is });
            }
            paths.push(is);
        }
        paths
    }

    /// Both nodes have as many paths, each of its own, and more than one if much hangs on them.
    pub(super) fn both_paths(&mut self, file: &File, nodes: &mut [Node; 2], promotion: &Promotion) {
        let [first, second] = nodes.each_ref().map(|node| &node.heartbeat);
        let written = file.node.values().filter_map(|section| section.heartbeat.as_ref());
        let last = written.map(Spanned::span).max_by_key(|span| span.start);
        if first.len() != second.len() {
            let found = [first.len(), second.len()];
            self.wrong(last.clone().unwrap_or(0..0), Mistake::UnevenPaths { found });
            return;
        }
        if let Some(address) = first.iter().find(|address| second.contains(address)) {
            let mend = "give each node its own address, or on one host its own port";
            self.same(last.clone().unwrap_or(0..0), "heartbeat", address.to_string(), mend);
        }
        if promotion.arbiter == Arbiter::None && !promotion.auto.promotes() {
            return;
        }
        self.enough_paths(file, nodes, promotion.auto);
        let [first, _] = nodes.each_ref().map(|node| &node.heartbeat);
        if first.len() < 2 && promotion.auto != Auto::HeartbeatOnly {
            let auto = file.promotion.arbiter.as_ref().map(Spanned::span);
            self.warn(last.or(auto).unwrap_or(0..0), Caution::SinglePath);
        }
        for node in nodes {
            if node.heartbeat.is_empty() {
                // UDP and TCP have ports of their own.
                node.heartbeat.push(node.replication);
            }
        }
    }
}

/// Whether `auto` promotes by silence alone, which is counted by the lease.
fn counts_silence(section: &PromotionSection) -> bool {
    section.auto.as_ref().is_some_and(|written| of(written).0 == Auto::HeartbeatOnly)
}

/// Most paths of heartbeats.
pub const PATHS_MAX: usize = 8;

/// How long an arbiter is missed before it counts as away for long, unless the file says otherwise.
const ARBITER_GRACE: Duration = Duration::from_secs(10);
