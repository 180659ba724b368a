//! Finding other nodes: when to look a source up again, whom to dial. Pure; the look-ups are in `discovery/dns.rs`. Every source is
//! looked up again for as long as the node runs, more often while the node is alone, so that a node which lost everyone finds them
//! again. A source that fails is never passed over in silence.
//!
//! Whom to dial is decided by address, however many sources name it:
//! - one that is connected, or is our own, is not dialled;
//! - one that was never dialled comes first, seeds before what names stand for, and then the one that was left alone for longest;
//! - one that did not answer is left alone for 2 s, and for twice as long after each further failure: up to the poll interval for a seed,
//!   up to six of them for what a name stands for. While the node is alone it is every 2 s;
//! - one whose node said goodbye is treated like one that has just failed, and so is one at which that same life answers once more: it is
//!   on its way out. Only another life clears it. A seed that restarts, and that knows nobody, is so found again within a poll interval;
//! - one that led back to ourselves is tried again after 2 s, and then ever later up to a minute: a virtual address may lead elsewhere.
#![deny(clippy::disallowed_methods)]

// The driver has a clock.
#[allow(clippy::disallowed_methods)]
pub(crate) mod dns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::peer::Life;
use crate::suspicion::Time;

/// How often sources are looked up, and addresses dialled, while nobody else is here.
const POLL_ALONE: Duration = Duration::from_secs(2);

/// How long an address that turned out to be ourselves is left alone at the longest.
const OURSELVES_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long an address whose node said goodbye is left alone at the longest while nobody else is here.
const DEPARTED_WAIT_ALONE_MAX: Duration = Duration::from_secs(4);

/// How long an address that a name stands for is left alone at the longest, in poll intervals. The records of the dead stay for long.
const NAMED_WAIT_MAX: u32 = 6;

/// How long the same failing source is not warned of again.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Seeds that operators add at run time; beyond this the oldest of them is dropped.
const ADDED_MAX: usize = 64;

/// The most addresses that one source stands for. Of more than these a choice is made at each look-up, which keeps those that answered.
const ADDRESSES_MAX: usize = 1_024;

/// How many dials begin at a wake, which comes five times a second. Alone: as many as one answer may be hidden among; a thousand
/// addresses take 25 s. Otherwise gossip leads to everybody, and dials only have to find a cluster that is not ours yet.
const DIALS_ALONE: usize = 8;
const DIALS_OTHERWISE: usize = 1;

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
    /// The addresses that it stood for when it last resolved, in their order.
    pub addresses: Vec<AddressStatus>,
    /// Why its last look-up failed, or why nobody answers at its addresses; none when all is well or nothing has been tried yet.
    pub last_error: Option<String>,
    /// Failed look-ups and dials since the start.
    pub failures: u64,
}

/// Describes how one address fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressStatus {
    /// The address.
    pub addr: SocketAddr,
    /// Whether it is this node's own, or led back to this node when it was last dialled.
    pub is_ourselves: bool,
    /// Which life of which node answered there last; none when nobody did, or only this node.
    pub answered_by: Option<Life>,
    /// How long ago that was; zero while that node is connected.
    pub answered_ago: Option<Duration>,
    /// Why the last dial came to nothing; none when it was answered or has not been tried.
    pub last_error: Option<String>,
    /// Dials in a row that came to nothing.
    pub failures: u32,
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
        // Rust's numbers may begin with a plus; ports do not.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port: u16 = port.parse().ok().filter(|port| digits && *port != 0)?;
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Some(Target::Address(SocketAddr::from((ip, port))));
        }
        let plausible = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (!host.is_empty() && host.bytes().all(plausible)).then(|| Target::Host {
            host: host.to_owned(),
            port,
        })
    }
}

