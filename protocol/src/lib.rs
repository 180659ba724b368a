//! Data that crosses a wire: ids, client messages, peer messages, codecs, error codes.
//!
//! Nothing here does IO, reads a clock or draws a random number. Other people's bytes are decoded here and nowhere else:
//! size first, then shape, then meaning.

pub mod client;
pub mod error;
pub mod id;
pub mod output;
pub mod peer;
pub mod version;

pub use error::ErrorCode;
pub use id::{Digest, MatchId, NodeLife, NodeName, PartyId, PlayerId, Seat, SessionId, TicketId};
