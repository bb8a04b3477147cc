//! `hotpair split-brain`: what each node has, and which of the two stays.

use super::args::{SplitBrainResolve, SplitBrainShow};
use super::client::{Client, path_of};
use super::failure::Failure;
use super::say::{self, BOLD, CAREFUL};
use crate::control::status::{Histories, History};
use crate::control::{ResolveBody, SplitBrainBody};

pub(super) async fn show(client: &Client, show: &SplitBrainShow) -> Result<(), Failure> {
    let name = &show.resource;
    let body: SplitBrainBody = client.look(&path_of(name, "split-brain")).await?;
    if show.json {
        return say::json(&body);
    }
    let Some(split) = body.split_brain else {
        return say::result(&format!("{name}: there is no split brain"));
    };
    let since = match &split.since_generation {
        Some(generation) => format!("both went on alone after generation {generation}"),
        None if split.theirs.generation.is_none() => "both went on alone".to_owned(),
        None => "they have no generation in common".to_owned(),
    };
    say::result(&format!("{name}: split brain: {since}"))?;
    for History { node, generation, changed_bytes } in [&split.mine, &split.theirs] {
        let text = match (generation, changed_bytes) {
            (Some(generation), Some(changed)) => {
                format!("generation {generation}, changed up to {} alone", say::size(*changed))
            }
            (None, _) | (_, None) => {
                "has not said what it has since this daemon started".to_owned()
            }
        };
        say::result(&format!("  {BOLD}{node}{BOLD:#}: {text}"))?;
    }
    say::result("")?;
    let status = super::status::of_resource(client, name).await?;
    if status.state != "split-brain" {
        return say::result(&format!(
            "It can be settled once both are connected. Why they are not: hotpair explain {name}"
        ));
    }
    say::result("Decide whose writes stay, and type one of these on one node, either of the two:")?;
    for (kept, lost) in [(&split.mine, &split.theirs), (&split.theirs, &split.mine)] {
        let bytes = size_of_change(lost);
        say::result(&format!(
            "  hotpair split-brain resolve {name} --keep {}   loses up to {bytes} of {}",
            kept.node, lost.node
        ))?;
    }
    Ok(())
}

fn size_of_change(history: &History) -> String {
    history.changed_bytes.map_or_else(|| "an unknown part".to_owned(), say::size)
}

pub(super) async fn resolve(client: &Client, resolve: &SplitBrainResolve) -> Result<(), Failure> {
    let name = &resolve.resource;
    let body: SplitBrainBody = client.look(&path_of(name, "split-brain")).await?;
    // Where it cannot be settled now the daemon says why, and nothing is lost that could be told.
    if let Some(split) = body.split_brain.as_ref().filter(|split| split.theirs.generation.is_some())
    {
        say::talk(&what_is_lost(name, &resolve.keep, split)?);
        if !resolve.yes && !say::ask("Go on?") {
            let next = format!("hotpair split-brain show {name}");
            return Err(Failure::refused("nothing was changed", next));
        }
    }
    let path = path_of(name, "split-brain/resolve");
    let answer = client.order(&path, &ResolveBody { keep: resolve.keep.clone() }).await?;
    say::result(&format!("{name}: {}", answer.text))
}

/// In bytes, what the node that is not kept gives up.
fn what_is_lost(name: &str, keep: &str, split: &Histories) -> Result<String, Failure> {
    let (kept, lost) = if split.mine.node == keep {
        (&split.mine, &split.theirs)
    } else if split.theirs.node == keep {
        (&split.theirs, &split.mine)
    } else {
        let nodes = format!("{} and {}", split.mine.node, split.theirs.node);
        let why = format!("there is no node {keep}");
        return Err(Failure::refused(why, format!("keep the data of one of {nodes}")));
    };
    // Whoever asks has made sure that both are known.
    let lost_bytes = lost.changed_bytes.unwrap_or(0);
    let kept_bytes = kept.changed_bytes.unwrap_or(0);
    // What only the kept node changed is overwritten on the other one, too: with what it lacks.
    let overwritten = say::size(lost_bytes.saturating_add(kept_bytes));
    Ok(format!(
        "{CAREFUL}{name}{CAREFUL:#}: up to {} ({lost_bytes} bytes) that {} wrote alone are lost \
         for good: this release keeps no copy.\nUp to {overwritten} of {} are overwritten with \
         the data of {}.",
        say::size(lost_bytes),
        lost.node,
        lost.node,
        kept.node,
    ))
}
