//! Facts about whole files: what is accepted, and what is said about what is not.

mod hooks;

use std::time::Duration;

use annotate_snippets::Renderer;

use super::*;
use crate::units::written_size;

const KEYS: [&str; 2] = [
    "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "sha256//BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=",
];

/// The smallest file that says everything it must.
pub(super) fn good() -> String {
    format!(
        r#"cluster = "office"
[link]
encryption = "none"
[node.beta]
replication = "192.0.2.2:7788"
identity = "{}"
[node.alpha]
replication = "192.0.2.1:7788"
identity = "{}"
[resource.vm1]
kind = "block"
path = "/srv/vm1.img"
size = "20GiB"
"#,
        KEYS[1], KEYS[0]
    )
}

/// Each mistake as `line: message: mend`.
pub(super) fn complaints(text: &str) -> Vec<String> {
    let err = parse(text).expect_err("a mistake");
    let shown = err.render("f", text, &Renderer::plain());
    assert!(shown.contains("error: ") && shown.contains("= help: "), "{shown}");
    err.marked()
        .map(|(at, what)| {
            let line = text[..at].lines().count().max(1);
            let starts_line = at > 0 && text[..at].ends_with('\n');
            format!("{}: {what}: {}", line + usize::from(starts_line), what.mend())
        })
        .collect()
}

#[test]
fn the_smallest_file_gets_the_defaults() {
    let config = parse(&good()).unwrap().config;
    assert_eq!(config.nodes.each_ref().map(|node| node.name.as_str()), ["alpha", "beta"]);
    let beta = config.for_node("beta").unwrap();
    assert_eq!((beta.side, beta.peer.name.as_str()), (Side::Second, "alpha"));
    assert_eq!((beta.interval, beta.suspect_after), (INTERVAL_IS, Duration::from_secs(1)));
    assert_eq!(beta.io_timeout(), Duration::from_secs(3));
    assert_eq!(beta.node.control.to_str(), Some("/run/hotpair/control.sock"));
    let vm1 = beta.resource("vm1").unwrap();
    assert_eq!(vm1.size.bytes(), 20 << 30);
    assert_eq!((vm1.mode, vm1.flush_both), (ReplicationMode::Sync, true));
    assert_eq!(vm1.local.export.to_string(), "unix:/run/hotpair/vm1.nbd");
    assert_eq!(vm1.metadata_dir.to_str(), Some("/var/lib/hotpair/vm1"));
    assert!(config.for_node("gamma").is_none());
}

const INTERVAL_IS: Duration = Duration::from_millis(200);

#[test]
fn a_node_section_overrides_the_common_one() {
    let text = good()
        + "mode = \"async\"\nflush = \"both\"\nat_risk_budget = { bytes = \"8MiB\" }\n\
           resync_rate = \"100MiB\"\n[resource.vm1.on.beta]\npath = \"/data/vm1.img\"\n\
           export = \"tcp:192.0.2.2:10809\"\nat_risk_budget = { age = \"2s\" }\n";
    let config = parse(&text).unwrap().config;
    let [alpha, beta] = ["alpha", "beta"]
        .map(|name| config.for_node(name).unwrap().resource("vm1").unwrap().clone());
    assert_eq!(alpha.local.path.to_str(), Some("/srv/vm1.img"));
    assert_eq!(beta.local.path.to_str(), Some("/data/vm1.img"));
    assert_eq!(beta.local.export.to_string(), "tcp:192.0.2.2:10809");
    assert_eq!((alpha.local.at_risk_bytes, beta.local.at_risk_bytes), (8 << 20, 64 << 20));
    assert_eq!(beta.local.at_risk_age, Duration::from_secs(2));
    assert_eq!(beta.local.resync_rate, Some(100 << 20));
    assert!(alpha.flush_both && beta.flush_both);
    assert_eq!(alpha.settings_hash, beta.settings_hash);
}

#[test]
fn the_hash_covers_what_both_must_agree_on_and_nothing_else() {
    let hash = |text: &str| {
        let config = parse(text).unwrap().config;
        config.for_node("alpha").unwrap().resource("vm1").unwrap().settings_hash
    };
    let base = hash(&good());
    assert_eq!(base, hash(&good().replace("/srv/vm1.img", "/srv/other.img")));
    assert_eq!(base, hash(&good().replace("20GiB", "30GiB")));
    assert_eq!(base, hash(&(good() + "resync_rate = \"1MiB\"\n")));
    assert_ne!(base, hash(&good().replace("office", "home")));
    assert_ne!(base, hash(&(good() + "mode = \"memsync\"\n")));
    assert_ne!(base, hash(&(good() + "[heartbeat]\ninterval = \"100ms\"\n")));
}

