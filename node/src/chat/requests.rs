//! What clients ask of chat: to join and leave channels, to write, and to read what was written. The requests of a session are
//! served in turn, so that what it says appears in the order in which it said it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rookery_gossip::MemberState;
use rookery_protocol::PlayerId;
use rookery_protocol::client::{ChannelMessage, ChannelRequest, ChatLine, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};

use super::Chat;
use super::board::Wish;
use super::name::ChannelName;
use super::order::Entry;
use crate::modules::unavailable;
use crate::session::Session;
use crate::session::listener::Listener;
use crate::store::NewLine;

/// Missed lines that are served to who joins.
const MISSED_MAX: u32 = 500;

/// Lines in one answer to `channel.history`, and how many there are when the client does not say.
const HISTORY_MAX: u32 = 200;
const HISTORY: u32 = 50;

/// What is served of the past at once; a quarter of what may wait for a socket.
const PAST_BYTES_MAX: usize = 256 << 10;

/// How long a join waits for other nodes to know of it. One that does not answer is told when it does; its lines are then found
/// by comparing with the store.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// How often a join reads again because more was said meanwhile than is kept. A channel at full speed has some lines a read.
const READS_MAX: usize = 8;

type Answer = Result<Option<ServerMessage>, Refusal>;

impl Chat {
    /// Serves what a session wishes until nothing is left.
    pub(super) async fn serve(self: Arc<Self>, session: Arc<Session>) {
        loop {
            let Some(wishes) = self.board().next_wishes(session.id()) else {
                return;
            };
            // More than one only when all are lines: they go into the store's queue in their order, and wait there together.
            let serving = wishes.into_iter().map(|wish| {
                let (chat, session) = (Arc::clone(&self), Arc::clone(&session));
                async move { chat.serve_one(&session, wish).await }
            });
            join_all(serving).await;
        }
    }

    async fn serve_one(self: &Arc<Self>, session: &Arc<Session>, wish: Wish) {
        let Wish { id, request } = wish;
        let channel = match &request {
            ChannelRequest::Join { channel, .. }
            | ChannelRequest::Send { channel, .. }
            | ChannelRequest::History { channel, .. }
            | ChannelRequest::Leave { channel } => channel.clone(),
        };
        let answer = match request {
            ChannelRequest::Join { channel, since } => {
                let answer = self.join(session, id, &channel, since).await;
                if since.is_some()
                    && answer.is_err()
                    && let Ok(name) = ChannelName::read(&channel, session.player())
                {
                    self.board().not_caught_up(session, &name);
                }
                answer
            }
            ChannelRequest::Send { channel, text } => self.send(session, &channel, text).await,
            ChannelRequest::History { channel, before, limit } => self.history(session, &channel, before, limit).await,
            ChannelRequest::Leave { channel } => self.leave(session, &channel),
        };
        match answer {
            Ok(Some(answer)) => session.send(id, &answer),
            Ok(None) => {}
            Err(refusal) => session.refuse(id, refusal.with("channel", channel)),
        }
    }

    /// What the session means, if it may use it.
    async fn allowed(&self, session: &Session, channel: &str) -> Result<ChannelName, Refusal> {
        let name = ChannelName::read(channel, session.player())?;
        match &name {
            ChannelName::Room(_) => {}
            ChannelName::Match(target) => {
                if !session.is_seated(*target) {
                    let message = "only those who are seated in the match are in its channel";
                    return Err(Refusal::new(ErrorCode::ChannelForbidden, message));
                }
            }
            ChannelName::World(world) => {
                if !self.hub.config().worlds.by_name.contains_key(world) {
                    return Err(Refusal::new(
                        ErrorCode::ChannelInvalid,
                        "there is no world of this name",
                    ));
                }
            }
            ChannelName::Dm(low, high) => {
                let other = if *low == session.player() { *high } else { *low };
                let player = self.hub.store().read_player(other).await;
                if player.map_err(|error| unavailable(&error))?.is_none() {
                    return Err(Refusal::new(ErrorCode::ChannelInvalid, "there is no such player"));
                }
            }
        }
        Ok(name)
    }

