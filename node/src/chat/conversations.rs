//! Conversations that were written to on this node lately: on which nodes their two players are, and who of these was told. Pure:
//! what the directory says of players comes in, what ought to be told goes out, and `task` does it.
//!
//! A line goes once to each node with a session of either player. A session that opens while a line is told may reach the
//! directory after the question where its player is; so a node that turns up shortly afterwards is told the last line, and finds by
//! its number what came before. Not here: lines in order (`order`), which drops what comes twice, and which sessions hear them.
//! The invariant: a line is never told to fewer nodes than the directory knew of; where it knew nothing, every node is told.
#![deny(clippy::disallowed_methods)]

// The driver has tasks.
#[allow(clippy::disallowed_methods)]
mod task;

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::client::ChatLine;
use rookery_protocol::{NodeLife, PlayerId};

pub(super) use self::task::Talks;
use super::name::ChannelName;

/// How long a line waits for what the homes of its players say; an answer takes some 60 ms. After that those that answered are
/// enough.
pub(super) const ANSWER_WITHIN_MS: u64 = 250;

/// A node that turns up this long after a line is told of it: entries take some 60 ms to be known, and seconds when a home died.
/// It is less than the 3 s for which a player who reconnects elsewhere counts as never gone.
pub(super) const LATE_MS: u64 = 2_000;

/// How long the players of a conversation are watched after its last line, so that an answer to it need not ask.
pub(super) const QUIET_MS: u64 = 60_000;

/// Lines of one conversation that wait for an answer. Without the oldest nothing is lost: who hears a later one reads what is
/// before it.
const UNPLACED_MAX: usize = 64;

/// Conversations that are kept in mind; the one that is quiet for longest is forgotten beyond.
const KEPT_MAX: usize = 1 << 16;

/// How much of a player's whereabouts is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Answered {
    #[default]
    Nobody,
    /// Some homes of the player's entries.
    Some,
    All,
}

/// Where a player is: the other nodes with a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sight {
    pub(super) nodes: BTreeSet<NodeLife>,
    pub(super) answered: Answered,
}

/// What ought to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Hear from the directory about a player; what it knows already is to be given to [`Conversations::see`].
    Watch(PlayerId),
    Unwatch(PlayerId),
    /// Tell a node of lines.
    Tell {
        node: NodeLife,
        name: ChannelName,
        lines: Vec<ChatLine>,
    },
    /// Tell every node: nobody knows where the players are.
    TellEveryone {
        name: ChannelName,
        lines: Vec<ChatLine>,
    },
}

/// See the file.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    open: BTreeMap<ChannelName, Conversation>,
    players: BTreeMap<PlayerId, Player>,
    /// Those with lines that wait for an answer.
    unplaced: BTreeSet<ChannelName>,
    /// By when the last line was written.
    by_age: BTreeSet<(u64, ChannelName)>,
}

#[derive(Debug, Default)]
struct Player {
    sight: Sight,
    conversations: BTreeSet<ChannelName>,
}

#[derive(Debug, Default)]
struct Conversation {
    said_ms: u64,
    last: Option<ChatLine>,
    /// The nodes that were told of the last line.
    told: BTreeSet<NodeLife>,
    unplaced: Vec<ChatLine>,
    unplaced_since_ms: u64,
}

impl Conversations {
    /// A line of a `dm:` was written here. Other channels are none of its business.
    pub(super) fn write(&mut self, now_ms: u64, name: &ChannelName, line: ChatLine, out: &mut Vec<Effect>) {
        let Some(players) = name.players() else { return };
        if !self.open.contains_key(name) {
            if self.open.len() >= KEPT_MAX
                && let Some((_, quietest)) = self.by_age.first().cloned()
            {
                self.close(&quietest, out);
            }
            for player in players {
                let known = self.players.entry(player).or_insert_with(|| {
                    out.push(Effect::Watch(player));
                    Player::default()
                });
                known.conversations.insert(name.clone());
            }
        }
        let conversation = self.open.entry(name.clone()).or_default();
        self.by_age.remove(&(conversation.said_ms, name.clone()));
        self.by_age.insert((now_ms, name.clone()));
        conversation.said_ms = now_ms;
        if conversation.unplaced.is_empty() {
            conversation.unplaced_since_ms = now_ms;
        }
        conversation.unplaced.push(line.clone());
        if conversation.unplaced.len() > UNPLACED_MAX {
            conversation.unplaced.remove(0);
        }
        // Two nodes may write at once, and the later number be told first: the last one is the highest.
        if conversation
            .last
            .as_ref()
            .is_none_or(|last| last.message < line.message)
        {
            conversation.last = Some(line);
            conversation.told.clear();
        }
        self.unplaced.insert(name.clone());
        if self.answered(name) == Answered::All {
            self.place(name, out);
        }
    }

