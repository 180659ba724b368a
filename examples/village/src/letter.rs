//! What the zones of one world write to each other. Letters travel by `mail`, in order and once; a zone that reads one it does
//! not know drops it, so that zones of two versions live side by side during an upgrade.

use rookery_sdk::Seat;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Letter {
    /// Who is in the zone that writes; the newest counts.
    Roster { zone: String, people: Vec<String> },
    /// Somebody whom no player plays walks over.
    Actor { id: String, room: String },
    /// The answer to `Actor`: they are here. The zone they left may give their name up.
    Arrived { id: String },
    /// The answer to `Arrived`: their name is free.
    Free { id: String },
    /// A player tells another something. `seat` is the teller's, in the zone that writes.
    Tell {
        seat: Seat,
        from: String,
        to: String,
        text: String,
    },
    /// The answer to `Tell`: it was heard.
    Heard { seat: Seat, to: String, text: String },
    /// The answer to `Tell`: nobody of that name is here.
    Missed { seat: Seat, to: String },
    /// To the name of an actor: a player says this to them.
    Ask {
        seat: Seat,
        id: String,
        from: String,
        text: String,
    },
    /// The answer to `Ask`.
    Reply { seat: Seat, name: String, text: String },
}

/// What a player takes along to another zone. The player comes back with the same when that zone does not take them in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passage {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) carried: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) zone: String,
    pub(crate) room: String,
}
