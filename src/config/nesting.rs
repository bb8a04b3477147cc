//! Which paths may lie in a replicated tree: none that hotpair itself uses, and no other resource.
//!
//! Paths are compared as they are written. Links and mounts are found when the tree is opened.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::check::{Check, is_one_host};
use super::file::File;
use super::mistake::Mistake;
use super::{Node, Resource};

/// Name of a work area in the tree that it belongs to, at its top: no node ever sends it.
const WORK_AREA: &str = ".hotpair";

/// What a path is used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Use {
    StateDir,
    File,
    Tree,
    WorkDir,
}

/// A path that is used on a node.
#[derive(Clone, Copy)]
struct Used<'a> {
    by: Use,
    path: &'a Path,
    /// Place and name of the resource that it belongs to, if it belongs to one.
    resource: Option<(usize, &'a str)>,
    node: usize,
}

impl Used<'_> {
    fn words(&self) -> String {
        let what = match self.by {
            Use::StateDir => "the state_dir",
            Use::File => "the file",
            Use::Tree => "the directory",
            Use::WorkDir => "the work_dir",
        };
        let of = self.resource.map_or_else(String::new, |(_, name)| format!(" of {name}"));
        format!("{what}{of} {}", self.path.display())
    }

    fn is_of_same_resource(&self, other: &Self) -> bool {
        self.resource.is_some() && self.resource == other.resource
    }
}

impl Check {
    /// No tree holds metadata, another resource, or a work area other than its own; and none lies in
    /// one of these.
    pub(super) fn nesting(&mut self, file: &File, nodes: &[Node; 2], resources: &[Resource]) {
        let [first, second] = nodes;
        let is_one = is_one_host(first.replication.ip(), second.replication.ip());
        let of_node = [0, 1].map(|node| used(node, &nodes[node], resources));
        let hosts = if is_one { vec![of_node.concat()] } else { of_node.to_vec() };
        // What both nodes take from a common section is told of once.
        let mut said = BTreeSet::new();
        for all in hosts {
            for (at, outer) in all.iter().enumerate() {
                for (after, inner) in all.iter().enumerate() {
                    let is_wrong = if inner.path == outer.path {
                        at < after && clash(outer, inner)
                    } else {
                        inner.path.starts_with(outer.path) && is_misplaced(inner, outer)
                    };
                    if !is_wrong || !said.insert((inner.words(), outer.words())) {
                        continue;
                    }
                    let is_same = inner.path == outer.path;
                    let what = Mistake::Nested {
                        node: nodes[inner.node].name.clone(),
                        inner: inner.words(),
                        how: if is_same { "is the same as" } else { "is inside" },
                        outer: outer.words(),
                        mend: mend(inner, outer),
                    };
                    self.wrong(place(file, nodes, inner, outer), what);
                }
            }
        }
    }
}

fn used<'a>(node: usize, of_node: &'a Node, resources: &'a [Resource]) -> Vec<Used<'a>> {
    let mut all = vec![Used { by: Use::StateDir, path: &of_node.state_dir, resource: None, node }];
    for (index, resource) in resources.iter().enumerate() {
        let local = &resource.on[node];
        let by = if resource.directory.is_some() { Use::Tree } else { Use::File };
        let resource = Some((index, resource.name.as_str()));
        all.push(Used { by, path: &local.path, resource, node });
        let work_dir = local.work_dir.as_deref();
        all.extend(work_dir.map(|path| Used { by: Use::WorkDir, path, resource, node }));
    }
    all
}

/// Whether two things must not be at one path. That of two resources of a node, or of one resource on
/// two nodes, is told of elsewhere.
fn clash(one: &Used<'_>, other: &Used<'_>) -> bool {
    let is_data = |used: &Used<'_>| matches!(used.by, Use::File | Use::Tree);
    let is_told = is_data(one)
        && is_data(other)
        && (one.node == other.node || one.is_of_same_resource(other));
    let matters = |used: &Used<'_>| matches!(used.by, Use::Tree | Use::WorkDir);
    (matters(one) || matters(other)) && !is_told
}

/// Whether `inner`, which lies in `outer`, must not.
fn is_misplaced(inner: &Used<'_>, outer: &Used<'_>) -> bool {
    match outer.by {
        Use::Tree => {
            let is_own = inner.is_of_same_resource(outer) && inner.node == outer.node;
            let may = is_own && inner.by == Use::WorkDir;
            !(may && inner.path == outer.path.join(WORK_AREA))
        }
        Use::WorkDir => true,
        Use::StateDir => inner.by == Use::Tree,
        Use::File => false,
    }
}

fn mend(inner: &Used<'_>, outer: &Used<'_>) -> &'static str {
    let is = |by| inner.by == by || outer.by == by;
    if is(Use::WorkDir) {
        "remove `work_dir`, or write a folder of its own for it, beside the directory and on the same \
         mount; in the directory it can only be .hotpair at the top"
    } else if is(Use::StateDir) {
        "metadata must not be replicated: keep the directory and the `state_dir` of the node apart"
    } else {
        "each resource needs a path of its own: replicate the outer one alone, or two beside each other"
    }
}

/// Where that of the two stands which was written for a directory.
fn place(file: &File, nodes: &[Node; 2], inner: &Used<'_>, outer: &Used<'_>) -> Range<usize> {
    let order = [Use::WorkDir, Use::Tree];
    let found = order.iter().find_map(|by| [inner, outer].into_iter().find(|used| used.by == *by));
    let Some((used, (_, resource))) = found.and_then(|used| Some((used, used.resource?))) else {
        return 0..0;
    };
    let Some((name, section)) = file.resource.get_key_value(resource) else { return 0..0 };
    let own = section.on.get(nodes[used.node].name.as_str());
    let written = if used.by == Use::WorkDir {
        own.and_then(|own| own.work_dir.as_ref()).or(section.work_dir.as_ref())
    } else {
        own.and_then(|own| own.path.as_ref()).or(section.path.as_ref())
    };
    written.map_or(name.span(), Spanned::span)
}
