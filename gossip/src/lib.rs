//! The mesh: who is here, what each node says about itself, and bytes between nodes.
//!
//! [`Cluster`] is the handle: it is started with a [`Config`] and an [`Inbound`], keeps the [`Members`] up to date, carries ordered
//! messages, requests and broadcasts, and says on a link's break what may be lost.
//!
//! This crate has never heard of a match or a player, makes no promise about ownership (a member that is `Dead` here may be alive
//! elsewhere: whoever takes something over needs a fence of its own), and speaks nothing but mutual TLS 1.3 over QUIC: there is no
//! plaintext mode. The invariants it keeps: one generation of a node at a time, messages of one (peer, channel) in order and never
//! doubled, every queue bounded.

mod audience;
mod bucket;
mod budget;
mod certificates;
mod changes;
mod cluster;
mod collision;
mod config;
mod control;
mod directory;
mod discovery;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod group;
mod guard;
mod inbound;
mod link;
mod listen;
mod member;
mod names;
mod own;
mod peer;
mod pulse;
mod quic;
mod reach;
mod refusal;
mod report;
mod secret;
#[cfg(feature = "sim")]
pub mod sim;
mod slept;
mod stats;
mod suspicion;
mod transport;
mod turnstile;
mod view;

pub use certificates::CertificateFiles;
pub use changes::feed::Changes;
pub use changes::{Change, ChangeKind, Departure};
pub use cluster::{Broadcast, Cluster, Fault, Membership};
pub use config::{Config, Limits, Profile};
pub use directory::{Directory, DirectoryStats, Entry, Key, Message, MessageError, Put, State};
pub use discovery::{AddressStatus, SourceKind, SourceStatus};
pub use error::{
    AdvertiseError, CertificateError, FactError, GroupError, JoinPeerError, NodeIdError, RequestError, SecretError,
    SendError, StartError,
};
pub use inbound::{BoxFuture, Channel, Inbound, LinkEvent};
pub use listen::Listen;
pub use member::{Member, MemberState, Members};
pub use peer::{Life, NodeId, Peer};
pub use report::{ClusterReport, MemberReport, OwnReport, SuspicionReport};
pub use secret::Secret;
pub use stats::{LimitedCounts, RefusedCounts, Stats};
