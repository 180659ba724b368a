//! The part of the client protocol that is about a player's own values.

use super::{Payload, PayloadOut};

/// `storage.*`: what a client asks. With `module`: what that module keeps for the player, which is read only.
#[derive(Debug, Clone, PartialEq)]
pub enum StorageRequest {
    Get {
        collection: String,
        key: String,
        module: Option<String>,
    },
    /// `version`: none writes anyway, an empty one only if there is no value, another only if it is unchanged.
    Put {
        collection: String,
        key: String,
        value: Payload,
        version: Option<String>,
        module: Option<String>,
    },
    Delete {
        collection: String,
        key: String,
        version: Option<String>,
        module: Option<String>,
    },
    /// `key` is the prefix of those that are wanted.
    List {
        collection: String,
        key: Option<String>,
        limit: Option<u32>,
        cursor: Option<String>,
        module: Option<String>,
    },
}

/// What a client hears of its values.
#[derive(Debug, Clone, PartialEq)]
pub enum StorageMessage {
    Value {
        collection: String,
        entry: StoredValue,
    },
    Stored {
        version: String,
    },
    Deleted,
    Listed {
        collection: String,
        values: Vec<StoredValue>,
        cursor: Option<String>,
    },
}

/// One value, its key and its version.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredValue {
    pub key: String,
    pub value: PayloadOut,
    pub version: String,
}
