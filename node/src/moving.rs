//! Handing a match over while both nodes live: the owner stops it at an event boundary and sends all that it is; the next owner
//! loads it, and makes itself the owner by one compare-and-swap.
//!
//! Invariants: between the stop and the swap nobody speaks for the match. The swap decides: an owner that does not hear how it
//! went swaps too, to itself, and exactly one of the two succeeds. The match keeps its id, its incarnation, its numbers and its
//! seats; its players hear a pause.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_gossip::MemberState;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{self, Handover, MoveCause, PeerAnswer, PeerRequest};
use rookery_protocol::{MatchId, NodeLife, NodeName};

use crate::matches::part::HostPart;
use crate::metrics::{MoveReason, PauseReason};
use crate::modules::{Purpose, unavailable};
use crate::owner::executor::{Frozen, Origin, Restored};
use crate::owner::room::Resumption;
use crate::session::hub::{Hub, node_id};
use crate::store::{Cas, Configuration, MatchKind, MatchRow, MatchStatus, Swap};

/// One piece of a match on its way: these go over the connection that gossip uses too, one at a time, and must not delay it.
const PIECE_BYTES: usize = 256 << 10;

/// The most that a match on its way may be: its memory is bounded by `limits.match_memory`, and `save` by 16 MiB.
const HANDOVER_BYTES_MAX: usize = 32 << 20;

/// Matches that may be on their way to this node at once.
const INCOMING_MAX: usize = 64;

/// A match of which no piece came for this long is not coming.
const PIECE_WITHIN: Duration = Duration::from_secs(10);

/// How long the next owner may take to compile the module. The match plays on meanwhile.
const PREPARE_WITHIN: Duration = Duration::from_secs(20);

/// How long it may take for one piece; with the last one it loads the match and asks the store.
const TAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long a node that asks for a move waits for the owner.
const MOVE_WITHIN: Duration = Duration::from_secs(40);

/// Between two tries of the store, when it must be known who owns a match.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// Matches on their way to this node, by id and the epoch that they come from.
#[derive(Debug, Default)]
pub struct Incoming {
    matches: Mutex<BTreeMap<(MatchId, u64), Arriving>>,
}

#[derive(Debug)]
struct Arriving {
    bytes: Vec<u8>,
    pieces: u32,
    heard: Instant,
}

impl Incoming {
    /// Takes the next piece. Returns the whole when it was the last one.
    fn take(&self, key: (MatchId, u64), piece: u32, pieces: u32, bytes: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let mut matches = self.matches.lock().expect("no thread panics holding it");
        matches.retain(|_, arriving| arriving.heard.elapsed() < PIECE_WITHIN);
        if piece == 0 {
            if matches.len() >= INCOMING_MAX {
                return Err(Refusal::new(
                    ErrorCode::Unavailable,
                    "too many matches are on their way here",
                ));
            }
            let arriving = Arriving {
                bytes: Vec::new(),
                pieces: 0,
                heard: Instant::now(),
            };
            matches.insert(key, arriving);
        }
        let Some(arriving) = matches.get_mut(&key).filter(|arriving| arriving.pieces == piece) else {
            return Err(Refusal::new(
                ErrorCode::BadMessage,
                "the pieces of the match do not follow each other",
            ));
        };
        if arriving.bytes.len() + bytes.len() > HANDOVER_BYTES_MAX {
            matches.remove(&key);
            return Err(Refusal::new(ErrorCode::TooLarge, "the match is too large to be moved"));
        }
        arriving.bytes.extend_from_slice(bytes);
        arriving.pieces += 1;
        arriving.heard = Instant::now();
        if arriving.pieces < pieces {
            return Ok(None);
        }
        Ok(matches.remove(&key).map(|arriving| arriving.bytes))
    }
}

