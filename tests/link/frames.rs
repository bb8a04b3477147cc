//! What is sent is what arrives, in the order of its lanes, within the limits.

use std::task::{Context, Poll, Waker};

use hotpair::link::LinkError;
use hotpair::units::Applied;
use hotpair::wire::message::{Beat, Frame, Message};

use crate::harness::{Pair, chunk, flush, join, receive, said, write};

#[tokio::test]
async fn frames_of_every_length_arrive_whole_and_in_order_both_ways() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        let lens = [1, 2, 511, 512, 4096, 4097, 16_384, 65_536, 100_001, 262_144, (1 << 20) - 1];
        let frames: Vec<_> = (1..)
            .zip(lens.into_iter().cycle().take(66))
            .map(|(sequence, len)| write(sequence, len))
            .collect();
        for frame in &frames {
            joined.alpha.send(frame);
            joined.beta.send(frame);
        }
        let (mut to_alpha, mut to_beta) = (Vec::new(), Vec::new());
        std::future::poll_fn(|cx| {
            let _ = joined.alpha.poll_flush(cx);
            let _ = joined.beta.poll_flush(cx);
            while joined.alpha.poll_frames(cx, &mut to_alpha).is_ready() {}
            while joined.beta.poll_frames(cx, &mut to_beta).is_ready() {}
            let is_done = to_alpha.len() == frames.len() && to_beta.len() == frames.len();
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(to_alpha == frames && to_beta == frames);
        let (sent, received) = (joined.alpha.counters(), joined.beta.counters());
        assert_eq!(sent.bytes_out, received.bytes_in);
        assert_eq!(sent.frames_out, received.frames_in);
        assert_eq!(sent.payload_out, received.payload_in);
        assert_eq!(joined.alpha.queued_bytes(), 0);
    }
}

#[tokio::test]
async fn control_overtakes_clients_and_clients_overtake_resync() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        let ping = said(Message::Ping(Beat { sent_at: 1, stable: Applied::default() }));
        for number in 1..=40 {
            joined.alpha.send(&chunk(number));
        }
        for number in 1..=160 {
            joined.alpha.send(&write(number, 64 << 10));
        }
        joined.alpha.send(&ping);
        let mut frames = Vec::new();
        std::future::poll_fn(|cx| {
            let _ = joined.alpha.poll_flush(cx);
            while joined.beta.poll_frames(cx, &mut frames).is_ready() {}
            if frames.len() == 201 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(frames[0], ping);
        let is_chunk = |frame: &Frame| matches!(frame.message, Message::ChunkData(_));
        let chunk_places: Vec<_> =
            frames[1..].iter().enumerate().filter(|(_, frame)| is_chunk(frame)).collect();
        // 1 MiB of writes with their headers is 16 frames, then comes one chunk.
        let under_load: Vec<_> = chunk_places.iter().map(|(place, _)| *place).take(10).collect();
        assert_eq!(under_load, [16, 33, 50, 67, 84, 101, 118, 135, 152, 169]);
        assert_eq!(chunk_places.len(), 40);
    }
}

#[tokio::test]
async fn one_turn_takes_in_no_more_than_its_share() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        for number in 1..=1000 {
            joined
                .alpha
                .send(&said(Message::Ping(Beat { sent_at: number, stable: Applied::default() })));
        }
        flush(&mut joined.alpha).await.unwrap();
        let mut seen = 0;
        while seen < 1000 {
            let turn = receive(&mut joined.beta, 1).await.unwrap();
            assert!(turn.len() <= 256, "{}", turn.len());
            seen += turn.len();
        }
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_ends_the_link_before_it_fills_the_memory() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        let frame = write(1, 1 << 20);
        let mut most = 0;
        let mut cx = Context::from_waker(Waker::noop());
        let error = loop {
            joined.alpha.send(&frame);
            most = most.max(joined.alpha.queued_bytes());
            if let Poll::Ready(Err(error)) = joined.alpha.poll_flush(&mut cx) {
                break error;
            }
        };
        assert!(matches!(error, LinkError::Stalled { .. }), "{error}");
        assert!(most <= 129 << 20, "{most} bytes were queued");
        assert_eq!(joined.alpha.counters().protocol_errors, 1);
    }
}

#[tokio::test]
async fn last_words_arrive_before_the_connection_closes() {
    for pair in Pair::each() {
        let mut joined = join(&pair).await;
        let last = write(1, 1 << 20);
        joined.alpha.send(&last);
        let close = std::future::poll_fn(|cx| joined.alpha.poll_close(cx));
        let hear = async {
            assert_eq!(receive(&mut joined.beta, 1).await.unwrap(), [last]);
            let end = receive(&mut joined.beta, 1).await.unwrap_err();
            assert!(matches!(end, LinkError::Closed), "{end}");
            drop(joined.beta);
        };
        tokio::join!(close, hear);
    }
}
