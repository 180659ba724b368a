//! Durable values: a player's own, a module's own, and a module's for one player.
//!
//! A write that a match makes is an effect with an id: it is applied once, in the transaction that also checks the match's
//! epoch, and a repeat is answered like the first. Versions are opaque and change with every write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rookery_protocol::PlayerId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::batch::Write;
use super::effects::{self, Begun, EffectId, Fenced};
use super::matches::hex;
use super::sql::{Row, Sql, Transaction, args};
use super::{Store, StoreError};

/// Which value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueKey {
    /// None for a player's own values.
    pub module: Option<String>,
    /// None for a module's own values.
    pub owner: Option<PlayerId>,
    pub collection: String,
    pub key: String,
}

/// A value as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueRow {
    pub key: String,
    pub value: Bytes,
    pub version: String,
}

/// What a write expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    Version(String),
}

/// A write of one value.
#[derive(Debug, Clone)]
pub struct ValueWrite {
    pub key: ValueKey,
    /// None deletes.
    pub value: Option<Bytes>,
    pub expect: Expect,
    /// The match's effect that this is, and the epoch under which it left the match.
    pub effect: Option<(EffectId, u64)>,
    /// How many values the owner may have without a module, this one included; for a player's own. Two nodes that write for one
    /// player at the same moment do not see each other's.
    pub owned_max: Option<u32>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOutcome {
    Stored {
        version: String,
    },
    Deleted,
    /// The value was not what the write expected. Nothing was written.
    Conflict,
    /// There was nothing to delete.
    NotFound,
    /// The owner has as many values as allowed. Nothing was written.
    TooMany {
        owned: u64,
    },
}

/// Each row of the writes: `[module, owner, collection, key, value in hex, version, expected version]`.
const WRITE_ANYTHING: Sql = Sql {
    sqlite: "insert into storage (module, owner, collection, key, value, version, updated_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, unhex(r.value ->> 4), r.value ->> 5,
                 (select now_ms from clock)
             from json_each($1) as r where true
             on conflict (module, owner, collection, key) do update set
                 value = excluded.value, version = excluded.version, updated_at = excluded.updated_at
             returning version",
    postgres: "insert into storage (module, owner, collection, key, value, version, updated_at)
               select r.v ->> 0, r.v ->> 1, r.v ->> 2, r.v ->> 3, decode(r.v ->> 4, 'hex'), r.v ->> 5,
                   (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v)
               on conflict (module, owner, collection, key) do update set
                   value = excluded.value, version = excluded.version, updated_at = excluded.updated_at
               returning version",
};

const WRITE_ABSENT: Sql = Sql {
    sqlite: "insert into storage (module, owner, collection, key, value, version, updated_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, unhex(r.value ->> 4), r.value ->> 5,
                 (select now_ms from clock)
             from json_each($1) as r where true on conflict do nothing returning version",
    postgres: "insert into storage (module, owner, collection, key, value, version, updated_at)
               select r.v ->> 0, r.v ->> 1, r.v ->> 2, r.v ->> 3, decode(r.v ->> 4, 'hex'), r.v ->> 5,
                   (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v) on conflict do nothing returning version",
};

const WRITE_VERSION: Sql = Sql {
    sqlite: "update storage set value = unhex(r.value ->> 4), version = r.value ->> 5, updated_at = (select now_ms from clock)
             from json_each($1) as r
             where storage.module = r.value ->> 0 and storage.owner = r.value ->> 1 and storage.collection = r.value ->> 2
                 and storage.key = r.value ->> 3 and storage.version = r.value ->> 6
             returning version",
    postgres: "update storage set value = decode(r.v ->> 4, 'hex'), version = r.v ->> 5,
                   updated_at = (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v)
               where storage.module = r.v ->> 0 and storage.owner = r.v ->> 1 and storage.collection = r.v ->> 2
                   and storage.key = r.v ->> 3 and storage.version = r.v ->> 6
               returning storage.version",
};

const DELETE_ANYTHING: Sql = Sql {
    sqlite: "delete from storage where (module, owner, collection, key) in (
                 select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($1))
             returning module, owner, collection, key",
    postgres: "delete from storage where (module, owner, collection, key) in (
                   select v ->> 0, v ->> 1, v ->> 2, v ->> 3 from jsonb_array_elements($1::jsonb) as r (v))
               returning module, owner, collection, key",
};

