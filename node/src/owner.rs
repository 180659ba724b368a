//! The owner's side of matches: rooms (a match and who listens to it), the streams from them to gateways, and the threads that
//! run them. What the match logic decides is `matches`; where a match lives is `placement` and the store.

pub mod debts;
pub mod desk;
pub mod effects;
pub mod executor;
pub mod fence;
pub mod lease;
pub mod lines;
pub mod room;
pub mod saver;
pub mod saving;
pub mod stream;

pub use executor::Executor;
