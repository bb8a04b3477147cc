//! What a run of hooks consists of. A plan can be handed to another process, which carries it out
//! without knowing anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Hook, Hooks, VirtualIp};
use crate::promotion::services::{ServiceAction, ServiceOrder, ServiceReason};
use crate::units::Epoch;

/// One command of a run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Step {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Without this path there is nothing to do.
    pub needs: Option<String>,
}

/// The commands of a run, in order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// One after the other.
    pub steps: Vec<Step>,
    /// One that fails does not end the run: as much as can be is done.
    pub goes_on: bool,
    /// What they find in their environment, beside `PATH`.
    pub environment: BTreeMap<String, String>,
    /// Longest run of one of them in milliseconds.
    pub step_ms: u64,
    /// Longest that all of them together take, in milliseconds.
    pub all_ms: u64,
}

/// What hooks are told of where they run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scene {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the resource.
    pub resource: String,
    /// Name of this node.
    pub node: String,
    /// Name of the other one.
    pub peer: String,
    /// The file or directory that is replicated.
    pub path: String,
    /// Where clients connect; `None`: it is a directory, which has no clients.
    pub export: Option<String>,
}

impl Plan {
    /// What an order of the core comes to.
    pub fn of(order: ServiceOrder, hooks: &Hooks, scene: &Scene) -> Self {
        let starts = order.action == ServiceAction::Start;
        let list = if starts { &hooks.promote } else { &hooks.demote };
        let address = hooks.virtual_ip.iter().flat_map(|it| address(it, starts));
        let commands = list.iter().map(|hook| command(hook, starts));
        let steps: Vec<Step> = if starts {
            commands.chain(address).collect()
        } else {
            address.chain(commands).collect()
        };
        let each = hooks.timeout;
        let all = match order.action {
            ServiceAction::StopNow => hooks.stop_within,
            ServiceAction::Start | ServiceAction::Stop => {
                each * u32::try_from(steps.len()).unwrap_or(u32::MAX).max(1)
            }
        };
        Self {
            steps,
            goes_on: order.action == ServiceAction::StopNow,
            environment: environment(
                scene,
                if starts { "promote" } else { "demote" },
                order.reason,
                order.epoch,
            ),
            step_ms: millis(each),
            all_ms: millis(all),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn command(hook: &Hook, starts: bool) -> Step {
    match hook {
        Hook::Command(path) => {
            Step { program: path.display().to_string(), arguments: Vec::new(), needs: None }
        }
        Hook::Unit(unit) => {
            let verb = if starts { "start" } else { "stop" };
            step("systemctl", &[verb, unit])
        }
    }
}

fn step(program: &str, arguments: &[&str]) -> Step {
    let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
    Step { program: program.to_owned(), arguments, needs: None }
}

/// `replace` succeeds where the address is there already, and `flush` where it is not. Of a network
/// card that is gone nothing has to be removed.
fn address(it: &VirtualIp, starts: bool) -> Vec<Step> {
    let VirtualIp { address, prefix, device } = it;
    let network = format!("{address}/{prefix}");
    if !starts {
        let one = if address.is_ipv4() { 32 } else { 128 };
        let flush = ["address", "flush", "dev", device, "to", &format!("{address}/{one}")];
        return vec![Step {
            needs: Some(format!("/sys/class/net/{device}")),
            ..step("ip", &flush)
        }];
    }
    if address.is_ipv4() {
        return vec![step("ip", &["address", "replace", &network, "dev", device])];
    }
    // It can be used at once, and `neighbours.rs` announces it; whoever else has it was told to let go. The
    // kernel announces it again if the card changes.
    let notify = format!("net/ipv6/conf/{device}/ndisc_notify=1");
    vec![
        step("sysctl", &["-q", "-w", &notify]),
        step("ip", &["address", "replace", &network, "dev", device, "nodad"]),
    ]
}

/// What a command finds in its environment, beside `PATH`.
pub(super) fn environment(
    scene: &Scene,
    action: &str,
    reason: ServiceReason,
    epoch: Epoch,
) -> BTreeMap<String, String> {
    let kind = if scene.export.is_some() { "block" } else { "directory" };
    [
        ("CLUSTER", scene.cluster.as_str()),
        ("RESOURCE", &scene.resource),
        ("KIND", kind),
        ("NODE", &scene.node),
        ("PEER", &scene.peer),
        ("ACTION", action),
        ("REASON", reason.name()),
        ("EPOCH", &epoch.to_string()),
        ("PATH", &scene.path),
        ("EXPORT", scene.export.as_deref().unwrap_or_default()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("HOTPAIR_{name}"), value.to_owned()))
    .collect()
}
