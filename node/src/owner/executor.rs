//! The threads that run match logic, apart from the threads that serve sockets: a heavy tick never delays a socket, and a
//! flood of messages never delays a tick, since due wake-ups go before commands.
//!
//! Each match lives on one thread, chosen by its id. A thread takes everything that waits in its inbox at once, feeds it to
//! the rooms, and then sends one frame for each stream that has something to say: the busier the node, the larger the batch.

mod command;
mod outside;
mod shard;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use rookery_protocol::client::ListedMatch;
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::peer::{HandedStream, Letter, MatchView, Receipt, Standing, Up};
use rookery_protocol::{Digest, MatchId, NodeLife, NodeName, PlayerId};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use self::command::{Command, MailCommand};
pub use self::outside::{EffectOf, Outside, Under};
use self::shard::Shard;
use self::worker::Worker;
use super::debts::DEBT_MAX;
use super::fence::Fence;
use super::room::{Absence, HandedRoom, Resumption, RoomConfig};
use crate::matches::effect::EffectId;
use crate::matches::event::{EndReason, Entry};
use crate::matches::part::{HostPart, StartRecord};
use crate::matches::recording::Taken;
use crate::metrics::ModuleMetrics;
use crate::wasm::Module;

/// What a match is made of.
pub struct NewMatch {
    pub module: Module,
    pub origin: Origin,
    pub config: RoomConfig,
    pub metrics: ModuleMetrics,
}

/// Where a match begins.
pub enum Origin {
    Start(Box<StartRecord>),
    /// From what was saved, here or elsewhere.
    Saved(Box<Restored>),
}

/// What was saved of a match, ready to go on.
pub struct Restored {
    pub why: Resumption,
    pub saved_by: String,
    pub state: Bytes,
    pub part: HostPart,
    /// The streams of the last owner, if it handed the match over.
    pub streams: Vec<HandedStream>,
}

impl Origin {
    fn start(&self) -> &StartRecord {
        match self {
            Self::Start(start) => start,
            Self::Saved(restored) => restored.part.start(),
        }
    }
}

/// Who is in a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seats {
    pub players: u32,
    /// Whether the player that was asked for is among them.
    pub is_seated: bool,
}

/// A match that stands still, to be handed over.
#[derive(Debug)]
pub struct Frozen {
    pub epoch: u64,
    /// The version of the module that saved it.
    pub version: Arc<str>,
    pub room: HandedRoom,
}

/// A live match as others on this node may see it without asking its thread.
#[derive(Debug, Clone)]
pub struct Listing {
    pub epoch: u64,
    pub module: String,
    /// None for private and unlisted ones.
    pub listed: Option<ListedMatch>,
    pub digest: rookery_protocol::Digest,
    pub quick: bool,
    /// Held under the node's lease.
    pub leased: bool,
}

/// The handle to all executor threads. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    shards: Arc<[Arc<Shard>]>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Where the threads' clocks begin.
    epoch: Instant,
}

impl Executor {
    /// Starts the threads, and the tasks that wake them. All end with [`Executor::stop`].
    pub fn start(
        threads: usize,
        outside: Arc<dyn Outside>,
        fence: &Fence,
        tasks: &TaskTracker,
    ) -> std::io::Result<Self> {
        let shards: Arc<[Arc<Shard>]> = (0..threads.max(1)).map(|_| Arc::default()).collect();
        let epoch = Instant::now();
        let mut handles = Vec::new();
        for (index, shard) in shards.iter().enumerate() {
            tasks.spawn(shard::ring(Arc::clone(shard)));
            let (shard, outside, fence) = (Arc::clone(shard), Arc::clone(&outside), fence.clone());
            handles.push(
                std::thread::Builder::new()
                    .name(format!("matches-{index}"))
                    .spawn(move || Worker::new(index, shard, outside, fence, epoch).run())?,
            );
        }
        Ok(Self {
            shards,
            threads: Arc::new(Mutex::new(handles)),
            epoch,
        })
    }

    /// Ends the threads and drops what they own, without a word to anyone. Blocks until they have ended.
    pub fn stop(&self) {
        for shard in self.shards.iter() {
            shard.end();
        }
        let threads = std::mem::take(&mut *self.threads.lock().expect("no thread panics holding it"));
        for thread in threads {
            // A panicked executor thread has said so itself.
            let _ = thread.join();
        }
    }

    fn shard(&self, target: MatchId) -> &Arc<Shard> {
        let bits = target.to_u128();
        // The random half of the id.
        &self.shards[(bits as u64 % self.shards.len() as u64) as usize]
    }