impl Hub {
    /// Moves a live match to another node, whoever owns it now: to the one that is named, or to the least loaded of two others.
    /// Returns where it is.
    ///
    /// # Errors
    /// Why it stays where it is: `match.not_found`, `match.closed`, `node.not_found`, `match.refused` (the module does not go on
    /// from what it saves), `unavailable`.
    pub async fn move_match(
        self: &Arc<Self>,
        target: MatchId,
        to: Option<NodeName>,
        cause: MoveCause,
    ) -> Result<NodeName, Refusal> {
        let row = self
            .store()
            .read_match(target)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(row) = row else {
            return Err(Refusal::new(
                ErrorCode::MatchNotFound,
                format!("there is no match {target}"),
            ));
        };
        if !row.status.is_live() {
            return Err(Refusal::new(ErrorCode::MatchClosed, "the match is over").with("status", row.status.as_str()));
        }
        let owner = row.configuration.owner.name;
        let to = match to {
            Some(to) => to,
            None => self
                .place_beside(&owner)
                .ok_or_else(|| Refusal::new(ErrorCode::Unavailable, "there is no other node that takes matches"))?,
        };
        if to == owner {
            return Ok(to);
        }
        let order = PeerRequest::Move {
            target,
            to: to.clone(),
            cause,
        };
        match self.ask(&owner, &order, MOVE_WITHIN).await? {
            PeerAnswer::Done => Ok(to),
            PeerAnswer::Refused(refusal) => Err(refusal),
            _ => Err(Refusal::new(
                ErrorCode::Unavailable,
                "the match is not with its owner now; try again",
            )),
        }
    }
}

/// Hands a match of this node over to another one.
pub async fn hand_over(hub: Arc<Hub>, target: MatchId, to: NodeName, cause: MoveCause) -> PeerAnswer {
    if hub.executor().epoch_of(target).is_none() {
        return PeerAnswer::NotHere;
    }
    match try_hand_over(&hub, target, &to, cause).await {
        Ok(()) => PeerAnswer::Done,
        Err(refusal) => {
            tracing::warn!(%target, %to, %refusal, "a match was not moved");
            PeerAnswer::Refused(refusal)
        }
    }
}

async fn try_hand_over(hub: &Arc<Hub>, target: MatchId, to: &NodeName, cause: MoveCause) -> Result<(), Refusal> {
    let next = life_that_takes(hub, to)?;
    let row = hub
        .store()
        .read_match(target)
        .await
        .map_err(|error| unavailable(&error))?;
    let row = row.ok_or_else(|| Refusal::new(ErrorCode::MatchNotFound, "there is no such match"))?;
    let prepare = PeerRequest::Prepare { digest: row.digest };
    expect_done(hub.ask_other(to, &prepare, PREPARE_WITHIN).await?)?;

    let paused = Instant::now();
    let Some(frozen) = hub.executor().freeze(target).await else {
        return Err(Refusal::new(
            ErrorCode::Unavailable,
            "the match is over, or being moved, or its lease has lapsed",
        ));
    };
    let epoch = frozen.epoch;
    match send(hub, target, &next, frozen, cause).await {
        Outcome::Taken => {
            hub.executor().drop_match(target, epoch);
            hub.metrics().match_paused(PauseReason::Move, paused.elapsed());
            tracing::info!(%target, %to, pause_ms = paused.elapsed().as_millis() as u64, "a match was moved");
            Ok(())
        }
        Outcome::Refused(refusal) => {
            hub.executor().thaw(target, epoch);
            Err(refusal)
        }
        Outcome::Unknown(refusal) => {
            let from = Configuration {
                epoch,
                ..row.configuration.clone()
            };
            // Whoever asked has waited long enough; the match has not.
            let settling = Arc::clone(hub);
            hub.spawn(async move { settle(&settling, target, from).await });
            Err(refusal)
        }
    }
}

/// How the sending of a match ended.
enum Outcome {
    /// The next owner has it.
    Taken,
    /// It does not, and will not.
    Refused(Refusal),
    /// It may.
    Unknown(Refusal),
}

