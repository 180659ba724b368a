//! Tells lines of conversations as the machine says, and gives it what the directory says of their players. No rules here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use rookery_gossip::Key;
use rookery_protocol::client::ChatLine;
use rookery_protocol::peer::PeerRequest;
use rookery_protocol::{NodeLife, PlayerId};

use super::{Answered, Conversations, Effect, Sight};
use crate::chat::Chat;
use crate::chat::name::ChannelName;
use crate::directory::player_key;

/// How often and how long a node is asked to take lines while it may live, and the pause between two tries.
const TELL_TRIES: usize = 5;
const TELL_WITHIN: Duration = Duration::from_secs(2);
const TELL_AGAIN: Duration = Duration::from_millis(50);

/// The conversations, and the players behind the directory's keys.
#[derive(Default)]
pub(in crate::chat) struct Talks {
    machine: Conversations,
    players: BTreeMap<Key, PlayerId>,
}

impl Chat {
    /// Tells the other nodes of a line that two players may hear there.
    pub(in crate::chat) fn tell_players(self: &Arc<Self>, name: &ChannelName, line: &ChatLine) {
        let mut talks = self.talks();
        let mut out = Vec::new();
        talks.machine.write(self.hub.now_ms(), name, line.clone(), &mut out);
        self.perform(&mut talks, out);
    }

    /// The directory has heard something about these.
    pub fn heard(self: &Arc<Self>, keys: &[Key]) {
        let mut talks = self.talks();
        for key in keys {
            if let Some(player) = talks.players.get(key).copied() {
                self.look_for(&mut talks, player);
            }
        }
    }

    /// Looks after lines that wait and conversations that ended.
    pub(in crate::chat) fn wake_talks(self: &Arc<Self>) {
        let mut talks = self.talks();
        // A home that died is not waited for, and nothing else says so.
        for player in talks.machine.sought() {
            self.look_for(&mut talks, player);
        }
        let mut out = Vec::new();
        talks.machine.wake(self.hub.now_ms(), &mut out);
        self.perform(&mut talks, out);
    }

    fn talks(&self) -> MutexGuard<'_, Talks> {
        self.talks.lock().expect("no thread panics holding it")
    }

    fn look_for(self: &Arc<Self>, talks: &mut Talks, player: PlayerId) {
        let mut out = Vec::new();
        let sight = self.sight_of(player);
        talks.machine.see(self.hub.now_ms(), player, sight, &mut out);
        self.perform(talks, out);
    }

    fn sight_of(&self, player: PlayerId) -> Sight {
        let directory = &self.hub.services().directory;
        let answered = match (directory.is_answered(player), directory.is_known(player)) {
            (true, _) => Answered::All,
            (false, true) => Answered::Some,
            (false, false) => Answered::Nobody,
        };
        let mut nodes = directory.nodes_of(player);
        nodes.retain(|life| life.name != self.hub.local().name);
        Sight {
            nodes: nodes.into_iter().collect(),
            answered,
        }
    }

    /// Under the lock, so that what the machine is told of the directory is in the order in which the directory heard it. Nothing here
    /// waits, and the directory does not come back to chat.
    fn perform(self: &Arc<Self>, talks: &mut Talks, effects: Vec<Effect>) {
        // Asked for only when there is something to do: the clock of chat begins before all services are there.
        let directory = || &self.hub.services().directory;
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Watch(player) => {
                    talks.players.insert(player_key(player), player);
                    directory().watch_player(player);
                    // Somebody else may watch the player already.
                    let mut more = Vec::new();
                    let sight = self.sight_of(player);
                    talks.machine.see(self.hub.now_ms(), player, sight, &mut more);
                    effects.extend(more);
                }
                Effect::Unwatch(player) => {
                    talks.players.remove(&player_key(player));
                    directory().unwatch_player(player);
                }
                Effect::Tell { node, name, lines } => self.tell_node(node, &name, lines),
                Effect::TellEveryone { name, lines } => {
                    for node in self.reachable() {
                        self.tell_node(node, &name, lines.clone());
                    }
                }
            }
        }
    }

    /// It is asked and answered, because nobody would miss the only line of a conversation.
    fn tell_node(self: &Arc<Self>, life: NodeLife, name: &ChannelName, lines: Vec<ChatLine>) {
        let chat = Arc::clone(self);
        self.hub.metrics().chat_copies.inc_by(lines.len() as u64);
        let request = PeerRequest::Lines {
            channel: name.to_string(),
            lines,
        };
        self.hub.spawn(async move {
            for _ in 0..TELL_TRIES {
                let answer = chat.hub.ask(&life.name, &request, TELL_WITHIN).await;
                if answer.is_ok() || chat.hub.is_gone(&life) {
                    return;
                }
                tokio::time::sleep(TELL_AGAIN).await;
            }
            tracing::debug!(node = %life.name, "lines of a conversation were not taken");
        });
    }
}
