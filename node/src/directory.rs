//! Where players, matches and names are, as far as nodes have said so lately: the mesh's directory (`rookery_gossip::Directory`) with
//! the words of this crate.
//!
//! Owners register their matches and their names, gateways their players. It is a cache that heals by itself and proves nothing: who
//! follows it and finds nobody asks the store. The rules are the machine's; `task` carries its messages.

mod task;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::{Entry, Key};
use rookery_protocol::peer::{PeerAnswer, PeerRequest, PresenceFact, Whereabouts, decode, encode};
use rookery_protocol::{MatchId, NodeLife, PlayerId};
use tokio::sync::{Notify, watch};

use crate::owner::executor::Under;
use crate::session::hub::Hub;

/// What kinds of things are in the directory.
const MATCHES: u8 = 1;
const PLAYERS: u8 = 2;
const NAMES: u8 = 3;

/// Entries, and watches, that this node keeps for others: a million players and matches, some 300 bytes each.
const KEPT_MAX: usize = 1 << 20;

/// How long a home may take to say where a match is. The store answers, too.
const HOME_WITHIN: Duration = Duration::from_millis(250);

/// The directory as this node takes part in it.
pub struct Directory {
    hub: Arc<Hub>,
    began: Instant,
    table: Mutex<rookery_gossip::Directory>,
    /// What the executor's threads have said since it was last looked at: they never wait for the table. At most one for each match
    /// that began or ended meanwhile.
    registrations: Mutex<Vec<Registration>>,
    names: Mutex<Names>,
    /// How many parts of this node watch each player: the table knows one watch of a key.
    watching: Mutex<HashMap<PlayerId, u32>>,
    /// Something waits to be said.
    mail: Notify,
    /// Rises with everything that is heard about players.
    heard: watch::Sender<u64>,
}

/// Names of matches that are registered here. A name may have passed from one to the next before the first one is gone.
#[derive(Debug, Default)]
struct Names {
    by_match: HashMap<MatchId, String>,
    by_name: HashMap<String, MatchId>,
}

/// A match that is here now, or no longer.
#[derive(Debug)]
enum Registration {
    Here {
        target: MatchId,
        under: Under,
        name: Option<String>,
    },
    Gone {
        target: MatchId,
    },
}

/// What one node says of a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The attachment number of the player's newest session there.
    pub attachment: u64,
    pub fact: PresenceFact,
}

/// The directory's figures for metrics.
pub use rookery_gossip::DirectoryStats;

fn match_key(target: MatchId) -> Key {
    Key::new(MATCHES, &target.to_u128().to_be_bytes())
}

fn name_key(name: &str) -> Key {
    Key::new(NAMES, name.as_bytes())
}

/// The directory's name for a player.
pub fn player_key(player: PlayerId) -> Key {
    Key::new(PLAYERS, &player.to_u128().to_be_bytes())
}

impl Directory {
    // Matches and names

    /// A match speaks here now. Called from executor threads.
    pub fn match_here(&self, target: MatchId, under: Under, name: Option<String>) {
        self.register(Registration::Here { target, under, name });
    }

    /// A match is no longer here.
    pub fn match_gone(&self, target: MatchId) {
        self.register(Registration::Gone { target });
    }

    fn register(&self, registration: Registration) {
        self.registrations
            .lock()
            .expect("no thread panics holding it")
            .push(registration);
        self.mail.notify_one();
    }

    /// Where a match is, if the directory knows of an owner that lives.
    pub async fn whereis(&self, target: MatchId) -> Option<Whereabouts> {
        let answer = self.find(
            match_key(target),
            |entries| self.match_in(target, entries),
            || PeerRequest::WhereIs { target },
        );
        self.counted(answer.await)
    }

    /// Which match has this name, and where it is, if the directory knows.
    pub async fn whois(&self, name: &str) -> Option<Whereabouts> {
        let asking = || PeerRequest::WhoIs { name: name.to_owned() };
        let answer = self.find(name_key(name), |entries| self.named_in(entries), asking);
        self.counted(answer.await)
    }

    fn counted(&self, answer: Option<Whereabouts>) -> Option<Whereabouts> {
        let lookups = self.hub.metrics().directory_lookup(answer.is_some());
        lookups.inc();
        answer
    }

    /// What this node, as a home, knows of a match.
    pub fn whereis_here(&self, target: MatchId) -> Option<Whereabouts> {
        let kept = self.table().kept(self.now(), match_key(target));
        self.match_in(target, &kept)
    }

    /// What this node, as a home, knows of a name.
    pub fn whois_here(&self, name: &str) -> Option<Whereabouts> {
        let kept = self.table().kept(self.now(), name_key(name));
        self.named_in(&kept)
    }

    /// The owner with the highest epoch.
    fn match_in(&self, target: MatchId, entries: &[Entry]) -> Option<Whereabouts> {
        let entry = entries.iter().max_by_key(|entry| entry.epoch)?;
        let incarnation = entry.value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
        Some(Whereabouts {
            target,
            owner: life_of(entry)?,
            epoch: entry.epoch,
            incarnation,
        })
    }

    /// Of several matches with the name the youngest: ids sort by time, and the others are on their way out.
    fn named_in(&self, entries: &[Entry]) -> Option<Whereabouts> {
        let named = entries.iter().filter_map(|entry| {
            let (target, incarnation) = read_named(&entry.value)?;
            Some(Whereabouts {
                target,
                owner: life_of(entry)?,
                epoch: entry.epoch,
                incarnation,
            })
        });
        named.max_by_key(|known| (known.target, known.epoch))
    }