#[test]
fn a_size_is_written_in_the_largest_unit_that_is_exact_and_read_back_the_same() {
    for (bytes, text) in [
        (1, "1B"),
        (1025, "1025B"),
        (5 << 10, "5KiB"),
        (80 << 20, "80MiB"),
        (1536 << 20, "1536MiB"),
        (20 << 30, "20GiB"),
        ((20 << 30) + 512, "21474836992B"),
        (16 << 40, "16TiB"),
    ] {
        assert_eq!(written_size(bytes), text);
        assert_eq!(parse_size(text), Some(bytes));
    }
}

#[test]
fn a_mistake_is_shown_at_its_line_with_the_way_out() {
    let text = good().replace("size = \"20GiB\"", "size = \"20GB\"");
    let err = parse(&text).unwrap_err();
    assert_eq!(
        err.render("/etc/hotpair/hotpair.toml", &text, &Renderer::plain()),
        r#"error: bad value "20GB"
  --> /etc/hotpair/hotpair.toml:13:8
   |
13 | size = "20GB"
   |        ^^^^^^
   |
   = help: expected a size in quotes with a binary unit, such as "64MiB" or "20GiB""#
    );
}

/// One changed line, and exactly what is said about it.
const CHANGES: &[(&str, &str, &str)] = &[
    (
        "cluster = \"office\"",
        "",
        "1: the file has no `cluster`: add a line such as: cluster = \"office\"",
    ),
    (
        "cluster = \"office\"",
        "cluster = \"of fice\"",
        "1: bad value \"of fice\": expected a name of 1 to 64 letters, digits, '.', '_' and '-' that starts with a letter or digit",
    ),
    (
        "[node.beta]",
        "[node.\"be ta\"]",
        "4: bad name \"be ta\": use 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit; quote a name with a dot: [node.\"a.example\"]",
    ),
    (
        "[node.beta]",
        "[node.alpha]",
        "7: duplicate key: each key and section may stand once: remove one of the two",
    ),
    (
        "replication = \"192.0.2.2:7788\"",
        "",
        "4: [node.beta] has no `replication`: add a line such as: replication = \"192.0.2.1:7788\"",
    ),
    (
        "192.0.2.2:7788",
        "beta:7788",
        "5: bad value \"beta:7788\": expected the node's own IP address and a port, such as \"192.0.2.1:7788\" or \"[2001:db8::1]:7788\"",
    ),
    (
        "size = \"20GiB\"",
        "",
        "10: [resource.vm1] has no `size`: add a line such as: size = \"20GiB\"",
    ),
    (
        "size = \"20GiB\"",
        "size = 20",
        "13: invalid type: integer `20`: expected a size in quotes with a binary unit, such as \"64MiB\" or \"20GiB\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"17TiB\"",
        "13: a resource of 17.0 TiB is too large, the most is 16TiB: split the data over several resources",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nsize = \"20GiB\"",
        "14: duplicate key: each key and section may stand once: remove one of the two",
    ),
    (
        "path = \"/srv/vm1.img\"",
        "",
        "10: [resource.vm1] has no `path`: add a line such as: path = \"/srv/vm1.img\"",
    ),
    (
        "path = \"/srv/vm1.img\"",
        "path = \"vm1.img\"",
        "12: bad value \"vm1.img\": expected an absolute path without \"..\", such as \"/srv/vm1.img\"",
    ),
    (
        "path = \"/srv/vm1.img\"",
        "paht = \"/srv/vm1.img\"",
        "12: unknown field `paht`: expected one of",
    ),
    (
        "kind = \"block\"",
        "",
        "10: [resource.vm1] has no `kind`: add a line such as: kind = \"block\"",
    ),
    (
        "kind = \"block\"",
        "kind = \"tree\"",
        "11: bad value \"tree\": expected \"block\" or \"directory\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nmode = \"C\"",
        "14: bad value \"C\": expected \"sync\", \"memsync\" or \"async\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nflush = \"both\"",
        "14: `flush` has a meaning in mode \"async\" only, this resource is \"sync\": remove the line, or set mode = \"async\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nat_risk_budget = { bytes = \"8MiB\" }",
        "14: `at_risk_budget` has a meaning in mode \"async\" only, this resource is \"sync\": remove the line, or set mode = \"async\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nmode = \"async\"\nat_risk_budget = { bytes = \"8KiB\" }",
        "15: `bytes` is below 1MiB: one part of a write has up to 1MiB: write 1MiB or more",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nresync_rate = \"1KiB\"",
        "14: `resync_rate` is below 64KiB: a resync moves 64KiB at a time: write 64KiB or more",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nprefer = \"gamma\"",
        "14: there is no node \"gamma\": the nodes of this file are alpha and beta",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[resource.vm1.on.gamma]\npath = \"/a\"",
        "14: there is no node \"gamma\": the nodes of this file are alpha and beta",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[resource.vm1.on.beta]\nsize = \"1GiB\"",
        "15: `size` must be the same on both nodes: write it under [resource.vm1]",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nexport = \"tcp:0.0.0.0:7788\"",
        "14: the export tcp:0.0.0.0:7788 is the replication address of node alpha: choose another port for one of them",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\nexport = \"vm1.nbd\"",
        "14: bad value \"vm1.nbd\": expected \"unix:/run/hotpair/NAME.nbd\" (at most 107 bytes of path) or \"tcp:ADDRESS:PORT\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[heartbeat]\ninterval = \"500ms\"",
        "15: `suspect_after` (1s) must be at least 4 x `interval` (500ms): set `suspect_after` to 2s or more, or make `interval` shorter",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[heartbeat]\ninterval = \"1ms\"",
        "15: `interval` is below 10ms: beats that are closer wake the nodes without finding anything sooner: write 10ms or more",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[heartbeat]\ninterval = \"5 parsecs\"",
        "15: bad value \"5 parsecs\": expected a time span in quotes, such as \"200ms\", \"5s\" or \"10m\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nlease = \"2s\"",
        "15: `lease` (2s) must be at least 3 x `suspect_after` (1s): set `lease` to 3s or more, or make `suspect_after` shorter",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\narbiter_grace = \"8s\"",
        "15: `arbiter_grace` (8s) must be at least 3 x `lease` (3s): set `arbiter_grace` to 9s or more, or make `lease` shorter",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nfence_delay = \"1s\"",
        "15: `fence_delay` (1s) must be at least 2 x `suspect_after` (1s): set `fence_delay` to 2s or more, or make `suspect_after` shorter",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"arbiter\"",
        "15: auto = \"arbiter\" needs an arbiter: add arbiter = \"witness\" and witness = \"ADDRESS:PORT\", or set auto = \"off\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"fenced\"",
        "15: auto = \"fenced\" needs a fence command: add a line such as: fence = \"/etc/hotpair/fence\"; it must end with 0 only if the other node is off",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"fenced\"\nfence = \"fence\"",
        "16: bad value \"fence\": expected an absolute path without \"..\", such as \"/srv/vm1.img\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[heartbeat]\nsuspect_after = \"3s\"\n[promotion]\nauto = \"fenced\"\nfence = \"/etc/fence\"",
        "15: `fence_delay` (5s) must be at least 2 x `suspect_after` (3s): set `fence_delay` to 6s or more, or make `suspect_after` shorter",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"heartbeat-only\"",
        "15: auto = \"heartbeat-only\" needs two paths of heartbeats: add a second network on both nodes: heartbeat = [\"192.0.2.1:7789\", \"198.51.100.1:7789\"]; or use a witness, with auto = \"arbiter\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"heartbeat-only\"\narbiter = \"witness\"\nwitness = \"192.0.2.3:7787\"",
        "15: auto = \"heartbeat-only\" asks no arbiter, and there is arbiter = \"witness\": set auto = \"arbiter\", which never makes two primaries, or arbiter = \"none\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\narbiter = \"witness\"",
        "15: [promotion] has no `witness`: add a line such as: witness = \"192.0.2.3:7787\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[heartbeat]\nsuspect_after = \"2s\"\n[promotion]\narbiter = \"witness\"\nwitness = \"192.0.2.3:7787\"",
        "15: `lease` (3s) must be at least 3 x `suspect_after` (2s): set `lease` to 6s or more, or make `suspect_after` shorter",
    ),
    (
        "[node.alpha]",
        "heartbeat = []\n[node.alpha]",
        "7: a node has 1 to 8 paths of heartbeats, found 0: name one address of each network that both nodes are on",
    ),
    (
        "[node.alpha]",
        "heartbeat = [\"192.0.2.2:1\", \"192.0.2.2:1\"]\n[node.alpha]\nheartbeat = [\"192.0.2.1:1\", \"192.0.2.1:2\"]",
        "7: the path 192.0.2.2:1 stands twice: a second path needs a network of its own",
    ),
    (
        "[node.alpha]",
        "heartbeat = [\"192.0.2.2:1\"]\n[node.alpha]",
        "7: the nodes have 0 and 1 paths of heartbeats: the first address of one node belongs to the first of the other, and so on: name as many on both",
    ),
    (
        "[node.alpha]",
        "heartbeat = [\"192.0.2.2:1\"]\n[node.alpha]\nheartbeat = [\"192.0.2.2:1\"]",
        "9: both nodes have `heartbeat` 192.0.2.2:1: give each node its own address, or on one host its own port",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\narbiter = \"pacemaker\"\nfence = \"/etc/fence\"\nunfence = \"/etc/fence\"",
        "15: arbiter = \"pacemaker\" needs auto = \"arbiter\", and there is auto = \"off\": set auto = \"arbiter\": Pacemaker promotes, or who promotes is not arbiter = \"pacemaker\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"fenced\"\narbiter = \"pacemaker\"\nfence = \"/etc/fence\"\nunfence = \"/etc/fence\"",
        "15: arbiter = \"pacemaker\" needs auto = \"arbiter\", and there is auto = \"fenced\": set auto = \"arbiter\": Pacemaker promotes, or who promotes is not arbiter = \"pacemaker\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"arbiter\"\narbiter = \"pacemaker\"",
        "16: arbiter = \"pacemaker\" needs a fence command: add the script that comes with hotpair as tools/pacemaker-fence, such as: fence = \"/usr/lib/hotpair/pacemaker-fence\"; a primary that loses its peer holds writes until it has kept Pacemaker from promoting that one",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"arbiter\"\narbiter = \"pacemaker\"\nfence = \"/etc/fence\"",
        "16: arbiter = \"pacemaker\" needs an unfence command: add the same script, such as: unfence = \"/usr/lib/hotpair/pacemaker-fence\"; it is run when both copies are the same again, so never name a command that switches a machine off",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[resource.vm1.on.beta.hooks]\ndemote = []\npromote = [\"/etc/go\"]\n[promotion]\nauto = \"arbiter\"\narbiter = \"pacemaker\"\nfence = \"/etc/fence\"\nunfence = \"/etc/fence\"",
        "16: with arbiter = \"pacemaker\" Pacemaker starts and stops the services, and there are hooks: make each of them a resource of Pacemaker that is ordered after the promotion, and remove it here",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nauto = \"arbiter\"\narbiter = \"pacemaker\"\nfence = \"/etc/fence\"\nunfence = \"/etc/fence\"\nfailback = \"after 10m\"",
        "19: failback = \"after 10m\" moves a resource without an operator, which `auto` does not allow: set failback = \"manual\", or auto = \"arbiter\" with a witness or etcd",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[promotion]\nflap_limit = \"often\"",
        "15: bad value \"often\": expected \"COUNT in TIME\" with a count of 1 to 100, such as \"2 in 10m\"",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[resource.vm1.hooks]\nstop_within = \"2m\"",
        "15: `timeout` (1m) must be at least 1 x `stop_within` (2m): set `timeout` to 2m or more, or make `stop_within` shorter",
    ),
    (
        "size = \"20GiB\"",
        "size = \"20GiB\"\n[resource.vm2]\nkind = \"block\"\npath = \"/srv/vm1.img\"\nsize = \"1GiB\"",
        "14: resources \"vm1\" and \"vm2\" use the same file /srv/vm1.img on node alpha: give each resource a file of its own",
    ),
    (
        "192.0.2.2:7788",
        "192.0.2.1:7788",
        "5: both nodes have `replication` 192.0.2.1:7788: give each node its own address, or on one host its own port",
    ),
    (
        KEYS[1],
        KEYS[0],
        "6: both nodes have `identity` sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=: each node has its own key: run `hotpair identity` on both",
    ),
    (
        "192.0.2.2:7788",
        "192.0.2.1:7789",
        "5: both nodes have `state_dir` /var/lib/hotpair: both nodes are on one host: give each its own",
    ),
    ("cluster = ", "cluster ", "1: "),
];

#[test]
fn every_mistake_names_its_line_the_reason_and_the_way_out() {
    for (from, to, expected) in CHANGES {
        let text = good().replacen(from, to, 1);
        let said = complaints(&text);
        assert!(said.iter().any(|line| line.starts_with(expected)), "{text}\n{said:#?}");
        assert!(said.iter().all(|line| line.is_ascii()), "{said:#?}");
    }
}

#[test]
fn a_pair_has_two_nodes() {
    let one = "cluster = \"c\"\n[node.a]\nreplication = \"192.0.2.1:1\"\n";
    let said = complaints(one);
    assert_eq!(
        said.last().unwrap(),
        "2: there must be exactly two [node.NAME] sections, found 1: a pair has two nodes: write \
         one section for each, the same on both"
    );
    let three = good() + "[node.gamma]\nreplication = \"192.0.2.3:1\"\n";
    assert!(complaints(&three)[0].starts_with("14: there must be exactly two"));
    assert!(complaints("cluster = \"c\"\n")[0].starts_with("1: there must be exactly two"));
}

#[cfg(not(feature = "directory"))]
#[test]
fn a_build_without_directories_says_so() {
    let text = good().replace("kind = \"block\"", "kind = \"directory\"");
    assert_eq!(
        complaints(&text),
        [
            "11: kind = \"directory\", and this build of hotpair keeps block files only: build it with \
          the feature \"directory\""
        ]
    );
}

#[test]
fn tls_needs_both_identities() {
    let text = good().replace("[link]\nencryption = \"none\"\n", "");
    if cfg!(feature = "_tls") {
        assert!(parse(&text).is_ok());
        let without = text.replace(&format!("identity = \"{}\"\n", KEYS[1]), "");
        assert_eq!(
            complaints(&without),
            ["2: [node.beta] has no `identity`: add a line such as: identity = \"sha256//..\", \
              which `hotpair identity` prints on that node"]
        );
    } else {
        assert_eq!(
            complaints(&text),
            ["1: encryption = \"tls\", and this build of hotpair has no TLS: build it with the \
              feature \"tls\""]
        );
    }
}

#[test]
fn one_host_is_fine_when_nothing_is_shared() {
    let text = good()
        .replace("192.0.2.2:7788", "127.0.0.1:7789")
        .replace("192.0.2.1:7788", "127.0.0.1:7788")
        .replace("[node.alpha]", "state_dir = \"/b\"\ncontrol = \"/b/c\"\n[node.alpha]");
    let said = complaints(&text);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].starts_with("14: both nodes have `path` /srv/vm1.img"), "{said:#?}");
    assert!(parse(&(text + "[resource.vm1.on.beta]\npath = \"/b/vm1.img\"\n")).is_ok());
}

