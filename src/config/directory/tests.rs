//! Facts about directories in a configuration.

use std::path::Path;

use super::*;
use crate::config::tests::{complaints, good};
use crate::config::{Caution, Hook, NodeResource, Warning, parse};
use crate::units::{BLOCK_LEN, ReplicationMode};

/// The smallest file with a directory.
fn with_tree(more: &str) -> String {
    let text = good();
    let head = text.split("[resource.vm1]").next().unwrap();
    format!("{head}[resource.up]\nkind = \"directory\"\npath = \"/srv/up\"\n{more}")
}

fn up(text: &str) -> NodeResource {
    let parsed = parse(text).unwrap_or_else(|err| {
        panic!("{}", err.render("f", text, &annotate_snippets::Renderer::plain()))
    });
    parsed.config.for_node("beta").unwrap().resource("up").unwrap().clone()
}

/// All that is said of a file with one directory, without the numbers of lines.
fn said(more: &str) -> Vec<String> {
    let all = complaints(&with_tree(more));
    all.into_iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}

fn warned(text: &str) -> Vec<Caution> {
    let warnings = parse(text).unwrap().warnings;
    let of_files = |it: &&Warning| !matches!(it.what(), Caution::InTheClear);
    warnings.iter().filter(of_files).map(|it| it.what().clone()).collect()
}

#[test]
fn a_directory_needs_a_path_and_has_defaults_for_the_rest() {
    let resource = up(&with_tree(""));
    let directory = resource.directory.unwrap();
    let expected = Directory {
        exclude: BTreeSet::new(),
        leave_out: BTreeSet::new(),
        max_lag: Duration::from_secs(5),
        settle: Duration::from_millis(200),
        full_scan: Duration::from_mins(10),
        max_delete_percent: 50,
        mass_delete: MassDelete::Pin,
        watch: Watch::Auto,
        guard: Guard::Auto,
        keep_generations: 3,
        keep_limit_bytes: 10 << 30,
        freeze_label: FreezeLabel::Quiesced,
        freeze_every: None,
        freeze_limit: Duration::from_secs(10),
    };
    assert_eq!(directory, expected);
    assert_eq!(resource.size.bytes(), BLOCK_LEN);
    assert_eq!((resource.mode, resource.flush_both), (ReplicationMode::Sync, true));
    assert_eq!((resource.local.freeze, resource.local.work_dir), (None, None));
    assert_eq!(
        complaints(&with_tree("").replace("path = \"/srv/up\"\n", "")),
        ["10: [resource.up] has no `path`: add a line such as: path = \"/srv/uploads\""]
    );
    assert!(parse(&good()).unwrap().config.resources[0].directory.is_none());
}

#[test]
fn every_key_of_a_directory_is_read() {
    let text = with_tree(
        "exclude = [\"*.tmp\", \"/cache/**\"]\nmax_lag = \"20s\"\nsettle = \"1s\"\nfull_scan = \"1h\"\n\
         max_delete = \"0%\"\nmass_delete = \"halt\"\nwatch = \"scan\"\nguard = \"watch\"\n\
         leave_out = [\"setid\", \"devices\", \"setid\"]\nkeep_generations = 0\nkeep_limit = \"1GiB\"\n\
         freeze_label = \"frozen\"\nfreeze_every = \"15m\"\nfreeze_limit = \"3s\"\nprefer = \"beta\"\n\
         work_dir = \"/srv/work\"\n\
         [resource.up.hooks]\nfreeze = [\"/etc/freeze\"]\nthaw = [\"systemd:db.service\"]\ntimeout = \"9s\"\n\
         [resource.up.on.beta]\npath = \"/data/up\"\nwork_dir = \"/data/work\"\n",
    );
    let resource = up(&text);
    let expected = Directory {
        exclude: ["*.tmp", "/cache/**"].map(str::to_owned).into(),
        leave_out: [LeaveOut::Devices, LeaveOut::Setid].into(),
        max_lag: Duration::from_secs(20),
        settle: Duration::from_secs(1),
        full_scan: Duration::from_hours(1),
        max_delete_percent: 0,
        mass_delete: MassDelete::Halt,
        watch: Watch::Scan,
        guard: Guard::Watch,
        keep_generations: 0,
        keep_limit_bytes: 1 << 30,
        freeze_label: FreezeLabel::Frozen,
        freeze_every: Some(Duration::from_mins(15)),
        freeze_limit: Duration::from_secs(3),
    };
    assert_eq!(resource.directory, Some(expected));
    let freeze = FreezeHooks {
        freeze: vec![Hook::Command("/etc/freeze".into())],
        thaw: vec![Hook::Unit("db.service".to_owned())],
        timeout: Duration::from_secs(9),
    };
    assert_eq!(resource.local.freeze, Some(freeze));
    assert_eq!(resource.local.hooks, None, "nothing starts or stops with the role");
    let parsed = parse(&text).unwrap().config;
    let dirs = parsed.resources[0].on.each_ref().map(|on| on.work_dir.as_deref());
    assert_eq!(dirs, ["/srv/work", "/data/work"].map(|path| Some(Path::new(path))));
    assert!(warned(&text).is_empty());
}

