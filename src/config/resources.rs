//! The sections of resources: what they say together, and on each of the two nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::check::{Check, is_one_host, of, span_of};
use super::file::{BudgetSection, File, OverrideSection, ResourceSection};
use super::mistake::{Caution, Mistake, Warning};
use super::values::{FlushOn, Kind, Written};
use super::{Export, Local, Node, Resource};
use crate::units::{BLOCK_LEN, CHUNK_LEN, RESOURCE_LEN_MAX, ReplicationMode, ResourceSize, Side};

/// A resource's section with its name.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a Spanned<String>,
    section: &'a ResourceSection,
    kind: Kind,
    mode: ReplicationMode,
}

impl Check {
    pub(super) fn resource(
        &mut self,
        name: &Spanned<String>,
        section: &ResourceSection,
        nodes: &[Node; 2],
    ) -> Option<Resource> {
        self.name(name);
        let at = format!("[resource.{}]", name.get_ref());
        let Some(kind) = &section.kind else {
            return self.missing(name.span(), &at, "kind", "kind = \"block\"");
        };
        if *of(kind) == Kind::Directory && !cfg!(feature = "directory") {
            self.wrong(kind.span(), Mistake::NoDirectories);
            return None;
        }
        let kind = *of(kind);
        let mode = section.mode.as_ref().filter(|_| kind == Kind::Block);
        let mode = mode.map_or(ReplicationMode::Sync, |mode| *of(mode));
        let named = Named { name, section, kind, mode };
        self.other_nodes(named, nodes);
        self.keys_of_kind(named, nodes);
        let size = self.size(named);
        let flush_both = self.flush(named);
        let directory = self.directory(section, kind);
        let on = nodes.each_ref().map(|node| self.local(named, node));
        self.one_host(named, nodes, &on);
        let [Some(first), Some(second)] = on else { return None };
        if kind == Kind::Directory {
            self.freeze_keys(section, first.freeze.is_some() || second.freeze.is_some());
        }
        let name = name.get_ref().clone();
        let prefer = section.prefer.as_ref().map(|prefer| &of(prefer).0);
        let place = nodes.iter().position(|node| Some(&node.name) == prefer);
        let prefer = place.map(|at| if at == 0 { Side::First } else { Side::Second });
        let on = [first, second];
        Some(Resource { name, size: size?, mode, flush_both, prefer, directory, on })
    }

    fn other_nodes(&mut self, named: Named<'_>, nodes: &[Node; 2]) {
        let known = nodes.each_ref().map(|node| node.name.clone());
        let prefer = named.section.prefer.as_ref();
        let prefer = prefer.map(|prefer| (prefer.span(), of(prefer).0.clone()));
        let on = named.section.on.keys().map(|name| (name.span(), name.get_ref().clone()));
        for (span, name) in on.chain(prefer) {
            if !known.contains(&name) {
                self.wrong(span, Mistake::UnknownNode { name, nodes: known.clone() });
            }
        }
    }

    /// Keys that have no meaning on a resource of this kind, and those that a node cannot have for
    /// itself.
    fn keys_of_kind(&mut self, named: Named<'_>, nodes: &[Node; 2]) {
        let section = named.section;
        let own = nodes.each_ref().map(|node| section.on.get(node.name.as_str()));
        let own = || own.into_iter().flatten();
        let hooks = own().filter_map(|own| own.hooks.as_ref()).chain(&section.hooks);
        match named.kind {
            Kind::Block => {
                let of_hooks = hooks.flat_map(|hooks| hooks.get_ref().directory_keys());
                let work_dirs = own().filter_map(|own| own.work_dir.as_ref());
                let work_dirs = work_dirs.map(|work_dir| ("work_dir", work_dir.span()));
                for (key, span) in section.directory_keys().chain(work_dirs).chain(of_hooks) {
                    self.wrong(span, Mistake::DirectoryOnly { key });
                }
            }
            Kind::Directory => {
                let own = own().flat_map(OverrideSection::block_keys);
                for (key, span) in section.block_keys().chain(own) {
                    self.wrong(span, Mistake::BlockOnly { key });
                }
            }
        }
        for (key, span) in own().flat_map(OverrideSection::common_keys) {
            let section = format!("resource.{}", named.name.get_ref());
            self.wrong(span, Mistake::NotPerNode { key, section });
        }
    }

