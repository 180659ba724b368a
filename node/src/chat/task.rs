//! The clock of chat: holes are read from the store, crowds are told, the channels here are compared with the store, nodes are
//! met, old lines are swept; and the first line of a conversation finds out what came just before it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Chat;
use super::name::ChannelName;
use super::order::{AGAIN_MS, Hole};
use crate::store::StoreError;

/// How often the board is looked at. Crowds are told at every second look.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const CROWDS_EVERY_LOOKS: u64 = 2;

/// How often the channels here are compared with the store, in looks: 5 s.
const COMPARE_EVERY_LOOKS: u64 = 100;

/// How often conversations are closed in which nothing is said, in looks.
const QUIET_EVERY_LOOKS: u64 = 200;

/// Lines read from the store at once.
const READ_MAX: u32 = 500;

/// Channels compared with the store by one statement.
const COMPARED_AT_ONCE: usize = 1_000;

/// A comparison that failed is tried again this much later.
const COMPARE_AGAIN: Duration = Duration::from_millis(500);

/// Between two sweeps, and the channels that one looks at. Nodes sweep the same channels, each at its own pace: what one has
/// deleted the other does not find.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const SWEPT_CHANNELS: u32 = 200;

/// When a `dm:` is opened on a node, lines written so shortly before may still be on their way here. Two players who say all they may,
/// 10 lines/s and 20 at once, write 80 while the directory learns of a session.
const BEFORE_FIRST_MS: u64 = 10_000;
const BEFORE_FIRST: u64 = 200;

pub(super) fn start(chat: &Arc<Chat>) {
    chat.hub.spawn(Arc::clone(chat).look());
    chat.hub.spawn(Arc::clone(chat).compare());
    chat.hub.spawn(Arc::clone(chat).meet());
    chat.hub.spawn(Arc::clone(chat).sweep());
}

impl Chat {
    async fn look(self: Arc<Self>) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut looks = 0_u64;
        loop {
            clock.tick().await;
            looks += 1;
            self.wake_talks();
            let holes = {
                let mut board = self.board();
                if looks.is_multiple_of(CROWDS_EVERY_LOOKS) {
                    board.tell_crowds(&self.hub);
                }
                if looks.is_multiple_of(QUIET_EVERY_LOOKS) {
                    board.close_quiet(&self.hub);
                }
                board.holes(self.hub.now_ms())
            };
            for (name, hole) in holes {
                self.hub.spawn(Arc::clone(&self).fill(name, hole));
            }
        }
    }

    /// Reads what is missing. A channel has one hole at a time, so there are no more of these than open channels.
    async fn fill(self: Arc<Self>, name: ChannelName, hole: Hole) {
        let Hole { after, through } = hole;
        let read = self
            .hub
            .store()
            .lines_between(&name.to_string(), after, through, READ_MAX)
            .await;
        match read {
            Ok(lines) => {
                self.hub.metrics().chat_healed.inc_by(lines.len() as u64);
                let is_all = lines.len() < READ_MAX as usize;
                let through = lines.last().filter(|_| !is_all).map_or(through, |line| line.message);
                self.board().read(&self.hub, &name, Hole { after, through }, lines);
            }
            Err(error) => {
                tracing::debug!(channel = %name, error = &error as &dyn std::error::Error, "missing lines wait for the store");
                self.board().unread(&self.hub, &name);
            }
        }
    }

    /// Compares the last lines of all channels here with the store's.
    async fn compare(self: Arc<Self>) {
        loop {
            for _ in 0..COMPARE_EVERY_LOOKS {
                if self.doubt.swap(false, Ordering::AcqRel) {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let names = self.board().names();
            for names in names.chunks(COMPARED_AT_ONCE) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                match self.hub.store().last_lines(&names).await {
                    Ok(lasts) => {
                        let mut board = self.board();
                        for (name, last) in lasts {
                            if let Some(name) = ChannelName::parse(&name) {
                                board.exists(&self.hub, &name, last);
                            }
                        }
                    }
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "channels were not compared");
                        tokio::time::sleep(COMPARE_AGAIN).await;
                        self.doubt.store(true, Ordering::Release);
                    }
                }
            }
        }
    }

    /// Meets every node that comes, so that it knows what this one wants to hear before it writes.
    async fn meet(self: Arc<Self>) {
        let mut members = self.hub.cluster().members();
        loop {
            for life in self.reachable() {
                self.board().meet(&self.hub, &life);
            }
            self.known.notify_waiters();
            if members.changed().await.is_err() {
                return;
            }
        }
    }

    /// Deletes old lines, some channels at a time.
    async fn sweep(self: Arc<Self>) {
        let mut after = String::new();
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let config = &self.hub.config().chat;
            let (keep_ms, keep_lines) = (config.keep.as_millis() as u64, u64::from(config.keep_lines));
            let swept = self
                .hub
                .store()
                .sweep_lines(&after, SWEPT_CHANNELS, keep_ms, keep_lines);
            match swept.await {
                Ok(swept) => {
                    if swept.deleted > 0 {
                        tracing::debug!(lines = swept.deleted, "old lines were deleted");
                    }
                    after = swept.after.unwrap_or_default();
                }
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "old lines were not swept"),
            }
        }
    }

    /// The first line of a `dm:` in a while has come, with this number. It waits until the store says what was before it.
    pub(super) async fn open_conversation(self: Arc<Self>, name: ChannelName, number: u64, at_ms: u64) {
        while self.board().is_unopened(&name) {
            match self.open_through(&name, number - 1, at_ms).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(channel = %name, error = &error as &dyn std::error::Error, "what came before is not known");
                    tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
                }
            }
        }
    }

    /// Opens a `dm:` that has lines up to `through` in the store. Lines written shortly before `at_ms` may still be on their way here,
    /// to sessions that have joined nothing: they count as not heard yet, older ones as heard.
    pub(super) async fn open_through(&self, name: &ChannelName, through: u64, at_ms: u64) -> Result<(), StoreError> {
        let mut before = Vec::new();
        if through > 0 {
            let (after, limit) = (through.saturating_sub(BEFORE_FIRST), BEFORE_FIRST as u32);
            before = self
                .hub
                .store()
                .lines_between(&name.to_string(), after, through, limit)
                .await?;
        }
        before.retain(|line| line.at + BEFORE_FIRST_MS > at_ms);
        let heard = before.first().map_or(through, |line| line.message - 1);
        let mut board = self.board();
        board.open(&self.hub, name, heard);
        for line in before {
            board.hear(&self.hub, name, line);
        }
        Ok(())
    }
}
