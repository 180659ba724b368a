//! What executor threads hand to the rest of the node: frames to gateways at once; effects and ends to tasks that may wait for
//! the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rookery_protocol::peer::{self, Down, Letter, MailWord, MatchFailure, Receipt};
use rookery_protocol::{MatchId, NodeLife, PlayerId};
use tokio::sync::{Notify, mpsc};

use super::executor::{EffectOf, Outside, Under};
use super::lines::one_line;
use super::room::Verdict;
use crate::chat::SayError;
use crate::matches::effect::Effect;
use crate::matches::event::TrapKind;
use crate::matches::machine::{Failure, LogLevel};
use crate::matches::recording::Taken;
use crate::peer::DOWN;
use crate::recordings;
use crate::session::hub::{Hub, node_id};
use crate::store::{Cas, FinalStatus, Finish, Save};

/// Effects that wait to be performed, of all matches. Past this a match is answered `busy`.
const EFFECTS_MAX: usize = 16_384;

/// Ends that wait for the store. One for each match that was ever live here at once, so it is never full.
const ENDS_MAX: usize = 1 << 20;

/// Between two tries to write an end.
const END_AGAIN: Duration = Duration::from_millis(500);

/// Ends written at once. The store groups them.
const ENDS_AT_ONCE: usize = 256;

/// Lines of chat that wait to be written, of all matches. Past this a match is answered `busy`.
const LINES_MAX: usize = 4_096;

/// Lines of matches written at once. The store groups them.
const LINES_AT_ONCE: usize = 256;

/// Recordings of failed matches that wait to be written; of many failures at once the first ones tell enough.
const KEPT_MAX: usize = 16;

/// A match's end on its way into its row.
#[derive(Debug)]
struct End {
    target: MatchId,
    epoch: u64,
    verdict: Verdict,
}

/// Frames that wait for this node's own gateway, of one executor thread. A frame that finds the lane full is served from its
/// match's ring later, as for any other gateway.
const LANE_MAX: usize = 65_536;

/// Frames delivered before other tasks have their turn.
const LANE_TURN: usize = 256;

/// The way from one executor thread to this node's gateway. Frames are encoded and fanned out on the threads of the sockets:
/// waking a socket's task from its own runtime costs a fraction of waking it from outside, and that is most of a delivery.
#[derive(Default)]
struct Lane {
    frames: Mutex<Vec<Down>>,
    ready: Notify,
    /// A frame was refused: the matches are told when there is room again.
    refused: AtomicBool,
}

/// The hands of the executor threads.
pub struct Desk {
    hub: Arc<Hub>,
    lanes: Arc<[Lane]>,
    effects: mpsc::Sender<EffectOf>,
    lines: mpsc::Sender<EffectOf>,
    ends: mpsc::Sender<End>,
    kept: mpsc::Sender<(MatchId, Taken)>,
}

impl Desk {
    /// Starts the tasks behind it; they end with the hub's node.
    pub fn start(hub: Arc<Hub>, lanes: usize) -> Arc<Self> {
        let lanes: Arc<[Lane]> = (0..lanes).map(|_| Lane::default()).collect();
        for lane in 0..lanes.len() {
            hub.spawn(deliver(Arc::clone(&hub), Arc::clone(&lanes), lane));
        }
        let (effects, performing) = mpsc::channel(EFFECTS_MAX);
        let (lines, saying) = mpsc::channel(LINES_MAX);
        let (ends, ending) = mpsc::channel(ENDS_MAX);
        let (kept, keeping) = mpsc::channel(KEPT_MAX);
        hub.spawn(perform(Arc::clone(&hub), performing));
        hub.spawn(say(Arc::clone(&hub), saying));
        hub.spawn(write_ends(Arc::clone(&hub), ending));
        hub.spawn(keep(Arc::clone(&hub), keeping));
        Arc::new(Self {
            hub,
            lanes,
            effects,
            lines,
            ends,
            kept,
        })
    }
}