async fn send(hub: &Arc<Hub>, target: MatchId, next: &NodeLife, frozen: Frozen, cause: MoveCause) -> Outcome {
    let Frozen { epoch, version, room } = frozen;
    let whole = peer::encode(&Handover {
        target,
        epoch,
        saved_by: version.to_string(),
        state: room.state,
        part: room.part,
        streams: room.streams,
        cause,
    });
    if whole.len() > HANDOVER_BYTES_MAX {
        return Outcome::Refused(Refusal::new(ErrorCode::TooLarge, "the match is too large to be moved"));
    }
    let pieces = whole.len().div_ceil(PIECE_BYTES) as u32;
    for piece in 0..pieces {
        let from = piece as usize * PIECE_BYTES;
        let request = PeerRequest::Take {
            target,
            epoch,
            piece,
            pieces,
            bytes: whole.slice(from..whole.len().min(from + PIECE_BYTES)),
        };
        let is_last = piece + 1 == pieces;
        match hub.ask_other(&next.name, &request, TAKE_WITHIN).await {
            Ok(PeerAnswer::Done) if is_last => return Outcome::Taken,
            Ok(PeerAnswer::Done) => {}
            Ok(PeerAnswer::Refused(refusal)) => return Outcome::Refused(refusal),
            Ok(_) if is_last => {
                return Outcome::Unknown(Refusal::new(ErrorCode::Unavailable, "the node is stopping"));
            }
            Ok(_) => return Outcome::Refused(Refusal::new(ErrorCode::Unavailable, "the node answers something else")),
            // Without its last piece it has nothing.
            Err(refusal) if !is_last => return Outcome::Refused(refusal),
            Err(refusal) => return Outcome::Unknown(refusal),
        }
    }
    Outcome::Refused(Refusal::new(ErrorCode::Internal, "the match has no pieces"))
}

