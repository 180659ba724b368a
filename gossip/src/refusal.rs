//! Refusals of peers: what an operator reads when a node does not get in. One line a minute and peer, however often it tries.
//! The lines are part of the outward contract; do not reword them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::peer::NodeId;
use crate::quic::tls::Sort;
use crate::stats::Counters;

/// How long the same refusal of the same peer is not logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How many lines a minute one host can cause, and all hosts together. A fingerprint or a name that a stranger shows is whatever the
/// stranger likes, another one at each attempt, and so is the port; the counters go on counting.
const LINES_MAX_HOST: usize = 8;
const LINES_MAX: usize = 128;

/// Why a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// It holds another secret; fingerprints of both.
    Secret { ours: String, theirs: String },
    /// Its certificate is of another operator's authority; fingerprints of both.
    Authority { ours: String, theirs: String },
    /// It has a secret where we have an operator's certificates, or the other way round; fingerprints of both.
    Sort { ours: (Sort, String), theirs: String },
    /// It holds our secret and belongs to a cluster of another name.
    ClusterName { ours: String, theirs: String },
    /// It showed no certificate of this cluster, or none at all.
    Certificate { from: SocketAddr },
    /// Its certificate is of our authority, and yet not fit.
    Unfit { why: String, from: SocketAddr },
    /// It has turned our certificate down.
    Ours { why: String, by: SocketAddr },
    /// Its certificate is another node's.
    Node { node: NodeId, from: SocketAddr },
    /// There are as many peers as there may be.
    Crowded { node: NodeId, max: usize },
    /// What it sent on a data connection, which was closed for it, did not follow the format.
    Malformed { node: NodeId, why: String },
    /// Its generation is one that no later life of the node could exceed.
    Generation { node: NodeId, generation: u64 },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer refused: ")?;
        match self {
            Refusal::Secret { ours, theirs } => write!(f, "cluster secret differs, ours {ours}, theirs {theirs}"),
            Refusal::Authority { ours, theirs } => {
                write!(f, "certificate authority differs, ours {ours}, theirs {theirs}")
            }
            Refusal::Sort {
                ours: (Sort::Secret, ours),
                theirs,
            } => write!(
                f,
                "it has certificates of an authority, this node has the cluster secret alone, ours {ours}, theirs {theirs}"
            ),
            Refusal::Sort {
                ours: (Sort::Operator, ours),
                theirs,
            } => write!(
                f,
                "it has the cluster secret alone, this node has certificates of an authority, ours {ours}, theirs {theirs}"
            ),
            Refusal::ClusterName { ours, theirs } => write!(f, "cluster name differs, ours {ours}, theirs {theirs}"),
            Refusal::Certificate { from } => write!(f, "no certificate of this cluster, from {from}"),
            Refusal::Unfit { why, from } => write!(f, "its certificate does not do: {why}, from {from}"),
            Refusal::Ours { why, by } => write!(f, "it turns our certificate down: {why}, at {by}"),
            Refusal::Node { node, from } => write!(f, "its certificate does not name node {node}, from {from}"),
            Refusal::Crowded { node, max } => write!(f, "there are {max} peers, as many as may be, before node {node}"),
            Refusal::Malformed { node, why } => write!(f, "what node {node} sends does not follow the format: {why}"),
            Refusal::Generation { node, generation } => {
                write!(
                    f,
                    "generation {generation} of node {node} is none that a later life could exceed"
                )
            }
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
            Refusal::Authority { ours, theirs } => {
                format!("refused, its certificate authority is another one (ours {ours}, theirs {theirs})")
            }
            Refusal::Sort {
                ours: (Sort::Secret, _),
                ..
            } => "refused, it has certificates of an authority and this node has none".to_owned(),
            Refusal::Sort {
                ours: (Sort::Operator, _),
                ..
            } => "refused, it has no certificate of an authority and this node has".to_owned(),
            Refusal::ClusterName { ours, theirs } => {
                format!("refused, its cluster is another one (ours {ours}, theirs {theirs})")
            }
            Refusal::Certificate { .. } => "refused, it has no certificate of this cluster".to_owned(),
            Refusal::Unfit { why, .. } => format!("refused, its certificate does not do: {why}"),
            Refusal::Ours { why, .. } => format!("it turns our certificate down: {why}"),
            Refusal::Node { node, .. } => format!("refused, its certificate does not name node {node}"),
            Refusal::Crowded { max, .. } => format!("refused, there are {max} peers, as many as may be"),
            Refusal::Malformed { why, .. } => format!("refused, it does not follow the format: {why}"),
            Refusal::Generation { generation, .. } => format!("refused, its generation {generation} is too high"),
        }
    }
}

