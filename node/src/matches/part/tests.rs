//! The rules of the host's part that need no guest.

use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::client::PayloadCodec;

use super::super::output::{Audience, Body};
use super::super::ring::{BYTES_MAX, OUTPUTS_MAX};
use super::*;

fn part(tick_hz: u32) -> HostPart {
    let manifest = Manifest {
        name: "plain".into(),
        version: "1.0.0".into(),
        codec: PayloadCodec::Binary,
        durability: Durability::Memory,
        tick_hz,
        min_players: 1,
        max_players: 4,
        max_spectators: 1,
        grace_ms: 0,
        quick_play: false,
        listed: false,
        extra: Vec::new(),
    };
    let start = StartRecord::of_manifest(MatchId::from_u128(1), &manifest, Digest([7; 32]), 1, 0);
    HostPart::new(start)
}

fn output(seq: u64, bytes: usize) -> Arc<Output> {
    let body = Body::Data {
        data: Bytes::from(vec![0; bytes]),
    };
    Arc::new(Output {
        seq,
        at_ms: 0,
        audience: Audience::Everyone,
        body,
    })
}

#[test]
fn ticks_keep_to_the_grid() {
    let mut part = part(60);
    assert_eq!(part.next_tick_ms(), None, "it has not started");
    part.event_no = 1;
    let mut ticks = Vec::new();
    for now_ms in 0..1_000 {
        if let Some(tick) = part.due_tick(now_ms) {
            assert_eq!(tick.due_ms, now_ms);
            ticks.push(now_ms);
            part.last_tick_ms = now_ms;
        }
    }
    assert_eq!(ticks[..4], [17, 34, 50, 67]);
    assert_eq!(ticks.len(), 59, "the sixtieth is due at 1000");
    // Late by several ticks: one tick for all of them, then the grid again.
    assert_eq!(
        part.due_tick(2_005),
        Some(DueTick {
            due_ms: 1_000,
            elapsed_ms: 2_005 - 984
        })
    );
    part.last_tick_ms = 2_005;
    assert_eq!(part.next_tick_ms(), Some(2_017));
}

#[test]
fn every_rate_ticks_as_often_as_it_says() {
    for tick_hz in 1..=128 {
        let mut part = part(tick_hz);
        part.event_no = 1;
        let mut count = 0;
        while let Some(due_ms) = part.next_tick_ms().filter(|due_ms| *due_ms <= 10_000) {
            part.last_tick_ms = due_ms;
            count += 1;
        }
        assert_eq!(count, 10 * tick_hz, "{tick_hz} Hz");
    }
}

#[test]
fn a_match_that_neither_ticks_nor_waits_sleeps() {
    let mut part = part(0);
    part.event_no = 1;
    assert_eq!(part.next_wake_ms(), None);
    part.timers.put(3, Some(900));
    part.timers.put(1, Some(900));
    assert_eq!(part.next_wake_ms(), Some(900));
    assert_eq!(part.due_timer(900), Some(1));
}

#[test]
fn the_ring_says_when_something_is_gone() {
    let mut ring = Ring::starting_after(0);
    assert_eq!(ring.since(0).unwrap().count(), 0);
    for seq in 1..=OUTPUTS_MAX as u64 {
        ring.push(output(seq, 1));
    }
    assert_eq!(ring.since(0).unwrap().count(), OUTPUTS_MAX);
    ring.push(output(OUTPUTS_MAX as u64 + 1, 1));
    assert!(ring.since(0).is_none());
    assert_eq!(ring.since(1).unwrap().next().unwrap().seq, 2);
    assert_eq!(ring.since(OUTPUTS_MAX as u64).unwrap().count(), 1);
    assert_eq!(ring.since(u64::MAX).unwrap().count(), 0);
}

