//! Finding other nodes: when to look a source up again, whom to dial. Pure; the look-ups are in `discovery/dns.rs`. Every source is
//! looked up again for as long as the node runs, more often while the node is alone, so that a node which lost everyone finds them
//! again. A source that fails is never passed over in silence.
#![deny(clippy::disallowed_methods)]

pub(crate) mod dns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::suspicion::Time;

/// How often sources are looked up while nobody else is here.
const POLL_ALONE: Duration = Duration::from_secs(2);

/// How long an address that turned out to be ourselves is not dialled again. It may be handed to another node later.
const OURSELVES_FOR: Duration = Duration::from_secs(60);

/// How long the same failing source is not warned of again.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Seeds that operators add at run time; beyond this the oldest of them is dropped.
const ADDED_MAX: usize = 64;

/// Tells a seed from a name to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A node to join through.
    Seed,
    /// A DNS name that stands for many nodes.
    Dns,
}

impl SourceKind {
    /// Returns the kind in lower case, as metrics carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceKind::Seed => "seed",
            SourceKind::Dns => "dns",
        }
    }
}

/// Describes how one seed or DNS name fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// The source as it was configured.
    pub source: String,
    /// Whether it is a seed or a DNS name.
    pub kind: SourceKind,
    /// The addresses that it stood for when it last resolved.
    pub addresses: Vec<SocketAddr>,
    /// Why its last look-up failed, or why nobody answered at its addresses; none when all is well.
    pub last_error: Option<String>,
    /// Failures since the start.
    pub failures: u64,
}

/// What a source asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Address(SocketAddr),
    /// A and AAAA records.
    Host {
        host: String,
        port: u16,
    },
    /// SRV records.
    Service(String),
}

