//! Players' own values, over their sockets: kept by collection and key, written only where the player expects what is there. With
//! `module` a player reads what that module keeps for them; only its matches write that.
//!
//! It holds no values; `store::values` does. Requests of one session are served in the order in which they came, so that who
//! writes and then reads without waiting reads what they wrote.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use rookery_protocol::client::{PayloadCodec, PayloadOut, ServerMessage, StorageMessage, StorageRequest, StoredValue};
use rookery_protocol::error::{ErrorCode, Refusal};
use rookery_protocol::{PlayerId, SessionId};
use tokio::sync::oneshot;

use crate::keys;
use crate::modules::unavailable;
use crate::session::Session;
use crate::session::hub::Hub;
use crate::session::listener::Listener;
use crate::store::{Expect, Scan, ValueKey, ValueRow, ValueWrite, WriteOutcome};
use crate::wasm::host::json_fault;

/// Values in one answer to `storage.list`: when nobody says, and at most.
const LIST_LEN: u32 = 100;
const LIST_LEN_MAX: u32 = 1_000;

/// Bytes of values in one answer, of which at least one is given: a session's outbox holds a few such answers.
const LIST_BYTES_MAX: usize = 256 << 10;

/// Players' own values, over their sockets.
pub struct PlayerStorage {
    hub: Arc<Hub>,
    /// The last request of each session that has one under way. Bounded by what a session may have under way.
    turns: Mutex<HashMap<SessionId, Turn>>,
}

/// A place in a session's line: it is there until the request before it is done.
struct Turn {
    number: u64,
    done: oneshot::Receiver<()>,
}

impl PlayerStorage {
    pub fn start(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            hub: Arc::clone(hub),
            turns: Mutex::default(),
        })
    }

    /// Serves a request of a session: the answer, or none when it was given already. Its turn is taken now, before the first
    /// wait.
    ///
    /// # Errors
    /// The refusal that the client is told.
    pub fn request(
        self: Arc<Self>,
        session: Arc<Session>,
        _id: Option<i64>,
        request: StorageRequest,
    ) -> impl Future<Output = Result<Option<ServerMessage>, Refusal>> + Send + 'static {
        let (finish, done) = oneshot::channel();
        let (number, before) = {
            let mut turns = self.turns();
            let before = turns.remove(&session.id());
            let number = before.as_ref().map_or(1, |before| before.number + 1);
            turns.insert(session.id(), Turn { number, done });
            (number, before)
        };
        async move {
            if let Some(before) = before {
                // It is dropped when the request before is over, however it ended.
                let _ = before.done.await;
            }
            let answer = self.serve(session.player(), request).await;
            let mut turns = self.turns();
            if turns.get(&session.id()).is_some_and(|last| last.number == number) {
                turns.remove(&session.id());
            }
            drop(finish);
            answer.map(|said| Some(ServerMessage::Storage(said)))
        }
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<SessionId, Turn>> {
        self.turns.lock().expect("no thread panics holding it")
    }

    async fn serve(&self, player: PlayerId, request: StorageRequest) -> Result<StorageMessage, Refusal> {
        match request {
            StorageRequest::Get {
                collection,
                key,
                module,
            } => {
                let (module, codec) = self.keeper(module).await?;
                let key = value_key(player, module, collection, key)?;
                let Some(row) = self.read(&key).await? else {
                    return Err(not_found());
                };
                Ok(StorageMessage::Value {
                    collection: key.collection,
                    entry: stored_value(codec, row),
                })
            }
            StorageRequest::Put {
                collection,
                key,
                value,
                version,
                module,
            } => {
                only_own(module.as_deref())?;
                let key = value_key(player, None, collection, key)?;
                let value = value
                    .into_bytes(PayloadCodec::Json)
                    .map_err(|error| Refusal::new(ErrorCode::BadMessage, format!("value: {error}")))?;
                self.check_size(&value)?;
                self.put(key, value, version).await
            }
            StorageRequest::Delete {
                collection,
                key,
                version,
                module,
            } => {
                only_own(module.as_deref())?;
                let key = value_key(player, None, collection, key)?;
                let expect = expected(version);
                self.write(ValueWrite {
                    key,
                    value: None,
                    expect,
                    effect: None,
                    owned_max: None,
                })
                .await
            }
            StorageRequest::List {
                collection,
                key,
                limit,
                cursor,
                module,
            } => {
                let (module, codec) = self.keeper(module).await?;
                keys::check_collection(&collection)?;
                for text in key.iter().chain(&cursor) {
                    keys::check_part(text)?;
                }
                let limit = limit.unwrap_or(LIST_LEN).clamp(1, LIST_LEN_MAX);
                let scan = Scan {
                    module: module.as_deref(),
                    owner: Some(player),
                    collection: &collection,
                    prefix: key.as_deref().unwrap_or_default(),
                    after: cursor.as_deref(),
                    limit,
                };
                let rows = self.hub.store().scan_values(&scan).await;
                let rows = rows.map_err(|error| unavailable(&error))?;
                let (rows, cursor) = page(rows, limit as usize);
                Ok(StorageMessage::Listed {
                    collection,
                    values: rows.into_iter().map(|row| stored_value(codec, row)).collect(),
                    cursor,
                })
            }
        }
    }

    /// Under which name values are kept, and how they are written for clients: a player's own are JSON, a module's are what it
    /// says they are. All versions of a module keep them under its name.
    async fn keeper(&self, module: Option<String>) -> Result<(Option<String>, PayloadCodec), Refusal> {
        let Some(module) = module else {
            return Ok((None, PayloadCodec::Json));
        };
        keys::check_part(&module)?;
        let manifest = self.hub.modules().resolve(&module).await?.manifest;
        Ok((Some(manifest.name), manifest.codec))
    }

    fn check_size(&self, value: &Bytes) -> Result<(), Refusal> {
        let limit = self.hub.config().limits.storage_value.as_usize();
        if value.len() > limit {
            let message = format!("a value is at most {limit} bytes of JSON");
            return Err(Refusal::new(ErrorCode::StorageTooLarge, message).with("limit", limit));
        }
        // A value that no client could read back is refused by its writer's node.
        match json_fault(value) {
            None => Ok(()),
            Some(fault) => Err(Refusal::new(ErrorCode::BadMessage, format!("value: {fault}"))),
        }
    }

    async fn put(&self, key: ValueKey, value: Bytes, version: Option<String>) -> Result<StorageMessage, Refusal> {
        let write = ValueWrite {
            key,
            value: Some(value),
            expect: expected(version),
            effect: None,
            owned_max: Some(self.hub.config().limits.storage_values),
        };
        self.write(write).await
    }

    async fn write(&self, write: ValueWrite) -> Result<StorageMessage, Refusal> {
        let key = write.key.clone();
        let written = self.hub.store().write_value(write).await;
        match written.map_err(|error| unavailable(&error))? {
            Ok(WriteOutcome::Stored { version }) => Ok(StorageMessage::Stored { version }),
            Ok(WriteOutcome::Deleted) => Ok(StorageMessage::Deleted),
            Ok(WriteOutcome::NotFound) => Err(not_found()),
            Ok(WriteOutcome::Conflict) => {
                let refusal = Refusal::new(ErrorCode::StorageConflict, "the value is not the expected one");
                // What stands now, so that the client can decide without asking again. Empty: there is none.
                let stands = self.read(&key).await?.map(|row| row.version);
                Err(refusal.with("version", stands.unwrap_or_default()))
            }
            Ok(WriteOutcome::TooMany { owned }) => {
                let message = "the player keeps as many values as allowed";
                Err(Refusal::new(ErrorCode::StorageTooLarge, message).with("values", owned))
            }
            // Only writes of matches are made under an epoch.
            Err(_) => Err(Refusal::new(ErrorCode::Internal, "the write was refused")),
        }
    }

    async fn read(&self, key: &ValueKey) -> Result<Option<ValueRow>, Refusal> {
        let row = self.hub.store().read_value(key).await;
        row.map_err(|error| unavailable(&error))
    }
}