#[test]
fn what_has_no_effect_is_said_and_accepted() {
    let text = good().replace("[node.alpha]", "http = \"192.0.2.2:7789\"\n[node.alpha]")
        + "prefer = \"alpha\"\nexport = \"tcp:0.0.0.0:10809\"\n\
           [promotion]\nauto = \"off\"\narbiter = \"none\"\nfailback = \"manual\"\nlease = \"3s\"\n\
           [resource.vm1.hooks]\npromote = [\"/bin/true\"]\n";
    let parsed = parse(&text).unwrap();
    let said: Vec<_> = parsed.warnings.iter().map(|warning| warning.what().to_string()).collect();
    assert_eq!(
        said,
        [
            "replication is neither encrypted nor authenticated",
            "`http` has no effect yet",
            "the export tcp:0.0.0.0:10809 takes clients from any host, without asking who they are",
            "`lease` has no effect without an arbiter",
        ]
    );
    let shown = parsed.warnings[1].render("f", &text, &Renderer::plain());
    assert!(shown.starts_with("warning: `http` has no effect yet\n --> f:7:8"), "{shown}");
}

#[test]
fn too_many_resources_are_refused_at_their_line() {
    let section =
        |n| format!("[resource.r{n:03}]\nkind = \"block\"\npath = \"/{n}\"\nsize = \"1MiB\"");
    let text = good() + &(0..300).map(section).collect::<Vec<_>>().join("\n");
    let said = complaints(&text);
    assert!(said[0].contains(": more than 256 resources: "), "{said:#?}");
}

