//! The fence script for Pacemaker, in a cluster that is made of files.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/cluster.rs"]
mod cluster;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use cluster::{Cluster, OFF};

/// Runs the script on alpha, of which beta is the peer.
fn script(cluster: &Cluster, action: &str, epoch: u64) -> (i32, String) {
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(cluster::script())
        .arg("beta")
        .env_clear()
        .env("PATH", format!("{}:{path}", cluster.folder.display()))
        .envs([("HOTPAIR_RESOURCE", "vm1"), ("HOTPAIR_NODE", "alpha"), ("HOTPAIR_PEER", "beta")])
        .envs([("HOTPAIR_FENCE_WAIT", "1"), ("HOTPAIR_FENCE_CALL", "2")])
        .env("HOTPAIR_ACTION", action)
        .env("HOTPAIR_EPOCH", epoch.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{said}");
    (output.status.code().unwrap(), said)
}

fn with_cluster(act: impl FnOnce(&Cluster)) {
    let folder = tempfile::tempdir().unwrap();
    act(&Cluster::new(folder.path(), "vm1"));
}

#[test]
fn a_member_is_kept_from_being_promoted_until_both_are_the_same() {
    with_cluster(|cluster| {
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint().as_deref()), (4, Some("alpha 9")), "{said}");
        assert_eq!(script(cluster, "fence", 9).0, 4, "it is there already");
        assert_eq!(script(cluster, "fence", 14).0, 4);
        assert_eq!(cluster.constraint().as_deref(), Some("alpha 14"), "it is of the newest loss");
        assert_eq!(script(cluster, "unfence", 14), (0, String::new()));
        assert_eq!(cluster.constraint(), None);
        assert_eq!(script(cluster, "unfence", 14), (0, String::new()), "there is none");
        // Whoever is primary and paired lifts what the other one placed.
        cluster.is("constraint", "beta 6");
        assert_eq!(script(cluster, "unfence", 14).0, 0);
        assert_eq!(cluster.constraint(), None);
    });
}

#[test]
fn a_peer_that_is_off_is_told_from_one_that_is_lost() {
    with_cluster(|cluster| {
        cluster.is("members", "alpha");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint()), (5, None), "{said}");
        assert!(said.contains("beta is no member"), "{said}");
        cluster.is("states", OFF);
        assert_eq!(script(cluster, "fence", 9).0, 5, "stopped in order: hotpair may run there");
        cluster.is("fenced", "1760000000");
        cluster.is("resources", "<lrm id=\"2\">");
        assert_eq!(script(cluster, "fence", 9).0, 5, "it was back since it was fenced");
        std::fs::remove_file(cluster.folder.join("resources")).unwrap();
        assert_eq!(cluster.constraint(), None);
        assert_eq!(script(cluster, "fence", 9).0, 7);
        assert_eq!(cluster.constraint().as_deref(), Some("alpha 9"), "it may come back");
        // As newer releases write it: times, and 0 for never.
        cluster.is("states", "in_ccm=\"0\" crmd=\"0\" join=\"down\" expected=\"down\"");
        assert_eq!(script(cluster, "fence", 9).0, 7);
        let since = "in_ccm=\"1760000000\" crmd=\"1760000001\" join=\"member\" expected=\"member\"";
        cluster.is("states", since);
        assert_eq!(
            script(cluster, "fence", 9).0,
            5,
            "it is said to be a member, and does not answer"
        );
    });
    with_cluster(|cluster| {
        cluster.is("members-after", "alpha");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint()), (5, None), "lost meanwhile: {said}");
    });
    with_cluster(|cluster| {
        cluster.is("members-after", "alpha");
        cluster.is("states", OFF);
        cluster.is("fenced", "1760000000");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!(code, 7, "lost and fenced meanwhile: {said}");
        assert_eq!(cluster.constraint().as_deref(), Some("alpha 9"));
    });
}

#[test]
fn a_peer_that_has_not_got_the_constraint_is_no_member() {
    with_cluster(|cluster| {
        cluster.is("deaf", "");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint()), (5, None), "cut off: {said}");
    });
    with_cluster(|cluster| {
        cluster.is("members", "alpha");
        let state = "in_ccm=\"true\" crmd=\"offline\" join=\"down\" expected=\"down\"";
        cluster.is("states", state);
        cluster.is("fenced", "1760000000");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint()), (5, None), "only Corosync runs there: {said}");
    });
}

#[test]
fn a_node_that_lacks_what_the_other_one_has_is_told_so() {
    with_cluster(|cluster| {
        cluster.is("constraint", "beta 6");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint().as_deref()), (6, Some("beta 6")), "{said}");
    });
    with_cluster(|cluster| {
        cluster.is("faster", "beta 6");
        assert_eq!(script(cluster, "fence", 9).0, 6, "of two that fence one was first");
        assert_eq!(cluster.constraint().as_deref(), Some("beta 6"));
    });
}