    /// The directory says where a player is.
    pub(super) fn see(&mut self, now_ms: u64, player: PlayerId, sight: Sight, out: &mut Vec<Effect>) {
        let Some(known) = self.players.get_mut(&player) else {
            return;
        };
        known.sight = sight;
        for name in known.conversations.clone() {
            if self.unplaced.contains(&name) {
                if self.answered(&name) == Answered::All {
                    self.place(&name, out);
                }
                continue;
            }
            let nodes = self.nodes(&name);
            let Some(conversation) = self.open.get_mut(&name) else {
                continue;
            };
            let Some(last) = conversation
                .last
                .as_ref()
                .filter(|_| now_ms < conversation.said_ms + LATE_MS)
            else {
                continue;
            };
            for node in nodes {
                if conversation.told.insert(node.clone()) {
                    out.push(Effect::Tell {
                        node,
                        name: name.clone(),
                        lines: vec![last.clone()],
                    });
                }
            }
        }
    }

    /// Tells what waited long enough for an answer, and forgets conversations in which nothing was said for a while.
    pub(super) fn wake(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let is_due = |name: &&ChannelName| {
            let conversation = self.open.get(*name);
            conversation.is_some_and(|conversation| conversation.unplaced_since_ms + ANSWER_WITHIN_MS <= now_ms)
        };
        let due: Vec<ChannelName> = self.unplaced.iter().filter(is_due).cloned().collect();
        for name in due {
            self.place(&name, out);
        }
        while let Some((_, name)) = self
            .by_age
            .first()
            .filter(|(at_ms, _)| at_ms + QUIET_MS <= now_ms)
            .cloned()
        {
            self.close(&name, out);
        }
    }

    /// The players of whom an answer is waited for.
    pub(super) fn sought(&self) -> BTreeSet<PlayerId> {
        self.unplaced
            .iter()
            .filter_map(ChannelName::players)
            .flatten()
            .collect()
    }

    /// What is known of both players.
    fn answered(&self, name: &ChannelName) -> Answered {
        let players = name.players().into_iter().flatten();
        let answers = players.map(|player| {
            self.players
                .get(&player)
                .map_or(Answered::Nobody, |one| one.sight.answered)
        });
        answers.min().unwrap_or_default()
    }

    /// The nodes with a session of either player.
    fn nodes(&self, name: &ChannelName) -> BTreeSet<NodeLife> {
        let players = name.players().into_iter().flatten();
        let sights = players.filter_map(|player| self.players.get(&player));
        sights.flat_map(|player| player.sight.nodes.iter().cloned()).collect()
    }

    /// Tells the lines that wait, by what is known now.
    fn place(&mut self, name: &ChannelName, out: &mut Vec<Effect>) {
        let (answered, nodes) = (self.answered(name), self.nodes(name));
        self.unplaced.remove(name);
        let Some(conversation) = self.open.get_mut(name) else {
            return;
        };
        let lines = std::mem::take(&mut conversation.unplaced);
        if lines.is_empty() {
            return;
        }
        let name = name.clone();
        if answered == Answered::Nobody {
            out.push(Effect::TellEveryone { name, lines });
            return;
        }
        for node in &nodes {
            out.push(Effect::Tell {
                node: node.clone(),
                name: name.clone(),
                lines: lines.clone(),
            });
        }
        conversation.told.extend(nodes);
    }

