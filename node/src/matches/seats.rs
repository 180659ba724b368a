//! Who sits where in one match, and who of them is away. It counts as it goes: the owner asks after every event, and a match may have
//! a thousand seats.

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::client::Role;
use rookery_protocol::{PlayerId, Seat};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::event::Attachment;

/// Who sits in a seat, and what the host knows of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatState {
    /// None for a bot.
    pub player: Option<PlayerId>,
    pub name: String,
    pub role: Role,
    pub team: Option<u32>,
    /// Where the seat's outputs go; none for a bot.
    pub attachment: Option<Attachment>,
    /// The last numbered input that was applied; it counts also when the guest trapped on it.
    pub last_n: u64,
    pub away_since_ms: Option<u64>,
    /// The number of the output that told the others of this seat.
    pub joined_seq: u64,
    /// The player came by a transfer, and their connection has not followed yet.
    #[serde(default)]
    pub is_unclaimed: bool,
}

/// All seats of a match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats {
    by_seat: BTreeMap<Seat, SeatState>,
    away: BTreeSet<(u64, Seat)>,
    playing: usize,
    bots: usize,
}

impl Seats {
    pub fn insert(&mut self, seat: Seat, state: SeatState) {
        self.remove(seat);
        self.playing += usize::from(state.role != Role::Spectator);
        self.bots += usize::from(state.role == Role::Bot);
        if let Some(since_ms) = state.away_since_ms {
            self.away.insert((since_ms, seat));
        }
        self.by_seat.insert(seat, state);
    }

    pub fn remove(&mut self, seat: Seat) -> Option<SeatState> {
        let state = self.by_seat.remove(&seat)?;
        self.playing -= usize::from(state.role != Role::Spectator);
        self.bots -= usize::from(state.role == Role::Bot);
        if let Some(since_ms) = state.away_since_ms {
            self.away.remove(&(since_ms, seat));
        }
        Some(state)
    }

    pub fn get(&self, seat: Seat) -> Option<&SeatState> {
        self.by_seat.get(&seat)
    }

    pub fn contains(&self, seat: Seat) -> bool {
        self.by_seat.contains_key(&seat)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Seat, &SeatState)> {
        self.by_seat.iter().map(|(seat, state)| (*seat, state))
    }

    pub fn seat_of(&self, player: PlayerId) -> Option<Seat> {
        self.iter()
            .find(|(_, state)| state.player == Some(player))
            .map(|(seat, _)| seat)
    }

    /// Marks a seat away; false if nobody sits there or they were away before.
    pub fn go_away(&mut self, seat: Seat, now_ms: u64) -> bool {
        match self.by_seat.get_mut(&seat) {
            Some(state) if state.away_since_ms.is_none() => {
                state.away_since_ms = Some(now_ms);
                self.away.insert((now_ms, seat))
            }
            _ => false,
        }
    }

    /// Marks a seat present; false if it was not away.
    pub fn come_back(&mut self, seat: Seat) -> bool {
        let Some(since_ms) = self.by_seat.get_mut(&seat).and_then(|state| state.away_since_ms.take()) else {
            return false;
        };
        self.away.remove(&(since_ms, seat))
    }

    /// Whoever has been away longest, and since when.
    pub fn first_away(&self) -> Option<(u64, Seat)> {
        self.away.first().copied()
    }

    pub fn attach(&mut self, seat: Seat, attachment: Attachment) {
        if let Some(state) = self.by_seat.get_mut(&seat) {
            state.attachment = Some(attachment);
            state.is_unclaimed = false;
        }
    }

    /// Notes a numbered input; 0 is an input without a number. False if nobody sits there.
    pub fn note_input(&mut self, seat: Seat, n: u64) -> bool {
        self.by_seat.get_mut(&seat).is_some_and(|state| {
            state.last_n = state.last_n.max(n);
            true
        })
    }

    pub fn note_joined(&mut self, seat: Seat, seq: u64) {
        if let Some(state) = self.by_seat.get_mut(&seat) {
            state.joined_seq = seq;
        }
    }

    /// Seats that the match plays itself.
    pub fn bots(&self) -> usize {
        self.bots
    }

    /// Players and bots.
    pub fn playing(&self) -> usize {
        self.playing
    }

    pub fn spectators(&self) -> usize {
        self.by_seat.len() - self.playing
    }

    /// Players and spectators that are people, whether present or away.
    pub fn humans(&self) -> usize {
        self.by_seat.len() - self.bots
    }
}

impl Serialize for Seats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_seat.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Seats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut seats = Self::default();
        for (seat, state) in BTreeMap::<Seat, SeatState>::deserialize(deserializer)? {
            seats.insert(seat, state);
        }
        Ok(seats)
    }
}
