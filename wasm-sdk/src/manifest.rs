//! What a module says about itself, and its builder. The node checks it when the module is published; the mock host checks
//! the same rules, so that a test fails before a publish does.

use std::ops::RangeInclusive;

/// How payload bytes travel to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Every payload is one JSON text.
    Json,
    /// Payloads are any bytes.
    Binary,
}

/// What a match survives; each level includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing.
    Memory,
    /// The death of any one node.
    Replicated,
    /// A restart of all nodes too, less the last second.
    Stored,
}

/// A module's description. Begin with [`Manifest::json`] or [`Manifest::binary`] and change what differs from the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) codec: Codec,
    pub(crate) durability: Durability,
    pub(crate) tick_hz: u32,
    pub(crate) min_players: u32,
    pub(crate) max_players: u32,
    pub(crate) max_spectators: u32,
    pub(crate) grace_ms: u32,
    pub(crate) quick_play: bool,
    pub(crate) listed: bool,
    pub(crate) extra: Vec<(String, String)>,
}

impl Manifest {
    /// Begins the manifest of a module that speaks JSON. The defaults: version 0.1.0, 1 to 8 players, no spectators, no ticks,
    /// 15 s of grace, [`Durability::Memory`], not in quick play, listed.
    pub fn json(name: &str) -> Self {
        Self::new(name, Codec::Json)
    }

    /// Begins the manifest of a module that speaks bytes of its own, with the defaults of [`Manifest::json`].
    pub fn binary(name: &str) -> Self {
        Self::new(name, Codec::Binary)
    }

    fn new(name: &str, codec: Codec) -> Self {
        Self {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            codec,
            durability: Durability::Memory,
            tick_hz: 0,
            min_players: 1,
            max_players: 8,
            max_spectators: 0,
            grace_ms: 15_000,
            quick_play: false,
            listed: true,
            extra: Vec::new(),
        }
    }

    /// Sets the semantic version that people see, most often `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Sets how few and how many players a match has.
    pub fn players(mut self, players: RangeInclusive<u32>) -> Self {
        self.min_players = *players.start();
        self.max_players = *players.end();
        self
    }

    /// Sets how many may watch.
    pub fn spectators(mut self, max: u32) -> Self {
        self.max_spectators = max;
        self
    }

    /// Sets how often [`tick`](crate::Match::tick) is called, 0 to 128 times a second; 0 means that only events wake the match.
    pub fn tick_hz(mut self, tick_hz: u32) -> Self {
        self.tick_hz = tick_hz;
        self
    }

    /// Sets how long a seat is kept for a player whose connection dropped.
    pub fn grace_ms(mut self, grace_ms: u32) -> Self {
        self.grace_ms = grace_ms;
        self
    }

    /// Sets what a match survives.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Lets `match.quick` put players into a running match of this module.
    pub fn quick_play(mut self) -> Self {
        self.quick_play = true;
        self
    }

    /// Keeps live matches out of lists.
    pub fn unlisted(mut self) -> Self {
        self.listed = false;
        self
    }

    /// Adds a property for newer nodes; nodes that do not know it ignore it.
    pub fn extra(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns what the node would refuse about this manifest when it is published.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(allowed) {
            faults.push(format!("the name {:?} is not 1 to 64 of a-z, 0-9, '-', '_'", self.name));
        }
        if self.tick_hz > 128 {
            faults.push(format!("{} ticks a second are more than 128", self.tick_hz));
        }
        if self.max_players == 0 {
            faults.push("a match without players".to_owned());
        }
        if self.min_players > self.max_players {
            faults.push(format!(
                "at least {} players, but at most {}",
                self.min_players, self.max_players
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests;
