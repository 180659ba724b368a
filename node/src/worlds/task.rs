//! The driver of placement: while this node leads, it looks once a second at what there is, and does what the machine says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rookery_gossip::{MemberState, Members};
use rookery_protocol::client::Payload;
use rookery_protocol::peer::MoveCause;
use rookery_protocol::{MatchId, NodeLife, NodeName};
use tokio::sync::mpsc;

use super::placement::{Cause, Host, Input, Order, Placed, Placement, Situation, Wish};
use super::{Duties, Worlds, overview};
use crate::clock::boot_ms;
use crate::store::MatchStatus;

/// How often the leader looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Outcomes of orders that wait. There are never more orders under way.
const OUTCOMES_MAX: usize = super::placement::PLACED_AT_ONCE + super::placement::MOVED_AT_ONCE;

/// The fact of each node that says which worlds it has in its configuration.
const FACT: &str = "worlds";

/// Looks and acts until the node stops.
pub(super) async fn run(worlds: Arc<Worlds>) {
    let digest = digest_of(&worlds);
    if let Err(error) = worlds.hub.cluster().set_fact(FACT, &digest) {
        tracing::warn!(%error, "which worlds this node has cannot be stated");
    }
    let (done, mut outcomes) = mpsc::channel(OUTCOMES_MAX);
    let mut placement = Placement::default();
    let mut led = false;
    let mut differing = Vec::new();
    loop {
        tokio::select! {
            Some(input) = outcomes.recv() => {
                placement.step(boot_ms(), input, &mut Vec::new());
                note(&worlds, &placement);
                // What else waits is looked at with the next look.
                continue;
            }
            () = worlds.nudge.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        warn_of_others(&worlds, &digest, &mut differing);
        if worlds.hub.services().leader.term().is_none() {
            if std::mem::take(&mut led) {
                placement.step(boot_ms(), Input::Deposed, &mut Vec::new());
                note(&worlds, &placement);
                worlds.hub.metrics().zones(&BTreeMap::new());
            }
            continue;
        }
        led = true;
        let Some(situation) = situation(&worlds).await else {
            continue;
        };
        count(&worlds, &situation, &placement);
        let mut orders = Vec::new();
        placement.step(boot_ms(), Input::Look(situation), &mut orders);
        note(&worlds, &placement);
        for order in orders {
            let (worlds, done) = (Arc::clone(&worlds), done.clone());
            let hub = Arc::clone(&worlds.hub);
            hub.spawn(async move {
                let input = perform(&worlds, order).await;
                // Closed: the node stops.
                let _ = done.send(input).await;
            });
        }
    }
}

/// Everything that placement goes by; none when the store does not answer.
async fn situation(worlds: &Arc<Worlds>) -> Option<Situation> {
    let hub = &worlds.hub;
    let rows = match worlds.rows().await {
        Ok(rows) => rows,
        Err(refusal) => {
            tracing::debug!(%refusal, "zones wait");
            return None;
        }
    };
    let unpublished = worlds.unpublished().await;
    let mut zones = BTreeMap::new();
    for (world, rules) in &hub.config().worlds.by_name {
        for (zone, wish) in &rules.zones {
            let why_not = unpublished.get(&wish.module).cloned();
            zones.insert(overview::name(world, zone), Wish { why_not });
        }
    }
    let members = hub.cluster().members().borrow().clone();
    Some(Situation {
        zones,
        rows: rows
            .into_iter()
            .map(|(name, row)| {
                let placed = Placed {
                    target: row.id,
                    owner: row.owner,
                    is_running: row.status == MatchStatus::Running,
                };
                (name, placed)
            })
            .collect(),
        nodes: hosts(&members, worlds),
    })
}

fn hosts(members: &Members, worlds: &Worlds) -> BTreeMap<NodeName, Host> {
    let local = &worlds.hub.local().name;
    members
        .iter()
        .filter_map(|member| {
            let takes_zones = match member.state {
                MemberState::Ready => true,
                MemberState::Draining => false,
                // A node that is suspected may be gone: its zones stay, and it gets none.
                MemberState::Joining | MemberState::Leaving | MemberState::Suspect | MemberState::Dead => return None,
            };
            let name: NodeName = member.peer.node.as_str().parse().ok()?;
            let load = if name == *local {
                worlds.hub.executor().owned()
            } else {
                member.facts.get("load").and_then(|load| load.parse().ok()).unwrap_or(0)
            };
            let host = Host {
                generation: member.peer.generation,
                takes_zones,
                load,
            };
            Some((name, host))
        })
        .collect()
}

async fn perform(worlds: &Arc<Worlds>, order: Order) -> Input {
    match order {
        Order::Place { zone, on } => {
            let outcome = place(worlds, &zone, on.clone()).await;
            match &outcome {
                Ok(target) => tracing::info!(zone, %target, node = %on.name, "a zone was placed"),
                Err(why) => tracing::warn!(zone, node = %on.name, why, "a zone was not placed"),
            }
            let outcome = outcome.map(|_| ());
            Input::Placed { zone, outcome }
        }
        Order::Move {
            zone,
            target,
            from,
            to,
            cause,
        } => {
            let cause = match cause {
                Cause::Drain => MoveCause::Drain,
                Cause::Uneven => MoveCause::Rebalance,
            };
            let moved = worlds.hub.move_match(target, Some(to.name.clone()), cause).await;
            let outcome = moved.map(|_| ()).map_err(|refusal| refusal.message);
            match &outcome {
                Ok(()) => {
                    tracing::info!(zone, %target, from = %from.name, to = %to.name, "a zone was moved");
                }
                Err(why) => {
                    tracing::warn!(zone, %target, from = %from.name, to = %to.name, why, "a zone was not moved");
                }
            }
            Input::Moved { zone, outcome }
        }
    }
}

/// Creates the zone's match. Its name is unique among live ones, so that nothing is made twice whoever else does the same.
async fn place(worlds: &Arc<Worlds>, name: &str, on: NodeLife) -> Result<MatchId, String> {
    // Not by who has lost the leadership while this waited for its turn.
    if worlds.hub.services().leader.term().is_none() {
        return Err("another node leads now".into());
    }
    let by_name = &worlds.hub.config().worlds.by_name;
    let wish = name
        .split_once('/')
        .and_then(|(world, zone)| by_name.get(world)?.zones.get(zone))
        .ok_or("it is not in the configuration")?;
    let params = match &wish.params {
        serde_json::Value::Null => Payload::Absent,
        params => Payload::Json(params.to_string().into()),
    };
    let created = worlds.hub.create_zone(name.to_owned(), &wish.module, params, on).await;
    created.map_err(
        |refusal| match refusal.details.get("reason").and_then(|reason| reason.as_str()) {
            Some(reason) => format!("{}: {reason}", refusal.message),
            None => refusal.message,
        },
    )
}

/// Keeps what others ask about up to date.
fn note(worlds: &Worlds, placement: &Placement) {
    *worlds.duties() = Duties {
        moving: placement.moving().map(str::to_owned).collect(),
        trouble: placement
            .trouble()
            .map(|(zone, why)| (zone.to_owned(), why.to_owned()))
            .collect(),
    };
}

/// The zones of all worlds by state, counted by the leader alone, so that a sum over nodes is right.
fn count(worlds: &Worlds, situation: &Situation, placement: &Placement) {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for zone in situation.zones.keys() {
        let runs = situation.rows.get(zone).is_some_and(|row| {
            let owner = situation.nodes.get(&row.owner.name);
            row.is_running && owner.is_some_and(|host| host.generation == row.owner.generation)
        });
        let state = if placement.is_moving(zone) {
            overview::Whereabouts::Moving
        } else if runs {
            overview::Whereabouts::Running
        } else {
            overview::Whereabouts::Missing
        };
        *counts.entry(state.as_str()).or_default() += 1;
    }
    worlds.hub.metrics().zones(&counts);
}

/// Which worlds this node has, in a few letters.
fn digest_of(worlds: &Worlds) -> String {
    let mut text = String::new();
    for (world, rules) in &worlds.hub.config().worlds.by_name {
        for (zone, wish) in &rules.zones {
            text += &format!("{world}/{zone} {} {}\n", wish.module, wish.params);
        }
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says so, once for each change, when other nodes have other worlds: the leader's count, whoever that is.
fn warn_of_others(worlds: &Worlds, digest: &str, differing: &mut Vec<NodeName>) {
    let members = worlds.hub.cluster().members().borrow().clone();
    let others: Vec<NodeName> = members
        .ready()
        .filter(|member| member.facts.get(FACT).is_none_or(|fact| fact != digest))
        .filter_map(|member| member.peer.node.as_str().parse().ok())
        .filter(|name| *name != worlds.hub.local().name)
        .collect();
    if others != *differing {
        if !others.is_empty() {
            let nodes: Vec<&str> = others.iter().map(NodeName::as_str).collect();
            tracing::warn!(
                nodes = nodes.join(", "),
                "these nodes have other worlds in their configuration: what the leader has is placed, each node serves its own"
            );
        }
        *differing = others;
    }
}
