//! A pair without a witness, and a command that cuts the other host off: it kills what runs there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::scene::{Scene, measured, since};
use crate::real::lab::Lab;
use crate::real::pair::{Plan, RESOURCE};
use crate::real::process;

/// Long enough for a loaded machine.
const LINES: &str = "fence_delay = \"2s\"\nfence_timeout = \"20s\"";

/// The time in which nothing may happen: longer than silence, delay and two runs of the command.
const WHILE: Duration = Duration::from_secs(15);

/// A pair with a fence device, and what that did.
struct Stage {
    scene: Scene,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(lab: Option<Lab>, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let fence = folder.path().join("fence");
        // A process that nobody has waited for is as good as gone.
        let text = format!(
            "#!/bin/sh\n\
             [ \"$HOTPAIR_ACTION\" = fence ] && [ \"$HOTPAIR_PEER\" = \"$1\" ] || exit 1\n\
             if [ -e {at}/broken-$HOTPAIR_NODE ]; then echo no answer; exit 5; fi\n\
             pid=$(cat {at}/pid-$1)\n\
             all=\"$pid $(cat /proc/$pid/task/$pid/children 2>/dev/null)\"\n\
             kill -9 $all 2>/dev/null\n\
             for one in $all; do\n\
             while grep -q '^State:.[^Z]' /proc/$one/status 2>/dev/null; do sleep 0.02; done\n\
             done\n\
             echo $HOTPAIR_NODE fenced $1 >> {at}/log\n"
        );
        fs::write(&fence, text).unwrap();
        fs::set_permissions(&fence, fs::Permissions::from_mode(0o755)).unwrap();
        let plan = Plan { fence: Some(fence), promotion_lines: LINES, lab, ..Plan::default() };
        let mut stage = Self { scene: Scene::with(plan, seed), folder };
        stage.note_process(0);
        stage.note_process(1);
        stage
    }

    fn path(&self, name: &str, at: usize) -> PathBuf {
        self.folder.path().join(format!("{name}-{}", self.scene.pair.nodes[at].name))
    }

    /// The device knows which process is the host's.
    fn note_process(&mut self, at: usize) {
        let id = self.scene.pair.nodes[at].daemon().id();
        fs::write(self.path("pid", at), id.to_string()).unwrap();
    }

    fn breaks(&self, at: usize) {
        fs::write(self.path("broken", at), "").unwrap();
    }

    fn works(&self, at: usize) {
        let _ = fs::remove_file(self.path("broken", at));
    }

    /// Who fenced whom, in order.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A host that was fenced is switched on.
    fn switch_on(&mut self, at: usize) {
        self.scene.pair.nodes[at].kill();
        self.scene.pair.nodes[at].run();
        self.note_process(at);
    }
}

/// Either node is lost: the other one fences it, and goes on.
pub(crate) fn a_lost_node_is_fenced() {
    let mut stage = Stage::new(None, 31);
    let load = stage.scene.pair.load(0, stage.scene.record.take().unwrap());
    load.wait_for_answers(500);
    let start = process::now();
    stage.scene.pair.nodes[0].kill();
    let ended = load.join();
    ended.record.check_errors("errors from a healthy pair");
    stage.scene.record = Some(ended.record);
    drop(stage.scene.pair.nodes[1].connect());
    measured("fenced-node-loss", since(start));
    assert_eq!(stage.log(), ["beta fenced alpha"]);
    stage.scene.serves_all(1);
    stage.scene.pair.nodes[0].run();
    stage.note_process(0);
    stage.scene.is_whole_again();
    // Now the secondary: writes wait for the command, and go on.
    let load = stage.scene.pair.load(1, stage.scene.record.take().unwrap());
    load.wait_for_answers(300);
    let start = process::now();
    stage.scene.pair.nodes[0].kill();
    load.wait_for_answers(100);
    measured("fenced-secondary-loss", since(start));
    assert_eq!(stage.scene.pair.nodes[1].field("/promotion/permit"), "fenced");
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    stage.scene.record = Some(ended.record);
    stage.scene.pair.nodes[0].run();
    stage.note_process(0);
    stage.scene.is_whole_again();
}

/// The nodes miss each other: exactly one of them serves, whichever can fence, and none if neither can.
pub(crate) fn a_partition_has_one_winner() {
    let lab = Lab::new();
    let mut stage = Stage::new(Some(lab.clone()), 32);
    let cut = || {
        lab.cut(0, 1);
        lab.cut(1, 0);
    };
    // The primary is first.
    let load = stage.scene.pair.load(0, stage.scene.record.take().unwrap());
    load.wait_for_answers(300);
    cut();
    load.wait_for_answers(300);
    assert_eq!(stage.log(), ["alpha fenced beta"]);
    let ended = load.stop();
    stage.scene.record = Some(ended.record);
    lab.heal();
    stage.switch_on(1);
    stage.scene.is_whole_again();
    // The primary cannot fence, so the other one does.
    stage.breaks(0);
    let load = stage.scene.pair.load(0, stage.scene.record.take().unwrap());
    load.wait_for_answers(300);
    cut();
    stage.scene.pair.wait_serves(1);
    assert_eq!(stage.log(), ["alpha fenced beta", "beta fenced alpha"]);
    let ended = load.join();
    ended.record.check_errors("no answer, and no error either");
    stage.scene.record = Some(ended.record);
    stage.scene.serves_all(1);
    lab.heal();
    stage.works(0);
    stage.switch_on(0);
    stage.scene.is_whole_again();
    // Neither can: nobody goes on, and the pair is whole when the nodes meet.
    stage.breaks(0);
    stage.breaks(1);
    cut();
    let news = stage.scene.pair.news.clone();
    let nodes = &stage.scene.pair.nodes;
    let moved = news.wait_within(WHILE, || {
        let is_alone = nodes[1].field("/solo") == true;
        let is_replaced = nodes[0].field("/role") == "primary";
        (is_alone || is_replaced).then_some(())
    });
    assert!(moved.is_none(), "nothing was confirmed");
    for node in nodes {
        let said = node.well(&["explain", RESOURCE]);
        assert!(said.contains("exit code 5"), "{said}");
    }
    assert_eq!(stage.log().len(), 2);
    lab.heal();
    stage.scene.is_whole_again();
    stage.scene.serves_all(1);
}
