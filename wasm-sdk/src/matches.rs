//! The trait that match logic implements. It is not the driver: `guest` calls it on the node, `mock` in tests, and both keep
//! the same order: `manifest` at any time, `start` or `load` once, then everything else, one call at a time.

use crate::context::Context;
use crate::manifest::Manifest;
use crate::payload::Payload;
use crate::types::{Entry, Failure, LeaveReason, Player, Refusal, Saved, Seat, Setup, Signal};

/// The rules of one match. The node calls one method at a time; what the method asks of its [`Context`] happens when it
/// returns, all of it or (after a panic or an exhausted budget) none.
///
/// Only [`manifest`](Match::manifest) and [`start`](Match::start) are required. Match logic is deterministic: time and chance
/// come from the context, so that a match can be replayed on another machine.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the rules of a match",
    label = "`rookery_sdk::Match` is not implemented for this type",
    note = "write `impl rookery_sdk::Match for {Self} {{ .. }}` with at least `manifest` and `start`"
)]
pub trait Match: Sized + 'static {
    /// Describes the module. It must say the same at every call; the node reads it once, when the module is published.
    fn manifest() -> Manifest;

    /// Makes a new match. A refusal ends it before it began.
    fn start(ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal>;

    /// Takes in a player who has just been given a seat; `data` is what the client passed, or the match that transfers the
    /// player. The reason of a refusal is told to the player, and the seat is free again.
    fn join(&mut self, ctx: &mut Context, player: &Player, data: Payload) -> Result<(), Refusal> {
        let _ = (ctx, player, data);
        Ok(())
    }

    /// Hears that a seat is free. A player whose connection dropped leaves only when the grace period is over.
    fn leave(&mut self, ctx: &mut Context, seat: Seat, reason: LeaveReason) {
        let _ = (ctx, seat, reason);
    }

    /// Applies one input of a client.
    fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
        let _ = (ctx, from, input);
    }

    /// Is called [`tick_hz`](Manifest::tick_hz) times a second; `elapsed_ms` is the time since the last tick.
    fn tick(&mut self, ctx: &mut Context, elapsed_ms: u32) {
        let _ = (ctx, elapsed_ms);
    }

    /// Hears a timer that [`Context::set_timer`] set.
    fn timer(&mut self, ctx: &mut Context, id: u32) {
        let _ = (ctx, id);
    }

    /// Hears mail from another match.
    fn receive(&mut self, ctx: &mut Context, sender: &str, data: Payload) {
        let _ = (ctx, sender, data);
    }

    /// Hears the answer to a numbered request: reads give no value or one, scans give many, writes give the new version.
    fn answer(&mut self, ctx: &mut Context, request: u32, outcome: Result<Vec<Entry>, Failure>) {
        let _ = (ctx, request, outcome);
    }

    /// Hears everything else, see [`Signal::read`].
    fn signal(&mut self, ctx: &mut Context, signal: Signal) {
        let _ = (ctx, signal);
    }

    /// Sends the full view to a seat that missed outputs which are gone. Published values follow by themselves.
    fn resync(&mut self, ctx: &mut Context, seat: Seat) {
        let _ = (ctx, seat);
    }

    /// Returns the logical state, for [`load`](Match::load) of another version of the module. A state that serde can write needs
    /// only [`serde_state!`](crate::serde_state) in place of both methods. The default carries nothing.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Goes on from a saved state, instead of [`start`](Match::start). The default refuses, so that a match whose rules cannot
    /// carry their state stays with its old version.
    fn load(ctx: &mut Context, setup: &Setup, saved: Saved) -> Result<Self, Refusal> {
        let _ = (ctx, setup, saved);
        Err(Refusal::new(
            "these rules do not carry their state: see rookery_sdk::serde_state!",
        ))
    }
}

/// Writes [`Match::save`] and [`Match::load`] for a state that is `serde::Serialize` and `serde::Deserialize`; to be placed
/// inside the `impl Match` block. The state travels as JSON, so that a newer version may add fields (with `#[serde(default)]`),
/// drop some, and change their order. Maps need keys that are strings or integers, and numbers must be finite; a state that has
/// others travels as MessagePack by `serde_state!(msgpack)`, or writes the two methods itself. A module that speaks MessagePack
/// is smaller with `serde_state!(msgpack)`.
///
/// One line and no derive, because both methods belong into the `impl Match` block, of which there is one, and because a derive
/// would need a crate of its own that compiles before everything else.
///
/// A field that has come since has a default, and an old state fits:
///
/// ```
/// use rookery_sdk::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Shop {
///     gold: u32,
///     #[serde(default)]
///     customers: u32,
/// }
///
/// impl Match for Shop {
///     rookery_sdk::serde_state!();
///
///     fn manifest() -> Manifest {
///         Manifest::json("shop").durability(Durability::Stored)
///     }
///
///     fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
///         Ok(Shop { gold: 10, customers: 0 })
///     }
/// }
///
/// let mut host = mock::Host::<Shop>::start(json!(null)).unwrap();
/// host.load("0.1.0", r#"{"gold": 3}"#).unwrap();
/// assert_eq!((host.game().gold, host.game().customers), (3, 0));
/// assert!(host.load("0.1.0", "{}").is_err(), "a state without gold is no shop's");
/// ```
///
/// A state that serde cannot write is told by the compiler:
///
/// ```compile_fail,E0277
/// # use rookery_sdk::prelude::*;
/// struct Shop {
///     gold: u32,
/// }
///
/// impl Match for Shop {
///     rookery_sdk::serde_state!();
/// #   fn manifest() -> Manifest {
/// #       Manifest::json("shop")
/// #   }
/// #   fn start(_ctx: &mut Context, _setup: &Setup) -> Result<Self, Refusal> {
/// #       Ok(Shop { gold: 10 })
/// #   }
/// }
/// ```
#[macro_export]
macro_rules! serde_state {
    () => {
        $crate::serde_state!(@ write read);
    };
    (json) => {
        $crate::serde_state!(@ write read);
    };
    (msgpack) => {
        $crate::serde_state!(@ write_msgpack read_msgpack);
    };
    (@ $write:ident $read:ident) => {
        fn save(&self) -> ::std::vec::Vec<u8> {
            $crate::state::$write(self)
        }

        fn load(
            _ctx: &mut $crate::Context,
            _setup: &$crate::Setup,
            saved: $crate::Saved,
        ) -> ::core::result::Result<Self, $crate::Refusal> {
            $crate::state::$read(&saved.state)
        }
    };
    ($($other:tt)*) => {
        ::core::compile_error!("`serde_state!` is written `serde_state!()`, `serde_state!(json)` or `serde_state!(msgpack)`");
    };
}
