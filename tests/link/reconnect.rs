//! When connections are opened again, and what status says meanwhile.

use hotpair::link::{Cause, Trouble};
use hotpair::wire::message::{Message, RefusalCode};

use crate::harness::{Alpha, Beta, Pair, flush, hello, join, receive, said};

#[tokio::test]
async fn a_lost_connection_is_replaced_and_the_new_one_works() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        drop(joined.beta);
        assert!(receive(&mut joined.alpha, 1).await.is_err());
        drop(joined.alpha);
        joined.alpha = joined.node_alpha.connection().await;
        joined.alpha.send(&said(Message::Hello(Box::new(hello("alpha", "vm1")))));
        flush(&mut joined.alpha).await.unwrap();
        joined.beta = joined.node_beta.connection().await;
        receive(&mut joined.beta, 1).await.unwrap();
        joined.check(1).await;
    }
}

#[tokio::test]
async fn nobody_dials_while_no_connection_is_wanted() {
    let pair = Pair::plain();
    let mut joined = join(&pair).await;
    joined.node_alpha.wanted.send(false).unwrap();
    drop((joined.alpha, joined.beta));
    // Wanting it again is what brings the next one.
    joined.node_alpha.wanted.send(true).unwrap();
    joined.alpha = joined.node_alpha.connection().await;
    assert!(joined.node_alpha.arrivals.is_empty());
}

#[tokio::test]
async fn status_can_say_why_there_is_no_connection() {
    let pair = Pair::plain();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut alpha = Alpha::start(&pair.alpha, address);
    let trouble = alpha.trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let Trouble { why, mismatch } = &trouble;
    assert!(why.contains(&address.to_string()) && why.contains("refused"), "{why}");
    assert_eq!(*mismatch, None);
    alpha.wanted.send(false).unwrap();
    alpha.trouble.wait_for(Option::is_none).await.unwrap();
}

#[tokio::test]
async fn whoever_has_the_wrong_name_is_told_so_and_let_go() {
    for pair in Pair::each() {
        let beta = Beta::start(&pair.beta).await;
        let mut other_cluster = hello("alpha", "vm1");
        other_cluster.cluster = "garage \u{e9}\"".repeat(20);
        let wrong = [
            (other_cluster, Cause::OtherCluster),
            (hello("alpha", "vm2"), Cause::UnknownResource),
            (hello("beta", "vm1"), Cause::OtherNode),
            (hello("gamma", "vm1"), Cause::OtherNode),
        ];
        for (count, (hello, cause)) in (1..).zip(wrong) {
            let mut alpha = Alpha::start(&pair.alpha, beta.address);
            let mut connection = alpha.connection().await;
            connection.send(&said(Message::Hello(Box::new(hello))));
            flush(&mut connection).await.unwrap();
            let frames = receive(&mut connection, 1).await.unwrap();
            let Message::Refusal(refusal) = &frames[0].message else { panic!("{frames:?}") };
            assert_eq!(refusal.code, RefusalCode::WrongPeer);
            assert!(refusal.text.len() <= 512 && refusal.text.is_ascii(), "{}", refusal.text);
            assert!(receive(&mut connection, 1).await.is_err());
            assert!(beta.refusals.count(cause) > 0);
            assert_eq!(beta.refusals.total(), count);
            alpha.wanted.send(false).unwrap();
        }
        assert!(beta.arrivals.is_empty());
    }
}

#[tokio::test]
async fn a_name_with_control_characters_is_no_hello() {
    for pair in Pair::each() {
        let beta = Beta::start(&pair.beta).await;
        let mut alpha = Alpha::start(&pair.alpha, beta.address);
        let mut connection = alpha.connection().await;
        let mut wrong = hello("alpha", "vm1");
        wrong.cluster = "garage \u{1b}[31m".to_owned();
        connection.send(&said(Message::Hello(Box::new(wrong))));
        flush(&mut connection).await.unwrap();
        assert!(receive(&mut connection, 1).await.is_err());
        assert_eq!((beta.refusals.count(Cause::NotHello), beta.refusals.total()), (1, 1));
        assert!(beta.arrivals.is_empty());
    }
}

#[tokio::test]
async fn a_resource_that_takes_no_more_connections_refuses_them() {
    let pair = Pair::plain();
    let mut beta = Beta::start(&pair.beta).await;
    beta.arrivals.close();
    let mut alpha = Alpha::start(&pair.alpha, beta.address);
    let mut connection = alpha.connection().await;
    connection.send(&said(Message::Hello(Box::new(hello("alpha", "vm1")))));
    flush(&mut connection).await.unwrap();
    let frames = receive(&mut connection, 1).await.unwrap();
    let Message::Refusal(refusal) = &frames[0].message else { panic!("{frames:?}") };
    assert_eq!(refusal.code, RefusalCode::NotReady);
}
