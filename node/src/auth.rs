//! Accounts and tokens: who a player is, and how every node can tell without asking the database.
//!
//! [`Accounts`] opens accounts and hands out tokens (`auth/http.rs` is its face to clients); [`Tokens`] makes and checks them,
//! purely. Revocations are kept in memory and read from the store every two seconds, so that a node without its database still
//! knows every token it should, and a revocation reaches all nodes within seconds.
//!
//! Not here: sessions, and what a player may do in a match.

mod accounts;
mod error;
mod external;
pub(crate) mod fuzzing;
mod http;
mod key;
mod password;
mod revoked;
mod token;

pub use self::accounts::{Accounts, AuthOptions, OpenError, Policy, Tickets};
pub use self::error::{AuthError, KeyError, TokenError};
pub use self::external::ExternalOptions;
pub use self::http::routes;
pub use self::key::TokenKeys;
pub use self::token::{ACCESS_LIFETIME, Identity, ResumeToken, Tokens};