impl Target {
    /// Reads `host:port`, `[v6]:port`, or `_service._proto.name`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return (addr.port() != 0).then_some(Target::Address(addr));
        }
        if text.starts_with('_') && !text.contains(':') {
            let labels = text.trim_end_matches('.').split('.');
            return (labels.clone().count() >= 3 && labels.into_iter().all(|label| !label.is_empty()))
                .then(|| Target::Service(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (!host.is_empty() && host.bytes().all(plausible)).then(|| Target::Host {
            host: host.to_owned(),
            port,
        })
    }
}

#[derive(Debug)]
pub(crate) enum Input {
    /// Time has passed; who is connected, by every address that led to it.
    Wake {
        alone: bool,
        connected: BTreeSet<SocketAddr>,
    },
    /// A look-up ended.
    Resolved {
        source: usize,
        result: Result<Vec<SocketAddr>, String>,
    },
    /// A dial ended.
    Dialled {
        source: usize,
        addr: SocketAddr,
        outcome: Outcome,
    },
    /// An operator adds a seed.
    Add { text: String, target: Target },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reached,
    Ourselves,
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Resolve {
        source: usize,
        target: Target,
    },
    Dial {
        source: usize,
        addr: SocketAddr,
    },
    /// To be counted.
    Failed {
        kind: SourceKind,
    },
    /// To be logged.
    Warn {
        source: String,
        why: String,
    },
    Recovered {
        source: String,
    },
}

#[derive(Debug)]
struct Source {
    text: String,
    kind: SourceKind,
    target: Target,
    asked_at: Option<Time>,
    /// Between 0.8 and 1.2, drawn anew for each look-up, so that a thousand nodes do not ask in step.
    jitter: f64,
    busy: bool,
    added: bool,
    addresses: Vec<SocketAddr>,
    last_error: Option<String>,
    failures: u64,
    warned_at: Option<Time>,
}

#[derive(Debug)]
pub(crate) struct Discovery {
    poll_interval: Duration,
    sources: BTreeMap<usize, Source>,
    next_source: usize,
    ourselves: BTreeMap<SocketAddr, Time>,
    alone: bool,
    connected: BTreeSet<SocketAddr>,
    random: u64,
}

impl Discovery {
    /// `seed` is where the jitter comes from.
    pub(crate) fn new(poll_interval: Duration, seed: u64) -> Self {
        Self {
            poll_interval,
            sources: BTreeMap::new(),
            next_source: 0,
            ourselves: BTreeMap::new(),
            alone: true,
            connected: BTreeSet::new(),
            random: seed,
        }
    }

    pub(crate) fn source(&mut self, text: String, kind: SourceKind, target: Target) {
        let source = Source {
            text,
            kind,
            target,
            asked_at: None,
            jitter: 1.0,
            busy: false,
            added: false,
            addresses: Vec::new(),
            last_error: None,
            failures: 0,
            warned_at: None,
        };
        self.sources.insert(self.next_source, source);
        self.next_source += 1;
    }

    pub(crate) fn status(&self) -> Vec<SourceStatus> {
        let status = self.sources.values().map(|source| SourceStatus {
            source: source.text.clone(),
            kind: source.kind,
            addresses: source.addresses.clone(),
            last_error: source.last_error.clone(),
            failures: source.failures,
        });
        status.collect()
    }

    pub(crate) fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Wake { alone, connected } => {
                self.alone = alone;
                self.connected = connected;
                self.ourselves.retain(|_, until| now < *until);
                self.ask_due(now, out);
            }
            Input::Resolved { source, result } => self.resolved(now, source, result, out),
            Input::Dialled { source, addr, outcome } => self.dialled(now, source, addr, outcome, out),
            Input::Add { text, target } => self.add(now, text, target, out),
        }
    }

    fn add(&mut self, now: Time, text: String, target: Target, out: &mut Vec<Effect>) {
        if let Some(source) = self.sources.values_mut().find(|source| source.target == target) {
            source.asked_at = None;
        } else {
            let added = self
                .sources
                .iter()
                .filter(|(_, source)| source.added)
                .map(|(index, _)| *index);
            if added.clone().count() >= ADDED_MAX {
                let oldest = added.min().expect("there are many");
                self.sources.remove(&oldest);
            }
            self.source(text, SourceKind::Seed, target);
            self.sources
                .get_mut(&(self.next_source - 1))
                .expect("it was just put there")
                .added = true;
        }
        self.ask_due(now, out);
    }

    fn ask_due(&mut self, now: Time, out: &mut Vec<Effect>) {
        let interval = if self.alone {
            POLL_ALONE.min(self.poll_interval)
        } else {
            self.poll_interval
        };
        let mut literals = Vec::new();
        for (index, source) in &mut self.sources {
            let due = source
                .asked_at
                .is_none_or(|asked_at| now >= asked_at + interval.mul_f64(source.jitter));
            if !due || source.busy {
                continue;
            }
            source.asked_at = Some(now);
            source.jitter = 0.8 + 0.4 * draw(&mut self.random);
            if let Target::Address(addr) = source.target {
                literals.push((*index, addr));
            } else {
                source.busy = true;
                out.push(Effect::Resolve {
                    source: *index,
                    target: source.target.clone(),
                });
            }
        }
        for (index, addr) in literals {
            self.resolved(now, index, Ok(vec![addr]), out);
        }
    }

    fn resolved(&mut self, now: Time, index: usize, result: Result<Vec<SocketAddr>, String>, out: &mut Vec<Effect>) {
        let Some(source) = self.sources.get_mut(&index) else {
            return;
        };
        source.busy = false;
        match result {
            Ok(addresses) => {
                let others = addresses
                    .iter()
                    .filter(|addr| !self.ourselves.contains_key(*addr) && !self.connected.contains(*addr));
                let dials: Vec<Effect> = others
                    .map(|addr| Effect::Dial {
                        source: index,
                        addr: *addr,
                    })
                    .collect();
                let literal = matches!(source.target, Target::Address(_));
                if !literal || dials.is_empty() {
                    source.recover(out);
                }
                source.addresses = addresses;
                out.extend(dials);
            }
            Err(why) => source.fail(now, why, true, out),
        }
    }

    fn dialled(&mut self, now: Time, index: usize, addr: SocketAddr, outcome: Outcome, out: &mut Vec<Effect>) {
        if outcome == Outcome::Ourselves {
            self.ourselves.insert(addr, now + OURSELVES_FOR);
        }
        let Some(source) = self.sources.get_mut(&index) else {
            return;
        };
        match outcome {
            Outcome::Reached | Outcome::Ourselves => source.recover(out),
            // In a cluster that works, a seed that is down is a fact for the status, not for the log.
            Outcome::Failed(why) => source.fail(now, format!("no answer from {addr}: {why}"), self.alone, out),
        }
    }
}

impl Source {
    fn fail(&mut self, now: Time, why: String, warn: bool, out: &mut Vec<Effect>) {
        self.failures += 1;
        out.push(Effect::Failed { kind: self.kind });
        if warn && self.warned_at.is_none_or(|at| now >= at + WARN_INTERVAL) {
            self.warned_at = Some(now);
            out.push(Effect::Warn {
                source: self.text.clone(),
                why: why.clone(),
            });
        }
        self.last_error = Some(why);
    }

    fn recover(&mut self, out: &mut Vec<Effect>) {
        if self.last_error.take().is_some() && self.warned_at.take().is_some() {
            out.push(Effect::Recovered {
                source: self.text.clone(),
            });
        }
    }
}

/// A number from 0 to 1 (splitmix64). The machine brings its own, so that a run can be repeated.
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