#[test]
fn a_broken_file_does_not_flood_the_terminal() {
    let section = |n| format!("[resource.r{n}]\nkind = \"directory\"");
    let text = good() + &(0..40).map(section).collect::<Vec<_>>().join("\n");
    let shown = parse(&text).unwrap_err().render("f", &text, &Renderer::plain());
    assert_eq!(shown.matches("error: ").count(), 10);
    assert!(shown.ends_with("... and 30 more"));
}

#[test]
fn garbage_gets_an_error_and_no_panic() {
    let good = good();
    for len in 0..good.len() {
        let _ =
            parse(&good[..len]).map_err(|err| err.render("f", &good[..len], &Renderer::plain()));
    }
    for text in ["\u{0}", "[[[", &"[".repeat(100_000), &"a.".repeat(50_000), "\u{1b}[31m = 1"] {
        let err = parse(text).unwrap_err();
        assert!(!err.render("f", text, &Renderer::plain()).contains('\u{1b}'));
    }
}

#[test]
fn only_a_file_that_nobody_else_can_write_is_believed() {
    let facts = FileFacts { len: 100, mode: 0o644, owner: 0, me: 1000 };
    assert!(check_file(facts).is_ok());
    assert!(check_file(FileFacts { owner: 1000, ..facts }).is_ok());
    let said = |facts| {
        let err = check_file(facts).unwrap_err();
        let what = err.mistakes().next().unwrap();
        format!("{what}: {}", what.mend())
    };
    assert_eq!(
        said(FileFacts { mode: 0o664, ..facts }),
        "others can write this file (mode 0664): take that right away: chmod go-w FILE"
    );
    assert_eq!(
        said(FileFacts { mode: 0o646, ..facts }),
        "others can write this file (mode 0646): take that right away: chmod go-w FILE"
    );
    assert!(said(FileFacts { owner: 7, ..facts }).starts_with("this file belongs to user 7"));
    assert_eq!(
        said(FileFacts { len: 2 << 20, ..facts }),
        "this file has 2097152 bytes, the most is 1048576: is it the right file?"
    );
}