    async fn join(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: Option<i64>,
        channel: &str,
        since: Option<u64>,
    ) -> Answer {
        let name = self.allowed(session, channel).await?;
        let joined_max = self.hub.config().limits.channels_per_session as usize;
        let told_as = {
            let mut board = self.board();
            if board.joined(session.id()) >= joined_max && !board.is_member(session.id(), &name) {
                let message = format!("a session may be in {joined_max} channels");
                return Err(Refusal::new(ErrorCode::ChannelTooMany, message));
            }
            board.approach(&self.hub, &name)
        };
        self.until_known(told_as).await;
        // The store's numbers have a sign.
        let since = since.map(|since| since.min(u64::MAX >> 1));
        let mut reads = 0;
        loop {
            reads += 1;
            let (above, limit) = since.map_or((u64::MAX >> 1, 0), |since| (since, MISSED_MAX));
            let view = match self.hub.store().view_channel(&name.to_string(), above, limit).await {
                Ok(view) => view,
                Err(error) => {
                    self.board().turn_back(&self.hub, &name);
                    return Err(unavailable(&error));
                }
            };
            // Others may hear a conversation here without having joined it: what is on its way to them is not passed over.
            let is_unheard = name.players().is_some() && self.board().is_unopened(&name);
            if is_unheard && let Err(error) = self.open_through(&name, view.last, view.at_ms).await {
                self.board().turn_back(&self.hub, &name);
                return Err(unavailable(&error));
            }
            let mut board = self.board();
            board.open(&self.hub, &name, view.last);
            let Some(Entry { last, mut missed }) = board.entry(&name, session.id(), since, view) else {
                if reads < READS_MAX {
                    continue;
                }
                board.turn_back(&self.hub, &name);
                let message = "more is said in the channel than can be read";
                return Err(Refusal::new(ErrorCode::Unavailable, message));
            };
            newest(&mut missed, MISSED_MAX as usize);
            let truncated = since.is_some_and(|since| last.saturating_sub(since) > missed.len() as u64);
            // Those who came before are in the answer, and nobody is told of them again after it.
            board.tell_crowd(&self.hub, &name);
            if !board.enter(&self.hub, &name, session, last) {
                return Ok(None);
            }
            if since.is_some() {
                board.caught_up(session.id(), &name);
            }
            // Queued under the lock, hence before any line that comes later.
            session.send(
                id,
                &ServerMessage::Channel(ChannelMessage::Joined {
                    channel: channel.to_owned(),
                    last,
                    members: board.everyone(&name).iter().map(PlayerId::to_string).collect(),
                    truncated,
                }),
            );
            for line in missed {
                let channel = channel.to_owned();
                session.send(None, &ServerMessage::Channel(ChannelMessage::Line { channel, line }));
            }
            board.tell_crowd(&self.hub, &name);
            // Between the question whether it may and now it may have left the match.
            if let ChannelName::Match(target) = &name
                && !session.is_seated(*target)
            {
                board.leave(&self.hub, &name, session);
            }
            return Ok(None);
        }
    }

    /// Waits until every node that answers knows that this one wants to hear a channel.
    async fn until_known(&self, told_as: u64) {
        let all_know = async {
            loop {
                let known = self.known.notified();
                tokio::pin!(known);
                // Before looking, so that what comes in between is not missed.
                known.as_mut().enable();
                if self.is_known(told_as) {
                    return;
                }
                known.await;
            }
        };
        if tokio::time::timeout(KNOWN_WITHIN, all_know).await.is_err() {
            tracing::debug!("a node does not say that it knows of a channel");
        }
    }

    fn is_known(&self, told_as: u64) -> bool {
        let nodes = self.reachable();
        let board = self.board();
        nodes.iter().all(|life| board.knows(&life.name, told_as))
    }

    /// The other nodes that answer.
    pub(super) fn reachable(&self) -> Vec<rookery_protocol::NodeLife> {
        let members = self.hub.cluster().members().borrow().clone();
        let answers = |state: MemberState| match state {
            MemberState::Joining | MemberState::Ready | MemberState::Draining => true,
            MemberState::Leaving | MemberState::Suspect | MemberState::Dead => false,
        };
        let lives = members.iter().filter(|member| answers(member.state));
        let mut lives: Vec<_> = lives.filter_map(|member| crate::peer::life_of(&member.peer)).collect();
        lives.retain(|life| life.name != self.hub.local().name);
        lives
    }

