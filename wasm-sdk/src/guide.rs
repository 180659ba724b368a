//! Three worked examples: a turn-based match, a realtime one, and zones of a world. Each is whole, and each is played here by a test
//! as you would write it. `rookery new --template turn-based|realtime|zone` makes a crate of each kind to begin with.
//!
//! # Turn-based, in JSON
//!
//! Two take one to three stones in turn; whoever takes the last one has won. The state is published, so that who comes back
//! or watches sees it without asking; a timer keeps the match from waiting for ever.
//!
//! ```
//! use rookery_sdk::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! const TURN: u32 = 1;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Stones {
//!     left: u32,
//!     players: Vec<Seat>,
//!     turn: usize,
//! }
//!
//! #[derive(Deserialize)]
//! struct Take {
//!     take: u32,
//! }
//!
//! impl Match for Stones {
//!     rookery_sdk::serde_state!();
//!
//!     fn manifest() -> Manifest {
//!         Manifest::json("stones").players(2..=2).quick_play()
//!     }
//!
//!     fn start(ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
//!         let left = 10 + ctx.random().below(11);
//!         Ok(Stones { left, players: Vec::new(), turn: 0 })
//!     }
//!
//!     fn join(&mut self, ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
//!         self.players.push(player.seat);
//!         if self.players.len() == 2 {
//!             ctx.set_joinable(false);
//!             self.begin_turn(ctx);
//!         }
//!         Ok(())
//!     }
//!
//!     fn leave(&mut self, ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
//!         self.players.retain(|player| *player != seat);
//!         if let [winner] = self.players[..] {
//!             ctx.finish_json(&json!({ "winner": winner }));
//!         }
//!     }
//!
//!     fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
//!         let Ok(Take { take }) = input.json() else {
//!             return ctx.send_json(from, &json!({ "error": "take how many?" }));
//!         };
//!         if self.players.len() < 2 || self.players[self.turn] != from || !(1..=self.left.min(3)).contains(&take) {
//!             return ctx.send_json(from, &json!({ "error": "not now, or not so many" }));
//!         }
//!         self.left -= take;
//!         if self.left == 0 {
//!             return ctx.finish_json(&json!({ "winner": from }));
//!         }
//!         self.turn = 1 - self.turn;
//!         self.begin_turn(ctx);
//!     }
//!
//!     fn timer(&mut self, ctx: &mut Context, id: u32) {
//!         if id == TURN {
//!             ctx.kick(self.players[self.turn], "too slow");
//!         }
//!     }
//! }
//!
//! impl Stones {
//!     fn begin_turn(&self, ctx: &mut Context) {
//!         ctx.set_timer(TURN, 20_000);
//!         ctx.publish_json("stones", &json!({ "left": self.left, "turn": self.players[self.turn] }));
//!     }
//! }
//!
//! rookery_sdk::export!(Stones);
//!
//! // The test decides chance: 10 and 0 more.
//! let mut host = mock::Host::<Stones>::builder().random([0]).start().unwrap();
//! let (ana, ben) = (host.join("ana").unwrap(), host.join("ben").unwrap());
//! host.message(ben, json!({ "take": 1 }));
//! assert!(host.heard_json(ben)[0]["error"].is_string());
//! host.message(ana, json!({ "take": 3 }));
//! assert_eq!(host.published_json("stones"), Some(json!({ "left": 7, "turn": ben })));
//! host.save_and_load().unwrap();
//! host.advance(20_000);
//! assert_eq!(host.outcome_json(), Some(json!({ "winner": ana })), "ben was too slow");
//! ```
//!
//! # Realtime, in MessagePack
//!
//! Balls on a line, ten times a second. Typed messages travel as MessagePack, and the state too: this module has no JSON in it. All
//! time is the context's, and whatever is looked at in turn is in a `BTreeMap`, so that a replay is the same match.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use rookery_sdk::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! enum Input {
//!     Push { speed: f32 },
//! }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Ball {
//!     at: f32,
//!     speed: f32,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Line {
//!     balls: BTreeMap<Seat, Ball>,
//! }
//!
//! impl Match for Line {
//!     rookery_sdk::serde_state!(msgpack);
//!
//!     fn manifest() -> Manifest {
//!         Manifest::binary("line").players(1..=8).tick_hz(10).quick_play()
//!     }
//!
//!     fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
//!         Ok(Line { balls: BTreeMap::new() })
//!     }
//!
//!     fn join(&mut self, _ctx: &mut Context, player: &Player, _data: Payload) -> Result<(), Refusal> {
//!         self.balls.insert(player.seat, Ball { at: 0.0, speed: 0.0 });
//!         Ok(())
//!     }
//!
//!     fn leave(&mut self, _ctx: &mut Context, seat: Seat, _reason: LeaveReason) {
//!         self.balls.remove(&seat);
//!     }
//!
//!     fn message(&mut self, _ctx: &mut Context, from: Seat, input: Payload) {
//!         // Other people's input: it may be no message of ours, and no number at all.
//!         if let (Ok(Input::Push { speed }), Some(ball)) = (input.msgpack(), self.balls.get_mut(&from)) {
//!             ball.speed = if speed.is_finite() { speed.clamp(-10.0, 10.0) } else { 0.0 };
//!         }
//!     }
//!
//!     fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
//!         for ball in self.balls.values_mut() {
//!             ball.at += ball.speed * elapsed_ms as f32 / 1_000.0;
//!         }
//!         // State, and not news: a slow client skips to the newest.
//!         ctx.publish_msgpack("balls", &self.balls);
//!     }
//! }
//!
//! rookery_sdk::export!(Line);
//!
//! let mut host = mock::Host::<Line>::start(json!(null)).unwrap();
//! let ana = host.join("ana").unwrap();
//! host.message(ana, Payload::of_msgpack(&Input::Push { speed: 5.0 }));
//! host.message(ana, *b"nonsense");
//! host.advance(500);
//! let balls: BTreeMap<Seat, Ball> = host.published_msgpack("balls").unwrap();
//! assert_eq!(balls[&ana], Ball { at: 2.5, speed: 5.0 });
//! ```
//!
//! # Zones of a world
//!
//! A zone is a match that always exists and has a name, `world/zone`. Its players come and go; whoever walks on is handed over, with
//! what they carry, to another match that may be on another machine. Everything that leaves the match (mail, transfers, storage)
//! is a request with a number, answered later: nothing here waits.
//!
//! ```
//! use rookery_sdk::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! const WALK: u32 = 1;
//! const GREET: u32 = 2;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Zone {
//!     name: String,
//!     visits: u32,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Purse {
//!     gold: u32,
//! }
//!
//! impl Match for Zone {
//!     rookery_sdk::serde_state!();
//!
//!     fn manifest() -> Manifest {
//!         Manifest::json("zone").players(1..=100).durability(Durability::Stored)
//!     }
//!
//!     fn start(_ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
//!         let name = setup.name.clone().ok_or("a zone has a name")?;
//!         Ok(Zone { name, visits: 0 })
//!     }
//!
//!     fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
//!         // A purse is believed when another match sent it; a client may write what it likes.
//!         let purse = match player.transferred_from() {
//!             Some(_) => data.json()?,
//!             None => Purse { gold: 0 },
//!         };
//!         self.visits += 1;
//!         ctx.send_json(player.seat, &json!({ "zone": self.name, "gold": purse.gold }));
//!         ctx.mail().tell_json(GREET, "world/town-crier", &player.name);
//!         Ok(())
//!     }
//!
//!     fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
//!         if let Ok(exit) = input.json::<String>() {
//!             ctx.mail().transfer_json(WALK, from, &exit, &Purse { gold: 1 });
//!         }
//!     }
//!
//!     fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
//!         // Who could not be taken in comes back by `join`; mail that nobody got is only worth a line.
//!         if let (GREET, Err(failure)) = (request, outcome) {
//!             ctx.warn(&format!("the crier heard nothing: {failure:?}"));
//!         }
//!     }
//!
//!     fn receive(&mut self, ctx: &mut Context, sender: &str, data: Payload) {
//!         if let Ok(news) = data.json::<String>() {
//!             ctx.send_json(To::Everyone, &json!({ "news": news, "from": sender }));
//!         }
//!     }
//! }
//!
//! rookery_sdk::export!(Zone);
//!
//! let mut host = mock::Host::<Zone>::builder().name("world/square").start().unwrap();
//! let ana = host.transfer("ana", "01MILL", json!({ "gold": 7 })).unwrap();
//! assert_eq!(host.heard_json(ana), [json!({ "zone": "world/square", "gold": 7 })]);
//! host.receive("01MILL", json!("the mill burns"));
//! assert_eq!(host.heard_json(ana).len(), 2);
//! host.answer(GREET, Err(Failure::NoTarget));
//! host.message(ana, json!("world/mill"));
//! let requests = host.take_requests();
//! assert!(matches!(&requests[1], mock::Request::Transfer { target, .. } if target == "world/mill"));
//! assert!(host.seats().is_empty());
//! // No zone takes her in, so she is back, on a new seat.
//! let back = host.turn_back("ana", "01MOCKMATCH", json!({ "gold": 1 }));
//! assert!(back > ana);
//! ```