/// The example of the design pages, with every key of every release.
const FULL: &str = r#"
cluster = "office"

[node.alpha]
replication = "192.0.2.1:7788"
heartbeat   = ["192.0.2.1:7789", "198.51.100.1:7789"]
identity    = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
http        = "127.0.0.1:7780"
[node.beta]
replication = "192.0.2.2:7788"
heartbeat   = ["192.0.2.2:7789", "198.51.100.2:7789"]
identity    = "sha256//BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="

[link]
encryption = "tls"
[heartbeat]
interval = "200ms"
suspect_after = "1s"
multicast = "239.255.77.88:7790"

[promotion]
auto     = "AUTO"
arbiter  = "ARBITER"
witness  = "192.0.2.3:7787"
witness_identity = "sha256//CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCA="
etcd   = ["http://192.0.2.3:2379"]
lease    = "3s"
failback = "manual"
arbiter_grace = "10s"
arbiter_loss = "primary-stays"
flap_limit = "2 in 10m"
fence = "/path"
unfence = "/path"
fence_timeout = "30s"
fence_delay = "5s"
etcd_ca = "/a"
etcd_cert = "/b"
etcd_key = "/c"
etcd_user = "u"
etcd_password_file = "/d"

[resource.vm1]
kind   = "block"
path   = "/srv/vm1.img"
size   = "20GiB"
mode   = "async"
prefer = "alpha"
flush = "both"
export = "unix:/run/hotpair/vm1.nbd"
at_risk_budget = { bytes = "64MiB", age = "5s" }
resync_rate = "100MiB"
[resource.vm1.on.beta]
path   = "/data/vm1.img"