    /// A directory is replicated over one block, which says what its newest generation is.
    fn size(&mut self, named: Named<'_>) -> Option<ResourceSize> {
        if named.kind == Kind::Directory {
            return ResourceSize::new(BLOCK_LEN);
        }
        let at = format!("[resource.{}]", named.name.get_ref());
        let Some(written) = &named.section.size else {
            return self.missing(named.name.span(), &at, "size", "size = \"20GiB\"");
        };
        let bytes = of(written).0;
        let size = ResourceSize::new(bytes);
        if size.is_none() {
            debug_assert!(bytes > RESOURCE_LEN_MAX, "a size in the file is above zero");
            let size = bytesize::ByteSize::b(bytes).display().iec().to_string();
            self.wrong(written.span(), Mistake::SizeTooLarge { size });
        }
        size
    }

    fn flush(&mut self, named: Named<'_>) -> bool {
        let is_async = named.mode == ReplicationMode::Async;
        match named.section.flush.as_ref().filter(|_| named.kind == Kind::Block) {
            Some(written) if !is_async => {
                self.async_only(written.span(), "flush", named.mode);
                true
            }
            Some(written) => *of(written) == FlushOn::Both,
            None => !is_async,
        }
    }

    fn async_only(
        &mut self,
        span: std::ops::Range<usize>,
        key: &'static str,
        mode: ReplicationMode,
    ) {
        self.wrong(span, Mistake::AsyncOnly { key, mode: mode.to_string() });
    }

    /// What `node` has of a resource: its own section first, then the common one.
    fn local(&mut self, named: Named<'_>, node: &Node) -> Option<Local> {
        let common = named.section;
        let own = common.on.get(node.name.as_str());
        let path = own.and_then(|own| own.path.as_ref()).or(common.path.as_ref());
        let path = if let Some(path) = path {
            Some(of(path).0.clone())
        } else {
            let at = format!("[resource.{}]", named.name.get_ref());
            let example = match named.kind {
                Kind::Block => "path = \"/srv/vm1.img\"",
                Kind::Directory => "path = \"/srv/uploads\"",
            };
            self.missing(named.name.span(), &at, "path", example)
        };
        // Said to be wrong already where they have no meaning.
        let is_block = named.kind == Kind::Block;
        let export = own.and_then(|own| own.export.as_ref()).or(common.export.as_ref());
        let export = self.export(named, export.filter(|_| is_block), node);
        let budget = own.and_then(|own| own.at_risk_budget.as_ref());
        let budget = budget.or(common.at_risk_budget.as_ref()).filter(|_| is_block);
        let (at_risk_bytes, at_risk_age) = self.budget(named, budget);
        let rate = own.and_then(|own| own.resync_rate.as_ref()).or(common.resync_rate.as_ref());
        let rate = rate.filter(|_| is_block);
        let resync_rate = rate.map(|rate| {
            let bytes = of(rate).0;
            if bytes < RATE_MIN {
                let (key, least) = ("resync_rate", "64KiB");
                let why = "a resync moves 64KiB at a time";
                self.wrong(rate.span(), Mistake::TooSmall { key, least, why });
            }
            bytes
        });
        let own_hooks = own.and_then(|own| own.hooks.as_ref());
        let hooks = self.hooks(common.hooks.as_ref(), own_hooks);
        let freeze = match named.kind {
            Kind::Block => None,
            Kind::Directory => self.freeze_hooks(common.hooks.as_ref(), own_hooks, hooks.timeout),
        };
        let hooks = hooks.runs().then_some(hooks);
        let work_dir = own.and_then(|own| own.work_dir.as_ref()).or(common.work_dir.as_ref());
        let work_dir = work_dir.filter(|_| !is_block).map(|work_dir| of(work_dir).0.clone());
        let path = path?;
        Some(Local {
            path,
            export,
            at_risk_bytes,
            at_risk_age,
            resync_rate,
            hooks,
            freeze,
            work_dir,
        })
    }

