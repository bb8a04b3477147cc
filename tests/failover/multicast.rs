//! A group as one more path of heartbeats, between hosts with a switch.

use serde_json::Value;

use super::scene::Scene;
use crate::real::lab::Lab;
use crate::real::pair::{Node, Plan, RESOURCE};

const GROUP: &str = "[heartbeat]\nmulticast = \"239.255.77.88:7790\"";

fn paths(node: &Node) -> Vec<(String, bool)> {
    let paths = node.field("/peer/paths");
    let one = |path: &Value| (path["to"].as_str().unwrap().to_owned(), path["up"] == true);
    paths.as_array().into_iter().flatten().map(one).collect()
}

fn wait_paths(scene: &Scene, wanted: [bool; 3]) {
    for node in &scene.pair.nodes {
        scene.pair.news.wait_for("the paths of heartbeats", || {
            let up: Vec<bool> = paths(node).into_iter().map(|(_, up)| up).collect();
            (up == wanted).then_some(())
        });
    }
}

/// A switch that swallows what is sent to a group takes that path away, and nothing else; where
/// nothing but the group passes, it holds.
pub(crate) fn swallowed() {
    let lab = Lab::new();
    let lab_of_pair = Some(lab.clone());
    let plan =
        Plan { has_witness: true, promotion_lines: GROUP, lab: lab_of_pair, ..Plan::default() };
    let mut scene = Scene::with(plan, 48);
    wait_paths(&scene, [true, true, true]);
    assert_eq!(paths(&scene.pair.nodes[0])[2].0, "239.255.77.88:7790");
    let epoch = scene.pair.nodes[0].field("/epoch");
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(200);

    for at in [0, 1] {
        lab.drop_input(at, &["ip", "daddr", "239.0.0.0/8"]);
    }
    wait_paths(&scene, [true, true, false]);
    load.wait_for_answers(200);
    lab.heal();
    wait_paths(&scene, [true, true, true]);

    for at in [0, 1] {
        lab.drop_input(at, &["udp", "dport", "7789"]);
    }
    wait_paths(&scene, [false, false, true]);
    load.wait_for_answers(200);
    lab.heal();
    wait_paths(&scene, [true, true, true]);

    let ended = load.stop();
    ended.record.check_errors("no answer rather than an error");
    scene.record = Some(ended.record);
    let node = &scene.pair.nodes[0];
    assert_eq!(
        (node.field("/role"), node.field("/epoch")),
        ("primary".into(), epoch),
        "{RESOURCE}"
    );
    scene.serves_all(0);
    scene.is_whole_again();
}
