//! Commands that work without a daemon: `identity`, `init`, `resize`, `check --offline`, `config
//! check`.

use std::path::PathBuf;

use serde_json::json;

use super::args::{Check, Common, Identity, Init, Resize};
use super::configuration;
use super::failure::Failure;
use super::progress::Bar;
use super::say::{self, BAD, BOLD, CAREFUL, GOOD};
use crate::config::{self, NodeConfig, NodeResource};
use crate::daemon::{self, DaemonError, InitPlan, OfflineAction};
use crate::link;
use crate::units::written_size;

pub(super) fn identity(common: &Common, identity: &Identity) -> Result<(), Failure> {
    let state_dir = match &identity.state_dir {
        Some(folder) => folder.clone(),
        None => match configuration::read_if_there(common)? {
            Some(text) => text.state_dir(common)?,
            None => PathBuf::from(config::STATE_DIR),
        },
    };
    let fingerprint =
        link::fingerprint_of(&state_dir).map_err(|source| DaemonError::Identity { source })?;
    say::result(&fingerprint)?;
    if say::is_on_terminal() {
        say::talk(&format!(
            "Write it into the configuration of both nodes, under [node.NAME] of this one:\n\
             {BOLD}identity = \"{fingerprint}\"{BOLD:#}"
        ));
    }
    Ok(())
}

pub(super) fn init(common: &Common, init: &Init) -> Result<(), Failure> {
    let node = configuration::node(common)?;
    let resources = chosen(&node, init.resource.as_deref())?;
    let plan = |resource: &NodeResource| {
        daemon::plan_init(&node, resource, init.from.place(), init.rebuild)
            .map(|plan| (resource.name.clone(), plan))
    };
    // All are planned before any is made: either all of them fit or nothing changes.
    let plans: Vec<(String, InitPlan)> =
        resources.into_iter().map(plan).collect::<Result<_, DaemonError>>()?;
    for (name, plan) in &plans {
        for sentence in &plan.says {
            say::talk(&format!("{BOLD}{name}{BOLD:#}: {sentence}"));
        }
    }
    if !init.yes && !say::ask("Go on?") {
        return Err(Failure::refused("nothing was changed", "hotpair init --help"));
    }
    for (name, plan) in plans {
        let bar = Bar::new(&format!("{name}: is it empty?"));
        let words = words_of_init(init);
        audited(&node, (&name, "init", words), || {
            plan.execute(&mut |done, total| bar.show(done, total))
        })?;
        drop(bar);
        say::result(&format!("{name}: ready; start the daemon with: hotpair run"))?;
    }
    Ok(())
}

/// Grows this node's copy while its daemon is stopped.
pub(super) fn resize(node: &NodeConfig, resize: &Resize) -> Result<(), Failure> {
    let name = &resize.resource;
    let resource = chosen(node, Some(name))?[0];
    let plan = daemon::plan_resize(resource, resize.size)?;
    for sentence in &plan.says {
        say::talk(&format!("{BOLD}{name}{BOLD:#}: {sentence}"));
    }
    if !plan.says.is_empty() && !resize.yes && !say::ask("Go on?") {
        return Err(Failure::refused("nothing was changed", "hotpair resize --help"));
    }
    audited(node, (name, "resize", vec![resize.size.to_string()]), || plan.execute())?;
    say::result(&format!("{name}: the copy of {} has {} bytes", node.node.name, resize.size))?;
    if resource.size.bytes() != resize.size {
        say::talk(&format!(
            "Type the same on {}, and write size = \"{}\" into the configuration of both nodes.",
            node.peer.name,
            written_size(resize.size)
        ));
    }
    Ok(())
}

fn words_of_init(init: &Init) -> Vec<String> {
    let from = format!("{:?}", init.from).to_lowercase();
    let rebuild = init.rebuild.then(|| "--rebuild".to_owned());
    ["--from".to_owned(), from].into_iter().chain(rebuild).collect()
}

/// Does something that changes a node without its daemon, and tells of it in the audit log: before,
/// so that what took effect is in it, and after. A log that cannot be written stops nobody.
fn audited(
    node: &NodeConfig,
    (resource, command, arguments): (&str, &str, Vec<String>),
    execute: impl FnOnce() -> Result<(), DaemonError>,
) -> Result<(), Failure> {
    let action = OfflineAction::begin(node, resource, command, arguments)?;
    let result = execute();
    if let Some(trouble) = action.end(&result) {
        say::talk(&format!("{CAREFUL}warning{CAREFUL:#}: {trouble}"));
    }
    Ok(result?)
}

/// The resource that was named, or all.
fn chosen<'a>(node: &'a NodeConfig, name: Option<&str>) -> Result<Vec<&'a NodeResource>, Failure> {
    let Some(name) = name else { return Ok(node.resources.iter().collect()) };
    let found = node.resource(name).ok_or_else(|| {
        let known: Vec<_> = node.resources.iter().map(|resource| resource.name.as_str()).collect();
        DaemonError::UnknownResource { name: name.to_owned(), known: known.join(", ") }
    })?;
    Ok(vec![found])
}

pub(super) fn check(common: &Common, check: &Check) -> Result<(), Failure> {
    let node = configuration::node(common)?;
    let mut bad = Vec::new();
    let mut looked = Vec::new();
    for resource in chosen(&node, check.resource.as_deref())? {
        let findings = daemon::check_offline(resource)?;
        if findings.iter().any(|finding| !finding.is_good) {
            bad.push(resource.name.as_str());
        }
        looked.push((&resource.name, findings));
    }
    let is_good = bad.is_empty();
    if check.json {
        let resources: Vec<_> = looked
            .iter()
            .map(|(name, findings)| {
                let findings: Vec<_> = findings
                    .iter()
                    .map(|finding| json!({ "good": finding.is_good, "text": finding.text }))
                    .collect();
                json!({ "name": name, "findings": findings })
            })
            .collect();
        say::json(&json!({ "good": is_good, "resources": resources }))?;
    } else {
        for (name, findings) in &looked {
            for finding in findings {
                let (colour, word) = if finding.is_good { (GOOD, "good") } else { (BAD, " bad") };
                say::result(&format!("{colour}{word}{colour:#} {name}: {}", finding.text))?;
            }
        }
    }
    if is_good {
        return Ok(());
    }
    let findings = looked.iter().flat_map(|(_, findings)| findings);
    let mut ways: Vec<_> = findings.filter_map(|finding| finding.next.clone()).collect();
    ways.dedup();
    let why = format!("not everything is as it should be: {}", bad.join(", "));
    Err(Failure::refused(why, ways.join("; ")))
}

pub(super) fn config_check(common: &Common) -> Result<(), Failure> {
    let text = configuration::read(common)?;
    let parsed = text.parse()?;
    for warning in &parsed.warnings {
        say::talk(&text.show(warning));
    }
    // On a host that is none of the nodes there is nothing more to look at.
    if let Ok(node) = configuration::node(common) {
        for warning in daemon::warnings_of_node(&node) {
            say::talk(&format!("{CAREFUL}warning{CAREFUL:#}: {warning}"));
        }
    }
    let config = &parsed.config;
    let [first, second] = &config.nodes;
    let names: Vec<_> = config.resources.iter().map(|resource| resource.name.as_str()).collect();
    let resources = if names.is_empty() { "no resource".to_owned() } else { names.join(", ") };
    say::result(&format!(
        "{}: {GOOD}correct{GOOD:#}: cluster {}, nodes {} and {}, {resources}",
        text.path.display(),
        config.cluster,
        first.name,
        second.name,
    ))
}
