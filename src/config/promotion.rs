//! `[promotion]` and the paths of heartbeats: who may serve when a node is gone.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use super::EtcdAt;
use super::check::{Check, LEASE, Timer, of, span_of};
use super::file::{File, NodeSection, PromotionSection};
use super::mistake::{Caution, Mistake};
use super::moving::{Failback, FlapLimit};
use super::values::{ArbiterLoss, ArbiterWord, AutoWord, PeerAddress, Written};
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
        let auto = match self.auto {
            Auto::Off => "off",
            Auto::Arbiter => "arbiter",
        };
        match &self.arbiter {
            Arbiter::None => format!("auto={auto} arbiter=none"),
            arbiter @ (Arbiter::Witness(_) | Arbiter::Etcd(_)) => {
                let lease = self.lease.as_nanos();
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
        let auto = self.auto(section);
        let arbiter = self.arbiter(section, encryption);
        let failback = self.failback(section);
        let flap_limit = self.flap_limit(section, auto);
        let lease = span_of(section.lease.as_ref()).unwrap_or(LEASE);
        let has_arbiter = arbiter.as_ref().is_some_and(|it| *it != Arbiter::None);
        self.promotion_timers(file, suspect_after, has_arbiter);
        if auto == Some(Auto::Arbiter) && arbiter == Some(Arbiter::None) {
            let span = section.auto.as_ref().map_or(0..0, Spanned::span);
            self.wrong(span, Mistake::NeedsArbiter);
        }
        let stays =
            section.arbiter_loss.as_ref().is_none_or(|it| *of(it) == ArbiterLoss::PrimaryStays);
        let grace = span_of(section.arbiter_grace.as_ref()).unwrap_or(ARBITER_GRACE.max(3 * lease));
        let arbiter_grace = (has_arbiter && stays).then_some(grace);
        let (auto, arbiter) = (auto?, arbiter?);
        Some(Promotion { auto, arbiter, lease, failback, flap_limit, arbiter_grace })
    }

    fn auto(&mut self, section: &PromotionSection) -> Option<Auto> {
        let Some(written) = &section.auto else { return Some(Auto::Off) };
        match of(written) {
            AutoWord::Off => Some(Auto::Off),
            AutoWord::Arbiter => Some(Auto::Arbiter),
            AutoWord::Later(value) => {
                let (key, value) = ("auto", (*value).to_owned());
                let instead = "this release has auto = \"arbiter\" with a witness or \
                               etcd, and auto = \"off\"";
                self.wrong(written.span(), Mistake::ComesLater { key, value, instead });
                None
            }
        }
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
            ArbiterWord::Later(value) => {
                let (key, value) = ("arbiter", (*value).to_owned());
                let instead = "this release has arbiter = \"witness\", \"etcd\" and \"none\"";
                self.wrong(written.span(), Mistake::ComesLater { key, value, instead });
                None
            }
        }
    }

    fn no_arbiter(&mut self, section: &PromotionSection) {
        self.no_etcd(section);
        let spans = [
            ("witness", section.witness.as_ref().map(Spanned::span)),
            ("witness_identity", section.witness_identity.as_ref().map(Spanned::span)),
            ("lease", section.lease.as_ref().map(Spanned::span)),
            ("arbiter_grace", section.arbiter_grace.as_ref().map(Spanned::span)),
            ("arbiter_loss", section.arbiter_loss.as_ref().map(Spanned::span)),
        ];
        for (key, span) in spans {
            if let Some(span) = span {
                self.warn(span, Caution::ArbiterOnly { key });
            }
        }
    }

    fn promotion_timers(&mut self, file: &File, suspect_after: Duration, has_arbiter: bool) {
        let section = &file.promotion;
        self.not_yet(&[("fence", &section.fence)]);
        let lease = span_of(section.lease.as_ref()).unwrap_or(LEASE);
        // Without an arbiter the default lease is of no interest.
        let written = file.heartbeat.suspect_after.as_ref().filter(|_| has_arbiter);
        let suspect: Timer<'_> = ("suspect_after", written, suspect_after);
        let grace = section.arbiter_grace.as_ref();
        let delay = section.fence_delay.as_ref();
        self.timers(("lease", section.lease.as_ref(), lease), 3, suspect);
        if let Some(grace_is) = span_of(grace) {
            let lease = ("lease", section.lease.as_ref(), lease);
            self.timers(("arbiter_grace", grace, grace_is), 3, lease);
        }
        if let Some(delay_is) = span_of(delay) {
            self.timers(
                ("fence_delay", delay, delay_is),
                2,
                ("suspect_after", None, suspect_after),
            );
        }
        for (key, value) in
            [("fence_delay", delay), ("fence_timeout", section.fence_timeout.as_ref())]
        {
            if let Some(value) = value {
                self.warn(value.span(), Caution::NotYet { key });
            }
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
        if promotion.arbiter == Arbiter::None {
            return;
        }
        if first.len() < 2 {
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

/// Most paths of heartbeats.
pub const PATHS_MAX: usize = 8;

/// How long an arbiter is missed before it counts as away for long, unless the file says otherwise.
const ARBITER_GRACE: Duration = Duration::from_secs(10);
