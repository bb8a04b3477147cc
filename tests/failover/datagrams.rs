//! The connection between the nodes is cut, and their datagrams pass.

use super::scene::Scene;
use crate::real::lab::Lab;
use crate::real::pair::Plan;

/// Without the witness the primary goes on by the veto of its peer, which is not promoted when the
/// primary is lost, also not by the witness.
pub(crate) fn veto() {
    let lab = Lab::new();
    let plan = Plan { has_witness: true, lab: Some(lab.clone()), ..Plan::default() };
    let mut scene = Scene::with(plan, 10);
    scene.pair.witness.as_mut().unwrap().kill();
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(200);
    for at in [0, 1] {
        for end in ["sport", "dport"] {
            lab.drop_input(at, &["tcp", end, "7788"]);
        }
    }
    let [alpha, beta] = &scene.pair.nodes;
    scene
        .pair
        .news
        .wait_for("the primary to go on alone", || (alpha.field("/solo") == true).then_some(()));
    assert_eq!(alpha.field("/promotion/permit"), "peer-veto");
    assert_eq!((beta.field("/disk"), beta.field("/role")), ("outdated".into(), "secondary".into()));
    load.wait_for_answers(200);
    let ended = load.stop();
    ended.record.check_errors("no answer rather than an error");
    scene.record = Some(ended.record);
    lab.heal();
    scene.pair.witness.as_mut().unwrap().run();
    scene.serves_all(0);
    scene.is_whole_again();
}