const DELETE_VERSION: Sql = Sql {
    sqlite: "delete from storage where (module, owner, collection, key, version) in (
                 select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 6 from json_each($1))
             returning module, owner, collection, key",
    postgres: "delete from storage where (module, owner, collection, key, version) in (
                   select v ->> 0, v ->> 1, v ->> 2, v ->> 3, v ->> 6 from jsonb_array_elements($1::jsonb) as r (v))
               returning module, owner, collection, key",
};

const PRESENT: Sql = Sql {
    sqlite: "select module, owner, collection, key from storage where (module, owner, collection, key) in (
                 select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($1))",
    postgres: "select module, owner, collection, key from storage where (module, owner, collection, key) in (
                   select v ->> 0, v ->> 1, v ->> 2, v ->> 3 from jsonb_array_elements($1::jsonb) as r (v))",
};

/// How many values of their own these owners have.
const OWNED: Sql = Sql {
    sqlite: "select owner, count(*) as owned from storage where module = '' and owner in (select value from json_each($1))
             group by owner",
    postgres: "select owner, count(*) as owned from storage
               where module = '' and owner in (select v from jsonb_array_elements_text($1::jsonb) as r (v)) group by owner",
};

const READ: Sql = Sql::both(
    "select key, value, version from storage where module = $1 and owner = $2 and collection = $3 and key = $4",
);

/// A prefix is a range from itself to itself with the last possible character behind it, so that the primary key serves it.
const SCAN: Sql = Sql {
    sqlite: "select key, value, version from storage
             where module = $1 and owner = $2 and collection = $3 and key > $4 and key >= $5 and substr(key, 1, length($5)) = $5
             order by key limit $6",
    postgres: "select key, value, version from storage
               where module = $1 and owner = $2 and collection = $3 and key > $4 collate \"C\" and starts_with(key, $5)
               order by key collate \"C\" limit $6",
};

impl Store {
    /// Writes or deletes a value, if it is what the write expects.
    ///
    /// Repeating a write that has an effect id is answered like the first time. Without one, a repeat of a write that expects a
    /// version finds a conflict with itself.
    pub async fn write_value(&self, write: ValueWrite) -> Result<Result<WriteOutcome, Fenced>, StoreError> {
        self.submit("write_value", |reply| Write::Value(Box::new(write), reply))
            .await
    }

    /// One value.
    pub async fn read_value(&self, key: &ValueKey) -> Result<Option<ValueRow>, StoreError> {
        let [module, owner, collection, key] = key.columns();
        let rows = self
            .read("read_values", &READ, args![module, owner, collection, key])
            .await?;
        rows.first().map(value_row).transpose()
    }

    /// The values of a collection whose keys begin with `prefix` and come after `after`, in key order.
    pub async fn scan_values(&self, scan: &Scan<'_>) -> Result<Vec<ValueRow>, StoreError> {
        let args = args![
            scan.module.unwrap_or_default(),
            scan.owner.map(|owner| owner.to_string()).unwrap_or_default(),
            scan.collection,
            scan.after.unwrap_or_default(),
            scan.prefix,
            scan.limit,
        ];
        let rows = self.read("read_values", &SCAN, args).await?;
        rows.iter().map(value_row).collect()
    }
}

/// Which values to scan. Keys are never empty, so no `after` means from the first.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    pub module: Option<&'a str>,
    pub owner: Option<PlayerId>,
    pub collection: &'a str,
    pub prefix: &'a str,
    pub after: Option<&'a str>,
    pub limit: u32,
}

impl ValueKey {
    fn columns(&self) -> [String; 4] {
        [
            self.module.clone().unwrap_or_default(),
            self.owner.map(|owner| owner.to_string()).unwrap_or_default(),
            self.collection.clone(),
            self.key.clone(),
        ]
    }
}

