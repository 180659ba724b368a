//! What every committed component must be, whatever its rules.

use std::path::PathBuf;

use bytes::Bytes;
use rookery_protocol::client::{LeaveReason, Role};
use rookery_protocol::{MatchId, PlayerId, Seat, SessionId};

use super::BUNDLED;
use crate::matches::event::{Attachment, Event, Occupant};
use crate::matches::machine::{Applied, Match};
use crate::matches::part::{Admission, StartRecord};
use crate::wasm::{Engine, EngineConfig};

const HOSTILE: (&str, &[u8]) = ("hostile", include_bytes!("../../../tests/guests/hostile/hostile.wasm"));
/// Names a directory with components that scripts/build-modules has built from the sources as they are.
const REBUILT: &str = "ROOKERY_REBUILT_MODULES";

/// A node compiles each module it meets once; at about 1 ms a kilobyte this is a third of a second. The village is by far the largest.
const SIZE_BYTES_MAX: usize = 330_000;

#[test]
fn each_is_a_small_component_that_asks_for_nothing_but_the_contract() {
    for (name, component) in BUNDLED {
        assert!(component.len() < SIZE_BYTES_MAX, "{name} has {} bytes", component.len());
        let mut depth = 0;
        for payload in wasmparser::Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                wasmparser::Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        let import = import.unwrap();
                        // The types that the exports use are imported too; they give a guest no power.
                        let is_type = matches!(import.ty, wasmparser::ComponentTypeRef::Type(_));
                        let name_of_import = import.name.name;
                        assert!(
                            is_type || name_of_import.starts_with("rookery:game/"),
                            "{name} imports {name_of_import}"
                        );
                    }
                }
                wasmparser::Payload::ModuleSection { .. } | wasmparser::Payload::ComponentSection { .. } => depth += 1,
                wasmparser::Payload::End(_) => depth -= 1,
                _ => {}
            }
        }
    }
}

#[test]
fn none_tells_whose_machine_built_it() {
    let home = std::env::var("HOME").ok().filter(|home| home.len() > 1);
    for (name, component) in BUNDLED {
        let text = String::from_utf8_lossy(component);
        let of_this_machine = home.as_deref().into_iter();
        for path in ["/home/", "/Users/", "/tmp/", ".cargo/registry"]
            .into_iter()
            .chain(of_this_machine)
        {
            assert!(!text.contains(path), "{name} contains {path}");
        }
    }
}

/// Each is compiled and plays the dry run of `rookery module check`; the hostile one too, since unasked it does no harm.
#[test]
fn each_passes_the_check_that_publishing_makes() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    for (name, component) in BUNDLED.iter().chain([&HOSTILE]) {
        let report = engine.check(component);
        assert!(report.is_ok(), "{report}");
        assert_eq!(&report.manifest.unwrap().name, name);
    }
}

/// The bytes of two builds may differ (symbols are numbered by the path of the checkout); what they do may not.
#[test]
fn a_component_built_from_source_plays_as_the_committed_one() {
    let Some(dir) = std::env::var_os(REBUILT).map(PathBuf::from) else {
        println!("not compared with a fresh build: {REBUILT} is not set, scripts/build-modules --check makes one");
        return;
    };
    let engine = Engine::new(EngineConfig::default()).unwrap();
    for (name, component) in BUNDLED.iter().chain([&HOSTILE]) {
        let rebuilt = std::fs::read(dir.join(format!("{name}.wasm"))).unwrap();
        assert_eq!(play(&engine, name, &rebuilt), play(&engine, name, component), "{name}");
    }
}

/// Plays a short match and returns everything that came out of it.
fn play(engine: &Engine, name: &str, component: &[u8]) -> Vec<String> {
    let module = engine.compile(component).unwrap();
    let start = StartRecord::new(MatchId::from_u128(1), &module, 42, 1_700_000_000_000);
    let mut script = Script {
        game_match: Match::create(&module, start).unwrap(),
        heard: Vec::new(),
    };
    script.apply(0, Event::Start);
    let seats = [1, 2].map(|player| script.join(PlayerId::from_u128(player)));
    let inputs: &[&[u8]] = match name {
        "arena" => &[&[1, 127, 30], &[2], &[3, 9], &[1, 200, 0], &[7, 7]],
        "duel" => &[
            br#"{"move":"strike"}"#,
            br#"{"move":"guard"}"#,
            br#"{"move":"heal"}"#,
            b"[]",
        ],
        "village" => &[
            br#""get coin""#,
            br#""say good morning""#,
            br#""in""#,
            br#""look""#,
            br#""north""#,
        ],
        _ => &[b"1", br#"{"all":2}"#, br#""all: three""#],
    };
    for round in 0..100 {
        let at_ms = 50 * (round + 1);
        let data = Bytes::from_static(inputs[round as usize % inputs.len()]);
        let seat = seats[round as usize % 3 % 2];
        script.apply(at_ms, Event::Message { seat, n: 0, data });
        script.apply(at_ms, Event::Tick { elapsed_ms: 50 });
        script.apply(at_ms, Event::Timer { id: 1 });
    }
    script.apply(
        6_000,
        Event::Leave {
            seat: seats[0],
            reason: LeaveReason::Left,
        },
    );
    assert!(script.heard.len() > 3, "{name} said nothing");
    script.heard
}

struct Script {
    game_match: Match,
    heard: Vec<String>,
}

impl Script {
    fn apply(&mut self, at_ms: u64, event: Event) {
        if !self.game_match.is_running() {
            return;
        }
        let mut applied = Applied::default();
        self.game_match.apply(at_ms, event, &mut applied);
        assert!(applied.failure.is_none(), "{:?}", applied.failure);
        self.heard
            .extend(applied.outputs.iter().map(|output| format!("{output:?}")));
        self.heard.extend(applied.ended.map(|ending| format!("{ending:?}")));
        for event in applied.follow_ups {
            self.apply(at_ms, event);
        }
    }

    fn join(&mut self, player: PlayerId) -> Seat {
        let Admission::Free { seat, team } = self.game_match.part().admit(player, Role::Player) else {
            panic!("no seat for {player}");
        };
        let attachment = Attachment {
            number: 1,
            session: SessionId::from_u128(1),
            node: "node-1".parse().unwrap(),
            generation: 1,
        };
        let occupant = Occupant {
            player,
            name: "Ana".into(),
            role: Role::Player,
            team,
            attachment,
        };
        self.apply(
            1,
            Event::Join {
                seat,
                occupant,
                ctx: Bytes::new(),
            },
        );
        seat
    }
}
