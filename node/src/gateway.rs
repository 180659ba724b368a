//! The door for clients: HTTP, the upgrade to a WebSocket, and one small task a socket that turns frames into requests and an
//! outbox into frames. It knows no match and no player; what a request means is the session's business, behind the two traits
//! of [`connection`].

pub mod affinity;
pub mod connection;
pub mod handshake;
pub mod http;
pub mod limits;
pub mod outbox;
pub mod settings;
pub mod tls;

pub use connection::{SessionHandle, SessionHost, SocketInfo};
pub use http::serve;
pub use outbox::{Close, Outbox};
pub use settings::Settings;

#[cfg(test)]
mod tests;
