//! Which versions of the wire this build speaks.

/// The client protocol's version, as in the subprotocol names `rookery.v1.json` and `rookery.v1.msgpack`.
pub const CLIENT_PROTOCOL: u32 = 1;

/// The lowest and the highest version of the peer protocol that this build reads and writes.
pub const PEER_PROTOCOL: std::ops::RangeInclusive<u32> = 1..=1;