#[test]
fn what_is_not_set_up_is_named_and_what_hangs_is_not_waited_for() {
    for (file, text, word) in [
        ("stonith", "stonith-enabled\" value=\"false", "stonith-enabled"),
        ("stonith", "stonith-enabled\" value=\"No", "stonith-enabled"),
        ("stonith", "stonith-enabled\" value=\"OFF", "stonith-enabled"),
        ("stonith", "fencing-enabled\" value=\"0", "stonith-enabled"),
        ("release", "2.0.5-ba59be7122", "2.1 or later, and is 2.0.5"),
        ("release", "1.1.24-8f22be2ae5", "2.1 or later"),
        ("release", "", "is not known"),
        ("bare", "", "ocf:hotpair:hotpair"),
        ("hangs", "", "does not answer"),
    ] {
        with_cluster(|cluster| {
            cluster.is(file, text);
            let (code, said) = script(cluster, "fence", 9);
            assert_eq!((code, cluster.constraint()), (1, None), "{said}");
            assert!(said.contains(word), "{said}");
        });
    }
    for release in ["2.1.0-7c3f660707", "2.10.1", "3.0.1-1.el10", "10.0.0"] {
        with_cluster(|cluster| {
            cluster.is("release", release);
            cluster.is("stonith", "stonith-enabled\" value=\"true");
            assert_eq!(script(cluster, "fence", 9).0, 4, "{release}");
        });
    }
    with_cluster(|cluster| {
        cluster.is("hangs", "");
        let (code, said) = script(cluster, "unfence", 9);
        assert_eq!(code, 1, "{said}");
        assert_eq!(script(cluster, "demote", 9).0, 1);
    });
}

#[test]
fn what_is_asked_of_the_cluster_late_takes_nothing_away() {
    with_cluster(|cluster| {
        cluster.is("constraint", "alpha 9 aa");
        assert_eq!(script(cluster, "fence", 9).0, 4, "the epoch is the same");
        let late =
            "//rsc_location[@id='hotpair-fence-vm1'][rule[@id='hotpair-fence-vm1-e9-alpha-aa']]";
        let mut cibadmin = Command::new(cluster.folder.join("cibadmin"));
        let status = cibadmin.args(["--delete", "--xpath", late]).status().unwrap();
        assert!(status.success(), "nothing there to be deleted is no failure");
        assert_eq!(cluster.constraint().as_deref(), Some("alpha 9"));
    });
    with_cluster(|cluster| {
        cluster.is("taken-away", "");
        let (code, said) = script(cluster, "fence", 9);
        assert_eq!((code, cluster.constraint()), (1, None), "{said}");
        assert!(said.contains("cannot be placed"), "{said}");
    });
}

#[test]
fn what_was_placed_for_nothing_is_withdrawn_by_who_placed_it() {
    with_cluster(|cluster| {
        cluster.is("constraint", "beta 6");
        assert_eq!(script(cluster, "withdraw", 9), (0, String::new()));
        assert_eq!(cluster.constraint().as_deref(), Some("beta 6"), "it is of the other node");
        cluster.is("constraint", "alpha 9 aa");
        assert_eq!(script(cluster, "withdraw", 9), (0, String::new()));
        assert_eq!(cluster.constraint(), None);
        assert_eq!(script(cluster, "withdraw", 9).0, 0, "there is none");
    });
}

/// The daemon kills a run that a newer one replaces, by its process group, in the middle of a change of the
/// cluster's configuration. What is returned ends when nothing that the run started is left.
fn begin_and_kill(cluster: &Cluster, action: &str, epoch: u64) -> File {
    let path = std::env::var("PATH").unwrap();
    let pipe = cluster.folder.join("changing");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    cluster.is("slow", "");
    let mut child = Command::new(cluster::script())
        .arg("beta")
        .process_group(0)
        .env_clear()
        .env("PATH", format!("{}:{path}", cluster.folder.display()))
        .envs([("HOTPAIR_RESOURCE", "vm1"), ("HOTPAIR_NODE", "alpha"), ("HOTPAIR_PEER", "beta")])
        .env("HOTPAIR_ACTION", action)
        .env("HOTPAIR_EPOCH", epoch.to_string())
        .spawn()
        .unwrap();
    let mut changing = File::open(&pipe).unwrap();
    changing.read_exact(&mut [0]).unwrap();
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
    std::fs::remove_file(cluster.folder.join("slow")).unwrap();
    changing
}

#[test]
fn a_constraint_that_is_needed_again_outlives_the_killed_run_that_was_to_remove_it() {
    with_cluster(|cluster| {
        // Of a loss that ended before the primary went on alone: its epoch is the same still.
        cluster.is("constraint", "alpha 9");
        let mut killed = begin_and_kill(cluster, "unfence", 9);
        let (code, said) = script(cluster, "fence", 9);
        killed.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!((code, cluster.constraint().as_deref()), (4, Some("alpha 9")), "{said}");
    });
}

#[test]
fn what_was_lifted_is_not_forbidden_by_a_killed_run() {
    with_cluster(|cluster| {
        let mut killed = begin_and_kill(cluster, "fence", 9);
        let (code, said) = script(cluster, "unfence", 9);
        killed.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!((code, cluster.constraint()), (0, None), "{said}");
    });
}
