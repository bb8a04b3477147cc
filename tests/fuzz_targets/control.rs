//! What goes over the control socket, as the other end reads it.

use hotpair::control::EventLine;
use hotpair::control::status::NodeStatus;
use hotpair::replica::{Answer, AtRisk, Refused};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn run(bytes: &[u8]) {
    read::<NodeStatus>(bytes);
    read::<EventLine>(bytes);
    read::<Answer>(bytes);
    read::<Refused>(bytes);
    read::<AtRisk>(bytes);
}

/// What is accepted says the same after it was written and read again.
fn read<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}

pub(crate) fn made() -> Vec<Vec<u8>> {
    [
        concat!(
            r#"{"format":1,"cluster":"office","node":"alpha","#,
            r#""arbiter":{"kind":"none","reachable":null},"warnings":[],"#,
            r#""resources":[{"name":"vm1","kind":"block","mode":"sync","role":"primary","#,
            r#""disk":"up-to-date","disk_reason":"none","disk_answers":"ok","serving":true,"solo":false,"#,
            r#""state":"paired","epoch":7,"generation":"12-5f0c000000000000","#,
            r#""size_bytes":21474836480,"out_of_sync_bytes":0,"#,
            r#""at_risk":{"writes":0,"bytes":0,"age_ms":0},"#,
            r#""peer":{"node":"beta","link":"connected","role":"secondary","disk":"up-to-date","#,
            r#""replication":"established","encrypted":true},"resync":null,"verify":null,"#,
            r#""export":"unix:/run/hotpair/vm1.nbd","clients":1,"#,
            r#""last_verify":{"at":"2026-01-01T00:00:00Z","differences":0,"ranges":[]},"#,
            r#""warnings":[]}]}"#
        ),
        concat!(
            r#"{"seq":1,"at":"2026-01-01T00:00:00Z","node":"alpha","resource":"vm1","#,
            r#""kind":"role-changed","epoch":7,"reason":"by an operator"}"#
        ),
        r#"{"text":"this node is primary at epoch 7"}"#,
        r#"{"why":"the peer is not connected","next":"hotpair status"}"#,
        r#"{"writes":1,"bytes":4096,"age_ms":3}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
