//! What executor threads need of the rest of the node, and what they hand it.

use std::sync::Arc;

use rookery_protocol::peer::{Down, Letter, MatchFailure, Receipt};
use rookery_protocol::{MatchId, NodeLife, PlayerId};

use crate::matches::effect::{Effect, EffectId};
use crate::matches::machine::{Failure, LogLevel};
use crate::matches::recording::Taken;
use crate::owner::room::Verdict;
use crate::store::Save;

/// What the threads need of the node. Called from executor threads: must not block.
pub trait Outside: Send + Sync + 'static {
    /// Hands a frame to a gateway; false when the transport has no room for it. What is for this node's own gateway goes to the
    /// lane of that executor thread, and is delivered after [`Outside::flushed`].
    fn down(&self, lane: usize, to: &NodeLife, message: Down) -> bool;
    /// A thread has said what it had to say for now.
    fn flushed(&self, lane: usize);
    /// Performs an effect of a match. False when too much waits already: the match is answered `busy`.
    fn perform(&self, wanted: EffectOf) -> bool;
    /// Writes a state of a match into the store; [`Executor::saved`](super::Executor::saved) says how it went. False when too much waits already.
    fn save(&self, save: Save) -> bool;
    /// Looks a name up for a match's mail; [`Executor::found`](super::Executor::found) says what it is.
    fn find(&self, sender: MatchId, name: String);
    /// Carries a letter; false when the way is not known yet. [`Executor::target_gone`](super::Executor::target_gone) says that there is none.
    fn post(&self, letter: Letter) -> bool;
    /// Tells a node that the target of a letter is not on this one, and has not heard it here.
    fn not_here(&self, to: &NodeLife, letter: &Letter);
    /// Tells a node what came from a match of its.
    fn receipt(&self, to: &NodeLife, receipt: Receipt);
    /// Somebody plays in the match who did not before.
    fn seated(&self, target: MatchId, player: PlayerId);
    /// The match is over: the row has to say so.
    fn over(&self, target: MatchId, epoch: u64, verdict: Verdict);
    fn logged(&self, target: MatchId, module: &str, level: LogLevel, line: String);
    /// A match speaks here now.
    fn here(&self, target: MatchId, under: Under, name: Option<&str>);
    /// A match that spoke here does no longer.
    fn gone(&self, target: MatchId);
    /// The match failed for good: it is kept for its author.
    fn keep(&self, target: MatchId, taken: Taken);
    /// There is no instance of this module.
    fn not_created(&self, target: MatchId, module: &str, failure: &Failure);
    /// A call of the match logic was cut off.
    fn failed(&self, target: MatchId, module: &str, failure: &MatchFailure);
}

/// Under which epoch, and in which incarnation, a match speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Under {
    pub epoch: u64,
    pub incarnation: u64,
}

/// An effect, and the match it left.
#[derive(Debug)]
pub struct EffectOf {
    pub target: MatchId,
    pub epoch: u64,
    pub module: Arc<str>,
    pub id: EffectId,
    pub effect: Effect,
}