    fn close(&mut self, name: &ChannelName, out: &mut Vec<Effect>) {
        self.place(name, out);
        if let Some(conversation) = self.open.remove(name) {
            self.by_age.remove(&(conversation.said_ms, name.clone()));
        }
        for player in name.players().into_iter().flatten() {
            let Some(known) = self.players.get_mut(&player) else {
                continue;
            };
            known.conversations.remove(name);
            if known.conversations.is_empty() {
                self.players.remove(&player);
                out.push(Effect::Unwatch(player));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn player(number: u128) -> PlayerId {
        PlayerId::from_u128(number)
    }

    fn line(message: u64) -> ChatLine {
        ChatLine {
            message,
            from: Arc::from("ana"),
            text: Arc::from("x"),
            at: 0,
        }
    }

    fn node(name: &str) -> NodeLife {
        NodeLife {
            name: name.parse().unwrap(),
            generation: 1,
        }
    }

    fn sight(nodes: &[&str], answered: Answered) -> Sight {
        Sight {
            nodes: nodes.iter().map(|name| node(name)).collect(),
            answered,
        }
    }

    /// Runs the machine and keeps a list of what it did.
    #[derive(Default)]
    struct World {
        machine: Conversations,
        watched: BTreeSet<PlayerId>,
        told: Vec<(String, Vec<u64>)>,
    }

    impl World {
        fn step(&mut self, step: impl FnOnce(&mut Conversations, &mut Vec<Effect>)) -> Vec<(String, Vec<u64>)> {
            let mut out = Vec::new();
            step(&mut self.machine, &mut out);
            for effect in out {
                let (to, lines) = match effect {
                    Effect::Watch(player) => {
                        assert!(self.watched.insert(player), "watched twice");
                        continue;
                    }
                    Effect::Unwatch(player) => {
                        assert!(self.watched.remove(&player), "not watched");
                        continue;
                    }
                    Effect::Tell { node, lines, .. } => (node.name.to_string(), lines),
                    Effect::TellEveryone { lines, .. } => ("everyone".to_owned(), lines),
                };
                self.told.push((to, lines.iter().map(|line| line.message).collect()));
            }
            std::mem::take(&mut self.told)
        }

        fn write(&mut self, now_ms: u64, message: u64) -> Vec<(String, Vec<u64>)> {
            let name = ChannelName::Dm(player(1), player(2));
            self.step(|machine, out| machine.write(now_ms, &name, line(message), out))
        }

        fn see(&mut self, now_ms: u64, of: PlayerId, seen: Sight) -> Vec<(String, Vec<u64>)> {
            self.step(|machine, out| machine.see(now_ms, of, seen, out))
        }

        fn wake(&mut self, now_ms: u64) -> Vec<(String, Vec<u64>)> {
            self.step(|machine, out| machine.wake(now_ms, out))
        }
    }

    fn told(list: &[(&str, &[u64])]) -> Vec<(String, Vec<u64>)> {
        list.iter()
            .map(|(to, lines)| ((*to).to_owned(), lines.to_vec()))
            .collect()
    }

    #[test]
    fn a_line_goes_once_to_each_node_with_a_session_of_either_player() {
        let mut world = World::default();
        assert_eq!(world.write(0, 1), told(&[]), "nothing is known yet");
        assert_eq!(world.watched, BTreeSet::from([player(1), player(2)]));
        assert_eq!(world.see(10, player(1), sight(&["b"], Answered::All)), told(&[]));
        let both = sight(&["b", "c"], Answered::All);
        assert_eq!(
            world.see(20, player(2), both.clone()),
            told(&[("b", &[1]), ("c", &[1])])
        );
        assert_eq!(world.see(30, player(2), both), told(&[]), "not twice");
        assert_eq!(
            world.write(40, 2),
            told(&[("b", &[2]), ("c", &[2])]),
            "nobody is asked again"
        );
        assert_eq!(world.see(50, player(1), sight(&[], Answered::All)), told(&[]));
        assert_eq!(world.see(50, player(2), sight(&[], Answered::All)), told(&[]));
        assert_eq!(world.write(60, 3), told(&[]), "nobody else is anywhere");
    }

    #[test]
    fn a_node_that_turns_up_soon_after_a_line_is_told_of_the_last_one() {
        let mut world = World::default();
        world.write(0, 1);
        world.see(0, player(1), sight(&[], Answered::All));
        assert_eq!(world.see(0, player(2), sight(&[], Answered::All)), told(&[]));
        world.write(10, 2);
        let at_c = sight(&["c"], Answered::All);
        assert_eq!(world.see(100, player(2), at_c.clone()), told(&[("c", &[2])]));
        assert_eq!(world.see(110, player(2), sight(&[], Answered::All)), told(&[]));
        assert_eq!(world.see(120, player(2), at_c), told(&[]), "it was told");
        let late = sight(&["d"], Answered::All);
        assert_eq!(world.see(10 + LATE_MS, player(2), late), told(&[]), "that is history");
    }

    #[test]
    fn without_an_answer_every_node_is_told_and_with_half_of_one_those_that_are_known() {
        let mut world = World::default();
        world.write(0, 1);
        world.write(5, 2);
        assert_eq!(world.machine.sought(), BTreeSet::from([player(1), player(2)]));
        assert_eq!(world.wake(ANSWER_WITHIN_MS - 1), told(&[]));
        assert_eq!(world.wake(ANSWER_WITHIN_MS), told(&[("everyone", &[1, 2])]));
        assert_eq!(world.machine.sought(), BTreeSet::new());
        world.see(300, player(1), sight(&[], Answered::Some));
        world.see(300, player(2), sight(&["c"], Answered::Some));
        assert_eq!(world.write(400, 3), told(&[]), "a second home may know more");
        assert_eq!(world.wake(400 + ANSWER_WITHIN_MS), told(&[("c", &[3])]));
    }

    #[test]
    fn quiet_conversations_are_forgotten_and_players_watched_while_any_of_theirs_is_not() {
        let mut world = World::default();
        world.write(0, 1);
        let other = ChannelName::Dm(player(2), player(3));
        world.step(|machine, out| machine.write(1_000, &other, line(1), out));
        world.wake(ANSWER_WITHIN_MS + 1_000);
        assert_eq!(world.watched, BTreeSet::from([player(1), player(2), player(3)]));
        world.wake(QUIET_MS);
        assert_eq!(world.watched, BTreeSet::from([player(2), player(3)]));
        world.wake(QUIET_MS + 1_000);
        assert_eq!(world.watched, BTreeSet::new());
        assert!(world.machine.open.is_empty() && world.machine.by_age.is_empty());
    }

    #[test]
    fn lines_that_wait_are_bounded_and_the_newest_stay() {
        let mut world = World::default();
        for message in 1..=UNPLACED_MAX as u64 + 5 {
            world.write(0, message);
        }
        let all = world.wake(ANSWER_WITHIN_MS);
        assert_eq!(all[0].1, (6..=UNPLACED_MAX as u64 + 5).collect::<Vec<_>>());
    }
}