    /// Creates a match and applies its `start`. It says nothing to anyone before [`Executor::release`]. A new one waits while its module
    /// owes the thread time, five seconds at most.
    ///
    /// # Errors
    /// What the client is to hear when the module refused or failed. Nothing is left behind then.
    pub async fn create(&self, new: NewMatch) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let target = new.origin.start().match_id;
        if let Origin::Start(_) = new.origin {
            self.wait_until_even(target, new.module.digest()).await;
        }
        if !self.shard(target).push(Command::Create {
            new: Box::new(new),
            reply,
        }) {
            return Err(busy());
        }
        answer.await.map_err(|_| busy())?
    }

    /// Returns when the module owes nothing, or has been waited for long enough.
    async fn wait_until_even(&self, target: MatchId, module: Digest) {
        let latest = self.epoch.elapsed() + DEBT_MAX;
        loop {
            let now = self.epoch.elapsed();
            let left = self.shard(target).debts().left(module, now);
            if left.is_zero() || now >= latest {
                return;
            }
            // Others that waited too may have run up more meanwhile.
            tokio::time::sleep(left.min(latest - now)).await;
        }
    }

    /// The match's row says `running`.
    pub fn release(&self, target: MatchId) {
        self.shard(target).push(Command::Release { target });
    }

    /// Hands over a letter; false when too much waits already: its sender says it again.
    pub fn letter(&self, from: NodeLife, letter: Letter) -> bool {
        let (target, letter) = (letter.to, Box::new(letter));
        let mail = MailCommand::Letter { from, letter };
        self.shard(target).push(Command::Mail { target, mail })
    }

    /// Hands over a receipt; false when too much waits already: the letter is said again.
    pub fn receipt(&self, from: NodeLife, receipt: Receipt) -> bool {
        let target = receipt.to;
        let mail = MailCommand::Receipt { from, receipt };
        self.shard(target).push(Command::Mail { target, mail })
    }

    /// Which match has the name that a match's mail goes to.
    pub fn found(&self, sender: MatchId, name: String, found: Result<MatchId, Absence>) {
        let mail = MailCommand::Found { name, found };
        self.shard(sender).push_always(Command::Mail { target: sender, mail });
    }

    /// The match that a match's mail goes to is not there.
    pub fn target_gone(&self, sender: MatchId, to: MatchId, absence: Absence) {
        let mail = MailCommand::Gone { to, absence };
        self.shard(sender).push_always(Command::Mail { target: sender, mail });
    }

    /// Nobody heard a match's letter where it was carried.
    pub fn letter_not_heard(&self, sender: MatchId, number: u64) {
        let mail = MailCommand::NotHeard { number };
        self.shard(sender).push_always(Command::Mail { target: sender, mail });
    }

    /// A match says again what has no receipt: the way is known now.
    pub fn mail_again(&self, sender: MatchId) {
        let mail = MailCommand::Again;
        self.shard(sender).push_always(Command::Mail { target: sender, mail });
    }

    /// Every match says again what has no receipt: a connection broke, or there is room again.
    pub fn all_mail_again(&self) {
        for shard in self.shards.iter() {
            shard.push_always(Command::MailAgain);
        }
    }

    /// A save of the match under this epoch is over.
    pub fn saved(&self, target: MatchId, epoch: u64, written: bool) {
        self.shard(target)
            .push_always(Command::Saved { target, epoch, written });
    }

    /// Has every match saved that changed since it was; how many those are.
    pub async fn save_all(&self) -> usize {
        let mut saves = 0;
        for shard in self.shards.iter() {
            let (reply, answer) = oneshot::channel();
            shard.push_always(Command::SaveAll { reply });
            saves += answer.await.unwrap_or(0);
        }
        saves
    }

    /// Stops a match at an event boundary, to be handed over: nothing of it is heard and it hears nothing until
    /// [`Executor::thaw`], or [`Executor::drop_match`]. None when it is not here, is over, or is frozen already.
    pub async fn freeze(&self, target: MatchId) -> Option<Frozen> {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push_always(Command::Freeze { target, reply });
        answer.await.ok().flatten()
    }

    /// A frozen match stays, under this epoch.
    pub fn thaw(&self, target: MatchId, epoch: u64) {
        self.shard(target).push_always(Command::Thaw { target, epoch });
    }

    /// Has a match go on under another version of its module, at an event boundary; from then on nothing of it is heard and it hears
    /// nothing until [`Executor::thaw`], or [`Executor::drop_match`]. Returns its epoch.
    ///
    /// # Errors
    /// Why it goes on as it is: `match.refused` (with the `reason`), `unavailable`.
    pub async fn upgrade(&self, target: MatchId, module: Module) -> Result<u64, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.shard(target)
            .push_always(Command::Upgrade { target, module, reply });
        answer.await.map_err(|_| busy())?
    }

    /// The lease holds again: what was held back may go out.
    pub fn lifted(&self) {
        for shard in self.shards.iter() {
            shard.push_always(Command::Lifted);
        }
    }

    /// Hands over a gateway's message; false when too much waits already.
    pub fn up(&self, from: NodeLife, up: Up) -> bool {
        self.shard(up.target).push(Command::Up { from, up })
    }

    /// That life of a node is over.
    pub fn gateway_gone(&self, node: &NodeName, generation: u64) {
        for shard in self.shards.iter() {
            shard.push_always(Command::GatewayGone {
                node: node.clone(),
                generation,
            });
        }
    }

    /// What was sent to that node may be lost.
    pub fn link_lost(&self, node: &NodeName) {
        for shard in self.shards.iter() {
            shard.push_always(Command::LinkLost { node: node.clone() });
        }
    }

    /// The transport towards that node has room again.
    pub fn writable(&self, node: &NodeName) {
        for shard in self.shards.iter() {
            shard.push_always(Command::Writable { node: node.clone() });
        }
    }

    /// A value of shared content is another one, or gone: matches that have read its collection hear of it. A thread that has
    /// more to do than it can take is not told, as a node that was away would not have been.
    pub fn content_changed(&self, collection: &str, key: &str) {
        let (collection, key): (Arc<str>, Arc<str>) = (collection.into(), key.into());
        for shard in self.shards.iter() {
            shard.push(Command::ContentChanged {
                collection: Arc::clone(&collection),
                key: Arc::clone(&key),
            });
        }
    }

    /// Gives a match the answer to an effect (none for effects that are not answered).
    pub fn answer(&self, target: MatchId, id: EffectId, answer: Option<(u32, Result<Vec<Entry>, String>)>) {
        self.shard(target).push_always(Command::Answer { target, id, answer });
    }

    /// The match as operators see it; none if it is not here.
    pub async fn view(&self, target: MatchId) -> Option<MatchView> {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push(Command::View { target, reply });
        answer.await.ok().flatten()
    }

    /// A match, to be played again elsewhere, or why it cannot; none if it is not here.
    pub async fn take_down(&self, target: MatchId) -> Option<Result<Taken, Arc<str>>> {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push(Command::TakeDown { target, reply });
        answer.await.ok().flatten()
    }

    /// Who is in a match, and whether this player is; none if it is not here, or not released yet.
    pub async fn seats(&self, target: MatchId, player: Option<PlayerId>) -> Option<Seats> {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push(Command::Seats { target, player, reply });
        answer.await.ok().flatten()
    }

    /// What a player is to a match; none if it is not here, not released yet, or stands still here because it may go on elsewhere.
    pub async fn standing(&self, target: MatchId, player: PlayerId) -> Option<Standing> {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push(Command::Standing { target, player, reply });
        answer.await.ok().flatten()
    }

    /// Ends a match; false if it is not here.
    pub async fn end(&self, target: MatchId, reason: EndReason) -> bool {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push(Command::End { target, reason, reply });
        answer.await.unwrap_or(false)
    }

    /// Takes a player's seat away; false if there was none.
    pub async fn kick(&self, target: MatchId, player: PlayerId, reason: String) -> bool {
        let (reply, answer) = oneshot::channel();
        self.shard(target).push(Command::Kick {
            target,
            player,
            reason,
            reply,
        });
        answer.await.unwrap_or(false)
    }

    /// Forgets a match that belongs to another now: as it was under this epoch, or an earlier one. Under a later one it is ours again.
    pub fn drop_match(&self, target: MatchId, epoch: u64) {
        self.shard(target).push_always(Command::Drop { target, epoch });
    }

    /// Matches owned here.
    pub fn owned(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.owned.load(Ordering::Relaxed))
            .sum()
    }

    /// The epoch under which this node owns a match that is released.
    pub fn epoch_of(&self, target: MatchId) -> Option<u64> {
        self.shard(target).listings().get(&target).map(|listing| listing.epoch)
    }

    /// The matches that this node owns under its lease, and their epochs.
    pub fn leased(&self) -> BTreeMap<MatchId, u64> {
        let mut leased = BTreeMap::new();
        for shard in self.shards.iter() {
            let listings = shard.listings();
            let here = listings.iter().filter(|(_, listing)| listing.leased);
            leased.extend(here.map(|(target, listing)| (*target, listing.epoch)));
        }
        leased
    }

    /// Ids of the matches that are released here and that `wanted` takes, after this one, in order.
    pub fn ids(&self, after: Option<MatchId>, limit: usize, wanted: impl Fn(&Listing) -> bool) -> Vec<MatchId> {
        let mut ids: Vec<MatchId> = Vec::new();
        for shard in self.shards.iter() {
            let listings = shard.listings();
            let later = listings.range(range_after(after));
            let wanted = later.filter(|(_, listing)| wanted(listing));
            ids.extend(wanted.take(limit).map(|(id, _)| *id));
        }
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    /// Live matches that `wanted` takes, after this one, in order of their ids.
    pub fn list(&self, after: Option<MatchId>, limit: usize, wanted: impl Fn(&Listing) -> bool) -> Vec<ListedMatch> {
        let mut found: Vec<ListedMatch> = Vec::new();
        for shard in self.shards.iter() {
            let listings = shard.listings();
            found.extend(
                listings
                    .range(range_after(after))
                    .filter(|(_, listing)| wanted(listing))
                    .filter_map(|(_, listing)| listing.listed.clone())
                    .take(limit),
            );
        }
        found.sort_unstable_by_key(|listed| listed.target);
        found.truncate(limit);
        found
    }
}

fn range_after(after: Option<MatchId>) -> (std::ops::Bound<MatchId>, std::ops::Bound<MatchId>) {
    (
        after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
        std::ops::Bound::Unbounded,
    )
}

fn busy() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the node has too much to do")
}

#[cfg(test)]
mod tests;
