//! Does what the roster says: speaks to the directory and to sessions, and serves the requests of clients. No rules here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rookery_gossip::Key;
use rookery_protocol::client::{Encoding, PlayerPresence, PresenceMessage, PresenceRequest, ServerMessage};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{MatchId, PlayerId};
use tokio::sync::Notify;

use super::{Effect, Roster, STATUS_LEN_MAX, Standing};
use crate::directory::player_key;
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;

/// How long all homes of watched players may take to answer; after that, those that did are enough.
const ALL_HOMES_WITHIN: Duration = Duration::from_millis(500);

/// How long any home may take.
const ANY_HOME_WITHIN: Duration = Duration::from_secs(3);

/// Who is online, and who wants to know.
pub struct Presence {
    hub: Arc<Hub>,
    state: Mutex<State>,
    /// Somebody's last socket closed.
    leaving: Notify,
}

#[derive(Default)]
struct State {
    roster: Roster,
    /// The players behind the directory's keys: those with sessions here, and those that are watched.
    players: BTreeMap<Key, PlayerId>,
    held: BTreeSet<PlayerId>,
    watched: BTreeSet<PlayerId>,
}

impl State {
    fn note(&mut self, player: PlayerId) {
        if self.held.contains(&player) || self.watched.contains(&player) {
            self.players.insert(player_key(player), player);
        } else {
            self.players.remove(&player_key(player));
        }
    }
}