#[test]
fn both_nodes_must_agree_on_what_is_in_the_tree_and_how_far_it_may_be_behind() {
    let hash = |more: &str| up(&with_tree(more)).settings_hash;
    let base = hash("");
    let differ = [
        "exclude = [\"*.tmp\"]\n",
        "exclude = [\"*.o\"]\n",
        "leave_out = [\"acl\"]\n",
        "leave_out = [\"acl\", \"owner\"]\n",
        "max_lag = \"6s\"\n",
    ]
    .map(hash);
    let all: BTreeSet<u32> = differ.into_iter().chain([base]).collect();
    assert_eq!(all.len(), 6);
    for same in [
        "max_lag = \"5s\"\n",
        "exclude = []\n",
        "settle = \"100ms\"\nwatch = \"scan\"\nkeep_generations = 9\n",
        "work_dir = \"/srv/w\"\n",
    ] {
        assert_eq!(hash(same), base, "{same}");
    }
    let ordered = hash("exclude = [\"a\", \"b\"]\nleave_out = [\"acl\", \"owner\"]\n");
    let turned = hash("exclude = [\"b\", \"a\"]\nleave_out = [\"owner\", \"acl\"]\n");
    assert_eq!(ordered, turned);
}

#[test]
fn each_bad_value_is_named_with_what_is_right() {
    for (line, expected) in [
        ("max_delete = \"50\"", "bad value \"50\": expected a whole number of percent"),
        ("max_delete = \"+5%\"", "bad value \"+5%\": expected a whole number of percent"),
        ("max_delete = \"101%\"", "bad value \"101%\": expected a whole number of percent"),
        ("mass_delete = \"ship\"", "bad value \"ship\": expected \"pin\" or \"halt\""),
        ("watch = \"poll\"", "bad value \"poll\": expected \"auto\", \"inotify\" or \"scan\""),
        (
            "watch = \"fanotify\"",
            "watch = \"fanotify\" comes with a later release: this release sees changes by inotify and \
             by scans: watch = \"auto\"",
        ),
        ("guard = \"mount\"", "bad value \"mount\": expected \"auto\" or \"watch\""),
        ("leave_out = [\"mode\"]", "bad value \"mode\": expected \"owner\", \"xattr\", \"acl\""),
        ("keep_generations = -1", "bad value -1: expected a whole number from 0 to 1000"),
        ("keep_generations = 1001", "bad value 1001: expected a whole number from 0 to 1000"),
        ("keep_generations = \"3\"", "invalid type: string \"3\": expected a whole number"),
        ("exclude = [\"\"]", "bad value \"\": expected a pattern without a slash at its end"),
        ("exclude = [\"cache/\"]", "bad value \"cache/\": expected a pattern without a slash"),
        ("exclude = [\"/\"]", "bad value \"/\": expected a pattern without a slash"),
        ("freeze_every = \"on\"", "bad value \"on\": expected \"off\" or a time span"),
        ("freeze_label = \"stable\"", "bad value \"stable\": expected \"quiesced\" or \"frozen\""),
        ("work_dir = \"work\"", "bad value \"work\": expected an absolute path"),
        ("max_lag = \"900ms\"", "`max_lag` is below 1s: a capture, its way to the other node"),
        ("full_scan = \"9s\"", "`full_scan` is below 10s: it looks at every entry"),
    ] {
        let found = said(&format!("{line}\n"));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{line}: {found:#?}");
    }
    let many: Vec<_> = (0..257).map(|n| format!("p{n}")).collect();
    let found = said(&format!("exclude = {many:?}\n"));
    assert!(found[0].starts_with("`exclude` has 257 patterns, the most is 256: "), "{found:?}");
}

#[test]
fn times_that_do_not_fit_are_named_at_the_one_that_is_written() {
    let slow = "`max_lag` (5s) must be at least 4 x `settle` (1s 251ms): set `max_lag` to 5s 4ms or \
                more, or make `settle` shorter";
    assert_eq!(said("settle = \"1251ms\"\n"), [slow]);
    assert!(parse(&with_tree("settle = \"1250ms\"\n")).is_ok());
    let hooks = "[resource.up.hooks]\nfreeze = [\"/f\"]\nthaw = [\"/t\"]\n";
    assert_eq!(
        said(&format!("freeze_every = \"19s\"\n{hooks}")),
        [
            "`freeze_every` (19s) must be at least 2 x `freeze_limit` (10s): set `freeze_every` to 20s or \
          more, or make `freeze_limit` shorter"
        ]
    );
    assert!(parse(&with_tree(&format!("freeze_every = \"20s\"\n{hooks}"))).is_ok());
}

#[test]
fn keys_of_block_resources_are_refused_with_what_to_write_instead() {
    for (line, key, instead) in [
        ("size = \"1GiB\"", "size", "remove the line: a directory is as large as what is in it"),
        (
            "mode = \"async\"",
            "mode",
            "remove the line: a directory goes to the other node in complete",
        ),
        ("flush = \"both\"", "flush", "remove the line: `hotpair sync RESOURCE --wait` returns"),
        ("export = \"tcp:0.0.0.0:7788\"", "export", "remove the line: programs use the files"),
        ("at_risk_budget = { age = \"5s\" }", "at_risk_budget", "write how old a change may be"),
        ("resync_rate = \"1KiB\"", "resync_rate", "remove the line"),
        ("[resource.up.on.beta]\nexport = \"unix:/a\"", "export", "remove the line: programs"),
        ("[resource.up.on.beta]\nat_risk_budget = {}", "at_risk_budget", "write how old"),
    ] {
        let found = said(&format!("{line}\n"));
        let why =
            format!("`{key}` has a meaning on a block resource only, this one is a directory");
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("{why}: {instead}")),
            "{found:#?}"
        );
    }
}

