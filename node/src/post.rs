//! The post: carries letters between matches to whichever nodes they are on, and finds out where that is.
//!
//! It has no rules of its own and keeps nothing that matters: the rules are in `owner::room::mail`, and every letter and receipt that
//! is lost here is said again by the match that waits for it. Matches of this node are written to in the same way, without the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rookery_gossip::SendError;
use rookery_protocol::peer::{self, Letter, MailWord};
use rookery_protocol::{MatchId, NodeLife};

use crate::config::Service;
use crate::owner::room::Absence;
use crate::peer::MAIL;
use crate::session::hub::{Hub, node_id};
use crate::store::MatchStatus;

/// Matches whose node is remembered. Past this all are forgotten and looked up again.
const ROUTES_MAX: usize = 65_536;

/// Matches that are looked up at once. A letter that finds no place is said again a second later.
const LOOKUPS_MAX: usize = 1_024;

/// Between two tries of the store while it is away.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Mail between matches, and players who are transferred.
pub struct Post {
    hub: Arc<Hub>,
    /// Where matches were when they were last looked for, or last heard of.
    routes: Mutex<HashMap<MatchId, NodeLife>>,
    /// Matches that are looked for, and who writes to them.
    sought: Mutex<BTreeMap<MatchId, BTreeSet<MatchId>>>,
    /// Matches ask from threads that are none of the runtime's.
    runtime: tokio::runtime::Handle,
}

impl Post {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            hub: Arc::clone(hub),
            routes: Mutex::default(),
            sought: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, HashMap<MatchId, NodeLife>> {
        self.routes.lock().expect("no thread panics holding it")
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let _entered = self.runtime.enter();
        self.hub.spawn(work);
    }

    fn is_served(&self) -> bool {
        self.hub.services().check(Service::Mail).is_ok()
    }

    /// Finds the match with this name, for a match that writes to it. It asks until the store answers.
    pub fn find(&self, sender: MatchId, name: String) {
        let hub = Arc::clone(&self.hub);
        if !self.is_served() {
            return hub.executor().found(sender, name, Err(Absence::NoPost));
        }
        self.spawn(async move {
            let found = loop {
                match hub.store().get_match(&name).await {
                    Ok(Some(row)) => break Ok(row.id),
                    Ok(None) => break Err(Absence::Gone),
                    Err(error) => {
                        tracing::debug!(%sender, error = &error as &dyn std::error::Error, "mail waits for the store");
                        tokio::time::sleep(STORE_AGAIN).await;
                    }
                }
            };
            if found.is_err() {
                hub.metrics().mail_undeliverable.inc();
            }
            hub.executor().found(sender, name, found);
        });
    }

    /// Carries a letter as far as the way is known, and finds the way when it is not. Says whether it was carried.
    pub fn carry(&self, letter: Letter) -> bool {
        let (from, to) = (letter.from, letter.to);
        if !self.is_served() {
            self.hub.executor().target_gone(from, to, Absence::NoPost);
            return false;
        }
        let route = match self.hub.executor().epoch_of(to) {
            Some(_) => Some(self.hub.local().clone()),
            None => self.routes().get(&to).cloned(),
        };
        match route {
            Some(node) => match self.send(&node, MailWord::Letter(Box::new(letter))) {
                Ok(()) => {
                    self.hub.metrics().letters.inc();
                    true
                }
                Err(SendError::UnknownNode { .. }) => {
                    self.routes().remove(&to);
                    self.seek(from, to);
                    false
                }
                Err(_) => false,
            },
            None => {
                self.seek(from, to);
                false
            }
        }
    }

    /// Says something to a node, this one included. What cannot be said now is said again by whoever waits for an answer.
    pub fn say(&self, to: &NodeLife, word: MailWord) {
        let _ = self.send(to, word);
    }

    fn send(&self, to: &NodeLife, word: MailWord) -> Result<(), SendError> {
        if to == self.hub.local() {
            self.hear(to, word);
            return Ok(());
        }
        match node_id(&to.name) {
            Some(node) => self.hub.cluster().send(&node, MAIL, peer::encode(&word)),
            // No member has a name that members may not have.
            None => Ok(()),
        }
    }

    /// Takes what another node says; false when it does not decode.
    pub fn message(&self, from: &NodeLife, bytes: &Bytes) -> bool {
        match peer::decode::<MailWord>(bytes) {
            Ok(word) => {
                self.hear(from, word);
                true
            }
            Err(_) => false,
        }
    }

    fn hear(&self, from: &NodeLife, word: MailWord) {
        match word {
            // A full inbox: whoever sent it says it again.
            MailWord::Letter(letter) => drop(self.hub.executor().letter(from.clone(), *letter)),
            MailWord::Receipt(receipt) => drop(self.hub.executor().receipt(from.clone(), receipt)),
            MailWord::NotHere { target, sender, number } => {
                self.hub.executor().letter_not_heard(sender, number);
                let mut routes = self.routes();
                if routes.get(&target) == Some(from) {
                    routes.remove(&target);
                    drop(routes);
                    self.seek(sender, target);
                }
            }
        }
    }

    /// What was said may have been lost, or there is room for more.
    pub fn again(&self) {
        self.hub.executor().all_mail_again();
    }

    /// That life of a node is over: what it had is elsewhere, or lost.
    pub fn node_gone(&self, node: &NodeLife) {
        self.routes()
            .retain(|_, at| at.name != node.name || at.generation > node.generation);
    }

    /// Looks a match up for one that writes to it, once for all that do.
    fn seek(&self, sender: MatchId, to: MatchId) {
        let mut sought = self.sought.lock().expect("no thread panics holding it");
        let is_new = !sought.contains_key(&to);
        if is_new && sought.len() >= LOOKUPS_MAX {
            return;
        }
        sought.entry(to).or_default().insert(sender);
        drop(sought);
        if is_new {
            let hub = Arc::clone(&self.hub);
            self.spawn(async move { hub.services().post.look_up(to).await });
        }
    }

    async fn look_up(&self, to: MatchId) {
        let found = self.hub.store().read_match(to).await;
        let senders = self.sought.lock().expect("no thread panics holding it").remove(&to);
        let senders = senders.unwrap_or_default();
        let gone = match found {
            Ok(Some(row)) if row.status == MatchStatus::Running => {
                let mut routes = self.routes();
                if routes.len() >= ROUTES_MAX {
                    routes.clear();
                }
                routes.insert(to, row.configuration.owner);
                false
            }
            // It will run: the letter is said again in a second.
            Ok(Some(row)) if row.status.is_live() => return,
            Ok(Some(_) | None) => true,
            Err(error) => {
                tracing::debug!(%to, error = &error as &dyn std::error::Error, "mail waits for the store");
                return;
            }
        };
        for sender in senders {
            if gone {
                self.hub.metrics().mail_undeliverable.inc();
                self.hub.executor().target_gone(sender, to, Absence::Gone);
            } else {
                self.hub.executor().mail_again(sender);
            }
        }
    }
}
