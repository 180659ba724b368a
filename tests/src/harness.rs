//! What a cluster test is written in: nodes that are real processes of the real binary, clients that speak the contract over
//! real sockets, and the operators' HTTP.
//!
//! It knows no part of the server but its outward contract. Nodes are ended by their process id when they are dropped, and a
//! test that fails prints what its nodes logged.

mod binary;
mod client;
mod cluster;
mod modules;
mod ops;
mod postgres;
mod process;
mod socket;

pub use binary::rookery_binary;
pub use client::{Account, Client, Refused, Trouble};
pub use cluster::{Builder, Outage, TestCluster};
pub use modules::{bundled, counter, courier, hostile, ledger, lobby};
pub use ops::Ops;
pub use process::{NodeProcess, NodeSpec};
pub use rookery_mesh_tests::faults::{self, Namespaces, Network, Relays, Weather};
pub use rookery_mesh_tests::{PATIENCE, eventually, free_ports, until, until_within};
pub use rookery_protocol::client::Encoding;
pub use socket::{Closing, Frame, Socket};