#[derive(Debug)]
pub(crate) enum Input {
    /// Time has passed; who is connected, by every address that led there.
    Wake {
        alone: bool,
        connected: BTreeMap<SocketAddr, Life>,
    },
    /// A look-up ended.
    Resolved {
        source: usize,
        result: Result<Vec<SocketAddr>, String>,
    },
    /// A dial ended.
    Dialled { addr: SocketAddr, outcome: Outcome },
    /// The life at this address said goodbye.
    Departed { addr: SocketAddr, life: Life },
    /// An operator adds a seed.
    Add { text: String, target: Target },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By whom, unless that remained unknown.
    Reached(Option<Life>),
    Ourselves,
    /// Somebody else was dialling it already.
    Elsewhere,
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Resolve {
        source: usize,
        target: Target,
    },
    Dial(SocketAddr),
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
    addresses: BTreeSet<SocketAddr>,
    look_up_error: Option<String>,
    /// What is wrong with it as a whole.
    last_error: Option<String>,
    failures: u64,
    warned_at: Option<Time>,
}

#[derive(Debug)]
struct Address {
    /// Some source that names it is a seed.
    is_seed: bool,
    /// Drawn at random, so that not every node begins with the same one.
    order: f64,
    dialling: bool,
    dialled_at: Option<Time>,
    /// As for sources.
    jitter: f64,
    failures: u32,
    error: Option<String>,
    is_ourselves: bool,
    answered: Option<(Time, Option<Life>)>,
    /// Who said goodbye there, until somebody else answers.
    departed: Option<Life>,
}

#[derive(Debug)]
pub(crate) struct Discovery {
    poll_interval: Duration,
    /// Our own address, as we advertise it.
    own: Option<SocketAddr>,
    sources: BTreeMap<usize, Source>,
    next_source: usize,
    addresses: BTreeMap<SocketAddr, Address>,
    alone: bool,
    connected: BTreeMap<SocketAddr, Life>,
    /// Dials that may still begin before the next wake.
    allowance: usize,
    random: u64,
    changed: bool,
}

impl Discovery {
    /// `seed` is where the jitter comes from.
    pub(crate) fn new(poll_interval: Duration, seed: u64) -> Self {
        Self {
            poll_interval,
            own: None,
            sources: BTreeMap::new(),
            next_source: 0,
            addresses: BTreeMap::new(),
            alone: true,
            connected: BTreeMap::new(),
            allowance: 0,
            random: seed,
            changed: true,
        }
    }

