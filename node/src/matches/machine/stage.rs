//! A match on a stage: tests give it events in the words of the domain and read what it says.

use std::sync::OnceLock;

use bytes::Bytes;
use rookery_protocol::client::{LeaveReason, Role};
use rookery_protocol::{MatchId, NodeName, PlayerId, Seat, SessionId};

use super::super::event::{Attachment, Event, Occupant, Outcome, Record, Topic};
use super::super::output::{Audience, Body};
use super::super::part::{Admission, StartRecord};
use super::{Applied, Match};
use crate::wasm::testing::Guest;
use crate::wasm::{Engine, EngineConfig, Failure, Module};

/// One engine for all tests: they run in parallel, as matches do.
pub(super) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineConfig::default()).unwrap())
}

pub(super) fn module(guest: &Guest) -> Module {
    engine().compile(&guest.component()).unwrap()
}

pub(super) fn start_record(module: &Module) -> StartRecord {
    StartRecord::new(MatchId::from_u128(77), module, 42, 1_700_000_000_000)
}

pub(super) struct Stage {
    pub(super) game: Match,
    pub(super) now_ms: u64,
    pub(super) last: Applied,
}

impl Stage {
    /// A match to which nothing has happened.
    pub(super) fn of(guest: &Guest) -> Stage {
        Self::with(guest, |_| ())
    }

    pub(super) fn with(guest: &Guest, change: impl FnOnce(&mut StartRecord)) -> Stage {
        let module = module(guest);
        let mut start = start_record(&module);
        change(&mut start);
        Stage {
            game: Match::create(&module, start).unwrap(),
            now_ms: 0,
            last: Applied::default(),
        }
    }

    /// The same, of a module that is compiled already.
    pub(super) fn playing(module: &Module) -> Stage {
        Stage {
            game: Match::create(module, start_record(module)).unwrap(),
            now_ms: 0,
            last: Applied::default(),
        }
    }

    /// The same, and it can be put back.
    pub(super) fn remembering(guest: &Guest) -> Stage {
        let mut stage = Self::of(guest);
        stage.game.remember();
        stage
    }

    pub(super) fn started(guest: &Guest) -> Stage {
        let mut stage = Self::of(guest);
        stage.apply(Event::Start);
        assert_eq!(stage.last.record.outcome, Outcome::Applied);
        stage
    }

    pub(super) fn apply(&mut self, event: Event) -> &Applied {
        self.game.apply(self.now_ms, event, &mut self.last);
        &self.last
    }

    /// Seats a person where the match says they may sit.
    pub(super) fn join(&mut self, person: u128, role: Role) -> Seat {
        let player = PlayerId::from_u128(person);
        let Admission::Free { seat, team } = self.game.part().admit(player, role) else {
            panic!("no free seat")
        };
        self.apply(Event::Join {
            seat,
            occupant: occupant(person, role, team),
            ctx: Bytes::new(),
        });
        seat
    }

    pub(super) fn say(&mut self, seat: Seat, data: &[u8]) -> &Applied {
        self.apply(Event::Message {
            seat,
            n: 0,
            data: Bytes::copy_from_slice(data),
        })
    }

    /// Has it saved.
    pub(super) fn save(&mut self) -> Result<Bytes, Failure> {
        self.apply(Event::Save);
        match self.last.saved.take() {
            Some(state) => Ok(state),
            None => Err(self.failure().clone()),
        }
    }

    pub(super) fn leave(&mut self, seat: Seat) -> &Applied {
        self.apply(Event::Leave {
            seat,
            reason: LeaveReason::Left,
        })
    }

    pub(super) fn away(&mut self, seat: Seat) -> &Applied {
        self.apply(Event::Signal {
            topic: Topic::SeatAway { seat },
        })
    }

    pub(super) fn resync(&mut self, seat: Seat, number: u64) -> &Applied {
        self.apply(Event::Resync {
            seat,
            attach: Some(attachment(number)),
        })
    }

    /// The outputs of the last event, one line each.
    pub(super) fn heard(&self) -> Vec<String> {
        self.last
            .outputs
            .iter()
            .map(|output| format!("{} {}", hearer(&output.audience), said(&output.body)))
            .collect()
    }

    pub(super) fn record(&self) -> &Record {
        &self.last.record
    }

    pub(super) fn failure(&self) -> &Failure {
        self.last.failure.as_ref().expect("the event was cut off")
    }
}

pub(super) fn attachment(number: u64) -> Attachment {
    Attachment {
        number,
        session: SessionId::from_u128(number.into()),
        node: "node-1".parse::<NodeName>().unwrap(),
        generation: 1,
    }
}

pub(super) fn occupant(person: u128, role: Role, team: Option<u32>) -> Occupant {
    Occupant {
        player: PlayerId::from_u128(person),
        name: format!("p{person}"),
        role,
        team,
        attachment: attachment(person as u64),
    }
}

fn hearer(audience: &Audience) -> String {
    match audience {
        Audience::Everyone => "everyone".into(),
        Audience::Players => "players".into(),
        Audience::Spectators => "spectators".into(),
        Audience::One(seat) => format!("{seat}"),
        Audience::Some(seats) => format!("{seats:?}"),
        Audience::Except(seat) => format!("!{seat}"),
    }
}

fn said(body: &Body) -> String {
    let text = |data: &Bytes| String::from_utf8_lossy(data).into_owned();
    match body {
        Body::Data { data } => text(data),
        Body::Published { key, data } => format!("{key}={}", data.as_ref().map_or("gone".into(), text)),
        Body::Players {
            joined,
            left,
            away,
            back,
        } => {
            let joined = joined.iter().map(|player| format!("+{}:{}", player.seat, player.name));
            let left = left
                .iter()
                .map(|departure| format!("-{}:{:?}", departure.seat, departure.reason));
            let away = away.iter().map(|seat| format!("away {seat}"));
            let back = back.iter().map(|seat| format!("back {seat}"));
            joined.chain(left).chain(away).chain(back).collect::<Vec<_>>().join(" ")
        }
        Body::Transferring => "on the way".into(),
        Body::Kicked { reason } => format!("kicked: {reason}"),
        Body::Joined(joined) => {
            let players: Vec<String> = joined.players.iter().map(|player| player.seat.to_string()).collect();
            let values: Vec<String> = joined
                .values
                .iter()
                .map(|v| format!("{}={}", v.key, text(&v.data)))
                .collect();
            format!(
                "joined n={} players=[{}] values=[{}]",
                joined.n,
                players.join(" "),
                values.join(" ")
            )
        }
    }
}
