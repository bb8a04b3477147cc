//! Numbers and ids in messages that no node can have made by following the protocol.
//!
//! What a peer says about epochs, sequences and generations is written into the record of this
//! node and counted on from there. A number near the end of its type would overflow later, and an
//! id of zero reads as "none", so both are refused here, before anything depends on them.

use super::error::ProtocolError;
use super::kind::Kind;
use super::message::{Hello, Message, PeerCommand};
use crate::units::{
    Applied, BLOCK_LEN, Epoch, Generation, Instance, RESOURCE_LEN_MAX, ResourceSize, Sequence,
};

/// Refuses a message with a value that cannot be.
///
/// # Errors
/// [`ProtocolError::Value`].
pub(super) fn check(
    kind: Kind,
    message: &Message,
    size: ResourceSize,
) -> Result<(), ProtocolError> {
    let checked = match message {
        Message::Hello(hello) => check_hello(hello),
        Message::Ping(beat) | Message::Pong(beat) => check_applied(beat.stable),
        Message::Acks(acks) => acks.iter().try_for_each(|ack| check_sequence(ack.sequence)),
        Message::ResyncStart(start) => check_generation(start.generation)
            .and_then(|()| check_count(start.blocks, size.block_count())),
        Message::ResyncEnd(end) | Message::ResyncDone(end) => {
            check_generation(end.generation).and_then(|()| check_history(&end.history))
        }
        Message::SettleAsk(ask) => check_sequence(ask.sequence),
        Message::Tree(tree) => tree.check(),
        Message::Outdate(outdate) | Message::OutdateDone(outdate) | Message::Leave(outdate) => {
            check_epoch(outdate.epoch)
        }
        Message::HandOver(hand) | Message::HandReady(hand) | Message::HandDone(hand) => {
            check_epoch(hand.epoch)
                .and_then(|()| check_sequence(hand.last))
                .and_then(|()| check_generation(hand.generation))
        }
        Message::Ask(ask) => match &ask.command {
            PeerCommand::Resolve(resolution) => check_generation(resolution.kept)
                .and_then(|()| check_generation(resolution.dropped)),
            _ => Ok(()),
        },
        _ => Ok(()),
    };
    checked.map_err(|what| ProtocolError::Value { kind, what })
}

/// What cannot be, in words.
pub(crate) type Checked = Result<(), &'static str>;

fn check_hello(hello: &Hello) -> Checked {
    check_sizes(hello.size, hello.size_next)?;
    for epoch in [hello.epoch, hello.promised, hello.served_epoch] {
        check_epoch(epoch)?;
    }
    if let Some(veto) = hello.veto {
        check_epoch(veto.epoch)?;
    }
    for applied in [hello.applied, hello.peer_applied] {
        check_applied(applied)?;
    }
    let resolution = hello.resolution.map(|it| [it.kept, it.dropped]);
    let settled = resolution.into_iter().flatten();
    hello
        .generation
        .into_iter()
        .chain(hello.resync_source)
        .chain(settled)
        .try_for_each(check_generation)?;
    check_history(&hello.history)?;
    if hello.instances.contains(&Instance(0)) {
        return Err("a run numbered zero");
    }
    // Counted in blocks of the largest resource: what is shown of it is in bytes.
    check_count(hello.marks, RESOURCE_LEN_MAX / BLOCK_LEN)?;
    check_count(hello.at_risk_bytes, RESOURCE_LEN_MAX)
}

/// The size now, and the one that there is room for.
fn check_sizes(size: u64, size_next: u64) -> Checked {
    let is_size = |len_bytes| ResourceSize::new(len_bytes).is_some();
    if is_size(size) && (size_next == 0 || (size_next >= size && is_size(size_next))) {
        Ok(())
    } else {
        Err("a size that no resource has or grows to")
    }
}

fn check_history(history: &[Generation]) -> Checked {
    history.iter().copied().try_for_each(check_generation)
}

pub(crate) fn check_generation(generation: Generation) -> Checked {
    match generation {
        Generation { id: 0, .. } | Generation { number: 0, .. } => {
            Err("a generation without number or id")
        }
        Generation { number, .. } if number > Generation::NUMBER_TAKEN_MAX => {
            Err("a generation's number that no history reaches")
        }
        Generation { .. } => Ok(()),
    }
}

fn check_applied(applied: Applied) -> Checked {
    check_epoch(applied.epoch).and_then(|()| check_sequence(applied.sequence))
}