#[test]
fn the_ring_is_bounded_in_bytes_and_keeps_nothing_it_cannot_hold() {
    let mut ring = Ring::starting_after(0);
    for seq in 1..=20 {
        ring.push(output(seq, BYTES_MAX / 10));
    }
    assert!(ring.len() < 10);
    assert!(ring.since(20 - ring.len() as u64).is_some());
    ring.push(output(21, BYTES_MAX + 1));
    assert!(ring.is_empty());
    assert!(ring.since(20).is_none());
    assert!(ring.since(21).is_some());
}

#[test]
fn a_new_incarnation_numbers_from_a_higher_place() {
    let mut part = part(0);
    part.start.incarnation = 2;
    let restored = HostPart::new(part.start);
    assert_eq!(restored.next_seq(), 2 * (1 << 40) + 1);
    assert!(
        restored.since(5).is_none(),
        "numbers of the incarnation before are gone"
    );
    assert!(restored.since(2 * (1 << 40)).is_some());
}

#[test]
fn an_encoding_of_another_version_is_told_apart_from_damage() {
    let bytes = part(0).encode();
    assert_eq!(HostPart::decode(&bytes).unwrap(), part(0));
    assert!(matches!(HostPart::decode(&[]), Err(DecodeError::Empty)));
    assert!(matches!(
        HostPart::decode(&[9, 1]),
        Err(DecodeError::Version { found: 9 })
    ));
    assert!(matches!(
        HostPart::decode(&bytes[..bytes.len() / 2]),
        Err(DecodeError::Damaged(_))
    ));
}

#[test]
fn a_field_without_a_bottom_is_damage() {
    let mut bytes = part(0).encode();
    assert_eq!(bytes[1], 0xde, "a map of 16 bits' length");
    bytes[3] += 1;
    bytes.extend(b"\xa1x");
    bytes.extend([0x91; 500]);
    bytes.push(0xc0);
    assert!(matches!(HostPart::decode(&bytes), Err(DecodeError::Damaged(_))));
}

#[test]
fn what_no_match_comes_to_is_refused() {
    let changes: [fn(&mut HostPart); 8] = [
        |part| part.last_tick_ms = u64::MAX,
        |part| part.now_ms = u64::MAX,
        |part| part.outputs = u64::MAX,
        |part| part.mailed = u64::MAX,
        |part| part.start.incarnation = u32::MAX,
        |part| part.start.tick_hz = u32::MAX,
        |part| part.next_seat = Seat::MAX,
        |part| [2, 1].into_iter().for_each(|seq| part.ring.push(output(seq, 1))),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut part = part(60);
        change(&mut part);
        let read = HostPart::decode(&part.encode());
        assert!(
            matches!(read, Err(DecodeError::Impossible { .. })),
            "{number}: {read:?}"
        );
    }
}

#[test]
fn the_hash_does_not_depend_on_where_players_are() {
    use super::super::event::Attachment;
    let seated = |number| {
        let mut part = part(0);
        let attachment = Attachment {
            number,
            session: rookery_protocol::SessionId::from_u128(1),
            node: "n".parse().unwrap(),
            generation: number,
        };
        part.seats.insert(
            1,
            SeatState {
                player: Some(PlayerId::from_u128(1)),
                name: "Ana".into(),
                role: Role::Player,
                team: None,
                attachment: Some(attachment),
                last_n: 0,
                away_since_ms: None,
                joined_seq: 0,
                is_unclaimed: false,
            },
        );
        part
    };
    assert_eq!(seated(1).comparable(), seated(2).comparable());
    assert_ne!(seated(1).comparable(), part(0).comparable());
    let mut later = seated(1);
    later.seats.note_input(1, 5);
    assert_ne!(later.comparable(), seated(1).comparable());
}

#[test]
fn an_idle_part_is_small() {
    // Every idle match has one: 60 KiB in all is what a match may cost, most of it the guest's.
    assert!(
        std::mem::size_of::<HostPart>() < 1_024,
        "{}",
        std::mem::size_of::<HostPart>()
    );
}
