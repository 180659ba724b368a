//! Worlds: sets of zones that should always exist, and the way into them. A zone is a match of kind `zone` under the name
//! `<world>/<zone>`; whoever knows that name or the match's id may join it like any other.
//!
//! Every node answers for all worlds of its configuration, from the zones' rows and from what their owners say; an answer is at
//! most [`SEEN_FOR`] old. The leader places what is missing and moves zones between nodes (`placement`, `task`); what it is to be
//! is said by the configuration of the leading node, so that all nodes should have the same one.
//!
//! Not here: what becomes of a dead node's zones (they go on elsewhere from what was saved, like every stored match), and
//! crossing from zone to zone (a transfer between matches).

pub mod overview;
pub mod placement;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rookery_gossip::MemberState;
use rookery_protocol::client::{JoinRole, Payload, ServerMessage, WorldMessage, WorldRequest, WorldState, ZoneState};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{PeerAnswer, PeerRequest, ZoneHere, ZonesHere};
use rookery_protocol::{MatchId, NodeLife, NodeName, PlayerId};
use tokio::sync::Notify;
use tracing::warn;

use self::overview::{Owner, WorldSeen};
use crate::modules::unavailable;
use crate::ops::view::{WorldView, WorldsView, ZoneView};
use crate::peer::MODULES_GROUP;
use crate::session::Session;
use crate::session::hub::{Hub, node_id};
use crate::session::link::{JoinAsk, Seating};
use crate::session::listener::Listener;
use crate::store::ZoneRow;

/// How old an answer about worlds may be.
const SEEN_FOR: Duration = Duration::from_secs(1);

/// How long an owner may take to say who is in its zones. Who takes longer has no players in the answer.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// When a client whose world is not online yet may try again.
const RETRY_MS: u64 = 1_000;

/// Most zones asked for in one question of another node.
const ASKED_MAX: usize = 4_096;

/// What the leader has to say of zones.
#[derive(Debug, Clone, Default)]
struct Duties {
    moving: BTreeSet<String>,
    /// Zones that do not run, and why.
    trouble: BTreeMap<String, String>,
}

struct Seen {
    at: Instant,
    worlds: Arc<Vec<WorldSeen>>,
}

/// The worlds of this node's configuration.
pub struct Worlds {
    hub: Arc<Hub>,
    /// Looked at by one at a time; the others wait for what it sees.
    seen: tokio::sync::Mutex<Option<Seen>>,
    duties: Mutex<Duties>,
    /// A module was published, or something else made a look worth while.
    nudge: Notify,
}