    /// This is our own address, which is never dialled.
    pub(crate) fn own(&mut self, addr: SocketAddr) {
        self.own = Some(addr);
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
            addresses: BTreeSet::new(),
            look_up_error: None,
            last_error: None,
            failures: 0,
            warned_at: None,
        };
        self.sources.insert(self.next_source, source);
        self.next_source += 1;
    }

    /// Whether the status is another one than when this was last asked.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn status(&self, now: Time) -> Vec<SourceStatus> {
        let status = self.sources.values().map(|source| SourceStatus {
            source: source.text.clone(),
            kind: source.kind,
            addresses: source
                .addresses
                .iter()
                .map(|addr| self.address_status(now, *addr))
                .collect(),
            last_error: source.last_error.clone(),
            failures: source.failures,
        });
        status.collect()
    }

    fn address_status(&self, now: Time, addr: SocketAddr) -> AddressStatus {
        let address = &self.addresses[&addr];
        let connected = self.connected.get(&addr);
        let answered = address.answered.as_ref();
        AddressStatus {
            addr,
            is_ourselves: address.is_ourselves || self.own == Some(addr),
            answered_by: connected.or(answered.and_then(|(_, life)| life.as_ref())).cloned(),
            answered_ago: match connected {
                Some(_) => Some(Duration::ZERO),
                None => answered.map(|(at, _)| now.saturating_sub(*at)),
            },
            last_error: address.error.clone(),
            failures: address.failures,
        }
    }

    pub(crate) fn step(&mut self, now: Time, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Wake { alone, connected } => self.wake(now, alone, connected, out),
            Input::Resolved { source, result } => self.resolved(now, source, result, out),
            Input::Dialled { addr, outcome } => self.dialled(now, addr, outcome, out),
            Input::Departed { addr, life } => self.departed(now, addr, life),
            Input::Add { text, target } => self.add(now, text, target, out),
        }
        self.dial_due(now, out);
    }

    fn wake(&mut self, now: Time, alone: bool, connected: BTreeMap<SocketAddr, Life>, out: &mut Vec<Effect>) {
        self.alone = alone;
        self.allowance = if alone { DIALS_ALONE } else { DIALS_OTHERWISE };
        if connected != self.connected {
            self.changed = true;
            // Who is gone answered until now; who has come has answered.
            let before = std::mem::replace(&mut self.connected, connected);
            for (addr, life) in before {
                if let Some(address) = self.addresses.get_mut(&addr) {
                    address.answered = Some((now, Some(life)));
                }
            }
            let here: Vec<(SocketAddr, Life)> = self.connected.clone().into_iter().collect();
            for (addr, life) in here {
                if let Some(address) = self.addresses.get_mut(&addr)
                    && address.departed.as_ref() != Some(&life)
                {
                    address.answer(now, Some(life));
                    self.judge_sources_of(now, addr, out);
                }
            }
        }
        self.ask_due(now, out);
    }

    fn add(&mut self, now: Time, text: String, target: Target, out: &mut Vec<Effect>) {
        self.changed = true;
        if let Some(source) = self.sources.values_mut().find(|source| source.target == target) {
            source.asked_at = None;
            // Whoever asks for it by hand does not want to wait.
            for addr in &source.addresses {
                if let Some(address) = self.addresses.get_mut(addr) {
                    address.dialled_at = None;
                }
            }
        } else {
            let added = self
                .sources
                .iter()
                .filter(|(_, source)| source.added)
                .map(|(index, _)| *index);
            if added.clone().count() >= ADDED_MAX {
                let oldest = added.min().expect("there are many");
                self.sources.remove(&oldest);
                self.forget_unnamed();
            }
            self.source(text, SourceKind::Seed, target);
            self.sources
                .get_mut(&(self.next_source - 1))
                .expect("it was just put there")
                .added = true;
        }
        self.allowance = self.allowance.max(1);
        self.ask_due(now, out);
    }

    fn ask_due(&mut self, now: Time, out: &mut Vec<Effect>) {
        let interval = if self.alone {
            self.interval_alone()
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
            if let Target::Address(addr) = source.target {
                // There is nothing to look up: it stands for itself from the beginning.
                if source.asked_at.is_none() {
                    literals.push((*index, addr));
                }
            } else {
                source.busy = true;
                out.push(Effect::Resolve {
                    source: *index,
                    target: source.target.clone(),
                });
            }
            source.asked_at = Some(now);
            source.jitter = 0.8 + 0.4 * draw(&mut self.random);
        }
        for (index, addr) in literals {
            self.resolved(now, index, Ok(vec![addr]), out);
        }
    }

    fn interval_alone(&self) -> Duration {
        POLL_ALONE.min(self.poll_interval)
    }

    fn resolved(&mut self, now: Time, index: usize, result: Result<Vec<SocketAddr>, String>, out: &mut Vec<Effect>) {
        if !self.sources.contains_key(&index) {
            return;
        }
        self.changed = true;
        let addresses = match &result {
            Ok(addresses) => Some(self.choose(addresses)),
            // Those that it stood for before are still worth a dial.
            Err(_) => None,
        };
        let source = self.sources.get_mut(&index).expect("it was just looked at");
        source.busy = false;
        match result {
            Ok(_) => source.look_up_error = None,
            Err(why) => {
                source.look_up_error = Some(why);
                source.count_failure(out);
            }
        }
        if let Some(addresses) = addresses {
            for addr in &addresses {
                let address = self
                    .addresses
                    .entry(*addr)
                    .or_insert_with(|| Address::new(draw(&mut self.random)));
                if let Some(life) = self.connected.get(addr) {
                    address.answer(now, Some(life.clone()));
                }
            }
            source.addresses = addresses;
            self.forget_unnamed();
        }
        self.judge(now, index, true, out);
    }

    /// As many of the addresses as one source may stand for: first those where somebody is or was, then any others.
    fn choose(&mut self, addresses: &[SocketAddr]) -> BTreeSet<SocketAddr> {
        let all: BTreeSet<SocketAddr> = addresses.iter().copied().collect();
        if all.len() <= ADDRESSES_MAX {
            return all;
        }
        let mut ordered: Vec<(bool, f64, SocketAddr)> = all
            .into_iter()
            .map(|addr| {
                let known = self.addresses.get(&addr).is_some_and(|address| address.answers())
                    || self.connected.contains_key(&addr);
                (!known, draw(&mut self.random), addr)
            })
            .collect();
        ordered.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        ordered
            .into_iter()
            .take(ADDRESSES_MAX)
            .map(|(_, _, addr)| addr)
            .collect()
    }

    /// Forgets addresses that no source names any more, and notes which ones seeds name.
    fn forget_unnamed(&mut self) {
        let mut named: BTreeMap<SocketAddr, bool> = BTreeMap::new();
        for source in self.sources.values() {
            for addr in &source.addresses {
                *named.entry(*addr).or_default() |= source.kind == SourceKind::Seed;
            }
        }
        self.addresses.retain(|addr, address| {
            address.is_seed = named.get(addr).copied().unwrap_or_default();
            named.contains_key(addr)
        });
    }

    fn dial_due(&mut self, now: Time, out: &mut Vec<Effect>) {
        while self.allowance > 0 {
            let due = self.addresses.iter().filter(|(addr, address)| {
                !address.dialling
                    && self.own != Some(**addr)
                    && !self.connected.contains_key(*addr)
                    && address
                        .dialled_at
                        .is_none_or(|at| now >= at + self.wait(address).mul_f64(address.jitter))
            });
            let rank = |address: &Address| (address.dialled_at.is_some(), !address.is_seed, address.dialled_at);
            let next = due.min_by(|(_, a), (_, b)| rank(a).cmp(&rank(b)).then(a.order.total_cmp(&b.order)));
            let Some(addr) = next.map(|(addr, _)| *addr) else {
                return;
            };
            let address = self.addresses.get_mut(&addr).expect("it was just found");
            address.dialling = true;
            address.dialled_at = Some(now);
            address.jitter = 0.8 + 0.4 * draw(&mut self.random);
            self.allowance -= 1;
            out.push(Effect::Dial(addr));
        }
    }

    /// How long an address is left alone after it was dialled.
    fn wait(&self, address: &Address) -> Duration {
        let alone = self.interval_alone();
        if address.failures == 0 && !address.is_ourselves {
            return if self.alone { alone } else { self.poll_interval };
        }
        let most = if address.is_ourselves {
            OURSELVES_WAIT_MAX
        } else if self.alone && address.departed.is_some() {
            DEPARTED_WAIT_ALONE_MAX
        } else if self.alone {
            alone
        } else if address.is_seed {
            self.poll_interval
        } else {
            self.poll_interval * NAMED_WAIT_MAX
        };
        alone
            .saturating_mul(1 << address.failures.saturating_sub(1).min(16))
            .min(most)
    }

    fn dialled(&mut self, now: Time, addr: SocketAddr, outcome: Outcome, out: &mut Vec<Effect>) {
        let Some(address) = self.addresses.get_mut(&addr) else {
            return;
        };
        self.changed = true;
        address.dialling = false;
        let why = match outcome {
            Outcome::Elsewhere => return,
            Outcome::Reached(life) if life.is_some() && life == address.departed => {
                Some("the node there said goodbye and has not restarted".to_owned())
            }
            Outcome::Reached(life) => {
                address.answer(now, life);
                // Gossip leads on from here.
                self.alone = false;
                self.allowance = 0;
                None
            }
            Outcome::Ourselves => {
                address.error = None;
                address.is_ourselves = true;
                address.failures = address.failures.saturating_add(1);
                None
            }
            Outcome::Failed(why) => Some(why),
        };
        if let Some(why) = why {
            if std::mem::take(&mut address.is_ourselves) {
                address.failures = 0;
            }
            address.failures = address.failures.saturating_add(1);
            address.error = Some(why);
            for source in self
                .sources
                .values_mut()
                .filter(|source| source.addresses.contains(&addr))
            {
                source.count_failure(out);
            }
        }
        self.judge_sources_of(now, addr, out);
    }

    fn departed(&mut self, now: Time, addr: SocketAddr, life: Life) {
        let Some(address) = self.addresses.get_mut(&addr) else {
            return;
        };
        self.changed = true;
        if address.departed.as_ref() != Some(&life) {
            address.failures = 0;
        }
        address.failures = address.failures.saturating_add(1);
        address.error = Some(format!("{} said goodbye", life.node));
        address.answered = Some((now, Some(life.clone())));
        address.departed = Some(life);
        address.dialled_at = Some(now);
    }

    fn judge_sources_of(&mut self, now: Time, addr: SocketAddr, out: &mut Vec<Effect>) {
        let naming = self
            .sources
            .iter()
            .filter(|(_, source)| source.addresses.contains(&addr));
        for index in naming.map(|(index, _)| *index).collect::<Vec<_>>() {
            self.judge(now, index, false, out);
        }
    }

    /// Says what is wrong with a source as a whole, if that has changed.
    fn judge(&mut self, now: Time, index: usize, looked_up: bool, out: &mut Vec<Effect>) {
        let source = &self.sources[&index];
        let why = match &source.look_up_error {
            Some(why) => Some(why.clone()),
            None => self.silence_of(source),
        };
        // In a cluster that works, a seed that is down is a fact for the status, not for the log.
        let warn = self.alone || (looked_up && source.look_up_error.is_some());
        let source = self.sources.get_mut(&index).expect("it was just looked at");
        match why {
            Some(why) => source.fail(now, why, warn, out),
            None => source.recover(out),
        }
    }

    /// Why nobody answers at a source's addresses; none when somebody does, or when none has been tried.
    fn silence_of(&self, source: &Source) -> Option<String> {
        let named = || source.addresses.iter().map(|addr| (addr, &self.addresses[addr]));
        if named().any(|(addr, address)| self.connected.contains_key(addr) || address.answers()) {
            return None;
        }
        let failed = named().filter(|(_, address)| address.error.is_some());
        let (addr, address) = failed.max_by_key(|(_, address)| address.dialled_at)?;
        let why = address.error.as_deref().expect("only those were looked at");
        Some(format!("no answer from {addr}: {why}"))
    }
}

impl Address {
    fn new(order: f64) -> Self {
        Self {
            is_seed: false,
            order,
            dialling: false,
            dialled_at: None,
            jitter: 1.0,
            failures: 0,
            error: None,
            is_ourselves: false,
            answered: None,
            departed: None,
        }
    }

    fn answer(&mut self, now: Time, life: Option<Life>) {
        self.answered = Some((now, life));
        self.failures = 0;
        self.error = None;
        self.is_ourselves = false;
        self.departed = None;
    }

    /// Somebody answered when it was last tried, if only ourselves.
    fn answers(&self) -> bool {
        self.error.is_none() && (self.answered.is_some() || self.is_ourselves)
    }
}

impl Source {
    fn count_failure(&mut self, out: &mut Vec<Effect>) {
        self.failures += 1;
        out.push(Effect::Failed { kind: self.kind });
    }

    fn fail(&mut self, now: Time, why: String, warn: bool, out: &mut Vec<Effect>) {
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