/// Of a header or a body.
pub(crate) fn check_epoch(epoch: Epoch) -> Checked {
    if epoch > Epoch::TAKEN_MAX { Err("an epoch that no pair reaches") } else { Ok(()) }
}

/// Of a header or a body.
pub(super) fn check_sequence(sequence: Sequence) -> Checked {
    if sequence > Sequence::TAKEN_MAX { Err("a sequence that no epoch reaches") } else { Ok(()) }
}

fn check_count(count: u64, most: u64) -> Checked {
    if count > most { Err("more than the resource has") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{samples, size};
    use super::*;
    use crate::units::{Resolution, SessionId, Veto, VetoReason};
    use crate::wire::frame::{HEADER_LEN, Limits, decode, decode_header, encode};
    use crate::wire::message::{
        Ack, AckStage, Ask, Beat, Flush, Frame, HandOver, Outdate, ResyncEnd, ResyncStart,
        SettleAsk, Write,
    };

    fn frame_of(message: Message) -> Frame {
        Frame { session: SessionId(1), epoch: Epoch(5), message }
    }

    fn arrives(message: Message) -> Result<(), ProtocolError> {
        let opens = matches!(message, Message::Hello(_));
        let session = SessionId(u64::from(!opens));
        let encoded = encode(&Frame { session, ..frame_of(message) });
        let (header, body) = encoded.head.split_first_chunk::<HEADER_LEN>().unwrap();
        let header = decode_header(header, &Limits { size: size() })?;
        decode(header, body, encoded.payload, size()).map(|_| ())
    }

    fn sample(name: &str) -> Message {
        let found = samples().into_iter().find(|(sample, _)| *sample == name);
        found.unwrap().1.message
    }

    fn refused(message: Message) -> bool {
        matches!(arrives(message), Err(ProtocolError::Value { .. }))
    }

    const EPOCHS: [Epoch; 2] = [Epoch((1 << 62) + 1), Epoch(u64::MAX)];
    const SEQUENCES: [Sequence; 2] = [Sequence((1 << 62) + 1), Sequence(u64::MAX)];

    fn impossible_generations() -> [Generation; 4] {
        let number = Generation::NUMBER_TAKEN_MAX + 1;
        [
            Generation { number: 7, id: 0 },
            Generation { number: 0, id: 7 },
            Generation { number, id: 7 },
            Generation { number: u64::MAX, id: 7 },
        ]
    }

    #[test]
    fn a_generation_without_id_or_number_is_refused_wherever_it_is_said() {
        let Message::Hello(hello) = sample("hello") else { unreachable!() };
        let Message::ResyncEnd(end) = sample("resync-end") else { unreachable!() };
        let Message::ResyncStart(start) = sample("resync-start") else { unreachable!() };
        let Message::HandOver(hand) = sample("hand-over") else { unreachable!() };
        let good = end.generation;
        for bad in impossible_generations() {
            let generation = Some(bad);
            assert!(refused(Message::Hello(Box::new(Hello { generation, ..(*hello).clone() }))));
            let history = vec![good, bad];
            assert!(refused(Message::Hello(Box::new(Hello {
                history: history.clone(),
                ..(*hello).clone()
            }))));
            let resync_source = Some(bad);
            assert!(refused(Message::Hello(Box::new(Hello { resync_source, ..(*hello).clone() }))));
            for (kept, dropped) in [(good, bad), (bad, good)] {
                let resolution = Some(Resolution { kept, dropped });
                assert!(refused(Message::Hello(Box::new(Hello {
                    resolution,
                    ..(*hello).clone()
                }))));
                let command = PeerCommand::Resolve(Resolution { kept, dropped });
                assert!(refused(Message::Ask(Ask { request: 1, command })));
            }
            for end in [
                ResyncEnd { generation: bad, history: vec![] },
                ResyncEnd { generation: good, history },
            ] {
                assert!(refused(Message::ResyncEnd(end.clone())));
                assert!(refused(Message::ResyncDone(end)));
            }
            assert!(refused(Message::ResyncStart(ResyncStart {
                generation: bad,
                ..start.clone()
            })));
            for say in [Message::HandOver, Message::HandReady, Message::HandDone] {
                assert!(refused(say(HandOver { generation: bad, ..hand })));
            }
        }
    }

    #[test]
    fn an_epoch_near_the_end_of_its_type_is_refused_wherever_it_is_said() {
        let Message::Hello(hello) = sample("hello") else { unreachable!() };
        let Message::HandOver(hand) = sample("hand-over") else { unreachable!() };
        for epoch in EPOCHS {
            let applied = Applied { epoch, sequence: Sequence(1) };
            let veto = Some(Veto { reason: VetoReason::Evicted, epoch });
            let hellos = [
                Hello { epoch, ..(*hello).clone() },
                Hello { promised: epoch, ..(*hello).clone() },
                Hello { served_epoch: epoch, ..(*hello).clone() },
                Hello { applied, ..(*hello).clone() },
                Hello { peer_applied: applied, ..(*hello).clone() },
                Hello { veto, ..(*hello).clone() },
            ];
            for hello in hellos {
                assert!(refused(Message::Hello(Box::new(hello))));
            }
            let outdate = Outdate { epoch, reason: VetoReason::Evicted };
            for say in [Message::Outdate, Message::OutdateDone, Message::Leave] {
                assert!(refused(say(outdate)));
            }
            for say in [Message::HandOver, Message::HandReady, Message::HandDone] {
                assert!(refused(say(HandOver { epoch, ..hand })));
            }
            for say in [Message::Ping, Message::Pong] {
                assert!(refused(say(Beat { sent_at: 1, stable: applied })));
            }
            let mut frame = frame_of(Message::ResyncReady);
            frame.epoch = epoch;
            let head = encode(&frame).head;
            let header = decode_header(head.first_chunk().unwrap(), &Limits { size: size() });
            assert!(matches!(header, Err(ProtocolError::Value { .. })));
        }
        assert_eq!(
            arrives(Message::Outdate(Outdate {
                epoch: Epoch::TAKEN_MAX,
                reason: VetoReason::Evicted,
            })),
            Ok(())
        );
    }

    #[test]
    fn a_sequence_near_the_end_of_its_type_is_refused_wherever_it_is_said() {
        let Message::Write(write) = sample("write") else { unreachable!() };
        let Message::Zero(zero) = sample("zero") else { unreachable!() };
        let Message::HandOver(hand) = sample("hand-over") else { unreachable!() };
        for sequence in SEQUENCES {
            assert!(refused(Message::Write(Write { sequence, ..write.clone() })));
            let mut zero = zero;
            zero.sequence = sequence;
            assert!(refused(Message::Zero(zero)));
            for say in [Message::Flush, Message::FlushDone] {
                assert!(refused(say(Flush { request: u64::MAX, covers: sequence })));
            }
            assert!(refused(Message::Acks(vec![Ack { sequence, stage: AckStage::Applied }])));
            assert!(refused(Message::HandOver(HandOver { last: sequence, ..hand })));
            let chunk = crate::units::ChunkIndex(1);
            assert!(refused(Message::SettleAsk(SettleAsk { chunk, sequence })));
            let stable = Applied { epoch: Epoch(1), sequence };
            assert!(refused(Message::Ping(Beat { sent_at: 1, stable })));
        }
        let covers = Sequence::TAKEN_MAX;
        assert_eq!(arrives(Message::Flush(Flush { request: u64::MAX, covers })), Ok(()));
    }

    #[test]
    fn a_size_that_no_record_can_hold_is_refused() {
        let Message::Hello(hello) = sample("hello") else { unreachable!() };
        let beyond = RESOURCE_LEN_MAX + 1;
        for (size, size_next) in [(0, 0), (beyond, 0), (8, 7), (8, beyond), (u64::MAX, 8)] {
            assert!(refused(Message::Hello(Box::new(Hello {
                size,
                size_next,
                ..(*hello).clone()
            }))));
        }
        for (size, size_next) in [(1, 0), (8, 9), (RESOURCE_LEN_MAX, 0)] {
            let hello = Hello { size, size_next, ..(*hello).clone() };
            assert_eq!(arrives(Message::Hello(Box::new(hello))), Ok(()));
        }
    }

    #[test]
    fn counts_are_limited_by_what_a_resource_can_have() {
        let Message::Hello(hello) = sample("hello") else { unreachable!() };
        let Message::ResyncStart(start) = sample("resync-start") else { unreachable!() };
        let marks = RESOURCE_LEN_MAX / BLOCK_LEN + 1;
        assert!(refused(Message::Hello(Box::new(Hello { marks, ..(*hello).clone() }))));
        let at_risk_bytes = RESOURCE_LEN_MAX + 1;
        assert!(refused(Message::Hello(Box::new(Hello { at_risk_bytes, ..(*hello).clone() }))));
        let instances = vec![Instance(1), Instance(0)];
        assert!(refused(Message::Hello(Box::new(Hello { instances, ..*hello }))));
        let blocks = size().block_count() + 1;
        assert!(refused(Message::ResyncStart(ResyncStart { blocks, ..start })));
    }
}
