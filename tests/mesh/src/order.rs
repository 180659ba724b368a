//! What a test says to a mesh node and what the node says back: one line of JSON each, over the process's standard streams.
//!
//! `Setup` is the process's only argument. Every [`Order`] is answered once, by its number; orders do not wait for each other.
//! [`Event`]s come by themselves. All times are [`now_us`](crate::now_us), so what two processes say can be put in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a mesh node is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    pub name: String,
    /// Must rise at each start of the same name; 0 takes the time of day.
    pub generation: u64,
    pub profile: Pace,
    pub cluster_name: String,
    pub secret: String,
    pub listen: SocketAddr,
    /// Where others are told to reach it, if that is not where it listens.
    pub advertise: Option<String>,
    pub seeds: Vec<String>,
    pub dns: Vec<String>,
    /// How often seeds and names are looked up again, in milliseconds.
    pub poll_ms: u64,
}

/// The mesh's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    Default,
    Lan,
}

/// An order under its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbered {
    pub id: u64,
    #[serde(flatten)]
    pub order: Order,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// Joins each group, once more if it is in it. Answered with `Done`.
    Join { groups: Vec<String> },
    /// Takes one membership of each group back. Answered with `Done`.
    Leave { groups: Vec<String> },
    /// States a fact. Answered with `Done`.
    Fact { key: String, value: String },
    /// Takes a fact back. Answered with `Done`.
    RemoveFact { key: String },
    /// Says what the node does: `ready`, `draining`, `joining`. Answered with `Done`.
    State { state: String },
    /// Who is in each group, as this node sees it. Answered with `Groups`.
    Groups { groups: Vec<String> },
    /// From now on says by `Event::Group` when the nodes of these groups change, and what they are now. Answered with `Done`.
    Watch { groups: Vec<String> },
    /// Watches these groups no longer. Answered with `Done`.
    Unwatch { groups: Vec<String> },
    /// Joins that many new groups a second, named `prefix/number`, and leaves each after a second, but one of `stay_one_of`. Answered with
    /// `Churned` when the time is over and all but those are left.
    Churn {
        prefix: String,
        joins_per_s: u64,
        stay_one_of: u64,
        for_ms: u64,
    },
    /// Sends that many broadcasts, numbered from 0, of that many bytes (8 at least). Answered with `Broadcast`.
    Broadcast { group: String, count: u64, bytes: usize },
    /// Sends numbered messages of that many bytes on each of the channels, as fast as they are taken or at a rate; answered with `Bulk`
    /// when the time is over.
    Bulk {
        to: String,
        channels: Vec<u8>,
        bytes: usize,
        for_ms: u64,
        bytes_per_s: Option<u64>,
    },
    /// Makes a request every so often, each with its deadline, without waiting for the one before. Answered with `RoundTrips` at the end.
    Ask {
        to: String,
        every_ms: u64,
        deadline_ms: u64,
        for_ms: u64,
    },
    /// Everything that the node knows of itself and of the others. Answered with `Report`.
    Report,
    /// Says goodbye and ends. Answered with `Done`.
    Goodbye,
}

/// One line of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    Event(Event),
    Answer { id: u64, at_us: u64, answer: Answer },
}

/// What a node says by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was so.
    pub at_us: u64,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The mesh runs.
    Ready { generation: u64, addr: String },
    /// A member is there, or shown in another state or life; no state when it is not shown any more.
    Member {
        node: String,
        generation: u64,
        state: Option<String>,
    },
    /// The link to a peer was connected, or its life is over.
    Link { node: String, generation: u64, gone: bool },
    /// The nodes of a watched group.
    Group { group: String, nodes: Vec<String> },
    /// The mesh ended by itself.
    Fault { why: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Answer {
    Done,
    /// The order could not be carried out; what came before the fault has been.
    Refused {
        why: String,
    },
    Groups {
        nodes: BTreeMap<String, Vec<String>>,
    },
    Churned {
        joined: u64,
        /// The longest time that a join or a departure took, in microseconds.
        slowest_us: u64,
        staying: Vec<String>,
    },
    Broadcast {
        copies: u64,
        refused: u64,
    },
    Bulk {
        messages: u64,
        bytes: u64,
        took_us: u64,
    },
    RoundTrips {
        tries: Vec<Try>,
    },
    Report(Box<Report>),
}

/// One request of `Order::Ask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    pub asked_us: u64,
    /// None when there was no answer.
    pub answered_us: Option<u64>,
    /// The life that answered.
    pub generation: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub members: BTreeMap<String, Seen>,
    /// The figures of the mesh, by the names of `rookery_gossip::Stats`.
    pub stats: BTreeMap<String, u64>,
    /// Memory that is resident, in bytes.
    pub rss: u64,
    /// Open file descriptors.
    pub fds: u64,
    pub threads: u64,
    /// Tasks of the async runtime that have not ended.
    pub tasks: u64,
    /// Processor time used since the start, in microseconds.
    pub used_us: u64,
    /// Messages that came, by sender and channel (`n0/3`), and broadcasts, by sender and group (`n0/room`).
    pub received: BTreeMap<String, Tally>,
}

/// A member as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub generation: u64,
    pub state: String,
    pub facts: BTreeMap<String, String>,
    pub rtt_us: Option<u64>,
}

/// What came of one ordered stream of numbered messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub count: u64,
    pub bytes: u64,
    /// The number of the last one.
    pub last: u64,
    /// How many did not follow the one before by one.
    pub jumps: u64,
}