impl Worlds {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        let worlds = Arc::new(Self {
            hub: Arc::clone(hub),
            seen: tokio::sync::Mutex::new(None),
            duties: Mutex::default(),
            nudge: Notify::new(),
        });
        for (world, configured) in &hub.config().worlds.by_name {
            for zone in configured.strangers() {
                warn!(world, zone, "neighbours name a zone that this world does not have");
            }
        }
        if !hub.config().worlds.by_name.is_empty() {
            hub.spawn(task::run(Arc::clone(&worlds)));
        }
        worlds
    }

    /// Serves a request of a session: the answer, or none when it was given already.
    ///
    /// # Errors
    /// The refusal that the client is told.
    pub async fn request(
        self: Arc<Self>,
        session: Arc<Session>,
        id: Option<i64>,
        request: WorldRequest,
    ) -> Result<Option<ServerMessage>, Refusal> {
        match request {
            WorldRequest::List => {
                let worlds = self.look(SEEN_FOR).await?.iter().map(world_state).collect();
                Ok(Some(ServerMessage::World(WorldMessage::Listed { worlds })))
            }
            WorldRequest::Enter { world, zone, ctx } => {
                self.enter(session, id, &world, zone, ctx).await?;
                Ok(None)
            }
        }
    }

    /// Seats a player in a zone: the one that is named, or where the player sits already, or the world's entry.
    async fn enter(
        &self,
        session: Arc<Session>,
        id: Option<i64>,
        world: &str,
        zone: Option<String>,
        ctx: Payload,
    ) -> Result<(), Refusal> {
        let Some(rules) = self.hub.config().worlds.by_name.get(world) else {
            return Err(Refusal::new(
                ErrorCode::WorldNotFound,
                format!("there is no world {world}"),
            ));
        };
        if let Some(zone) = &zone
            && !rules.zones.contains_key(zone)
        {
            let message = format!("world {world} has no zone {zone}");
            return Err(Refusal::new(ErrorCode::WorldNotFound, message));
        }
        let seen = self.online(world).await?;
        let seated = self.seats_of(&seen, session.player()).await;
        let sits_in = seen
            .zones
            .iter()
            .find(|zone| zone.target().is_some_and(|target| seated.contains(&target)));
        let zone = match (zone, sits_in) {
            (Some(zone), Some(other)) if other.zone != zone => {
                let message = format!("the player is in zone {} of this world; leave it first", other.zone);
                let refusal = Refusal::new(ErrorCode::MatchTooMany, message).with("zone", other.zone.clone());
                return Err(match other.target() {
                    Some(target) => refusal.with("match", target.to_string()),
                    None => refusal,
                });
            }
            (Some(zone), Some(_) | None) => zone,
            (None, Some(other)) => other.zone.clone(),
            (None, None) => rules.entry_zone().unwrap_or_default().to_owned(),
        };
        let target = seen
            .zones
            .iter()
            .find(|seen| seen.zone == zone)
            .and_then(|seen| seen.target());
        let Some(target) = target else {
            return Err(not_online(world, "the zone is not there"));
        };
        let ask = JoinAsk {
            session,
            id,
            seating: Seating {
                role: JoinRole::Player,
                ctx: ctx.into(),
                moved_from: None,
            },
            verdict: None,
        };
        self.hub.join(&target.to_string(), ask).await
    }

    /// A world that is online. One that is not is looked at again: what is a second old may be wrong by now.
    async fn online(&self, world: &str) -> Result<WorldSeen, Refusal> {
        let mut why = "it is not known yet".to_owned();
        for age in [SEEN_FOR, Duration::ZERO] {
            let worlds = self.look(age).await?;
            match worlds.iter().find(|seen| seen.world == world) {
                Some(seen) if seen.is_online() => return Ok(seen.clone()),
                Some(seen) => why = seen.why().unwrap_or(why),
                None => {}
            }
        }
        Err(not_online(world, &why))
    }

    /// The zones of a world in which a player has a seat, whichever session took it.
    async fn seats_of(&self, world: &WorldSeen, player: PlayerId) -> BTreeSet<MatchId> {
        let rows = world
            .zones
            .iter()
            .filter_map(|zone| zone.row.clone())
            .collect::<Vec<_>>();
        let answers = self.ask_owners(&rows, Some(player)).await;
        let zones = answers.into_values().flatten().flat_map(|here| here.zones);
        zones.filter(|zone| zone.seated).map(|zone| zone.target).collect()
    }

    /// What operators hear.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn view(&self) -> Result<WorldsView, Refusal> {
        let worlds = self.look(SEEN_FOR).await?.iter().map(world_view).collect();
        Ok(WorldsView { worlds })
    }

    /// What another node wants to know of the zones that are here.
    pub async fn here(&self, targets: Vec<MatchId>, player: Option<PlayerId>) -> ZonesHere {
        let mut zones = Vec::new();
        for target in targets.into_iter().take(ASKED_MAX) {
            if let Some(seats) = self.hub.executor().seats(target, player).await {
                zones.push(ZoneHere {
                    target,
                    players: seats.players,
                    seated: seats.is_seated,
                });
            }
        }
        let Duties { moving, trouble } = self.duties().clone();
        ZonesHere {
            zones,
            moving: moving.into_iter().collect(),
            trouble: trouble.into_iter().collect(),
        }
    }

    /// Something was said to a group.
    pub fn broadcast(&self, group: &str) {
        if group == MODULES_GROUP {
            self.published();
        }
    }

    /// A module was published: a world may come online by it.
    pub fn published(&self) {
        self.nudge.notify_one();
    }

    fn duties(&self) -> std::sync::MutexGuard<'_, Duties> {
        self.duties.lock().expect("no thread panics holding it")
    }

    /// All worlds, as they were seen at most so long ago.
    async fn look(&self, age: Duration) -> Result<Arc<Vec<WorldSeen>>, Refusal> {
        let asked = Instant::now();
        let mut seen = self.seen.lock().await;
        // Who waited for another's look takes what that saw.
        if let Some(seen) = &*seen
            && (seen.at.elapsed() < age || seen.at >= asked)
        {
            return Ok(Arc::clone(&seen.worlds));
        }
        let at = Instant::now();
        let worlds = Arc::new(self.look_now().await?);
        *seen = Some(Seen {
            at,
            worlds: Arc::clone(&worlds),
        });
        Ok(worlds)
    }

    async fn look_now(&self) -> Result<Vec<WorldSeen>, Refusal> {
        let rows = self.rows().await?;
        let rows_of_zones: Vec<ZoneRow> = rows.values().cloned().collect();
        let answers = self.ask_owners(&rows_of_zones, None).await;
        let unpublished = self.unpublished().await;
        let members = self.hub.cluster().members().borrow().clone();
        let mut owners: BTreeMap<NodeLife, Owner> = BTreeMap::new();
        for row in rows.values() {
            owners.entry(row.owner.clone()).or_insert_with(|| {
                let member = node_id(&row.owner.name).and_then(|node| members.get(&node));
                let lives = member.is_some_and(|member| {
                    member.peer.generation == row.owner.generation && member.state != MemberState::Dead
                });
                let answer = answers.get(&row.owner.name).cloned().flatten();
                match (lives, answer) {
                    (false, _) => Owner::Gone,
                    (true, None) => Owner::Silent,
                    (true, Some(here)) => Owner::Says(here.zones),
                }
            });
        }
        let mut leader = Duties::default();
        for here in answers.into_values().flatten() {
            leader.moving.extend(here.moving);
            leader.trouble.extend(here.trouble);
        }
        let facts = overview::Facts {
            rows,
            owners,
            unpublished,
            moving: leader.moving,
            trouble: leader.trouble,
        };
        Ok(overview::assemble(&self.hub.config().worlds.by_name, &facts))
    }

    /// The live rows of all zones, by their names.
    async fn rows(&self) -> Result<BTreeMap<String, ZoneRow>, Refusal> {
        let names = overview::names(&self.hub.config().worlds.by_name);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let rows = self
            .hub
            .store()
            .zones(&names)
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(rows.into_iter().map(|row| (row.name.clone(), row)).collect())
    }

    /// The modules of zones that are not published, and what is said of each.
    async fn unpublished(&self) -> BTreeMap<String, String> {
        let worlds = &self.hub.config().worlds.by_name;
        let modules: BTreeSet<&String> = worlds
            .values()
            .flat_map(|world| world.zones.values().map(|zone| &zone.module))
            .collect();
        let mut unpublished = BTreeMap::new();
        for module in modules {
            match self.hub.modules().resolve(module).await {
                Ok(_) => {}
                Err(refusal) => drop(unpublished.insert(module.clone(), refusal.message)),
            }
        }
        unpublished
    }

    /// Asks the owners of these zones, and the leader, each once and all at the same time. None of those that do not answer.
    async fn ask_owners(&self, rows: &[ZoneRow], player: Option<PlayerId>) -> BTreeMap<NodeName, Option<ZonesHere>> {
        let mut wanted: BTreeMap<NodeName, Vec<MatchId>> = BTreeMap::new();
        for row in rows {
            wanted.entry(row.owner.name.clone()).or_default().push(row.id);
        }
        if let Some(leader) = self.hub.services().leader.name() {
            wanted.entry(leader).or_default();
        }
        let mut asking = tokio::task::JoinSet::new();
        let mut answers = BTreeMap::new();
        for (node, targets) in wanted {
            if node == self.hub.local().name {
                let here = self.here(targets, player).await;
                answers.insert(node, Some(here));
                continue;
            }
            let hub = Arc::clone(&self.hub);
            asking.spawn(async move {
                let request = PeerRequest::Zones { targets, player };
                let answer = hub.ask(&node, &request, ASK_WITHIN).await;
                let here = match answer {
                    Ok(PeerAnswer::Zones(here)) => Some(*here),
                    Ok(_) | Err(_) => None,
                };
                (node, here)
            });
        }
        while let Some(asked) = asking.join_next().await {
            if let Ok((node, here)) = asked {
                answers.insert(node, here);
            }
        }
        answers
    }
}

fn not_online(world: &str, why: &str) -> Refusal {
    Refusal::new(ErrorCode::WorldNotOnline, format!("world {world} is not online: {why}"))
        .with("why", why)
        .with("retry_ms", RETRY_MS)
}

fn world_state(seen: &WorldSeen) -> WorldState {
    WorldState {
        world: seen.world.clone(),
        online: seen.is_online(),
        why: seen.why(),
        zones: seen
            .zones
            .iter()
            .map(|zone| ZoneState {
                zone: zone.zone.clone(),
                target: zone.target(),
                state: zone.state.as_str().into(),
                players: zone.players,
                neighbours: zone.neighbours.clone(),
            })
            .collect(),
    }
}

fn world_view(seen: &WorldSeen) -> WorldView {
    WorldView {
        world: seen.world.clone(),
        online: seen.is_online(),
        why: seen.why(),
        zones: seen
            .zones
            .iter()
            .map(|zone| ZoneView {
                zone: zone.zone.clone(),
                id: zone.target(),
                owner: zone.row.as_ref().map(|row| row.owner.name.to_string()),
                state: zone.state.as_str().into(),
                players: zone.players,
                neighbours: zone.neighbours.clone(),
            })
            .collect(),
    }
}