[resource.vm1.hooks]
promote = ["/etc/hotpair/start-site"]
demote  = ["/etc/hotpair/stop-site"]
virtual_ip = { address = "192.0.2.10/24", device = "eth0" }
stop_within = "5s"
timeout = "60s"

[resource.uploads]
kind    = "directory"
path    = "/srv/uploads"
exclude = ["*.tmp"]
max_lag = "5s"
keep_generations = 3
settle = "200ms"
full_scan = "10m"
max_delete = "50%"
mass_delete = "pin"
watch = "auto"
guard = "auto"
work_dir = "/srv/work"
leave_out = ["devices"]
keep_limit = "10GiB"
freeze_label = "quiesced"
freeze_every = "15m"
freeze_limit = "10s"
[resource.uploads.hooks]
promote = ["/etc/hotpair/start-site"]
demote  = ["/etc/hotpair/stop-site"]
freeze = ["/etc/hotpair/freeze"]
thaw = ["/etc/hotpair/thaw"]
"#;

#[test]
fn every_key_of_the_contract_is_known() {
    let now = FULL.replace("AUTO", "off").replace("ARBITER", "none");
    let is_full = cfg!(all(feature = "_tls", feature = "directory"));
    if is_full {
        parse(&now).unwrap_or_else(|err| panic!("{}", err.render("f", &now, &Renderer::plain())));
    }
    let pacemaker = FULL.replace("AUTO", "arbiter").replace("ARBITER", "pacemaker");
    let said = complaints(&pacemaker);
    let of_hooks = said.iter().filter(|line| line.contains("there are hooks")).count();
    assert_eq!((of_hooks, is_full), (2, said.len() == 2), "{said:?}");
    let witness = FULL.replace("AUTO", "arbiter").replace("ARBITER", "witness");
    if is_full {
        let promotion = parse(&witness).unwrap().config.promotion;
        assert_eq!(promotion.auto, Auto::Arbiter);
        assert_eq!((promotion.arbiter.name(), promotion.lease.as_secs()), ("witness", 3));
    }
}