/// What makes two refusals the same one. A peer is known by its host, and by what it holds: each attempt may come from another port.
type Key = (IpAddr, &'static str, String);

impl Refusal {
    fn key(&self, from: SocketAddr) -> Key {
        let (reason, what) = match self {
            Refusal::Secret { theirs, .. } => ("secret", theirs.clone()),
            Refusal::Authority { theirs, .. } => ("authority", theirs.clone()),
            Refusal::Sort { theirs, .. } => ("sort", theirs.clone()),
            Refusal::ClusterName { theirs, .. } => ("cluster_name", theirs.clone()),
            Refusal::Certificate { .. } => ("certificate", String::new()),
            Refusal::Unfit { .. } => ("unfit", String::new()),
            Refusal::Ours { .. } => ("ours", String::new()),
            Refusal::Node { node, .. } => ("node", node.to_string()),
            Refusal::Crowded { .. } => ("crowded", String::new()),
            Refusal::Malformed { node, .. } => ("malformed", node.to_string()),
            Refusal::Generation { node, .. } => ("generation", node.to_string()),
        };
        (from.ip(), reason, what)
    }
}

/// Decides which refusals are said again. Has no clock of its own.
#[derive(Debug, Default)]
struct Limiter {
    said_at: BTreeMap<Key, Instant>,
}

impl Limiter {
    fn may_say(&mut self, now: Instant, key: Key) -> bool {
        self.said_at.retain(|_, at| now.duration_since(*at) < LOG_INTERVAL);
        let of_host = self.said_at.keys().filter(|(host, ..)| *host == key.0).count();
        if self.said_at.contains_key(&key) || of_host >= LINES_MAX_HOST || self.said_at.len() >= LINES_MAX {
            return false;
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
        let counter = match refusal {
            Refusal::Secret { .. } => &self.counters.refused_secret,
            Refusal::ClusterName { .. } => &self.counters.refused_cluster_name,
            Refusal::Authority { .. } | Refusal::Sort { .. } => &self.counters.refused_authority,
            Refusal::Crowded { .. } => &self.counters.refused_crowded,
            Refusal::Malformed { .. } => &self.counters.malformed,
            Refusal::Certificate { .. }
            | Refusal::Unfit { .. }
            | Refusal::Ours { .. }
            | Refusal::Node { .. }
            | Refusal::Generation { .. } => &self.counters.refused_certificate,
        };
        counter.add(1);
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
    fn a_stranger_that_shows_another_fingerprint_each_time_does_not_fill_the_log() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let host = IpAddr::from([10, 0, 0, 1]);
        let mut lines = |seconds: u64| {
            let at = start + Duration::from_secs(seconds);
            let said = (0..5_000).filter(|n| limiter.may_say(at, (host, "secret", format!("{seconds} {n}"))));
            said.count()
        };
        assert_eq!((lines(0), lines(59), lines(60)), (LINES_MAX_HOST, 0, LINES_MAX_HOST));
        // Another host is still heard.
        assert!(limiter.may_say(start + Duration::from_secs(61), key(1)));
    }

    #[test]
    fn many_hosts_do_not_fill_the_log_either() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let said = (0..5_000).filter(|n| limiter.may_say(start, key(*n))).count();
        assert_eq!((said, limiter.said_at.len()), (LINES_MAX, LINES_MAX));
        assert!(limiter.may_say(start + Duration::from_secs(60), key(1)));
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