#[test]
fn keys_of_directories_are_refused_on_a_block_resource() {
    let lines = [
        "exclude = []",
        "max_lag = \"5s\"",
        "keep_generations = 3",
        "settle = \"200ms\"",
        "full_scan = \"10m\"",
        "max_delete = \"50%\"",
        "mass_delete = \"pin\"",
        "watch = \"auto\"",
        "guard = \"auto\"",
        "work_dir = \"/srv/up/x\"",
        "leave_out = []",
        "keep_limit = \"1GiB\"",
        "freeze_label = \"frozen\"",
        "freeze_every = \"off\"",
        "freeze_limit = \"1s\"",
        "[resource.vm1.on.beta]\nwork_dir = \"/w\"",
        "[resource.vm1.hooks]\nfreeze = []",
        "[resource.vm1.on.alpha.hooks]\nthaw = [\"/t\"]",
    ];
    for line in lines {
        let key = line.rsplit('\n').next().unwrap().split(' ').next().unwrap();
        let at = 13 + line.lines().count();
        assert_eq!(
            complaints(&(good() + line + "\n")),
            [format!(
                "{at}: `{key}` has a meaning on a directory only, this resource is a block file: remove \
                 the line, or set kind = \"directory\""
            )]
        );
    }
}

#[test]
fn only_paths_and_hooks_differ_from_node_to_node() {
    for line in [
        "exclude = []",
        "max_lag = \"5s\"",
        "keep_generations = 3",
        "settle = \"200ms\"",
        "full_scan = \"10m\"",
        "max_delete = \"50%\"",
        "mass_delete = \"pin\"",
        "watch = \"auto\"",
        "guard = \"auto\"",
        "leave_out = []",
        "keep_limit = \"1GiB\"",
        "freeze_label = \"frozen\"",
        "freeze_every = \"off\"",
        "freeze_limit = \"1s\"",
    ] {
        let key = line.split(' ').next().unwrap();
        assert_eq!(
            said(&format!("[resource.up.on.beta]\n{line}\n")),
            [format!("`{key}` must be the same on both nodes: write it under [resource.up]")]
        );
    }
}