#[test]
fn a_pair_with_a_witness_has_heartbeats() {
    let witness = "[promotion]\nauto = \"arbiter\"\narbiter = \"witness\"\n\
                   witness = \"192.0.2.3:7787\"\n";
    let parsed = parse(&(good() + witness)).unwrap();
    let alpha = parsed.config.for_node("alpha").unwrap();
    assert_eq!(alpha.node.heartbeat, [alpha.node.replication], "unless the file names another");
    assert_eq!(alpha.peer.heartbeat, [alpha.peer.replication]);
    assert!(parsed.warnings.iter().any(|it| *it.what() == Caution::SinglePath));
    let hash = |text: &str| parse(text).unwrap().config.for_node("beta").unwrap();
    let by_hand = hash(&good()).resources[0].settings_hash;
    let by_witness = hash(&(good() + witness)).resources[0].settings_hash;
    assert_ne!(by_hand, by_witness, "both nodes must agree who promotes");
    let longer = good() + witness + "lease = \"4s\"\n";
    assert_ne!(hash(&longer).resources[0].settings_hash, by_witness);
}

#[test]
fn under_pacemaker_only_its_own_keys_count() {
    let pacemaker = "[promotion]\nauto = \"arbiter\"\narbiter = \"pacemaker\"\nfence = \"/etc/fence\"\n\
         unfence = \"/etc/fence\"\n";
    let parsed = parse(&(good() + pacemaker)).unwrap();
    let promotion = &parsed.config.promotion;
    assert_eq!((promotion.auto, &promotion.arbiter), (Auto::Arbiter, &Arbiter::Pacemaker));
    assert!(promotion.fence.is_some() && promotion.arbiter_grace.is_none());
    let alpha = parsed.config.for_node("alpha").unwrap();
    assert_eq!(alpha.node.heartbeat, [alpha.node.replication], "a lost peer is noticed by silence");
    let hash = |text: &str| parse(text).unwrap().config.for_node("beta").unwrap();
    let hashes = [pacemaker, ""].map(|it| hash(&(good() + it)).resources[0].settings_hash);
    assert_ne!(hashes[0], hashes[1], "both nodes must agree who promotes");
    let unused = "lease = \"9s\"\nfence_delay = \"5s\"\nflap_limit = \"3 in 1h\"\n\
                  arbiter_loss = \"symmetric\"\nwitness = \"192.0.2.3:7787\"\n";
    let text = good() + "prefer = \"beta\"\n" + pacemaker + unused;
    let warnings = parse(&text).unwrap().warnings;
    let said = |key: &str| {
        warnings.iter().filter(|it| it.what().to_string().starts_with(&format!("`{key}` "))).count()
    };
    for key in ["lease", "fence_delay", "flap_limit", "arbiter_loss", "witness", "prefer"] {
        assert_eq!(said(key), 1, "{key}: {warnings:?}");
    }
    assert_eq!(hash(&text).resources[0].settings_hash, hashes[0], "they change nothing");
}