    fn export(
        &mut self,
        named: Named<'_>,
        written: Option<&Spanned<Written<Export>>>,
        node: &Node,
    ) -> Export {
        let Some(written) = written else {
            let file = format!("{}.nbd", named.name.get_ref());
            return Export::Unix(node.control.with_file_name(file));
        };
        let export = of(written);
        if let Export::Tcp(address) = export {
            let is_replication = *address == node.replication
                || address.ip().is_unspecified() && address.port() == node.replication.port();
            if is_replication {
                let (export, node) = (export.to_string(), node.name.clone());
                self.wrong(written.span(), Mistake::ExportIsReplication { export, node });
            }
            let caution = Warning::new(written.span(), Caution::OpenExport { address: *address });
            if address.ip().is_unspecified() && !self.warnings.contains(&caution) {
                self.warnings.push(caution);
            }
        }
        export.clone()
    }

    fn budget(
        &mut self,
        named: Named<'_>,
        written: Option<&Spanned<BudgetSection>>,
    ) -> (u64, Duration) {
        let Some(written) = written else { return (AT_RISK_BYTES, AT_RISK_AGE) };
        let section = written.get_ref();
        if named.mode != ReplicationMode::Async {
            self.async_only(written.span(), "at_risk_budget", named.mode);
        }
        let bytes = section.bytes.as_ref().map_or(AT_RISK_BYTES, |bytes| of(bytes).0);
        if let Some(bytes) = section.bytes.as_ref().filter(|bytes| of(bytes).0 < BUDGET_MIN) {
            let (key, least) = ("bytes", "1MiB");
            let why = "one part of a write has up to 1MiB";
            self.wrong(bytes.span(), Mistake::TooSmall { key, least, why });
        }
        (bytes, span_of(section.age.as_ref()).unwrap_or(AT_RISK_AGE))
    }

    /// Two replicas in one file, or two exports on one socket, are none.
    fn one_host(&mut self, named: Named<'_>, nodes: &[Node; 2], on: &[Option<Local>; 2]) {
        let ([first, second], [Some(mine), Some(theirs)]) = (nodes, on) else { return };
        if !is_one_host(first.replication.ip(), second.replication.ip()) {
            return;
        }
        let mend = "both nodes are on one host: write another one under [resource.NAME.on.NODE]";
        let own = named.section.on.get(second.name.as_str());
        if mine.path == theirs.path {
            let written = own.and_then(|own| own.path.as_ref()).or(named.section.path.as_ref());
            let span = written.map_or(named.name.span(), Spanned::span);
            self.same(span, "path", theirs.path.display().to_string(), mend);
        }
        if mine.export == theirs.export && named.kind == Kind::Block {
            let written = own.and_then(|own| own.export.as_ref()).or(named.section.export.as_ref());
            let span = written.map_or(named.name.span(), Spanned::span);
            self.same(span, "export", theirs.export.to_string(), mend);
        }
    }

    /// One file is one resource.
    pub(super) fn shared_files(&mut self, file: &File, nodes: &[Node; 2], resources: &[Resource]) {
        for (index, node) in nodes.iter().enumerate() {
            let mut seen = BTreeMap::new();
            for (resource, name) in resources.iter().zip(file.resource.keys()) {
                let path = &resource.on[index].path;
                if let Some(first) = seen.insert(path, &resource.name) {
                    let what = Mistake::SharedFile {
                        first: first.clone(),
                        second: resource.name.clone(),
                        path: path.display().to_string(),
                        node: node.name.clone(),
                    };
                    self.wrong(name.span(), what);
                }
            }
        }
    }
}

/// Defaults of `at_risk_budget`.
const AT_RISK_BYTES: u64 = 64 << 20;
const AT_RISK_AGE: Duration = Duration::from_secs(5);
/// One part of a write must fit, or none would ever be acknowledged.
const BUDGET_MIN: u64 = 1 << 20;
/// One chunk per second.
const RATE_MIN: u64 = CHUNK_LEN;
