//! Effects of matches on the database: each is applied once, under the epoch with which it left its match, and a repeat is
//! answered like the first.
//!
//! Not here: what an effect does. Whoever applies one calls [`begin`] before and [`answer`] after, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use rookery_protocol::MatchId;
use serde_json::json;

use super::StoreError;
use super::sql::{Sql, Transaction, args};

/// The id of an effect: the store applies each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectId {
    pub match_id: MatchId,
    pub incarnation: u64,
    pub event: u64,
    pub index: u32,
}

/// The effect left its match under an epoch that is not the row's. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the write was made under an epoch that is over")]
pub struct Fenced;

/// How an effect stands when it is about to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begun {
    /// Marked as applied: apply it.
    Fresh,
    /// The epoch is over: apply nothing.
    Fenced,
    /// Applied before, with this answer.
    Repeat(Option<String>),
}

/// The epochs of matches, held still until the transaction ends.
const EPOCHS: Sql = Sql {
    sqlite: "select m.id, m.epoch from json_each($1) as r join matches m on m.id = r.value",
    postgres: "select id, epoch from matches where id in (select v from jsonb_array_elements_text($1::jsonb) as r (v))
               order by id for share",
};

/// Each row `[match, incarnation, event, index]`.
const INSERT_EFFECTS: Sql = Sql {
    sqlite: "insert into applied_effects (match_id, incarnation, event, idx, applied_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, (select now_ms from clock)
             from json_each($1) as r where true on conflict do nothing returning match_id, incarnation, event, idx",
    postgres: "insert into applied_effects (match_id, incarnation, event, idx, applied_at)
               select r.v ->> 0, (r.v ->> 1)::bigint, (r.v ->> 2)::bigint, (r.v ->> 3)::bigint, (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v)
               on conflict do nothing returning match_id, incarnation, event, idx",
};

const READ_EFFECT: Sql = Sql::both(
    "select answer from applied_effects where match_id = $1 and incarnation = $2 and event = $3 and idx = $4",
);

/// Each row `[match, incarnation, event, index, answer]`.
const ANSWER_EFFECTS: Sql = Sql {
    sqlite: "update applied_effects set answer = r.value ->> 4 from json_each($1) as r
             where match_id = r.value ->> 0 and incarnation = r.value ->> 1 and event = r.value ->> 2 and idx = r.value ->> 3",
    postgres: "update applied_effects set answer = r.v ->> 4 from jsonb_array_elements($1::jsonb) as r (v)
               where match_id = r.v ->> 0 and incarnation = (r.v ->> 1)::bigint and event = (r.v ->> 2)::bigint
                   and idx = (r.v ->> 3)::bigint",
};

impl EffectId {
    fn columns(&self) -> (String, i64, i64, i64) {
        (
            self.match_id.to_string(),
            self.incarnation as i64,
            self.event as i64,
            self.index.into(),
        )
    }
}

/// Marks the effects as applied whose epoch is the row's and that were not applied before.
pub(super) async fn begin(
    transaction: &mut Transaction,
    effects: &[(EffectId, u64)],
) -> Result<Vec<Begun>, StoreError> {
    if effects.is_empty() {
        return Ok(Vec::new());
    }
    let matches: BTreeSet<MatchId> = effects.iter().map(|(id, _)| id.match_id).collect();
    let mut epochs = BTreeMap::new();
    for row in transaction.rows(&EPOCHS, args![json!(matches).to_string()]).await? {
        epochs.insert(row.parse::<MatchId>("id")?, row.unsigned("epoch")?);
    }
    let is_current = |(id, epoch): &(EffectId, u64)| epochs.get(&id.match_id) == Some(epoch);
    let current: BTreeSet<EffectId> = effects
        .iter()
        .filter(|effect| is_current(effect))
        .map(|(id, _)| *id)
        .collect();
    let mut fresh = BTreeSet::new();
    if !current.is_empty() {
        let rows: Vec<_> = current.iter().map(EffectId::columns).collect();
        for row in transaction
            .rows(&INSERT_EFFECTS, args![json!(rows).to_string()])
            .await?
        {
            fresh.insert((
                row.get::<String>("match_id")?,
                row.get::<i64>("incarnation")?,
                row.get::<i64>("event")?,
                row.get::<i64>("idx")?,
            ));
        }
    }
    let mut begun = Vec::with_capacity(effects.len());
    for effect in effects {
        let (match_id, incarnation, event, index) = effect.0.columns();
        begun.push(if !is_current(effect) {
            Begun::Fenced
        } else if fresh.remove(&(match_id.clone(), incarnation, event, index)) {
            Begun::Fresh
        } else {
            let row = transaction
                .row(&READ_EFFECT, args![match_id, incarnation, event, index])
                .await?;
            let answer = row.map(|row| row.get::<Option<String>>("answer")).transpose()?;
            Begun::Repeat(answer.flatten())
        });
    }
    Ok(begun)
}

/// Keeps the answers of effects that were applied.
pub(super) async fn answer(transaction: &mut Transaction, answers: &[(EffectId, String)]) -> Result<(), StoreError> {
    if answers.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = answers
        .iter()
        .map(|(id, answer)| {
            let (match_id, incarnation, event, index) = id.columns();
            json!([match_id, incarnation, event, index, answer])
        })
        .collect();
    transaction
        .rows(&ANSWER_EFFECTS, args![json!(rows).to_string()])
        .await?;
    Ok(())
}