/// Applies the group's writes. No two of them are of the same value.
pub(super) async fn write(
    transaction: &mut Transaction,
    writes: &[Box<ValueWrite>],
) -> Result<Vec<Result<WriteOutcome, Fenced>>, StoreError> {
    let mut answers: Vec<Option<Result<WriteOutcome, Fenced>>> = vec![None; writes.len()];
    begin_effects(transaction, writes, &mut answers).await?;
    count_owned(transaction, writes, &mut answers).await?;

    let mut lots: BTreeMap<Lot, Vec<usize>> = BTreeMap::new();
    for (no, write) in writes.iter().enumerate().filter(|(no, _)| answers[*no].is_none()) {
        lots.entry(Lot::of(write)).or_default().push(no);
    }
    let mut answered = Vec::new();
    for (lot, numbers) in lots {
        for (no, outcome) in lot.apply(transaction, writes, &numbers).await? {
            if let Some((id, _)) = writes[no].effect {
                answered.push((id, serde_json::to_string(&outcome).expect("an outcome is plain data")));
            }
            answers[no] = Some(Ok(outcome));
        }
    }
    effects::answer(transaction, &answered).await?;
    answers
        .into_iter()
        .map(|answer| answer.ok_or(StoreError::Damaged { column: "version" }))
        .collect()
}

/// Answers the writes whose epoch is over and those that were applied before, and marks the others as applied.
async fn begin_effects(
    transaction: &mut Transaction,
    writes: &[Box<ValueWrite>],
    answers: &mut [Option<Result<WriteOutcome, Fenced>>],
) -> Result<(), StoreError> {
    let (numbers, asked): (Vec<usize>, Vec<_>) = writes
        .iter()
        .enumerate()
        .filter_map(|(no, write)| write.effect.map(|effect| (no, effect)))
        .unzip();
    for (no, begun) in numbers.into_iter().zip(effects::begin(transaction, &asked).await?) {
        match begun {
            Begun::Fresh => {}
            Begun::Fenced => answers[no] = Some(Err(Fenced)),
            Begun::Repeat(answer) => {
                let outcome = answer.and_then(|answer| serde_json::from_str(&answer).ok());
                answers[no] = Some(Ok(outcome.ok_or(StoreError::Damaged { column: "answer" })?));
            }
        }
    }
    Ok(())
}

/// Answers the writes of new values whose owner has enough of them.
async fn count_owned(
    transaction: &mut Transaction,
    writes: &[Box<ValueWrite>],
    answers: &mut [Option<Result<WriteOutcome, Fenced>>],
) -> Result<(), StoreError> {
    let adds = |(no, write): (usize, &ValueWrite)| {
        let owned_max = write.owned_max.filter(|_| write.value.is_some())?;
        // A write that expects a version adds nothing: there is such a value, or it is a conflict.
        let is_new = !matches!(write.expect, Expect::Version(_));
        is_new.then(|| (no, write.key.columns(), owned_max))
    };
    let adding: Vec<_> = writes.iter().map(Box::as_ref).enumerate().filter_map(adds).collect();
    if adding.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = adding.iter().map(|(_, columns, _)| columns).collect();
    let owners: BTreeSet<&String> = keys.iter().map(|[_, owner, _, _]| owner).collect();
    let mut owned: BTreeMap<String, u64> = BTreeMap::new();
    for row in transaction.rows(&OWNED, args![json!(owners).to_string()]).await? {
        owned.insert(row.get("owner")?, row.unsigned("owned")?);
    }
    let mut present = BTreeSet::new();
    for row in transaction.rows(&PRESENT, args![json!(keys).to_string()]).await? {
        present.insert([
            row.get::<String>("module")?,
            row.get("owner")?,
            row.get("collection")?,
            row.get("key")?,
        ]);
    }
    for (no, columns, owned_max) in adding.iter().filter(|(_, columns, _)| !present.contains(columns)) {
        let owned = owned.entry(columns[1].clone()).or_default();
        if *owned >= u64::from(*owned_max) {
            answers[*no] = Some(Ok(WriteOutcome::TooMany { owned: *owned }));
        } else {
            *owned += 1;
        }
    }
    Ok(())
}