    async fn send(self: &Arc<Self>, session: &Arc<Session>, channel: &str, text: String) -> Answer {
        check_text(&text, self.hub.config().chat.text_max.as_usize())?;
        let name = self.allowed(session, channel).await?;
        let line = NewLine {
            channel: name.to_string(),
            sender: session.player().to_string(),
            text,
            effect: None,
        };
        let line = self.write(&name, line).await.map_err(|error| unavailable(&error))?;
        // Only a match's line has an epoch that may be over.
        let line = line.map_err(|_| Refusal::new(ErrorCode::Internal, "the line was not written"))?;
        Ok(Some(ServerMessage::Channel(ChannelMessage::Sent {
            channel: channel.to_owned(),
            message: line.message,
            at: line.at,
        })))
    }

    async fn history(&self, session: &Session, channel: &str, before: Option<u64>, limit: Option<u32>) -> Answer {
        let name = self.allowed(session, channel).await?;
        let limit = limit.unwrap_or(HISTORY).min(HISTORY_MAX);
        let before = before.unwrap_or(u64::MAX).min(u64::MAX >> 1);
        let read = self.hub.store().lines_before(&name.to_string(), before, limit).await;
        let mut messages = read.map_err(|error| unavailable(&error))?;
        newest(&mut messages, limit as usize);
        Ok(Some(ServerMessage::Channel(ChannelMessage::History {
            channel: channel.to_owned(),
            messages,
        })))
    }

    fn leave(&self, session: &Session, channel: &str) -> Answer {
        let name = ChannelName::read(channel, session.player())?;
        // Leaving twice is leaving once.
        self.board().leave(&self.hub, &name, session);
        Ok(Some(ServerMessage::Channel(ChannelMessage::Left {
            channel: channel.to_owned(),
        })))
    }
}

/// Keeps the newest lines, so many of them and so many bytes.
fn newest(lines: &mut Vec<ChatLine>, count_max: usize) {
    let mut bytes = 0;
    let fits = |line: &&ChatLine| {
        bytes += line.text.len() + line.from.len();
        bytes <= PAST_BYTES_MAX
    };
    let kept = lines.iter().rev().take(count_max).take_while(fits).count();
    lines.drain(..lines.len() - kept);
}

/// Whether a line may have this text. Control characters grow sixfold in JSON, and PostgreSQL has no place for one of them.
pub(crate) fn check_text(text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        let message = format!("a line may have {bytes_max} bytes");
        return Err(Refusal::new(ErrorCode::TooLarge, message).with("max", bytes_max));
    }
    let is_bad = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.trim().is_empty() || text.contains(is_bad) {
        let message = "text: something to read, without control characters but tabs and line ends";
        return Err(Refusal::new(ErrorCode::BadMessage, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_checked() {
        for text in ["hello", "ä\tb\nc", "  x  "] {
            assert_eq!(check_text(text, 10), Ok(()), "{text:?}");
        }
        for text in ["", "  \n", "a\0b", "a\u{1b}[1m", "a\rb"] {
            assert_eq!(
                check_text(text, 10).unwrap_err().code,
                ErrorCode::BadMessage,
                "{text:?}"
            );
        }
        assert_eq!(check_text("12345678901", 10).unwrap_err().code, ErrorCode::TooLarge);
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let line = |message, bytes| ChatLine {
            message,
            from: Arc::from(""),
            text: Arc::from("x".repeat(bytes)),
            at: 0,
        };
        let mut lines: Vec<_> = (1..=9).map(|number| line(number, 1)).collect();
        newest(&mut lines, 4);
        assert!(lines.iter().map(|line| line.message).eq(6..=9));
        let mut lines: Vec<_> = (1..=9).map(|number| line(number, PAST_BYTES_MAX / 2)).collect();
        newest(&mut lines, 100);
        assert!(lines.iter().map(|line| line.message).eq(8..=9));
    }
}
