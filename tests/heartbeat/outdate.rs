//! Requests and replies beside the beats, and what somebody without the key makes of them.

use hotpair::heartbeat::{Dropped, OutdateSays};
use hotpair::replica::{OutdateAnswer, OutdateAsk, OutdateNews};
use hotpair::units::{Epoch, Instance, Side};
use hotpair::wire::heartbeat::{HeartbeatKey, Sender, cluster_tag, resource_tag};
use hotpair::wire::outdate::{ExchangeEntry, ExchangeHead, seal_reply, seal_request};
use tokio::time::timeout;

use crate::harness::{Node, PATIENCE, pair};

type Counter = fn(&Dropped) -> u64;
type Seal = fn(&HeartbeatKey, Sender, ExchangeHead, &[ExchangeEntry]) -> Vec<u8>;

const ASK: OutdateAsk = OutdateAsk { number: 3, epoch: Epoch(8) };
/// Where datagrams have their type, and the two types.
const KIND_AT: usize = 5;
const REQUEST: u8 = 2;
const REPLY: u8 = 3;

async fn heard(node: &mut Node) -> OutdateNews {
    timeout(PATIENCE, node.outdate_news.recv()).await.expect("news in time").unwrap()
}

fn ask(node: &Node, ask: Option<OutdateAsk>) {
    node.outdate.send_modify(|says| says.ask = ask);
    node.epochs.notify_one();
}

fn answer(node: &Node, number: u64, to: Instance) {
    let answer = OutdateAnswer { to, ask: ASK, promised: Epoch(8) };
    node.outdate.send_modify(|says| says.answer = Some((number, answer)));
    node.epochs.notify_one();
}

#[tokio::test]
async fn a_request_is_repeated_until_it_is_taken_back_and_its_reply_comes_once() {
    let (relay, mut nodes) = pair().await;
    ask(&nodes[0], Some(ASK));
    let asked = OutdateNews::Asked { by: Instance(100), ask: ASK };
    for _ in 0..3 {
        assert_eq!(heard(&mut nodes[1]).await, asked);
    }
    // Nothing comes through, and again.
    relay.cut(1);
    relay.heal(1);
    assert_eq!(heard(&mut nodes[1]).await, asked);
    answer(&nodes[1], 1, Instance(100));
    let answered = OutdateNews::Answered { ask: ASK, promised: Epoch(8) };
    assert_eq!(heard(&mut nodes[0]).await, answered);
    ask(&nodes[0], None);
    // For a run that is over: nobody hears it. What is said after it comes.
    answer(&nodes[1], 2, Instance(7));
    tokio::task::yield_now().await;
    nodes[1].is_up().await;
    answer(&nodes[1], 3, Instance(100));
    assert_eq!(heard(&mut nodes[0]).await, answered);
    assert!(nodes[0].outdate_news.try_recv().is_err());
    assert_eq!(nodes[0].outdate.borrow().ask, OutdateSays::default().ask);
}

#[tokio::test]
async fn forged_replayed_reflected_and_truncated_ones_are_counted_and_change_nothing() {
    let (relay, mut nodes) = pair().await;
    ask(&nodes[0], Some(ASK));
    heard(&mut nodes[1]).await;
    answer(&nodes[1], 1, Instance(100));
    heard(&mut nodes[0]).await;
    ask(&nodes[0], None);
    for (to, kind) in [(1, REQUEST), (0, REPLY)] {
        // What was under way when it was taken back.
        nodes[to].is_up().await;
        let last = |to: usize, kind: u8| {
            relay.recorded(to).into_iter().rev().find(|bytes| bytes[KIND_AT] == kind).unwrap()
        };
        let good = last(to, kind);
        let mut forged = good.clone();
        forged[104] ^= 1;
        let reflected = last(1 - to, if kind == REQUEST { REPLY } else { REQUEST });
        let cases: [(Vec<u8>, Counter); 6] = [
            (good[..good.len() - 1].to_vec(), |it| it.seal),
            (good[..100].to_vec(), |it| it.length),
            (forged, |it| it.seal),
            (reflected, |it| it.seal),
            (good, |it| it.replayed),
            (of_a_stranger(kind, to), |it| it.unknown_key),
        ];
        while nodes[to].outdate_news.try_recv().is_ok() {}
        for (bytes, counter) in cases {
            let before = counter(&nodes[to].is_up().await.dropped);
            relay.send(to, &bytes).await;
            nodes[to].shows(|it| counter(&it.dropped) > before).await;
        }
        // What was on its way from the peer may have come meanwhile, and was one that it sent.
        assert!(nodes[to].outdate_news.try_recv().is_err());
    }
}

/// Somebody who knows the layout and has a key of his own.
fn of_a_stranger(kind: u8, to: usize) -> Vec<u8> {
    let key = HeartbeatKey::new(&[9; 32], "office");
    let side = [Side::Second, Side::First][to];
    let sender = Sender { cluster: cluster_tag("office"), side, instance: Instance(101) };
    let head = ExchangeHead { path: 0, to: Instance(100 + to as u64), number: 1000 };
    let promised = if kind == REPLY { Epoch(8) } else { Epoch(0) };
    let entry =
        ExchangeEntry { tag: resource_tag("vm1"), epoch: Epoch(8), promised, ask: ASK.number };
    let seal: Seal = if kind == REPLY { seal_reply } else { seal_request };
    seal(&key, sender, head, &[entry])
}

#[tokio::test]
async fn what_an_earlier_run_asked_and_was_answered_is_nothing_to_the_next_one() {
    let (relay, [first, mut second]) = pair().await;
    ask(&first, Some(ASK));
    heard(&mut second).await;
    first.stop().await;
    second.is_down().await;
    let of_last_run = relay.recorded(1);
    let mut again = crate::harness::settings(0, relay.address(0), crate::harness::of_names());
    again.instance = Instance(999);
    let mut first = Node::start_with(again);
    first.is_up().await;
    second.is_up().await;
    while second.outdate_news.try_recv().is_ok() {}
    let before = second.status.borrow().dropped.other_run;
    let requests = of_last_run.iter().filter(|bytes| bytes[KIND_AT] == REQUEST);
    for bytes in requests {
        relay.send(1, bytes).await;
    }
    second.shows(|it| it.dropped.other_run > before).await;
    // The veto for the last run becomes stable only now: its answer is for nobody.
    answer(&second, 1, Instance(100));
    second.is_up().await;
    assert!(second.outdate_news.try_recv().is_err());
    assert!(first.outdate_news.try_recv().is_err());
}
