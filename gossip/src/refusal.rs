//! Refusals of peers: what an operator reads when a node does not get in. One line a minute and peer, however often it tries.
//! The lines are part of the outward contract; do not reword them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::stats::Counters;

/// How long the same refusal of the same peer is not logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How many refused peers are remembered; beyond that the oldest are forgotten, and may be logged again before their minute is over.
const REMEMBERED_MAX: usize = 1_024;

/// Why a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// It holds another secret; fingerprints of both.
    Secret { ours: String, theirs: String },
    /// It holds our secret and belongs to a cluster of another name.
    ClusterName { ours: String, theirs: String },
    /// It showed no certificate of this cluster, or none at all.
    Certificate { from: SocketAddr },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Secret { ours, theirs } => {
                write!(f, "peer refused: cluster secret differs, ours {ours}, theirs {theirs}")
            }
            Refusal::ClusterName { ours, theirs } => {
                write!(f, "peer refused: cluster name differs, ours {ours}, theirs {theirs}")
            }
            Refusal::Certificate { from } => write!(f, "peer refused: no certificate of this cluster, from {from}"),
        }
    }
}

impl Refusal {
    /// Says the same as the log line, in words that nobody who counts the lines mistakes for one.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Refusal::Secret { ours, theirs } => {
                format!("refused, its secret is another one (ours {ours}, theirs {theirs})")
            }
            Refusal::ClusterName { ours, theirs } => {
                format!("refused, its cluster is another one (ours {ours}, theirs {theirs})")
            }
            Refusal::Certificate { .. } => "refused, it has no certificate of this cluster".to_owned(),
        }
    }
}

/// What makes two refusals the same one. A peer without a certificate is known by its host alone: each attempt may come from another
/// port.
type Key = (IpAddr, &'static str, String);

impl Refusal {
    fn key(&self, from: SocketAddr) -> Key {
        match self {
            Refusal::Secret { theirs, .. } => (from.ip(), "secret", theirs.clone()),
            Refusal::ClusterName { theirs, .. } => (from.ip(), "cluster_name", theirs.clone()),
            Refusal::Certificate { .. } => (from.ip(), "certificate", String::new()),
        }
    }
}

/// Decides which refusals are said again. Has no clock of its own.
#[derive(Debug, Default)]
struct Limiter {
    said_at: BTreeMap<Key, Instant>,
}

impl Limiter {
    fn may_say(&mut self, now: Instant, key: Key) -> bool {
        if self
            .said_at
            .get(&key)
            .is_some_and(|at| now.duration_since(*at) < LOG_INTERVAL)
        {
            return false;
        }
        if self.said_at.len() >= REMEMBERED_MAX {
            self.said_at.retain(|_, at| now.duration_since(*at) < LOG_INTERVAL);
        }
        if self.said_at.len() >= REMEMBERED_MAX {
            let oldest = self
                .said_at
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(key, _)| key.clone());
            self.said_at.remove(&oldest.expect("the map is full"));
        }
        self.said_at.insert(key, now);
        true
    }
}

/// Counts refusals and logs those that are news.
#[derive(Debug)]
pub(crate) struct Refusals {
    limiter: Mutex<Limiter>,
    counters: Arc<Counters>,
}

impl Refusals {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            limiter: Mutex::default(),
            counters,
        }
    }

    /// Takes note of a refused peer at `from`.
    pub(crate) fn note(&self, from: SocketAddr, refusal: &Refusal) {
        match refusal {
            Refusal::Secret { .. } => self.counters.refused_secret.add(1),
            Refusal::ClusterName { .. } => self.counters.refused_cluster_name.add(1),
            Refusal::Certificate { .. } => self.counters.refused_certificate.add(1),
        }
        let mut limiter = self.limiter.lock().expect("nothing panics under this lock");
        if limiter.may_say(Instant::now(), refusal.key(from)) {
            warn!(peer_addr = %from, "{refusal}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        (IpAddr::from(n.to_be_bytes()), "secret", "ab".into())
    }

    #[test]
    fn one_line_a_minute_and_peer() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        assert!(limiter.may_say(start, key(1)));
        assert!(!limiter.may_say(start + Duration::from_secs(59), key(1)));
        assert!(limiter.may_say(start + Duration::from_secs(59), key(2)));
        assert!(limiter.may_say(start + Duration::from_secs(60), key(1)));
    }

    #[test]
    fn the_memory_of_refused_peers_is_bounded() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        for n in 0..5_000 {
            assert!(limiter.may_say(start + Duration::from_millis(u64::from(n)), key(n)));
        }
        assert_eq!(limiter.said_at.len(), REMEMBERED_MAX);
        assert!(!limiter.may_say(start + Duration::from_secs(5), key(4_999)));
    }

    #[test]
    fn the_lines_are_those_of_the_contract() {
        let secret = Refusal::Secret {
            ours: "aa".into(),
            theirs: "bb".into(),
        };
        assert_eq!(
            secret.to_string(),
            "peer refused: cluster secret differs, ours aa, theirs bb"
        );
        let name = Refusal::ClusterName {
            ours: "a".into(),
            theirs: "b".into(),
        };
        assert_eq!(name.to_string(), "peer refused: cluster name differs, ours a, theirs b");
        let from = "10.0.0.1:99".parse().unwrap();
        let certificate = Refusal::Certificate { from };
        assert_eq!(
            certificate.to_string(),
            "peer refused: no certificate of this cluster, from 10.0.0.1:99"
        );
    }
}
