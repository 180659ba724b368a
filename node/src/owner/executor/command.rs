//! What an executor thread can be asked.

use std::sync::Arc;

use rookery_protocol::error::Refusal;
use rookery_protocol::peer::{Letter, MatchView, Receipt, Standing, Up};
use rookery_protocol::{MatchId, NodeLife, NodeName, PlayerId};
use tokio::sync::oneshot;

use super::{Frozen, NewMatch, Seats};
use crate::matches::effect::EffectId;
use crate::matches::event::{EndReason, Entry};
use crate::matches::recording::Taken;
use crate::owner::room::Absence;
use crate::wasm::Module;

/// What an executor thread can be asked.
pub(super) enum Command {
    Create {
        new: Box<NewMatch>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Release {
        target: MatchId,
    },
    Mail {
        target: MatchId,
        mail: MailCommand,
    },
    /// Every match says again what has no receipt.
    MailAgain,
    /// A save is over.
    Saved {
        target: MatchId,
        epoch: u64,
        written: bool,
    },
    /// Save what changed since it was saved, and answer how many matches that were.
    SaveAll {
        reply: oneshot::Sender<usize>,
    },
    /// Stop the match at an event boundary and answer what it is then; what comes for it waits.
    Freeze {
        target: MatchId,
        reply: oneshot::Sender<Option<Frozen>>,
    },
    /// The match stays, under this epoch: what waited is heard.
    Thaw {
        target: MatchId,
        epoch: u64,
    },
    /// Go on under another version of the module, and answer the epoch; what comes for the match waits until it is thawed.
    Upgrade {
        target: MatchId,
        module: Module,
        reply: oneshot::Sender<Result<u64, Refusal>>,
    },
    /// The lease holds again after it had lapsed.
    Lifted,
    Up {
        from: NodeLife,
        up: Up,
    },
    GatewayGone {
        node: NodeName,
        generation: u64,
    },
    LinkLost {
        node: NodeName,
    },
    Writable {
        node: NodeName,
    },
    ContentChanged {
        collection: Arc<str>,
        key: Arc<str>,
    },
    Answer {
        target: MatchId,
        id: EffectId,
        answer: Option<(u32, Result<Vec<Entry>, String>)>,
    },
    View {
        target: MatchId,
        reply: oneshot::Sender<Option<MatchView>>,
    },
    /// All that is needed to play the match again.
    TakeDown {
        target: MatchId,
        reply: oneshot::Sender<Option<Result<Taken, Arc<str>>>>,
    },
    Seats {
        target: MatchId,
        player: Option<PlayerId>,
        reply: oneshot::Sender<Option<Seats>>,
    },
    Standing {
        target: MatchId,
        player: PlayerId,
        reply: oneshot::Sender<Option<Standing>>,
    },
    End {
        target: MatchId,
        reason: EndReason,
        reply: oneshot::Sender<bool>,
    },
    Kick {
        target: MatchId,
        player: PlayerId,
        reason: String,
        reply: oneshot::Sender<bool>,
    },
    /// Forget the match without a word, unless it is here under a later epoch: its row says that another owns it, or that it is over.
    Drop {
        target: MatchId,
        epoch: u64,
    },
}

/// What a room hears besides its gateways' messages; it waits while the match is being handed over.
pub(super) enum RoomCommand {
    Up {
        from: NodeLife,
        up: Up,
    },
    Answer {
        id: EffectId,
        answer: Option<(u32, Result<Vec<Entry>, String>)>,
    },
    Mail(MailCommand),
    GatewayGone {
        node: NodeName,
        generation: u64,
    },
    LinkLost {
        node: NodeName,
    },
    Writable {
        node: NodeName,
    },
    End {
        reason: EndReason,
        reply: oneshot::Sender<bool>,
    },
    Kick {
        player: PlayerId,
        reason: String,
        reply: oneshot::Sender<bool>,
    },
}

/// What a match hears of its mail.
pub(super) enum MailCommand {
    Letter {
        from: NodeLife,
        letter: Box<Letter>,
    },
    Receipt {
        from: NodeLife,
        receipt: Receipt,
    },
    Found {
        name: String,
        found: Result<MatchId, Absence>,
    },
    Gone {
        to: MatchId,
        absence: Absence,
    },
    NotHeard {
        number: u64,
    },
    Again,
}