impl Outside for Desk {
    fn down(&self, lane: usize, to: &NodeLife, message: Down) -> bool {
        if to == self.hub.local() {
            let lane = &self.lanes[lane];
            let mut frames = lane.frames.lock().expect("no thread panics holding it");
            if frames.len() >= LANE_MAX {
                lane.refused.store(true, Ordering::Release);
                return false;
            }
            frames.push(message);
            return true;
        }
        let Some(node) = node_id(&to.name) else { return true };
        match self.hub.cluster().send(&node, DOWN, peer::encode(&message)) {
            Ok(()) => true,
            Err(rookery_gossip::SendError::Full) => false,
            // Gone: its streams end with the news of it. Too large to send: nobody can be told.
            Err(error) => {
                tracing::debug!(node = %to.name, %error, "a frame went nowhere");
                true
            }
        }
    }

    fn flushed(&self, lane: usize) {
        let lane = &self.lanes[lane];
        let waits = !lane.frames.lock().expect("no thread panics holding it").is_empty();
        if waits {
            lane.ready.notify_one();
        }
    }

    fn perform(&self, wanted: EffectOf) -> bool {
        if let Effect::Say { .. } = wanted.effect {
            return self.lines.try_send(wanted).is_ok();
        }
        self.effects.try_send(wanted).is_ok()
    }

    fn find(&self, sender: MatchId, name: String) {
        self.hub.services().post.find(sender, name);
    }

    fn post(&self, letter: Letter) -> bool {
        self.hub.services().post.carry(letter)
    }

    fn not_here(&self, to: &NodeLife, letter: &Letter) {
        let word = MailWord::NotHere {
            target: letter.to,
            sender: letter.from,
            number: letter.number,
        };
        self.hub.services().post.say(to, word);
    }

    fn receipt(&self, to: &NodeLife, receipt: Receipt) {
        self.hub.services().post.say(to, MailWord::Receipt(receipt));
    }

    fn save(&self, save: Save) -> bool {
        self.hub.saver().save(save)
    }

    fn seated(&self, target: MatchId, player: PlayerId) {
        self.hub.services().records.seated(target, player);
    }

    fn over(&self, target: MatchId, epoch: u64, verdict: Verdict) {
        if self.ends.try_send(End { target, epoch, verdict }).is_err() {
            tracing::error!(%target, "the end of a match cannot be written: too many wait");
        }
    }

    fn logged(&self, target: MatchId, module: &str, level: LogLevel, line: String) {
        match level {
            LogLevel::Debug => tracing::debug!(target: "module", %target, module, "{}", one_line(&line)),
            LogLevel::Info => tracing::info!(target: "module", %target, module, "{}", one_line(&line)),
            LogLevel::Warn => tracing::warn!(target: "module", %target, module, "{}", one_line(&line)),
            LogLevel::Error => tracing::error!(target: "module", %target, module, "{}", one_line(&line)),
        }
    }

    fn here(&self, target: MatchId, under: Under, name: Option<&str>) {
        let directory = &self.hub.services().directory;
        directory.match_here(target, under, name.map(str::to_owned));
    }

    fn gone(&self, target: MatchId) {
        self.hub.services().directory.match_gone(target);
    }

    fn keep(&self, target: MatchId, taken: Taken) {
        if self.kept.try_send((target, taken)).is_err() {
            tracing::warn!(%target, "the recording of a failed match is not kept: too many wait");
        }
    }

    fn not_created(&self, target: MatchId, module: &str, failure: &Failure) {
        self.hub.metrics().module(module).trapped(failure.kind);
        self.hub.metrics().matches_failed.inc();
        tracing::warn!(%target, module, kind = failure.kind.as_str(), message = failure.message, "a match was not created");
    }

    fn failed(&self, target: MatchId, module: &str, failure: &MatchFailure) {
        if let Some(kind) = TrapKind::ALL.into_iter().find(|kind| kind.as_str() == failure.kind) {
            self.hub.metrics().module(module).trapped(kind);
        }
        if !failure.undone {
            self.hub.metrics().matches_failed.inc();
        }
        let MatchFailure {
            event,
            call,
            input,
            kind,
            message,
            digest,
            why_over,
            ..
        } = failure;
        let (backtrace, why) = (failure.backtrace.join(" < "), why_over.as_deref());
        let what = if failure.undone {
            "match logic was cut off; the call is undone and the match goes on"
        } else {
            "a match failed"
        };
        tracing::warn!(%target, module, %digest, event, call, input, kind, message, backtrace, why, "{what}");
    }
}