/// Finds out whose a match is whose next owner did not answer, by making it ours under an epoch that the other cannot take it from.
async fn settle(hub: &Arc<Hub>, target: MatchId, from: Configuration) {
    let to = Configuration {
        epoch: from.epoch + 1,
        owner: hub.local().clone(),
        backup: None,
    };
    let swap = Swap {
        id: target,
        from,
        to: to.clone(),
        new_incarnation: false,
    };
    loop {
        match hub.store().swap_owner(&swap).await {
            Ok(Cas::Done) => return hub.executor().thaw(target, to.epoch),
            Ok(Cas::Superseded(_)) => return hub.executor().drop_match(target, swap.from.epoch),
            Err(error) => {
                tracing::warn!(%target, error = &error as &dyn std::error::Error, "the store is away: whose the match is will show");
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
    }
}

/// Has a module compiled for a match that is about to come.
pub async fn prepare(hub: &Arc<Hub>, digest: rookery_protocol::Digest) -> PeerAnswer {
    match hub.modules().load(digest, Purpose::RunningMatch).await {
        Ok(_) => PeerAnswer::Done,
        Err(refusal) => PeerAnswer::Refused(refusal),
    }
}

/// Takes one piece of a match, and with the last one the match.
pub async fn take(hub: &Arc<Hub>, target: MatchId, epoch: u64, piece: (u32, u32), bytes: &Bytes) -> PeerAnswer {
    let whole = match hub.incoming().take((target, epoch), piece.0, piece.1, bytes) {
        Ok(None) => return PeerAnswer::Done,
        Ok(Some(whole)) => whole,
        Err(refusal) => return PeerAnswer::Refused(refusal),
    };
    let Ok(handover) = peer::decode::<Handover>(&whole) else {
        let message = "the match cannot be read by this version";
        return PeerAnswer::Refused(Refusal::new(ErrorCode::BadMessage, message));
    };
    // What the owner hears does not depend on whether it still waits: once begun, this comes to its end.
    let taking = Arc::clone(hub);
    let (told, answer) = tokio::sync::oneshot::channel();
    hub.spawn(async move {
        let _ = told.send(become_owner(&taking, handover).await);
    });
    match answer.await {
        Ok(Ok(())) => PeerAnswer::Done,
        Ok(Err(refusal)) => PeerAnswer::Refused(refusal),
        // The node is stopping, and may have become the owner before.
        Err(_) => PeerAnswer::NotHere,
    }
}

async fn become_owner(hub: &Arc<Hub>, handover: Handover) -> Result<(), Refusal> {
    let Handover {
        target, epoch, cause, ..
    } = handover;
    let row = hub
        .store()
        .read_match(target)
        .await
        .map_err(|error| unavailable(&error))?;
    let Some(row) = row.filter(|row| row.status == MatchStatus::Running && row.configuration.epoch == epoch) else {
        return Err(Refusal::new(
            ErrorCode::Unavailable,
            "the match is not its sender's any more",
        ));
    };
    if !hub.fence().is_open() {
        return Err(Refusal::new(ErrorCode::Unavailable, "the node's lease has lapsed"));
    }
    let to = Configuration {
        epoch: epoch + 1,
        owner: hub.local().clone(),
        backup: None,
    };
    let (from, incarnation) = (row.configuration.clone(), row.incarnation);
    let ours = MatchRow {
        configuration: to.clone(),
        ..row
    };
    let gateways: Vec<NodeLife> = handover.streams.iter().map(|stream| stream.gateway.clone()).collect();
    load(hub, &ours, handover).await?;
    let swap = Swap {
        id: target,
        from,
        to: to.clone(),
        new_incarnation: false,
    };
    match swap_until_known(hub, &swap).await {
        Cas::Done => {
            hub.executor().release(target);
            for gateway in gateways.iter().filter(|gateway| hub.is_gone(gateway)) {
                hub.executor().gateway_gone(&gateway.name, gateway.generation);
            }
            hub.announce(target, to.epoch, incarnation);
            // Counted where the match arrives: a node that drains is gone before anybody has read its figures.
            hub.metrics().match_moved(reason_of(cause));
            if ours.kind == MatchKind::Zone {
                hub.metrics().zone_moves.inc();
            }
            Ok(())
        }
        Cas::Superseded(_) => {
            hub.executor().drop_match(target, to.epoch);
            Err(Refusal::new(ErrorCode::Unavailable, "the match has another owner"))
        }
    }
}

async fn load(hub: &Arc<Hub>, ours: &MatchRow, handover: Handover) -> Result<(), Refusal> {
    let module = hub.modules().load(ours.digest, Purpose::RunningMatch).await?;
    let part = HostPart::decode(&handover.part).map_err(|_| {
        Refusal::new(
            ErrorCode::BadMessage,
            "the match's state cannot be read by this version",
        )
    })?;
    let restored = Restored {
        why: Resumption::Moved,
        saved_by: handover.saved_by,
        state: handover.state,
        part: part.resumed(ours.incarnation as u32, hub.unix_ms()),
        streams: handover.streams,
    };
    hub.put(ours, module, Origin::Saved(Box::new(restored))).await
}

/// A swap whose answer is lost is asked for again: the same swap is answered like the first.
async fn swap_until_known(hub: &Arc<Hub>, swap: &Swap) -> Cas {
    loop {
        match hub.store().swap_owner(swap).await {
            Ok(cas) => return cas,
            Err(error) => {
                tracing::warn!(target = %swap.id, error = &error as &dyn std::error::Error, "the store is away: a match on its way here waits");
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
    }
}

fn expect_done(answer: PeerAnswer) -> Result<(), Refusal> {
    match answer {
        PeerAnswer::Done => Ok(()),
        PeerAnswer::Refused(refusal) => Err(refusal),
        _ => Err(Refusal::new(ErrorCode::Unavailable, "the node answers something else")),
    }
}

/// The life of a node that takes matches.
fn life_that_takes(hub: &Hub, name: &NodeName) -> Result<NodeLife, Refusal> {
    let members = hub.cluster().members().borrow().clone();
    let member = node_id(name).and_then(|node| members.get(&node).cloned());
    match member {
        None => Err(Refusal::new(
            ErrorCode::NodeNotFound,
            format!("no node is called {name}"),
        )),
        Some(member) if member.state == MemberState::Ready => Ok(NodeLife {
            name: name.clone(),
            generation: member.peer.generation,
        }),
        Some(member) => Err(Refusal::new(
            ErrorCode::Unavailable,
            format!("node {name} takes no matches: it is {}", member.state.as_str()),
        )),
    }
}

fn reason_of(cause: MoveCause) -> MoveReason {
    match cause {
        MoveCause::Drain => MoveReason::Drain,
        MoveCause::Rebalance => MoveReason::Rebalance,
        MoveCause::Operator => MoveReason::Operator,
    }
}