impl Presence {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let presence = Arc::new(Self {
            hub: Arc::clone(hub),
            state: Mutex::default(),
            leaving: Notify::new(),
        });
        hub.spawn(Arc::clone(&presence).run());
        presence
    }

    /// Lets go of players whose linger is over.
    async fn run(self: Arc<Self>) {
        loop {
            let due = self.state().roster.next_wake_ms();
            match due {
                None => self.leaving.notified().await,
                Some(due_ms) => {
                    let wait_ms = due_ms.saturating_sub(self.hub.now_ms());
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
            }
            let now_ms = self.hub.now_ms();
            self.step(|roster, out| roster.wake(now_ms, out));
        }
    }

    pub fn session_opened(&self, session: &Session) {
        let (player, number) = (session.player(), session.attachment().number);
        self.step(|roster, out| roster.opened(player, session.id(), number, out));
    }

    pub fn session_closed(&self, session: &Session) {
        let now_ms = self.hub.now_ms();
        self.step(|roster, out| roster.closed(now_ms, session.player(), session.id(), out));
        self.leaving.notify_one();
    }

    /// A session got a seat in a match.
    pub fn seated(&self, session: &Session, target: MatchId) {
        let unix_ms = self.hub.unix_ms();
        self.step(|roster, out| roster.seated(unix_ms, session.player(), session.id(), target, out));
    }

    /// A session is no longer in a match.
    pub fn left(&self, session: &Session, target: MatchId) {
        self.step(|roster, out| roster.left(session.player(), session.id(), target, out));
    }

    /// The directory has heard something about these.
    pub fn heard(&self, keys: &[Key]) {
        let mut state = self.state();
        for key in keys {
            let Some(player) = state.players.get(key).copied() else {
                continue;
            };
            let sightings = self.hub.services().directory.sightings(player);
            let mut out = Vec::new();
            state.roster.heard(player, Standing::of(&sightings), &mut out);
            state.roster.adopt(player, &sightings, &mut out);
            self.perform(&mut state, out);
        }
    }

    /// Players with an open socket here.
    pub fn players(&self) -> usize {
        self.state().roster.players()
    }

    /// Pairs of a session here and a player that it watches.
    pub fn watches(&self) -> usize {
        self.state().roster.watches()
    }

    /// Serves a request of a session: the answer, or none when it was given already. What concerns the order of a session's requests
    /// happens before this returns.
    pub fn request(
        self: Arc<Self>,
        session: Arc<Session>,
        id: Option<i64>,
        request: PresenceRequest,
    ) -> impl Future<Output = Result<Option<ServerMessage>, Refusal>> + Send + 'static {
        let begun = match request {
            PresenceRequest::Set { status } => self.set(&session, status).map(Next::Answer),
            PresenceRequest::Watch { players } => self.watch(&session, &players),
            PresenceRequest::Unwatch { players } => self.unwatch(&session, id, &players).map(|()| Next::Answered),
        };
        async move {
            match begun? {
                Next::Answered => Ok(None),
                Next::Answer(message) => Ok(Some(message)),
                Next::Wait { players, added } => {
                    self.answer_watch(&session, id, players, added).await?;
                    Ok(None)
                }
            }
        }
    }

    fn set(&self, session: &Session, status: Option<String>) -> Result<ServerMessage, Refusal> {
        if let Some(status) = &status
            && status.chars().count() > STATUS_LEN_MAX
        {
            let message = format!("a status has at most {STATUS_LEN_MAX} characters");
            return Err(Refusal::new(ErrorCode::TooLarge, message).with("max", STATUS_LEN_MAX));
        }
        let (player, unix_ms) = (session.player(), self.hub.unix_ms());
        let standing = self.step(|roster, out| roster.set_status(unix_ms, player, status, out));
        Ok(state_of([(player, standing)]))
    }

    fn watch(&self, session: &Session, players: &[String]) -> Result<Next, Refusal> {
        let players = read_players(players)?;
        let max = self.hub.config().limits.presence_watches as usize;
        let added = self
            .step(|roster, out| roster.watch(session.id(), &players, max, out))
            .map_err(|error| Refusal::new(ErrorCode::TooLarge, error.to_string()).with("max", error.max))?;
        if session.is_closed() {
            // It closed while it asked, and its watches were dropped before these.
            self.step(|roster, out| roster.unwatch(session.id(), None, out));
        }
        Ok(Next::Wait { players, added })
    }

    fn unwatch(&self, session: &Session, id: Option<i64>, players: &[String]) -> Result<(), Refusal> {
        let players = read_players(players)?;
        let named = (!players.is_empty()).then_some(&players);
        let mut state = self.state();
        let mut out = Vec::new();
        let rest = state.roster.unwatch(session.id(), named, &mut out);
        self.perform(&mut state, out);
        let standings = rest.into_iter().map(|player| (player, self.standing(player)));
        session.send(id, &state_of(standings));
        Ok(())
    }

    /// Waits until the directory has answered, and tells the session how the players are; from then on it hears of each change.
    async fn answer_watch(
        &self,
        session: &Session,
        id: Option<i64>,
        players: BTreeSet<PlayerId>,
        added: BTreeSet<PlayerId>,
    ) -> Result<(), Refusal> {
        let directory = &self.hub.services().directory;
        let mut heard = directory.heard();
        let all = async {
            while !players.iter().all(|player| directory.is_answered(*player)) {
                if heard.changed().await.is_err() {
                    return;
                }
            }
        };
        let answered = tokio::time::timeout(ALL_HOMES_WITHIN, all).await.is_ok();
        if !answered {
            let any = async {
                while !players.iter().all(|player| directory.is_known(*player)) {
                    if heard.changed().await.is_err() {
                        return;
                    }
                }
            };
            if tokio::time::timeout(ANY_HOME_WITHIN, any).await.is_err() {
                self.step(|roster, out| roster.unwatch(session.id(), Some(&added), out));
                let message = "the nodes that know these players do not answer";
                return Err(Refusal::new(ErrorCode::Unavailable, message));
            }
        }
        // Under the lock, so that no push about them overtakes the answer.
        let mut state = self.state();
        let known = players
            .into_iter()
            .map(|player| (player, self.standing(player)))
            .collect();
        let mut out = Vec::new();
        let told = state.roster.answer(session.id(), known, &mut out);
        self.perform(&mut state, out);
        session.send(id, &state_of(told));
        Ok(())
    }

    fn standing(&self, player: PlayerId) -> Standing {
        Standing::of(&self.hub.services().directory.sightings(player))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics holding it")
    }

    fn step<T>(&self, step: impl FnOnce(&mut Roster, &mut Vec<Effect>) -> T) -> T {
        let mut state = self.state();
        let mut out = Vec::new();
        let result = step(&mut state.roster, &mut out);
        self.perform(&mut state, out);
        result
    }

    /// Under the lock of the roster, so that the directory and each session hear of things in the order in which they happened. No
    /// call here waits, and none comes back to presence.
    fn perform(&self, state: &mut State, effects: Vec<Effect>) {
        let directory = &self.hub.services().directory;
        for effect in effects {
            match effect {
                Effect::Hold {
                    player,
                    attachment,
                    fact,
                } => {
                    state.held.insert(player);
                    state.note(player);
                    directory.hold_player(player, attachment, &fact);
                }
                Effect::Release { player } => {
                    state.held.remove(&player);
                    state.note(player);
                    directory.release_player(player);
                }
                Effect::Watch { player } => {
                    state.watched.insert(player);
                    state.note(player);
                    directory.watch_player(player);
                }
                Effect::Unwatch { player } => {
                    state.watched.remove(&player);
                    state.note(player);
                    directory.unwatch_player(player);
                }
                Effect::Push {
                    player,
                    sessions,
                    standing,
                } => {
                    let message = ServerMessage::Presence(PresenceMessage::Changed {
                        player,
                        online: standing.online,
                        status: standing.status,
                    });
                    let (mut json, mut msgpack) = (None, None);
                    for session in sessions {
                        let Some(session) = self.hub.session(session) else {
                            continue;
                        };
                        let encoding = session.encoding();
                        let frame = match encoding {
                            Encoding::Json => &mut json,
                            Encoding::MsgPack => &mut msgpack,
                        };
                        session.push(frame.get_or_insert_with(|| message.encode(None, encoding)).clone());
                    }
                }
            }
        }
    }
}

/// How a request goes on once what must happen in order has happened.
enum Next {
    Answered,
    Answer(ServerMessage),
    /// `added`: those that the session did not watch before.
    Wait {
        players: BTreeSet<PlayerId>,
        added: BTreeSet<PlayerId>,
    },
}

fn read_players(players: &[String]) -> Result<BTreeSet<PlayerId>, Refusal> {
    let read = |player: &String| player.parse::<PlayerId>();
    players.iter().map(read).collect::<Result<_, _>>().map_err(|_| {
        let message = "players: each is a player's id";
        Refusal::new(ErrorCode::BadMessage, message)
    })
}

fn state_of(standings: impl IntoIterator<Item = (PlayerId, Standing)>) -> ServerMessage {
    let shown = |(player, standing): (PlayerId, Standing)| PlayerPresence {
        player,
        online: standing.online,
        status: standing.status,
        target: standing.target,
    };
    ServerMessage::Presence(PresenceMessage::State {
        players: standings.into_iter().map(shown).collect(),
    })
}
