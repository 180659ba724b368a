//! Match logic for the Rookery game server.
//!
//! A match is a type that implements [`Match`]: it hears who joins, what they send, timers and ticks, and answers through its
//! [`Context`]. [`export!`] makes it a WebAssembly component; [`mock::Host`] plays it natively, in an ordinary test.
//!
//! ```
//! use rookery_sdk::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! /// Players count together; whoever reaches the goal ends the match.
//! #[derive(Serialize, Deserialize)]
//! struct Count {
//!     total: u32,
//!     goal: u32,
//! }
//!
//! impl Match for Count {
//!     rookery_sdk::serde_state!();
//!
//!     fn manifest() -> Manifest {
//!         Manifest::json("count").players(1..=4).quick_play()
//!     }
//!
//!     fn start(_ctx: &mut Context, setup: &Setup) -> Result<Self, Refusal> {
//!         let goal: Option<u32> = setup.params.json()?;
//!         Ok(Count { total: 0, goal: goal.unwrap_or(100) })
//!     }
//!
//!     fn message(&mut self, ctx: &mut Context, from: Seat, input: Payload) {
//!         match input.json::<u32>() {
//!             Ok(step) => self.total = self.total.saturating_add(step),
//!             Err(error) => return ctx.send_json(from, &json!({ "error": error.to_string() })),
//!         }
//!         ctx.publish_json("total", &self.total);
//!         if self.total >= self.goal {
//!             ctx.finish_json(&json!({ "winner": from }));
//!         }
//!     }
//! }
//!
//! rookery_sdk::export!(Count);
//!
//! // A test plays it without a node:
//! let mut host = mock::Host::<Count>::start(json!(5)).unwrap();
//! let ana = host.join("ana").unwrap();
//! host.message(ana, json!("two"));
//! assert!(host.heard_json(ana)[0]["error"].is_string());
//! host.message(ana, json!(5));
//! assert_eq!(host.published_json("total"), Some(json!(5)));
//! assert_eq!(host.outcome_json(), Some(json!({ "winner": ana })));
//! ```
//!
//! `rookery new NAME` makes a crate with a match like this one, `rookery build` compiles it (its `crate-type` must contain `cdylib`)
//! and makes the component. Three worked examples are in [`guide`]; what a match may rely on, its budgets and what each failure
//! looks like are in `docs/modding.md` of Rookery.

pub mod context;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
pub mod guide;
pub mod manifest;
mod matches;
#[cfg(not(target_arch = "wasm32"))]
pub mod mock;
pub mod payload;
pub mod state;
pub mod types;

pub use context::Context;
pub use manifest::{Codec, Durability, Manifest};
pub use matches::Match;
pub use payload::{BadPayload, Payload};
pub use serde_json::{Value, json};
pub use types::{Entry, Failure, Invitee, LeaveReason, Notice, Player, Refusal, Role, Saved, Seat, Setup, Signal, To};

/// What almost every match needs.
pub mod prelude {
    pub use crate::context::{Context, If, Level};
    pub use crate::manifest::{Durability, Manifest};
    pub use crate::matches::Match;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::mock;
    pub use crate::payload::Payload;
    pub use crate::types::{
        Entry, Failure, LeaveReason, Notice, Player, Refusal, Role, Saved, Seat, Setup, Signal, To,
    };
    pub use serde_json::json;
}

/// Makes the component's exports of a [`Match`]. To be used once in a crate, with the type:
///
/// ```text
/// rookery_sdk::export!(Duel);
/// ```
///
/// A type that is no match is told by name, also where nothing is exported:
///
/// ```compile_fail,E0277
/// struct Score(u32);
///
/// rookery_sdk::export!(Score);
/// ```
///
/// ```text
/// error[E0277]: `Score` is not the rules of a match
///   |
///   | rookery_sdk::export!(Score);
///   |                      ^^^^^ `rookery_sdk::Match` is not implemented for this type
///   = note: write `impl rookery_sdk::Match for Score { .. }` with at least `manifest` and `start`
/// ```
#[macro_export]
macro_rules! export {
    ($game:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            ::std::thread_local! {
                static GAME: ::std::cell::RefCell<::std::option::Option<$game>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            impl $crate::guest::Slot for Exported {
                type Game = $game;

                fn with<R>(f: impl FnOnce(&::std::cell::RefCell<::std::option::Option<$game>>) -> R) -> R {
                    GAME.with(f)
                }
            }

    $crate::guest::bindings::export_guest!(Exported with_types_in $crate::guest::bindings);
        };

        // Natively there is nothing to export, but a type that is not a match is told at once and not when it is built.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            const fn is_a_match<M: $crate::Match>() {}
            is_a_match::<$game>();
        };
    };
}