/// Writes that one statement can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lot {
    WriteAnything,
    WriteAbsent,
    WriteVersion,
    DeleteAnything,
    DeleteAbsent,
    DeleteVersion,
}

impl Lot {
    fn of(write: &ValueWrite) -> Self {
        match (&write.value, &write.expect) {
            (Some(_), Expect::Anything) => Self::WriteAnything,
            (Some(_), Expect::Absent) => Self::WriteAbsent,
            (Some(_), Expect::Version(_)) => Self::WriteVersion,
            (None, Expect::Anything) => Self::DeleteAnything,
            (None, Expect::Absent) => Self::DeleteAbsent,
            (None, Expect::Version(_)) => Self::DeleteVersion,
        }
    }

    async fn apply(
        self,
        transaction: &mut Transaction,
        writes: &[Box<ValueWrite>],
        numbers: &[usize],
    ) -> Result<Vec<(usize, WriteOutcome)>, StoreError> {
        let versions: Vec<String> = numbers
            .iter()
            .map(|_| format!("{:016x}", rand::random::<u64>()))
            .collect();
        let rows: Vec<_> = numbers
            .iter()
            .zip(&versions)
            .map(|(&no, version)| {
                let write = &writes[no];
                let [module, owner, collection, key] = write.key.columns();
                let expected = match &write.expect {
                    Expect::Version(version) => Some(version),
                    Expect::Anything | Expect::Absent => None,
                };
                json!([
                    module,
                    owner,
                    collection,
                    key,
                    write.value.as_ref().map(|value| hex(value)),
                    version,
                    expected
                ])
            })
            .collect();
        let rows = args![json!(rows).to_string()];
        let outcomes = match self {
            Self::WriteAnything => written(transaction, &WRITE_ANYTHING, rows, versions).await?,
            Self::WriteAbsent => written(transaction, &WRITE_ABSENT, rows, versions).await?,
            Self::WriteVersion => written(transaction, &WRITE_VERSION, rows, versions).await?,
            Self::DeleteAnything | Self::DeleteAbsent | Self::DeleteVersion => {
                let (sql, hit, miss) = match self {
                    Self::DeleteVersion => (&DELETE_VERSION, WriteOutcome::Deleted, WriteOutcome::Conflict),
                    Self::DeleteAbsent => (&PRESENT, WriteOutcome::Conflict, WriteOutcome::NotFound),
                    _ => (&DELETE_ANYTHING, WriteOutcome::Deleted, WriteOutcome::NotFound),
                };
                let mut hits = BTreeSet::new();
                for row in transaction.rows(sql, rows).await? {
                    hits.insert([
                        row.get("module")?,
                        row.get("owner")?,
                        row.get("collection")?,
                        row.get("key")?,
                    ]);
                }
                let is_hit = |&no: &usize| hits.contains(&writes[no].key.columns());
                numbers
                    .iter()
                    .map(|no| if is_hit(no) { hit.clone() } else { miss.clone() })
                    .collect()
            }
        };
        Ok(numbers.iter().copied().zip(outcomes).collect())
    }
}

/// Runs a writing statement; the versions that it returns are those of the writes that were made.
async fn written(
    transaction: &mut Transaction,
    sql: &Sql,
    rows: Vec<super::sql::Arg>,
    versions: Vec<String>,
) -> Result<Vec<WriteOutcome>, StoreError> {
    let mut made = BTreeSet::new();
    for row in transaction.rows(sql, rows).await? {
        made.insert(row.get::<String>("version")?);
    }
    let outcomes = versions.into_iter().map(|version| {
        if made.contains(&version) {
            WriteOutcome::Stored { version }
        } else {
            WriteOutcome::Conflict
        }
    });
    Ok(outcomes.collect())
}

fn value_row(row: &Row) -> Result<ValueRow, StoreError> {
    Ok(ValueRow {
        key: row.get("key")?,
        value: row.get::<Vec<u8>>("value")?.into(),
        version: row.get("version")?,
    })
}
