//! Performing what a match asks of the world outside: its module's durable values, and the names it claims. Each effect carries
//! an id, and the store applies it once and under the epoch it left the match with.
//!
//! Not here: mail and transfers, which the post carries (`post.rs`). What this node was told to do without (`node.without`) is
//! answered `unavailable`: that is certain, and a match may try again later.

use rookery_protocol::PlayerId;

use super::executor::EffectOf;
use crate::chat::SayError;
use crate::config::Service;
use crate::matches::effect::Effect;
use crate::matches::event::Entry;
use crate::session::hub::Hub;
use crate::store::{
    ClaimError, EffectId, Expect, NewLine, Scan, StoreError, ValueKey, ValueRow, ValueWrite, WriteOutcome,
};

/// The most that one scan returns, whatever the module asked for.
const SCAN_MAX: u32 = 1_000;

type Answer = Result<Vec<Entry>, String>;

/// Performs one effect, and says what the match is to hear of it.
pub async fn perform(hub: &Hub, wanted: EffectOf) -> Answer {
    let EffectOf {
        target,
        epoch,
        module,
        id,
        effect,
    } = wanted;
    if let Some(service) = service_of(&effect) {
        let served = hub.services().check(service);
        served.map_err(|_| "unavailable".to_owned())?;
    }
    match effect {
        Effect::StorageRead {
            owner, collection, key, ..
        } => {
            let key = value_key(&module, owner, collection, key)?;
            let row = hub.store().read_value(&key).await.map_err(unavailable)?;
            Ok(row.into_iter().map(entry).collect())
        }
        Effect::StorageWrite {
            owner,
            collection,
            key,
            value,
            version,
            ..
        } => {
            let id = EffectId {
                match_id: target,
                incarnation: u64::from(id.incarnation),
                event: id.event,
                index: id.index,
            };
            let write = ValueWrite {
                key: value_key(&module, owner, collection, key.clone())?,
                value,
                expect: match version {
                    None => Expect::Anything,
                    Some(version) if version.is_empty() => Expect::Absent,
                    Some(version) => Expect::Version(version),
                },
                effect: Some((id, epoch)),
                owned_max: None,
            };
            match hub.store().write_value(write).await.map_err(unavailable)? {
                Ok(WriteOutcome::Stored { version }) => Ok(vec![Entry {
                    key,
                    data: Default::default(),
                    version,
                }]),
                Ok(WriteOutcome::Deleted) => Ok(Vec::new()),
                Ok(WriteOutcome::Conflict) => Err("conflict".into()),
                Ok(WriteOutcome::NotFound) => Err("not_found".into()),
                Ok(WriteOutcome::TooMany { .. }) => Err("too_large".into()),
                // We are not the owner any more; nobody will hear this answer.
                Err(_) => Err("unavailable".into()),
            }
        }
        Effect::StorageScan {
            owner,
            collection,
            prefix,
            limit,
            ..
        } => {
            let key = value_key(&module, owner, collection, String::new())?;
            let scan = Scan {
                module: key.module.as_deref(),
                owner: key.owner,
                collection: &key.collection,
                prefix: &prefix,
                after: None,
                limit: limit.min(SCAN_MAX),
            };
            let rows = hub.store().scan_values(&scan).await.map_err(unavailable)?;
            Ok(rows.into_iter().map(entry).collect())
        }
        Effect::Claim { name, .. } => match hub.store().claim_name(&name, target, epoch).await {
            Ok(()) => Ok(Vec::new()),
            Err(ClaimError::Store(error)) => Err(unavailable(error)),
            Err(_) => Err("taken".into()),
        },
        Effect::Release { name } => {
            hub.store().release_name(&name, target).await.map_err(unavailable)?;
            Ok(Vec::new())
        }
        Effect::ContentRead { collection, key, .. } => {
            let item = hub.services().content.get(&collection, &key);
            let item = item.map_err(|_| "unavailable".to_owned())?;
            Ok(item
                .into_iter()
                .map(|item| Entry {
                    key: key.clone(),
                    data: item.value,
                    version: item.version.to_string(),
                })
                .collect())
        }
        // Go by `say` and by the post.
        Effect::Say { .. } | Effect::Tell { .. } | Effect::Transfer { .. } => Ok(Vec::new()),
    }
}

/// Writes what a match says into a channel, in the match's name.
///
/// # Errors
/// It may not, or it is the wrong text, or the match is another node's now; or the store does not answer.
pub async fn say(hub: &Hub, wanted: &EffectOf) -> Result<(), SayError> {
    let Effect::Say { channel, text } = &wanted.effect else {
        return Ok(());
    };
    // It has no answer: on a node without chat it goes nowhere.
    if hub.services().check(Service::Chat).is_err() {
        return Ok(());
    }
    let id = EffectId {
        match_id: wanted.target,
        incarnation: u64::from(wanted.id.incarnation),
        event: wanted.id.event,
        index: wanted.id.index,
    };
    let line = NewLine {
        channel: channel.clone(),
        sender: format!("match:{}", wanted.target),
        text: text.clone(),
        effect: Some((id, wanted.epoch)),
    };
    hub.services().chat.say(wanted.target, channel, line).await
}

/// Which of the cluster's services an effect is for; what the store does by itself is no service's.
fn service_of(effect: &Effect) -> Option<Service> {
    match effect {
        Effect::Tell { .. } | Effect::Transfer { .. } => Some(Service::Mail),
        Effect::Say { .. } => Some(Service::Chat),
        Effect::ContentRead { .. } => Some(Service::Content),
        Effect::StorageRead { .. }
        | Effect::StorageWrite { .. }
        | Effect::StorageScan { .. }
        | Effect::Claim { .. }
        | Effect::Release { .. } => None,
    }
}

fn value_key(module: &str, owner: Option<String>, collection: String, key: String) -> Result<ValueKey, String> {
    let owner: Option<PlayerId> = match owner {
        None => None,
        // Nobody keeps values under what is no player's id.
        Some(owner) => Some(owner.parse().map_err(|_| "not_found".to_owned())?),
    };
    Ok(ValueKey {
        module: Some(module.to_owned()),
        owner,
        collection,
        key,
    })
}

fn entry(row: ValueRow) -> Entry {
    Entry {
        key: row.key,
        data: row.value,
        version: row.version,
    }
}

fn unavailable(error: StoreError) -> String {
    tracing::debug!(
        error = &error as &dyn std::error::Error,
        "an effect could not be performed"
    );
    "unavailable".into()
}
