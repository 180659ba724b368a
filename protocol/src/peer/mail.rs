//! Mail between matches and players on their way, on a channel of their own.
//!
//! A letter is numbered by its sender; the numbers of one sender rise over all its targets and incarnations. A receipt confirms
//! cumulatively, so either may be lost with a connection or said twice.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::client::Role;
use crate::output::Attachment;
use crate::{MatchId, PlayerId};

/// What nodes say to each other about mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MailWord {
    Letter(Box<Letter>),
    Receipt(Receipt),
    /// The match is not on this node, and has not heard the letter here: look it up again.
    NotHere {
        target: MatchId,
        sender: MatchId,
        /// The letter's. An older version does not say it: 0.
        #[serde(default)]
        number: u64,
    },
}

/// From one match to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    #[serde(rename = "f")]
    pub from: MatchId,
    #[serde(rename = "t")]
    pub to: MatchId,
    #[serde(rename = "n")]
    pub number: u64,
    /// The letter to the same match before this one that its sender still holds; 0 if there is none. This one waits for it.
    #[serde(rename = "a", default)]
    pub after: u64,
    /// The lowest number to this match that the sender still holds: what is below it need not be remembered.
    #[serde(rename = "h", default)]
    pub held: u64,
    #[serde(rename = "b")]
    pub body: LetterBody,
}

/// What a letter carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LetterBody {
    Tell { data: Bytes },
    Player(Box<Traveller>),
}

/// A player between two matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traveller {
    pub player: PlayerId,
    pub name: String,
    pub role: Role,
    #[serde(default)]
    pub team: Option<u32>,
    /// The connection that spoke for them last.
    #[serde(default)]
    pub attachment: Option<Attachment>,
    /// They had no connection when they left.
    #[serde(default)]
    pub is_away: bool,
    pub ctx: Bytes,
}

/// What has become of letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The match that got them.
    #[serde(rename = "f")]
    pub from: MatchId,
    /// The match that sent them.
    #[serde(rename = "t")]
    pub to: MatchId,
    /// Everything up to this number has arrived.
    #[serde(rename = "l")]
    pub last: u64,
    /// Of these, the players who were not let in.
    #[serde(rename = "r", default)]
    pub refused: Vec<u64>,
    /// The match is over: what is above `last` never arrives.
    #[serde(rename = "o", default)]
    pub is_over: bool,
    /// The epoch under which its owner says this.
    #[serde(rename = "e")]
    pub epoch: u64,
}