#[test]
fn writers_that_are_held_are_let_go() {
    let hooks = |lines: &str| with_tree(&format!("[resource.up.hooks]\n{lines}"));
    let found = complaints(&hooks("freeze = [\"/f\"]\n"));
    assert_eq!(
        found,
        ["14: the section of hooks with `freeze` has no `thaw`: add a line such as: thaw = \
          [\"/etc/hotpair/thaw\"], or the writers that `freeze` holds are held for ever"]
    );
    assert_eq!(complaints(&hooks("freeze = [\"/f\"]\nthaw = []\n")), found);
    // A section of one node takes the place of the common one key by key.
    let own = "freeze = [\"/f\"]\nthaw = [\"/t\"]\n[resource.up.on.beta.hooks]\nfreeze = []\n";
    let config = parse(&hooks(own)).unwrap().config;
    let [alpha, beta] = config.resources[0].on.each_ref().map(|on| on.freeze.is_some());
    assert!(alpha && !beta);
    assert_eq!(warned(&hooks("thaw = [\"/t\"]\n")), [Caution::FreezeOnly { key: "thaw" }]);
    let keys = ["freeze_label", "freeze_every", "freeze_limit"];
    let unused =
        with_tree("freeze_label = \"frozen\"\nfreeze_every = \"15m\"\nfreeze_limit = \"1s\"\n");
    assert_eq!(warned(&unused), keys.map(|key| Caution::FreezeOnly { key }));
}

/// One file with `/srv/up`, and what is said of where things are.
fn nested(state_dir: &str, more: &str) -> Vec<String> {
    let text = with_tree(more)
        .replace("[node.alpha]\n", &format!("[node.alpha]\nstate_dir = \"{state_dir}\"\n"));
    match parse(&text) {
        Ok(_) => Vec::new(),
        Err(_) => complaints(&text),
    }
}

#[test]
fn metadata_and_work_areas_are_not_in_the_tree() {
    let metadata = "metadata must not be replicated: keep the directory and the `state_dir` of the \
                    node apart";
    for (state_dir, how) in [
        ("/srv/up/state", "the state_dir /srv/up/state is inside the directory of up /srv/up"),
        ("/srv", "the directory of up /srv/up is inside the state_dir /srv"),
        ("/srv/up", "the directory of up /srv/up is the same as the state_dir /srv/up"),
        ("/srv/up/./", "the directory of up /srv/up is the same as the state_dir /srv/up/./"),
    ] {
        let frozen =
            "freeze_label = \"frozen\"\n[resource.up.hooks]\nfreeze = [\"/f\"]\nthaw = [\"/t\"]\n";
        for more in ["", frozen] {
            let expected = format!("13: on node alpha {how}: {metadata}");
            assert_eq!(nested(state_dir, more), [expected], "{state_dir}");
        }
    }
    let work = "remove `work_dir`, or write a folder of its own for it, beside the directory and on the \
                same mount; in the directory it can only be .hotpair at the top";
    for (work_dir, how) in [
        ("/srv/up/work", "the work_dir of up /srv/up/work is inside the directory of up /srv/up"),
        (
            "/srv/up/.hotpair/x",
            "the work_dir of up /srv/up/.hotpair/x is inside the directory of up /srv/up",
        ),
        ("/srv/up", "the work_dir of up /srv/up is the same as the directory of up /srv/up"),
        ("/srv", "the directory of up /srv/up is inside the work_dir of up /srv"),
    ] {
        let expected = format!("14: on node alpha {how}: {work}");
        assert_eq!(nested("/s", &format!("work_dir = \"{work_dir}\"\n")), [expected]);
    }
    for good in ["/srv/up/.hotpair", "/srv/work", "/s/work", "/srv/upper"] {
        assert_eq!(nested("/s", &format!("work_dir = \"{good}\"\n")), [""; 0], "{good}");
    }
    let found = nested("/var/lib", "work_dir = \"/var\"\n");
    assert!(
        found[0].contains("the state_dir /var/lib is inside the work_dir of up /var: "),
        "{found:?}"
    );
}

