//! The tables that an operator names: modules, queues, worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::faults::Faults;
use super::raw::{Node, Raw};
use super::setting::{KeyDoc, Setting, child, section, table_of, words};

section! {
    /// One module's rules.
    Module {
        /// Who may create matches of the module: `clients` (anybody), or `server` (queues, worlds and operators only).
        create: Create = Create::Clients,
    }
}

words! {
    /// Who may create matches of a module.
    Create {
        Clients = "clients",
        Server = "server",
    }
}

section! {
    /// One queue of the matchmaker.
    Queue {
        /// The module whose matches are formed. Needed.
        module: Option<String> = None,
        /// The fewest players of a match.
        min_players: u32 = 2,
        /// The most players of a match.
        max_players: u32 = 2,
        /// Players are split evenly into this many teams.
        teams: u32 = 1,
        /// Properties that must be equal in all tickets of a match.
        match_on: Vec<String> = Vec::new(),
        /// Forms matches of players of like skill.
        skill: Skill = Skill::default(),
        /// How long a match of fewer than `max_players` waits for more. Raise it where full matches matter more than short waits.
        fill_for: Duration = Duration::from_secs(5),
        /// Tickets that may wait; further ones are refused with `queue.full`.
        max_waiting: u32 = 10_000,
        /// How long a ticket waits before it expires.
        expires: Duration = Duration::from_secs(60),
    }
}

section! {
    /// How far apart players of one match may be.
    Skill {
        /// The property that holds the number. Without it skill does not count.
        property: Option<String> = None,
        /// How far apart two players may be at first.
        window: Option<f64> = None,
        /// By how much the window grows.
        widen: Option<f64> = None,
        /// How often it grows.
        every: Option<Duration> = None,
    }
}

section! {
    /// One world: zones, and which of them touch.
    World {
        /// Pairs of zones that players may walk between. Clients and operators are told them; who crosses where is the module's rule.
        /// A name that is no zone is warned of: it may be one to come.
        neighbours: Vec<Vec<String>> = Vec::new(),
        /// The zone in which players arrive who name none. Without it the first one in the alphabet.
        entry: Option<String> = None,
        /// The zones: each is a module, or a table of `module` and `params`.
        zones: BTreeMap<String, Zone> = BTreeMap::new(),
    }
}

impl World {
    /// The zone in which players arrive who name none.
    pub fn entry_zone(&self) -> Option<&str> {
        let first = || self.zones.keys().next().map(String::as_str);
        self.entry.as_deref().or_else(first)
    }

    /// The zones that share a pair with this one.
    pub fn neighbours_of(&self, zone: &str) -> Vec<String> {
        let beside = |pair: &Vec<String>| match &pair[..] {
            [one, other] if one == zone => Some(other.clone()),
            [one, other] if other == zone => Some(one.clone()),
            _ => None,
        };
        let beside = self.neighbours.iter().filter_map(beside);
        let zones: BTreeSet<String> = beside.filter(|other| self.zones.contains_key(other)).collect();
        zones.into_iter().collect()
    }

    /// Names among `neighbours` that are no zones of this world.
    pub fn strangers(&self) -> BTreeSet<&str> {
        let named = self.neighbours.iter().flatten().map(String::as_str);
        named.filter(|zone| !self.zones.contains_key(*zone)).collect()
    }
}

/// One zone: the match that should always exist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Zone {
    pub module: String,
    /// What the match is started with, as JSON; null when nothing was given.
    pub params: serde_json::Value,
}

impl Setting for Zone {
    fn read(raw: Raw, at: &str, faults: &mut Faults) -> Option<Self> {
        if !matches!(raw.node, Node::Table(_)) {
            let module = String::read(raw, at, faults)?;
            return Some(Self {
                module,
                params: serde_json::Value::Null,
            });
        }
        let source = raw.source.clone();
        let mut module = None;
        let mut params = serde_json::Value::Null;
        for (key, raw) in table_of(raw, at, faults)? {
            let path = child(at, &key);
            match key.as_str() {
                "module" => module = Some(String::read(raw, &path, faults)?),
                "params" => params = json(raw),
                _ => faults.unknown(&raw.source, &path, &super::known_keys()),
            }
        }
        if module.is_none() {
            faults.value(&source, at, "a zone needs its `module`");
        }
        Some(Self {
            module: module?,
            params,
        })
    }

    fn show(&self) -> Option<toml::Value> {
        let mut table = toml::Table::new();
        table.insert("module".into(), self.module.clone().into());
        // JSON's null is the one thing that TOML cannot say; it stands for nothing given.
        if let Ok(params) = toml::Value::try_from(&self.params) {
            table.insert("params".into(), params);
        }
        Some(table.into())
    }

    fn list(&self, at: &str, doc: &str, keys: &mut Vec<KeyDoc>) {
        for (key, doc) in [
            ("", doc),
            ("module", "The zone's module."),
            ("params", "What its match is started with."),
        ] {
            let path = if key.is_empty() { at.to_owned() } else { child(at, key) };
            let doc = doc.to_owned();
            keys.push(KeyDoc {
                path,
                default: None,
                doc,
            });
        }
    }
}

/// Parameters are the module's business: whatever TOML can say, as JSON. A variable or flag holds JSON, or else plain text.
fn json(raw: Raw) -> serde_json::Value {
    match raw.node {
        Node::Table(table) => table.into_iter().map(|(key, raw)| (key, json(raw))).collect(),
        Node::Text(text) => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
        Node::Toml(value) => serde_json::to_value(value).unwrap_or_default(),
    }
}
