//! The sections of resources: what they say together, and on each of the two nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;

use super::check::{Check, is_one_host, of, span_of};
use super::file::{BudgetSection, File, OverrideSection, ResourceSection};
use super::mistake::{Caution, Mistake, Warning};
use super::values::{FlushOn, Kind, Written};
use super::{Export, Local, Node, Resource};
use crate::units::{CHUNK_LEN, RESOURCE_LEN_MAX, ReplicationMode, ResourceSize, Side};

/// A resource's section with its name.
#[derive(Clone, Copy)]
struct Named<'a> {
    name: &'a Spanned<String>,
    section: &'a ResourceSection,
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
        match &section.kind {
            Some(kind) if *of(kind) == Kind::Directory => {
                let (key, value) = ("kind", "directory".to_owned());
                let instead = "this release keeps block files: kind = \"block\"";
                self.wrong(kind.span(), Mistake::ComesLater { key, value, instead });
                return None;
            }
            Some(_) => (),
            None => return self.missing(name.span(), &at, "kind", "kind = \"block\""),
        }
        let mode = section.mode.as_ref().map_or(ReplicationMode::Sync, |mode| *of(mode));
        let named = Named { name, section, mode };
        self.other_nodes(named, nodes);
        self.later_keys(named, nodes);
        let size = self.size(named);
        let flush_both = self.flush(named);
        let on = nodes.each_ref().map(|node| self.local(named, node));
        self.one_host(named, nodes, &on);
        let [Some(first), Some(second)] = on else { return None };
        let name = name.get_ref().clone();
        let prefer = section.prefer.as_ref().map(|prefer| &of(prefer).0);
        let place = nodes.iter().position(|node| Some(&node.name) == prefer);
        let prefer = place.map(|at| if at == 0 { Side::First } else { Side::Second });
        Some(Resource { name, size: size?, mode, flush_both, prefer, on: [first, second] })
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

    fn later_keys(&mut self, named: Named<'_>, nodes: &[Node; 2]) {
        let section = named.section;
        for (key, value) in [
            ("exclude", &section.exclude),
            ("max_lag", &section.max_lag),
            ("keep_generations", &section.keep_generations),
            ("settle", &section.settle),
            ("full_scan", &section.full_scan),
            ("max_delete", &section.max_delete),
            ("mass_delete", &section.mass_delete),
            ("watch", &section.watch),
            ("guard", &section.guard),
            ("work_dir", &section.work_dir),
            ("leave_out", &section.leave_out),
            ("keep_limit", &section.keep_limit),
            ("freeze_label", &section.freeze_label),
            ("freeze_every", &section.freeze_every),
            ("freeze_limit", &section.freeze_limit),
        ] {
            if let Some(value) = value {
                self.warn(value.span(), Caution::DirectoryOnly { key });
            }
        }
        let overrides = nodes.each_ref().map(|node| section.on.get(node.name.as_str()));
        for section in overrides.into_iter().flatten() {
            self.not_per_node(named, section);
        }
    }

    fn not_per_node(&mut self, named: Named<'_>, section: &OverrideSection) {
        for (key, value) in [
            ("kind", &section.kind),
            ("size", &section.size),
            ("mode", &section.mode),
            ("flush", &section.flush),
            ("prefer", &section.prefer),
        ] {
            if let Some(value) = value {
                let section = format!("resource.{}", named.name.get_ref());
                self.wrong(value.span(), Mistake::NotPerNode { key, section });
            }
        }
        if let Some(value) = &section.work_dir {
            self.warn(value.span(), Caution::DirectoryOnly { key: "work_dir" });
        }
    }

    fn size(&mut self, named: Named<'_>) -> Option<ResourceSize> {
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
        match &named.section.flush {
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
            self.missing(named.name.span(), &at, "path", "path = \"/srv/vm1.img\"")
        };
        let export = own.and_then(|own| own.export.as_ref()).or(common.export.as_ref());
        let export = self.export(named, export, node);
        let budget = own.and_then(|own| own.at_risk_budget.as_ref());
        let (at_risk_bytes, at_risk_age) =
            self.budget(named, budget.or(common.at_risk_budget.as_ref()));
        let rate = own.and_then(|own| own.resync_rate.as_ref()).or(common.resync_rate.as_ref());
        let resync_rate = rate.map(|rate| {
            let bytes = of(rate).0;
            if bytes < RATE_MIN {
                let (key, least) = ("resync_rate", "64KiB");
                let why = "a resync moves 64KiB at a time";
                self.wrong(rate.span(), Mistake::TooSmall { key, least, why });
            }
            bytes
        });
        let hooks = self.hooks(common.hooks.as_ref(), own.and_then(|own| own.hooks.as_ref()));
        Some(Local { path: path?, export, at_risk_bytes, at_risk_age, resync_rate, hooks })
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
        if mine.export == theirs.export {
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
