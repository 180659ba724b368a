//! One simulated node: a real `Cluster` in a runtime of its own, with a clock of its own, so that it can stand still and be dropped as a
//! process can.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use rookery_gossip::sim::Fabric;
use rookery_gossip::{
    BoxFuture, Change, Changes, Channel, Cluster, Config, Fault, Inbound, Limits, LinkEvent, MemberState, Members,
    Membership, Peer, RequestError, Secret,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::log;
use crate::plan::{GROUPS, Plan};

pub(crate) const CHANNEL: Channel = Channel::new(0);

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What a node was told by the mesh.
#[derive(Default)]
pub(crate) struct Ear {
    heard: Mutex<Vec<Heard>>,
}

#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Link(Peer, LinkEvent),
    Message(Peer, u64),
    Request(Peer, Bytes),
    /// What a request was, and what came back.
    Answer(Bytes, Result<Bytes, RequestError>),
}

/// What a request says: long enough that a byte too many or too few shows.
pub(crate) fn question(number: u64) -> Bytes {
    number.to_le_bytes().repeat(4).into()
}

impl Ear {
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

impl Inbound for Ear {
    fn message(&self, from: &Peer, _: Channel, bytes: Bytes) {
        let number = u64::from_le_bytes(bytes[..].try_into().unwrap());
        self.heard.lock().unwrap().push(Heard::Message(from.clone(), number));
    }

    fn request(&self, from: Peer, bytes: Bytes) -> BoxFuture<'static, Bytes> {
        self.heard.lock().unwrap().push(Heard::Request(from, bytes.clone()));
        Box::pin(async move { bytes })
    }

    fn link(&self, peer: &Peer, event: LinkEvent) {
        self.heard.lock().unwrap().push(Heard::Link(peer.clone(), event));
    }

    fn broadcast(&self, _: &Peer, _: &str, _: Bytes) {}
}

/// One life of a node.
pub(crate) struct Life {
    node: usize,
    pub(crate) generation: u64,
    pub(crate) cluster: Cluster,
    pub(crate) ear: Arc<Ear>,
    pub(crate) members: tokio::sync::watch::Receiver<Arc<Members>>,
    changes: Changes,
    /// What it says about itself.
    pub(crate) state: MemberState,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) groups: BTreeMap<&'static str, Vec<Membership>>,
    pub(crate) is_paused: bool,
    leaving: Option<JoinHandle<()>>,
    /// The network's time up to which it has run.
    clock: Duration,
    began_at: Instant,
    began_at_network: Duration,
    /// Dropped last, and with it everything that the node was doing.
    pub(crate) runtime: Runtime,
}

pub(crate) fn name(node: usize) -> String {
    format!("n{node:02}")
}

/// Where a node starts first, and addresses beyond.
pub(crate) fn addr(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7_001 + node as u16))
}

impl Life {
    pub(crate) fn start(
        plan: &Plan,
        fabric: &Fabric,
        node: usize,
        generation: u64,
        at: SocketAddr,
        now: Duration,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let ear = Arc::new(Ear::default());
        let (cluster, began_at) = runtime.block_on(async {
            let config = Config {
                node: name(node).parse().unwrap(),
                generation,
                cluster_name: "sim".into(),
                secret: Secret::new([7; 32]).unwrap(),
                secret_next: None,
                certificates: None,
                listen: fabric.bind(at, now),
                advertise: at.to_string(),
                seeds: plan.seeds[node].iter().map(|seed| addr(*seed).to_string()).collect(),
                dns: Vec::new(),
                poll_interval: Duration::from_secs(10),
                profile: plan.profile,
                // Never asked; without it the machine's own resolver would be looked at.
                dns_server: Some(SocketAddr::from(([10, 0, 0, 2], 53))),
                limits: Limits {
                    keys_soft: plan.keys_soft,
                    ..Limits::default()
                },
            };
            let cluster = Cluster::start(config, ear.clone(), CancellationToken::new())
                .await
                .unwrap();
            (cluster, Instant::now())
        });
        let (members, changes) = (cluster.members(), cluster.changes());
        let mut life = Self {
            node,
            generation,
            cluster,
            ear,
            members,
            changes,
            state: MemberState::Joining,
            facts: BTreeMap::new(),
            groups: BTreeMap::new(),
            is_paused: false,
            leaving: None,
            clock: now,
            began_at,
            began_at_network: now,
            runtime,
        };
        life.set_state(MemberState::Ready);
        life
    }

    /// Runs everything that is due up to the network's time `until`. A node that stood still finds its clock ahead by as much.
    pub(crate) fn run(&mut self, until: Duration, slept: Duration) {
        log::running(self.node, self.began_at, self.began_at_network);
        let deadline = self.began_at + (until - self.began_at_network);
        self.runtime.block_on(async {
            if !slept.is_zero() {
                tokio::time::advance(slept).await;
            }
            sleep_until(deadline).await;
        });
        self.clock = until;
    }

    /// The network's time up to which it has run.
    pub(crate) fn clock(&self) -> Duration {
        self.clock
    }

    /// The changes of members since the last time.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        std::iter::from_fn(|| self.changes.try_next()).collect()
    }

    pub(crate) fn set_state(&mut self, state: MemberState) {
        self.state = state;
        self.cluster.set_state(state);
    }

    pub(crate) fn set_fact(&mut self, value: String) {
        self.cluster.set_fact("load", &value).unwrap();
        self.facts.insert("load".into(), value);
    }

    pub(crate) fn join(&mut self, group: usize) {
        let group = GROUPS[group];
        let membership = self.cluster.join(group).unwrap();
        self.groups.entry(group).or_default().push(membership);
    }

    pub(crate) fn part(&mut self, group: usize) {
        self.groups.get_mut(GROUPS[group]).and_then(Vec::pop);
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|held| !held.is_empty())
    }

    pub(crate) fn ask(&self, to: usize, number: u64) {
        let (cluster, ear, to) = (self.cluster.clone(), self.ear.clone(), name(to).parse().unwrap());
        self.runtime.spawn(async move {
            let question = question(number);
            let answer = cluster.request(&to, question.clone(), ANSWER_WITHIN).await;
            ear.heard.lock().unwrap().push(Heard::Answer(question, answer));
        });
    }

    pub(crate) fn leave(&mut self) {
        let cluster = self.cluster.clone();
        self.leaving = Some(self.runtime.spawn(async move { cluster.leave().await }));
    }

    /// Why its mesh has ended by itself, if it has.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let mut closed = std::pin::pin!(self.cluster.closed());
        self.runtime.block_on(std::future::poll_fn(|context| {
            Poll::Ready(match closed.as_mut().poll(context) {
                Poll::Ready(fault) => Some(fault),
                Poll::Pending => None,
            })
        }))
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    pub(crate) fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(JoinHandle::is_finished)
    }
}