#[test]
fn a_fence_command_counts_where_something_runs_it() {
    let promotion = |lines: &str| {
        let parsed = parse(&(good() + "[promotion]\n" + lines)).unwrap();
        (parsed.config.promotion, parsed.warnings)
    };
    let (fenced, _) = promotion("auto = \"fenced\"\nfence = \"/etc/fence\"\n");
    let seconds = |fence: &Fence| (fence.timeout.as_secs(), fence.delay.as_secs());
    assert_eq!(fenced.fence.as_ref().map(seconds), Some((30, 5)));
    let is_unused = |warning: &Warning| matches!(warning.what(), Caution::NoFence { .. });
    let witness = "arbiter = \"witness\"\nwitness = \"192.0.2.3:7787\"\n";
    for (lines, runs, unused) in [
        ("auto = \"off\"\nfence = \"/etc/fence\"\n".to_owned(), false, 1),
        (format!("auto = \"arbiter\"\nfence = \"/etc/fence\"\n{witness}"), true, 0),
        (format!("auto = \"arbiter\"\nfence_timeout = \"9s\"\n{witness}"), false, 1),
        (format!("auto = \"fenced\"\nfence = \"/f\"\nfence_delay = \"4s\"\n{witness}"), true, 1),
    ] {
        let (promotion, warnings) = promotion(&lines);
        assert_eq!(promotion.fence.is_some(), runs, "{lines}");
        assert_eq!(warnings.iter().filter(|it| is_unused(it)).count(), unused, "{lines}");
    }
}

#[test]
fn two_primaries_are_accepted_by_name_only() {
    let text = good() + "[promotion]\nauto = \"heartbeat-only\"\nlease = \"4s\"\n";
    let paths = |text: &str, name: &str, last: u8| {
        let section = format!("[node.{name}]\n");
        let path = |network: &str| format!("\"{network}.{last}:7789\"");
        let line = format!("heartbeat = [{}, {}]\n", path("192.0.2"), path("198.51.100"));
        text.replace(&section, &(section.clone() + &line))
    };
    let text = paths(&paths(&text, "alpha", 1), "beta", 2);
    let parsed = parse(&text).unwrap();
    let whats: Vec<&Caution> = parsed.warnings.iter().map(Warning::what).collect();
    assert!(whats.contains(&&Caution::TwoPrimaries), "{whats:?}");
    assert!(!whats.iter().any(|it| matches!(it, Caution::ArbiterOnly { .. })), "{whats:?}");
    let hash = |text: &str| parse(text).unwrap().config.for_node("beta").unwrap();
    let longer = text.replace("\"4s\"", "\"5s\"");
    assert_ne!(hash(&text).resources[0].settings_hash, hash(&longer).resources[0].settings_hash);
}

#[test]
fn a_group_is_one_more_path_and_never_the_only_one() {
    let heartbeat = |group: &str| format!("[heartbeat]\nmulticast = \"{group}\"\n");
    let witness = "[promotion]\nauto = \"arbiter\"\narbiter = \"witness\"\n\
                   witness = \"192.0.2.3:7787\"\n";
    let group = heartbeat("239.255.77.88:7790");
    let parsed = parse(&(good() + witness + &group)).unwrap();
    let multicast = parsed.config.for_node("beta").unwrap().multicast.unwrap();
    assert_eq!(multicast.group, "239.255.77.88:7790".parse().unwrap());
    assert_eq!(multicast.local, parsed.config.nodes[1].heartbeat[0]);
    assert!(parsed.warnings.iter().any(|it| *it.what() == Caution::SinglePath), "one network");
    let said = complaints(&(good() + &group)).join("\n");
    assert!(said.contains("`multicast` would be the only path of heartbeats"), "{said}");
    let said = complaints(&(good() + witness + &heartbeat("[ff02::7790]:7790"))).join("\n");
    assert!(said.contains("no path of heartbeats of the family of [ff02::7790]:7790"), "{said}");
    for group in ["192.0.2.1:7790", "224.0.0.1:7790", "239.1.2.3:0", "[ff05::1]:7790", "group"] {
        let said = complaints(&(good() + witness + &heartbeat(group))).join("\n");
        assert!(said.contains("a group of 239.0.0.0/8 or ff02::/16"), "{said}");
    }
}
