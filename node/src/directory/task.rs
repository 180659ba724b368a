//! Carries the directory's messages: collects them for a moment, sends them on a channel of their own, and hands to presence and to
//! chat what was heard about players.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::{Key, Life, Message, SendError};
use rookery_protocol::{NodeLife, NodeName};
use tokio::sync::{Notify, watch};

use super::{Directory, KEPT_MAX, PLAYERS};
use crate::peer::DIRECTORY;
use crate::session::hub::{Hub, node_id};

/// How long messages are collected: at 5,000 new matches a second a batch is 125 of them, and a change is heard in two of these.
const COLLECT_FOR: Duration = Duration::from_millis(25);

/// Between two tries of a node whose queue is full, if it does not say earlier that it has room.
const FULL_FOR: Duration = Duration::from_millis(100);

impl Directory {
    /// Starts the task behind it, which ends with the node.
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let local = Life {
            node: node_id(&hub.local().name).expect("a node's name is one in the mesh"),
            generation: hub.local().generation,
        };
        let directory = Arc::new(Self {
            hub: Arc::clone(hub),
            began: Instant::now(),
            table: Mutex::new(rookery_gossip::Directory::new(local, KEPT_MAX)),
            registrations: Mutex::default(),
            names: Mutex::default(),
            watching: Mutex::default(),
            mail: Notify::new(),
            heard: watch::Sender::new(0),
        });
        hub.spawn(Arc::clone(&directory).run());
        directory
    }

    /// Takes a message of another node's directory; false when it does not decode.
    pub fn message(&self, from: &NodeLife, bytes: &Bytes) -> bool {
        let Ok(message) = Message::decode(bytes) else {
            return false;
        };
        let Some(node) = node_id(&from.name) else { return false };
        let from = Life {
            node,
            generation: from.generation,
        };
        self.table().message(self.now(), &from, message);
        self.mail.notify_one();
        true
    }

    /// There is a new connection to a node, or what was sent to it may be lost.
    pub fn say_again(&self, node: &NodeName) {
        if let Some(node) = node_id(node) {
            self.table().say_again(self.now(), &node);
            self.mail.notify_one();
        }
    }

    /// A node's queue has room again.
    pub fn writable(&self) {
        self.mail.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let mut members = self.hub.cluster().members();
        let mut isolation = self.hub.cluster().isolation();
        let mut known = members.borrow_and_update().clone();
        self.table().members(self.now(), &known);
        loop {
            let due = self.table().next_wake().saturating_sub(self.now());
            tokio::select! {
                () = self.mail.notified() => tokio::time::sleep(COLLECT_FOR).await,
                () = tokio::time::sleep(due) => {}
                changed = members.changed() => {
                    if changed.is_err() {
                        // The mesh has stopped; the node is on its way down.
                        return;
                    }
                }
                changed = isolation.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            let now_known = members.borrow_and_update().clone();
            // While this node trusts its own view less, it is more likely cut off than everybody dead: players elsewhere do not go
            // offline for that.
            let trusted = !*isolation.borrow_and_update();
            if trusted && !Arc::ptr_eq(&known, &now_known) {
                self.table().members(self.now(), &now_known);
                known = now_known;
            }
            self.take_registrations();
            self.table().wake(self.now());
            self.send();
            self.tell();
        }
    }

    /// Sends what waits. What a node has no room for waits on.
    fn send(self: &Arc<Self>) {
        let mut full = BTreeSet::new();
        loop {
            let mail = self.table().mail(self.now());
            if mail.is_empty() {
                break;
            }
            for (node, message) in mail {
                if full.contains(&node) {
                    self.table().put_back(&node, &message);
                    continue;
                }
                match self.hub.cluster().send(&node, DIRECTORY, message.encode()) {
                    Ok(()) => {}
                    Err(SendError::Full) => {
                        self.table().put_back(&node, &message);
                        full.insert(node);
                    }
                    // Gone, or not met yet: a new connection says everything again.
                    Err(error @ (SendError::UnknownNode { .. } | SendError::TooLarge { .. } | SendError::Closed)) => {
                        tracing::debug!(%node, %error, "a message of the directory went nowhere");
                    }
                }
            }
            if !full.is_empty() {
                // `writable` comes when there is room; this is in case it came before we found it full.
                let itself = Arc::clone(self);
                self.hub.spawn(async move {
                    tokio::time::sleep(FULL_FOR).await;
                    itself.mail.notify_one();
                });
                break;
            }
        }
    }

    /// Hands on what was heard about players.
    fn tell(&self) {
        let changed: Vec<Key> = self
            .table()
            .take_changed()
            .into_iter()
            .filter(|key| key.class() == PLAYERS)
            .collect();
        if !changed.is_empty() {
            self.hub.services().presence.heard(&changed);
            self.hub.services().chat.heard(&changed);
            self.heard.send_modify(|count| *count += 1);
        }
    }
}
