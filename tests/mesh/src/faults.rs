//! The words for what goes wrong, the same for every means.
//!
//! A process ([`MeshProcess`](crate::MeshProcess), or a whole node): `kill` (`kill -9`), `stop` and `cont` (SIGSTOP and SIGCONT),
//! `restart` (killed, and a new life at the same address).
//!
//! What is between processes is a [`Network`]: `cut` and `heal` a pair or one way of it, `partition` into sides, `isolate` a node,
//! `heal_all`. There are two: [`Relays`], which carry every datagram over loopback and need no rights, and [`Namespaces`], in which
//! each node has a network interface of its own, as on a machine of its own. Relays also have [`Weather`]: loss, delay, jitter,
//! reordering, duplicates, from a seed. Nodes are numbers from 0, and nobody is told when something breaks.

mod namespaces;
mod relays;

use std::net::SocketAddr;

pub use namespaces::Namespaces;
pub use relays::{Relays, Weather};

/// What carries datagrams between nodes, and can be broken.
pub trait Network {
    /// How many nodes there is room for.
    fn nodes(&self) -> usize;

    /// What a node binds.
    fn listen(&self, node: usize) -> SocketAddr;

    /// Where the others reach it.
    fn advertised(&self, node: usize) -> SocketAddr;

    /// The command by which a process is started at its place; empty for none.
    fn enter(&self, node: usize) -> Vec<String>;

    /// Nothing that `from` says arrives at `to` any more; what `to` says still does.
    fn cut_one_way(&self, from: usize, to: usize);

    /// Takes back `cut_one_way`.
    fn heal_one_way(&self, from: usize, to: usize);

    /// Nodes of different sides hear nothing of each other; nodes of the same side do, and so do nodes of no side among themselves.
    fn partition(&self, sides: &[&[usize]]);

    /// Nothing comes to this node or goes from it any more.
    fn isolate(&self, node: usize);

    /// Everything arrives again, whatever was cut, and however.
    fn heal_all(&self);

    /// Nothing that these two say to each other arrives any more.
    fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Takes back `cut`.
    fn heal(&self, one: usize, other: usize) {
        self.heal_one_way(one, other);
        self.heal_one_way(other, one);
    }
}

/// On which side of a partition a node is; those of no side are together on one.
fn side_of(sides: &[&[usize]], node: usize) -> usize {
    let side = sides.iter().position(|side| side.contains(&node));
    side.map_or(0, |side| side + 1)
}
