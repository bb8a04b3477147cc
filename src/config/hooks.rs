//! `[resource.NAME.hooks]`: what starts and stops with the role.

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::check::{Check, of, span_of};
use super::file::{HooksSection, VirtualIpSection, Words};
use super::mistake::Mistake;
use super::values::{AddressWord, DeviceWord, HookWord};

/// What starts and stops with the role on one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hooks {
    /// Started in this order when the node serves.
    pub promote: Vec<Hook>,
    /// Stopped in this order before it serves no more, or because.
    pub demote: Vec<Hook>,
    /// Comes last and goes first.
    pub virtual_ip: Option<VirtualIp>,
    /// Longest that all of it may take to stop when the right to serve was lost.
    pub stop_within: Duration,
    /// Longest run of one hook.
    pub timeout: Duration,
}

/// One hook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hook {
    /// This file is run, without a shell.
    Command(PathBuf),
    /// This unit of systemd is started or stopped.
    Unit(String),
}

/// An address that is where the resource is served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VirtualIp {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// The network interface.
    pub device: String,
}

impl Hooks {
    /// Whether anything starts or stops with the role.
    pub(super) fn runs(&self) -> bool {
        !self.promote.is_empty() || !self.demote.is_empty() || self.virtual_ip.is_some()
    }

    /// How long what they started may go on once this node's right to serve is over. A virtual address
    /// goes at once, and an export needs nobody to stop it.
    pub fn stop_budget(&self) -> Duration {
        if self.demote.is_empty() { Duration::ZERO } else { self.stop_within }
    }
}

impl HooksSection {
    /// Where something stands that is started or stopped.
    pub(super) fn first_that_runs(&self) -> Option<Range<usize>> {
        let lists = [&self.promote, &self.demote].into_iter().flatten();
        let list = lists.filter(|list| !list.get_ref().is_empty()).map(Spanned::span);
        list.chain(self.virtual_ip.as_ref().map(Spanned::span)).min_by_key(|span| span.start)
    }
}

impl Check {
    /// The hooks of one node: its own section first, key by key, then the common one.
    pub(super) fn hooks(
        &mut self,
        common: Option<&Spanned<HooksSection>>,
        own: Option<&Spanned<HooksSection>>,
    ) -> Hooks {
        let sections = [own, common];
        let sections = || sections.into_iter().flatten().map(Spanned::get_ref);
        let timeout = sections().find_map(|it| it.timeout.as_ref());
        let stop_within = sections().find_map(|it| it.stop_within.as_ref());
        let hooks = Hooks {
            promote: self.list(sections().find_map(|it| it.promote.as_ref())),
            demote: self.list(sections().find_map(|it| it.demote.as_ref())),
            virtual_ip: self.virtual_ip(sections().find_map(|it| it.virtual_ip.as_ref())),
            stop_within: span_of(stop_within).unwrap_or(STOP_WITHIN),
            timeout: span_of(timeout).unwrap_or(HOOK_TIMEOUT),
        };
        self.timers(
            ("timeout", timeout, hooks.timeout),
            1,
            ("stop_within", stop_within, hooks.stop_within),
        );
        hooks
    }

    pub(super) fn list(&mut self, written: Option<&Words<HookWord>>) -> Vec<Hook> {
        let Some(written) = written else { return Vec::new() };
        let words = written.get_ref();
        if words.len() > HOOKS_MAX {
            let what = Mistake::TooManyHooks { found: words.len(), max: HOOKS_MAX };
            self.wrong(written.span(), what);
        }
        words.iter().map(|word| of(word).0.clone()).collect()
    }

    fn virtual_ip(&mut self, written: Option<&Spanned<VirtualIpSection>>) -> Option<VirtualIp> {
        let written = written?;
        let VirtualIpSection { address, device } = written.get_ref();
        let example = "virtual_ip = { address = \"192.0.2.10/24\", device = \"eth0\" }";
        let (Some(address), Some(device)) = (address, device) else {
            let key = if address.is_none() { "address" } else { "device" };
            return self.missing(written.span(), "`virtual_ip`", key, example);
        };
        let AddressWord { address, prefix } = *of(address);
        let DeviceWord(device) = of(device).clone();
        Some(VirtualIp { address, prefix, device })
    }
}

/// Most hooks of one list.
pub const HOOKS_MAX: usize = 16;
/// Defaults of `stop_within` and `timeout`.
const STOP_WITHIN: Duration = Duration::from_secs(5);
const HOOK_TIMEOUT: Duration = Duration::from_mins(1);
