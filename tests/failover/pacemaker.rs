//! A pair under Pacemaker, of which the test is the cluster and the agent; the fence script is the one that
//! comes with hotpair.

use crate::cluster::{Cluster, OFF};
use crate::real::pair::{Plan, RESOURCE};

use super::scene::Scene;

/// The primary is lost, the cluster fences it and has the agent promote the other node. When both are the
/// same again each may be promoted, and the role moves by demote here and promote there.
pub(crate) fn a_cluster_fences_before_it_promotes() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(folder.path(), RESOURCE);
    let fence = Some(cluster.fence_command());
    let plan = Plan { fence, under_pacemaker: true, ..Plan::default() };
    let mut scene = Scene::with(plan, 41);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(500);
    scene.pair.nodes[0].kill();
    let ended = load.join();
    ended.record.check_errors("errors from a healthy pair");
    scene.record = Some(ended.record);
    cluster.is("members", "beta");
    cluster.is("states", OFF);
    cluster.is("fenced", "1760000000");
    // By hand it is refused, before anything else is looked at.
    let refused = scene.pair.nodes[1].say(&["promote", RESOURCE]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("pcs resource move"), "{}", refused.stderr);
    assert_eq!(scene.pair.nodes[1].field("/role"), "secondary");
    scene.pair.nodes[1].as_agent(&["promote", RESOURCE]);
    assert!(cluster.constraint().is_some_and(|it| it.starts_with("beta ")));
    assert_eq!(scene.pair.nodes[1].field("/promotion/permit"), "pacemaker");
    scene.serves_all(1);
    // The old primary is back, as a secondary, and is filled.
    cluster.is("members", "alpha beta");
    scene.pair.nodes[0].run();
    scene.is_whole_again();
    let news = scene.pair.news.clone();
    let is_lifted = || cluster.constraint().is_none().then_some(());
    news.wait_for("the constraint to be lifted", is_lifted);
    // The role moves back.
    scene.pair.nodes[1].as_agent(&["demote", RESOURCE]);
    scene.pair.nodes[0].as_agent(&["promote", RESOURCE]);
    scene.serves_all(0);
    // And the secondary is lost, as a member of the cluster.
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(300);
    scene.pair.nodes[1].kill();
    load.wait_for_answers(100);
    assert!(cluster.constraint().is_some_and(|it| it.starts_with("alpha ")));
    assert_eq!(scene.pair.nodes[0].field("/promotion/permit"), "fenced");
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    scene.record = Some(ended.record);
    scene.pair.nodes[1].run();
    scene.is_whole_again();
    news.wait_for("the constraint to be lifted", is_lifted);
}