#[test]
fn no_resource_is_in_the_tree_of_another_one() {
    let apart = "each resource needs a path of its own: replicate the outer one alone, or two beside \
                 each other";
    let tree = "[resource.a]\nkind = \"directory\"\npath = ";
    let block = "[resource.a]\nkind = \"block\"\nsize = \"1MiB\"\npath = ";
    for (line, section, path, how) in [
        (
            16,
            tree,
            "/srv/up/a",
            "the directory of a /srv/up/a is inside the directory of up /srv/up",
        ),
        (13, tree, "/srv", "the directory of up /srv/up is inside the directory of a /srv"),
        (
            13,
            block,
            "/srv/up/a.img",
            "the file of a /srv/up/a.img is inside the directory of up /srv/up",
        ),
    ] {
        let found = nested("/s", &format!("{section}\"{path}\"\n"));
        let is_there = |it: &String| it.ends_with(&format!("on node alpha {how}: {apart}"));
        assert!(found.len() == 1 && is_there(&found[0]), "{found:?}");
        assert!(found[0].starts_with(&format!("{line}: ")), "{found:?}");
    }
    let found = nested("/s", &format!("{tree}\"/srv/up\"\n"));
    assert!(found.iter().all(|it| it.contains("use the same file /srv/up")), "{found:?}");
    let work = format!("work_dir = \"/w\"\n{tree}\"/srv/a\"\nwork_dir = \"/w\"\n");
    let found = nested("/s", &work);
    let same = "the work_dir of up /w is the same as the work_dir of a /w";
    assert!(found.len() == 1 && found[0].contains(same), "{found:?}");
    assert_eq!(nested("/s", &format!("{tree}\"/srv/upper\"\n")), [""; 0]);
}

#[test]
fn two_nodes_on_one_host_keep_their_trees_apart() {
    let both = |more: &str| {
        let text = with_tree(more)
            .replace("192.0.2.2:7788", "127.0.0.1:7789")
            .replace("192.0.2.1:7788", "127.0.0.1:7788")
            .replace("[node.alpha]", "state_dir = \"/b\"\ncontrol = \"/c\"\n[node.alpha]");
        parse(&text).map_or_else(|_| complaints(&text), |_| Vec::new())
    };
    assert_eq!(both("[resource.up.on.beta]\npath = \"/srv/down\"\n"), [""; 0]);
    for (path, how) in [
        ("/srv/up/b", "the directory of up /srv/up/b is inside the directory of up /srv/up"),
        ("/var/lib/hotpair/up", "is inside the state_dir /var/lib/hotpair"),
        ("/b/up", "the directory of up /b/up is inside the state_dir /b"),
    ] {
        let found = both(&format!("[resource.up.on.beta]\npath = \"{path}\"\n"));
        assert!(found.len() == 1 && found[0].contains(how), "{path}: {found:?}");
    }
    let found = both("");
    assert!(found.len() == 1 && found[0].contains("both nodes have `path` /srv/up"), "{found:?}");
}
