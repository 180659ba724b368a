//! Chat's part of the client protocol.

use std::sync::Arc;

/// `channel.*`: what a client asks of chat. Channels are named as the client names them: `dm:` by the other player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelRequest {
    Join {
        channel: String,
        since: Option<u64>,
    },
    Send {
        channel: String,
        text: String,
    },
    /// Lines below `before`, or the newest.
    History {
        channel: String,
        before: Option<u64>,
        limit: Option<u32>,
    },
    Leave {
        channel: String,
    },
}

/// What chat says to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelMessage {
    /// `truncated`: more than 500 lines were missed, and only the newest of them follow.
    Joined {
        channel: String,
        last: u64,
        members: Vec<String>,
        truncated: bool,
    },
    Sent {
        channel: String,
        message: u64,
        at: u64,
    },
    /// In number order.
    History {
        channel: String,
        messages: Vec<ChatLine>,
    },
    Left {
        channel: String,
    },
    /// Pushed: a line.
    Line {
        channel: String,
        line: ChatLine,
    },
    /// Pushed: who came and who went.
    Members {
        channel: String,
        joined: Vec<String>,
        left: Vec<String>,
    },
}

/// One line of a channel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChatLine {
    /// Its number in the channel, from 1 without gaps.
    #[serde(rename = "n")]
    pub message: u64,
    /// A player's id, or `match:<id>` when a match speaks.
    #[serde(rename = "f")]
    pub from: Arc<str>,
    #[serde(rename = "t")]
    pub text: Arc<str>,
    /// Unix milliseconds, by the database's clock.
    #[serde(rename = "a")]
    pub at: u64,
}