    /// Looks here if this node is a home, and asks the others at once; the first that knows is believed, if the owner lives.
    async fn find(
        &self,
        key: Key,
        here: impl Fn(&[Entry]) -> Option<Whereabouts>,
        request: impl Fn() -> PeerRequest,
    ) -> Option<Whereabouts> {
        let (homes, kept) = {
            let table = self.table();
            (table.homes(key), table.kept(self.now(), key))
        };
        if let Some(known) = here(&kept).filter(|known| self.hub.is_member(&known.owner)) {
            return Some(known);
        }
        let mut asking = tokio::task::JoinSet::new();
        for home in homes {
            let Ok(name) = home.as_str().parse() else { continue };
            if name != self.hub.local().name {
                let (hub, request) = (Arc::clone(&self.hub), request());
                asking.spawn(async move { hub.ask(&name, &request, HOME_WITHIN).await });
            }
        }
        while let Some(asked) = asking.join_next().await {
            if let Ok(Ok(PeerAnswer::Whereabouts(known))) = asked
                && self.hub.is_member(&known.owner)
            {
                return Some(known);
            }
        }
        None
    }

    // Players

    /// Says of a player what its sessions here add up to.
    pub fn hold_player(&self, player: PlayerId, attachment: u64, fact: &PresenceFact) {
        self.table()
            .hold(self.now(), player_key(player), attachment, encode(fact));
        self.mail.notify_one();
    }

    /// The player has no session here any more.
    pub fn release_player(&self, player: PlayerId) {
        self.table().release(self.now(), player_key(player));
        self.mail.notify_one();
    }

    /// Hears of a player until [`Directory::unwatch_player`] was called as often.
    pub fn watch_player(&self, player: PlayerId) {
        let mut watching = self.watching.lock().expect("no thread panics holding it");
        let watches = watching.entry(player).or_default();
        *watches += 1;
        if *watches == 1 {
            self.table().watch(self.now(), player_key(player));
            self.mail.notify_one();
        }
    }

    pub fn unwatch_player(&self, player: PlayerId) {
        let mut watching = self.watching.lock().expect("no thread panics holding it");
        let Some(watches) = watching.get_mut(&player) else {
            return;
        };
        *watches -= 1;
        if *watches == 0 {
            watching.remove(&player);
            self.table().unwatch(self.now(), player_key(player));
            self.mail.notify_one();
        }
    }

    /// Whether every home of a watched player has told what it knows.
    pub fn is_answered(&self, player: PlayerId) -> bool {
        self.table().unanswered(player_key(player)) == 0
    }

    /// Whether any home of a watched player has told what it knows.
    pub fn is_known(&self, player: PlayerId) -> bool {
        self.table().is_known(player_key(player))
    }

    /// What the nodes say of a player that is watched, or has sessions here.
    pub fn sightings(&self, player: PlayerId) -> Vec<Sighting> {
        let seen = self.table().seen(player_key(player));
        let sighting = |entry: Entry| Sighting {
            attachment: entry.epoch,
            // A newer version may say more than we understand, but that it is there is plain.
            fact: decode(&entry.value).unwrap_or_default(),
        };
        seen.into_iter().map(sighting).collect()
    }

    /// The nodes with sessions of a player that is watched, or has sessions here.
    pub fn nodes_of(&self, player: PlayerId) -> Vec<NodeLife> {
        let seen = self.table().seen(player_key(player));
        seen.iter().filter_map(life_of).collect()
    }

    /// Wakes whenever something was heard about players.
    pub fn heard(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }

    /// Of all players online in the cluster, those that this node counts.
    pub fn players_counted(&self) -> u64 {
        self.table().count(PLAYERS)
    }

    pub fn stats(&self) -> DirectoryStats {
        self.table().stats()
    }

    fn table(&self) -> MutexGuard<'_, rookery_gossip::Directory> {
        self.table.lock().expect("no thread panics holding it")
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes over what the executor's threads registered.
    fn take_registrations(&self) {
        let registrations = std::mem::take(&mut *self.registrations.lock().expect("no thread panics holding it"));
        if registrations.is_empty() {
            return;
        }
        let mut names = self.names.lock().expect("no thread panics holding it");
        let mut table = self.table();
        let now = self.now();
        for registration in registrations {
            match registration {
                Registration::Here { target, under, name } => {
                    let incarnation = under.incarnation.to_be_bytes();
                    table.hold(
                        now,
                        match_key(target),
                        under.epoch,
                        Bytes::copy_from_slice(&incarnation),
                    );
                    if let Some(name) = name {
                        let id = target.to_u128().to_be_bytes();
                        let value = [&id[..], &incarnation[..]].concat();
                        table.hold(now, name_key(&name), under.epoch, value.into());
                        names.by_name.insert(name.clone(), target);
                        names.by_match.insert(target, name);
                    }
                }
                Registration::Gone { target } => {
                    table.release(now, match_key(target));
                    if let Some(name) = names.by_match.remove(&target)
                        && names.by_name.get(&name) == Some(&target)
                    {
                        names.by_name.remove(&name);
                        table.release(now, name_key(&name));
                    }
                }
            }
        }
    }
}

/// What is kept under a match's name: its id and its incarnation.
pub(crate) fn read_named(value: &[u8]) -> Option<(MatchId, u64)> {
    let (id, rest) = value.split_first_chunk()?;
    let incarnation = rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
    Some((MatchId::from_u128(u128::from_be_bytes(*id)), incarnation))
}

fn life_of(entry: &Entry) -> Option<NodeLife> {
    Some(NodeLife {
        name: entry.holder.node.as_str().parse().ok()?,
        generation: entry.holder.generation,
    })
}