/// Delivers what one executor thread says to this node's own gateway, in order.
async fn deliver(hub: Arc<Hub>, lanes: Arc<[Lane]>, lane: usize) {
    let lane = &lanes[lane];
    let mut frames = Vec::new();
    loop {
        lane.ready.notified().await;
        std::mem::swap(
            &mut frames,
            &mut *lane.frames.lock().expect("no thread panics holding it"),
        );
        for (index, frame) in frames.drain(..).enumerate() {
            if index % LANE_TURN == LANE_TURN - 1 {
                tokio::task::yield_now().await;
            }
            hub.down(hub.local(), frame);
        }
        if lane.refused.swap(false, Ordering::AcqRel) {
            hub.executor().writable(&hub.local().name);
        }
    }
}

/// Keeps recordings of matches that failed, one after the other: they may be large, and nobody waits for them.
async fn keep(hub: Arc<Hub>, mut keeping: mpsc::Receiver<(MatchId, Taken)>) {
    while let Some((target, taken)) = keeping.recv().await {
        recordings::keep(&hub, target, taken).await;
    }
}

/// Writes ends into rows, as often as it takes.
async fn write_ends(hub: Arc<Hub>, mut ending: mpsc::Receiver<End>) {
    let mut writing = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(end) = ending.recv(), if writing.len() < ENDS_AT_ONCE => {
                writing.spawn(write_end(Arc::clone(&hub), end));
            }
            Some(_) = writing.join_next() => {}
            else => return,
        }
    }
}

async fn write_end(hub: Arc<Hub>, end: End) {
    let End { target, epoch, verdict } = end;
    let (status, outcome, reason) = match verdict {
        Verdict::Ended { outcome } => (FinalStatus::Ended, Some(outcome), None),
        Verdict::Failed { reason } => (FinalStatus::Failed, None, Some(reason)),
    };
    let finish = Finish {
        id: target,
        epoch,
        status,
        outcome,
        reason,
    };
    loop {
        if let Err(error) = hub.services().records.write_players_of(target).await {
            tracing::debug!(%target, error = &error as &dyn std::error::Error, "the end of a match waits for the store");
            tokio::time::sleep(END_AGAIN).await;
            continue;
        }
        match hub.store().finish_match(finish.clone()).await {
            Ok(Cas::Done) => return,
            Ok(Cas::Superseded(_)) => {
                // Somebody else owns the match, or buried it: the row is right and we are not.
                hub.metrics().ownership_conflicts.inc();
                tracing::warn!(%target, epoch, "the end of a match came too late");
                return;
            }
            Err(error) => {
                tracing::debug!(%target, error = &error as &dyn std::error::Error, "the end of a match waits for the store");
                tokio::time::sleep(END_AGAIN).await;
            }
        }
    }
}

/// Writes what matches say into chat, in the order in which they said it, as often as it takes. Many lines wait for one commit.
async fn say(hub: Arc<Hub>, mut saying: mpsc::Receiver<EffectOf>) {
    let mut waiting = Vec::new();
    loop {
        if saying.recv_many(&mut waiting, LINES_AT_ONCE).await == 0 {
            return;
        }
        while !waiting.is_empty() {
            let said =
                futures_util::future::join_all(waiting.iter().map(|wanted| super::effects::say(&hub, wanted))).await;
            let (mut again, mut first) = (Vec::new(), None);
            for (wanted, said) in waiting.drain(..).zip(said) {
                match said {
                    Err(SayError::Store(error)) => {
                        first.get_or_insert(error);
                        again.push(wanted);
                        continue;
                    }
                    Err(error) => {
                        let target = wanted.target;
                        tracing::warn!(%target, module = %wanted.module, %error, "what a match said was not written");
                    }
                    Ok(()) => {}
                }
                hub.executor().answer(wanted.target, wanted.id, None);
            }
            waiting = again;
            if let Some(error) = first {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "what matches say waits for the store"
                );
                tokio::time::sleep(END_AGAIN).await;
            }
        }
    }
}

/// Performs effects in the order in which they came, and answers them.
async fn perform(hub: Arc<Hub>, mut performing: mpsc::Receiver<EffectOf>) {
    while let Some(wanted) = performing.recv().await {
        let (target, id, request) = (wanted.target, wanted.id, wanted.effect.request());
        let outcome = super::effects::perform(&hub, wanted).await;
        hub.executor()
            .answer(target, id, request.map(|request| (request, outcome)));
    }
}