fn value_key(player: PlayerId, module: Option<String>, collection: String, key: String) -> Result<ValueKey, Refusal> {
    keys::check(&collection, &key)?;
    Ok(ValueKey {
        module,
        owner: Some(player),
        collection,
        key,
    })
}

fn only_own(module: Option<&str>) -> Result<(), Refusal> {
    match module {
        None => Ok(()),
        Some(_) => Err(Refusal::new(
            ErrorCode::Forbidden,
            "what a module keeps for a player is written by its matches only",
        )),
    }
}

/// None: whatever is there. Empty: nothing.
fn expected(version: Option<String>) -> Expect {
    match version {
        None => Expect::Anything,
        Some(version) if version.is_empty() => Expect::Absent,
        Some(version) => Expect::Version(version),
    }
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::StorageNotFound, "there is no such value")
}

/// What of the rows fits into one answer, and the cursor to what comes after it.
fn page(mut rows: Vec<ValueRow>, limit: usize) -> (Vec<ValueRow>, Option<String>) {
    let mut bytes = 0;
    let fits = rows.iter().take_while(|row| {
        bytes += row.value.len() + row.key.len();
        bytes <= LIST_BYTES_MAX
    });
    let fitting = fits.count().max(1);
    let is_last = rows.len() < limit && rows.len() <= fitting;
    rows.truncate(fitting);
    let cursor = rows.last().filter(|_| !is_last).map(|row| row.key.clone());
    (rows, cursor)
}

/// A module of codec `json` may have kept bytes that are no JSON; those go as bytes, or the frame would be none.
fn stored_value(codec: PayloadCodec, row: ValueRow) -> StoredValue {
    let codec = match codec {
        PayloadCodec::Json if json_fault(&row.value).is_none() => PayloadCodec::Json,
        PayloadCodec::Json | PayloadCodec::Binary => PayloadCodec::Binary,
    };
    StoredValue {
        key: row.key,
        value: PayloadOut {
            codec,
            bytes: row.value,
        },
        version: row.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, bytes: usize) -> Vec<ValueRow> {
        let row = |no| ValueRow {
            key: format!("k{no:03}"),
            value: vec![b' '; bytes].into(),
            version: "1".into(),
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_page_ends_at_its_limit_or_at_its_bytes_and_always_moves_on() {
        for (count, bytes, limit, given, cursor) in [
            (0, 0, 10, 0, None),
            (3, 10, 10, 3, None),
            (10, 10, 10, 10, Some("k009")),
            (5, 100 << 10, 10, 2, Some("k001")),
            (2, 1 << 20, 10, 1, Some("k000")),
            (1, 1 << 20, 10, 1, None),
        ] {
            let (page, next) = page(rows(count, bytes), limit);
            assert_eq!((page.len(), next.as_deref()), (given, cursor), "{count} of {bytes}");
        }
    }
}
