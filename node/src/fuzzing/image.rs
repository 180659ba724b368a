//! The host's part of a match, as a node hands it to another and as the store keeps it.

use std::sync::Arc;

use bytes::Bytes;
use rookery_protocol::client::{PayloadCodec, Role};
use rookery_protocol::output::Attachment;
use rookery_protocol::{Digest, MatchId, PlayerId, SessionId};

use crate::matches::effect::{Effect, EffectId};
use crate::matches::event::Stamp;
use crate::matches::output::{Audience, Body, Output};
use crate::matches::part::{HostPart, Invitee, StartRecord};
use crate::matches::seats::SeatState;
use crate::wasm::{Durability, Manifest};

const PLAYER: PlayerId = PlayerId::from_u128(8);
const SENDER: MatchId = MatchId::from_u128(9);

/// Reads a part and asks it everything that an owner asks first; what it says itself is read as the same.
pub fn image(input: &[u8]) {
    drop(HostPart::decode(input));
    let Ok(part) = HostPart::decode(&[&[1], input].concat()) else {
        return;
    };
    let written = part.encode();
    let again = HostPart::decode(&written).expect("it was just written");
    assert_eq!(again, part);
    assert_eq!(again.encode(), written, "written again with other bytes");
    assert_eq!(again.comparable(), part.comparable());
    let now_ms = part.now_ms().saturating_add(1_000);
    ask(&part, now_ms);
    let incarnation = part.start().incarnation.saturating_add(1);
    let mut resumed = part.resumed(incarnation, now_ms);
    assert!(resumed.since(0).is_none_or(|mut outputs| outputs.next().is_none()));
    change(&mut resumed);
    ask(&resumed, now_ms);
}

fn ask(part: &HostPart, now_ms: u64) {
    assert!(part.next_seq() > part.last_seq());
    let players = part.players();
    assert_eq!(players.len(), part.seats().count());
    assert!(part.human_count() <= players.len() && part.player_count() <= players.len());
    for (seat, state) in part.seats() {
        drop(part.visible_values(seat));
        drop(part.missed_before_claim(seat));
        if let Some(player) = state.player {
            assert!(part.seat_of(player).is_some());
        }
    }
    for role in [Role::Player, Role::Spectator] {
        part.admit(PLAYER, role);
    }
    if let Some(due_ms) = part.next_wake_ms() {
        let _ = (part.due_timer(due_ms), part.due_tick(due_ms));
    }
    let _ = (part.due_tick(now_ms), part.due_tick(u64::MAX), part.due_timer(u64::MAX));
    let _ = (
        part.first_away_seat(now_ms),
        part.has_travellers(),
        part.has_free_seat(),
    );
    drop((part.forward_of(PLAYER), part.transfer_of(PLAYER), part.mark(SENDER)));
    if let Some(outputs) = part.since(part.last_seq()) {
        outputs.for_each(drop);
    }
}

/// What the first events after a hand-over do to it.
fn change(part: &mut HostPart) {
    let effects: Vec<EffectId> = part.outbox().keys().copied().collect();
    for effect in effects {
        part.post(effect, SENDER);
        part.note_forward(effect);
        assert!(part.settle(effect).is_some());
    }
    let stamp = Stamp {
        from: SENDER,
        number: u64::MAX,
        held: 0,
    };
    part.note_mail(&stamp);
    assert!(!part.note_mail(&stamp), "it had come before");
    part.forget_old_forwards();
    part.random_bits();
}

/// A match that has just begun, and one in which much has happened.
pub fn image_seeds() -> Vec<Vec<u8>> {
    let fresh = HostPart::new(start());
    let mut part = fresh.clone();
    let attachment = Attachment {
        number: 1,
        session: SessionId::from_u128(5),
        node: "rook-1".parse().expect("a node's name"),
        generation: 1,
    };
    for (seat, player) in [(1, Some(PLAYER)), (2, None)] {
        let state = SeatState {
            player,
            name: "Ana".into(),
            role: if player.is_some() { Role::Player } else { Role::Bot },
            team: Some(1),
            attachment: player.map(|_| attachment.clone()),
            last_n: 3,
            away_since_ms: player.map(|_| 40),
            joined_seq: 1,
            is_unclaimed: true,
        };
        part.seats.insert(seat, state);
    }
    let data = Bytes::from_static(br#"{"x":1}"#);
    let output = Output {
        seq: 1,
        at_ms: 50,
        audience: Audience::Everyone,
        body: Body::Data { data: data.clone() },
    };
    part.ring.push(Arc::new(output));
    part.published.put(None, "score", Some(data.clone()));
    part.published.put(Some(1), "hand", Some(data.clone()));
    part.timers.put(4, Some(90));
    let transfer = EffectId {
        incarnation: 0,
        event: 3,
        index: 0,
    };
    let effect = Effect::Transfer {
        request: 1,
        seat: 1,
        player: PlayerId::from_u128(6),
        name: "Bo".into(),
        role: Role::Player,
        team: None,
        attachment: Some(attachment),
        is_away: false,
        target: "village/inn".into(),
        ctx: data,
    };
    part.outbox.insert(transfer, effect);
    part.post(transfer, SENDER);
    part.note_forward(transfer);
    part.note_mail(&Stamp {
        from: SENDER,
        number: 2,
        held: 1,
    });
    part.label = vec![("mode".into(), "duel".into())];
    part.collections.insert("items".into());
    (part.event_no, part.now_ms, part.outputs, part.next_seat) = (3, 60, 1, 3);
    [fresh, part].map(|part| part.encode()[1..].to_vec()).into()
}

fn start() -> StartRecord {
    let manifest = Manifest {
        name: "duel".into(),
        version: "1.0.0".into(),
        codec: PayloadCodec::Json,
        durability: Durability::Replicated,
        tick_hz: 20,
        min_players: 1,
        max_players: 4,
        max_spectators: 1,
        grace_ms: 5_000,
        quick_play: true,
        listed: true,
        extra: Vec::new(),
    };
    let mut start = StartRecord::of_manifest(MatchId::from_u128(1), &manifest, Digest([7; 32]), 1, 0);
    start.invited.push(Invitee {
        player: PLAYER,
        team: 1,
        party: Some("p".into()),
        properties: "{}".into(),
    });
    start
}
