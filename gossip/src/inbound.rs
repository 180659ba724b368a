//! What the mesh hands to its owner: messages, requests, broadcasts, and what happens to links. The trait is implemented by the
//! server (and by tests); nothing here decides anything.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::peer::Peer;

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Numbers an ordered stream of messages between two nodes: messages of one channel keep their order, and a channel that waits does
/// not hold up another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u8);

impl Channel {
    /// How many channels there are.
    pub const COUNT: u8 = 8;

    /// The mesh's own channel, which carries broadcasts.
    pub(crate) const BROADCAST: Channel = Channel(Self::COUNT);

    /// The mesh's own channel, which carries the directory of groups.
    pub(crate) const DIRECTORY: Channel = Channel(Self::COUNT + 1);

    /// Returns channel `index`, which must be below [`Channel::COUNT`]; meant for constants, where a wrong index fails to compile.
    pub const fn new(index: u8) -> Self {
        assert!(index < Self::COUNT, "there are eight channels");
        Self(index)
    }

    /// Returns channel `index`, or none when there is no such channel.
    pub const fn from_index(index: u8) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index)) } else { None }
    }

    /// Returns the channel's number.
    pub const fn index(self) -> u8 {
        self.0
    }

    /// Reads a channel from the wire, the mesh's own included.
    pub(crate) fn from_wire(index: u8) -> Option<Self> {
        (index <= Self::DIRECTORY.0).then_some(Self(index))
    }

    /// Whether it is the owner's, who hears what happens to it.
    pub(crate) fn is_owners(self) -> bool {
        self.0 < Self::COUNT
    }
}

/// Says what happened to the link to a peer. Events of one peer come one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// A data connection is there. Comes once for each connection, in both nodes.
    Connected,
    /// The data connection broke after messages had been written to this channel: messages accepted by `send` and not known delivered
    /// may be lost. What was still queued is kept and goes out on the next connection. Comes once a break and channel.
    Lost {
        /// The channel whose messages may be lost.
        channel: Channel,
    },
    /// A channel that had answered `Full` has room again.
    Writable {
        /// The channel that has room.
        channel: Channel,
    },
    /// This life of the node is over for us (it is dead, has left, or a newer one has come): what was queued is dropped, and nothing
    /// more comes from it. Should a peer that was taken for dead turn out alive, it starts again with `Connected`; should it
    /// then be over again before there was a connection, with another `Gone`.
    Gone,
}

/// Receives what comes from other nodes. Every method is called from the mesh's own tasks and must not block.
pub trait Inbound: Send + Sync + 'static {
    /// Takes one message; called in order for each (peer, channel), and never twice for one message.
    fn message(&self, from: &Peer, channel: Channel, bytes: Bytes);

    /// Answers a request. The future runs in a task of its own and should end by itself; when the asker gives up first, its answer is
    /// thrown away.
    fn request(&self, from: Peer, bytes: Bytes) -> BoxFuture<'static, Bytes>;

    /// Hears what happened to the link to a peer.
    fn link(&self, peer: &Peer, event: LinkEvent);

    /// Takes a broadcast to a group that this node has joined.
    fn broadcast(&self, from: &Peer, group: &str, bytes: Bytes);
}
