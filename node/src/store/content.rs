//! Shared content: versioned values that every node keeps a copy of (`crate::content`). Here are the rows; nothing that reads
//! content on behalf of a match or a player asks them.
//!
//! Versions count over all content and follow the order of commits, because every writer locks the one row of
//! `content_state` first. So a node that has read up to a version lacks nothing below it, and one number tells whether two
//! nodes have the same content.

use bytes::Bytes;

use super::sql::{Row, Sql, args};
use super::{Store, StoreError};

/// What a value costs beside its own bytes, where content is counted against its limit: its key and its place in memory.
const ENTRY_BYTES: u64 = 128;

/// A value, or the tombstone of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRow {
    pub collection: String,
    pub key: String,
    pub content_type: String,
    /// None: it was deleted.
    pub value: Option<Bytes>,
    pub version: u64,
    pub updated_at_ms: u64,
}

/// How far content is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentHead {
    /// The newest version.
    pub last: u64,
    /// Deletions up to this version may be forgotten: who has read less reads everything again.
    pub swept: u64,
    /// What all values count against the limit.
    pub bytes: u64,
}

/// What changed after a version, in order, and how far content was at that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentPage {
    pub head: ContentHead,
    pub rows: Vec<ContentRow>,
}

/// A write of one value.
#[derive(Debug, Clone)]
pub struct ContentWrite {
    pub collection: String,
    pub key: String,
    /// The content type and the bytes; none deletes.
    pub value: Option<(String, Bytes)>,
    /// The version that the value must have; 0 means that there must be none, and none that it does not matter.
    pub expect: Option<u64>,
    /// What all values may count together.
    pub bytes_max: u64,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentOutcome {
    Written {
        version: u64,
    },
    /// The value has another version (0: there is none). Nothing was written.
    Conflict {
        version: u64,
    },
    /// There was nothing to delete.
    NotFound,
    /// With it all values would count this much. Nothing was written.
    Full {
        bytes: u64,
    },
}

const LOCK_STATE: Sql = Sql {
    sqlite: "select last, swept, bytes from content_state",
    postgres: "select last, swept, bytes from content_state for update",
};

const READ_ONE: Sql = Sql::both(
    "select collection, key, content_type, value, version, updated_at from content where collection = $1 and key = $2",
);

const WRITE: Sql = Sql::both(
    "insert into content (collection, key, content_type, value, version, updated_at)
     values ($1, $2, $3, $4, $5, (select now_ms from clock))
     on conflict (collection, key) do update set content_type = excluded.content_type, value = excluded.value,
         version = excluded.version, updated_at = excluded.updated_at",
);

const ADVANCE: Sql = Sql::both("update content_state set last = $1, bytes = $2");

/// One statement, so that the page and the head are of one moment.
const READ_AFTER: Sql = Sql::both(
    "select s.last, s.swept, s.bytes, c.collection, c.key, c.content_type, c.value, c.version, c.updated_at
     from content_state s left join (
         select collection, key, content_type, value, version, updated_at from content
         where version > $1 order by version limit $2
     ) c on true
     order by c.version",
);

const SWEEP: Sql = Sql::both(
    "delete from content where version in (
         select version from content
         where value is null and updated_at < (select now_ms from clock) - $1 order by version limit $2)
     returning version",
);

const SET_SWEPT: Sql = Sql::both("update content_state set swept = $1");

impl Store {
    /// Writes or deletes a value, if it is what the write expects. A repeat of a write that expects a version finds a conflict
    /// with itself.
    pub async fn write_content(&self, write: &ContentWrite) -> Result<ContentOutcome, StoreError> {
        self.write("write_content", async |transaction| {
            let state = transaction.row(&LOCK_STATE, args![]).await?;
            let head = content_head(&state.ok_or(StoreError::Damaged { column: "last" })?)?;
            let key = args![write.collection.as_str(), write.key.as_str()];
            let stands = transaction.row(&READ_ONE, key).await?;
            let stands = stands.as_ref().map(content_row).transpose()?;
            let stands = stands.filter(|row| row.value.is_some());
            let version = stands.as_ref().map_or(0, |row| row.version);
            if write.expect.is_some_and(|expected| expected != version) {
                return Ok(ContentOutcome::Conflict { version });
            }
            let (content_type, value) = match &write.value {
                Some((content_type, value)) => (content_type.as_str(), Some(value)),
                None if stands.is_none() => return Ok(ContentOutcome::NotFound),
                None => ("", None),
            };
            let was = stands
                .and_then(|row| row.value)
                .map_or(0, |value| cost(&write.collection, &write.key, &value));
            let is = value.map_or(0, |value| cost(&write.collection, &write.key, value));
            let bytes = head.bytes.saturating_sub(was) + is;
            if bytes > write.bytes_max && is > was {
                return Ok(ContentOutcome::Full { bytes });
            }
            let version = head.last + 1;
            let row = args![
                write.collection.as_str(),
                write.key.as_str(),
                content_type,
                value.map(|value| value.to_vec()),
                version,
            ];
            transaction.rows(&WRITE, row).await?;
            transaction.rows(&ADVANCE, args![version, bytes]).await?;
            Ok(ContentOutcome::Written { version })
        })
        .await
    }

    /// What changed after a version, at most `limit` values, and how far content is.
    pub async fn read_content(&self, after: u64, limit: u32) -> Result<ContentPage, StoreError> {
        let rows = self.read("read_content", &READ_AFTER, args![after, limit]).await?;
        let first = rows.first().ok_or(StoreError::Damaged { column: "last" })?;
        let head = content_head(first)?;
        let mut page = ContentPage { head, rows: Vec::new() };
        for row in &rows {
            // Nothing changed: the head stands alone.
            if row.get::<Option<i64>>("version")?.is_some() {
                page.rows.push(content_row(row)?);
            }
        }
        Ok(page)
    }

    /// Forgets deletions that are older than this; at most `limit` of them, and how many it were.
    pub async fn sweep_content(&self, older_than_ms: u64, limit: u32) -> Result<usize, StoreError> {
        self.write("sweep", async |transaction| {
            let state = transaction.row(&LOCK_STATE, args![]).await?;
            let head = content_head(&state.ok_or(StoreError::Damaged { column: "last" })?)?;
            let mut swept = head.swept;
            let rows = transaction.rows(&SWEEP, args![older_than_ms, limit]).await?;
            for row in &rows {
                swept = swept.max(row.unsigned("version")?);
            }
            if swept > head.swept {
                transaction.rows(&SET_SWEPT, args![swept]).await?;
            }
            Ok(rows.len())
        })
        .await
    }
}

/// What a value counts against the limit of all content.
pub fn cost(collection: &str, key: &str, value: &[u8]) -> u64 {
    ENTRY_BYTES + (collection.len() + key.len() + value.len()) as u64
}

fn content_head(row: &Row) -> Result<ContentHead, StoreError> {
    Ok(ContentHead {
        last: row.unsigned("last")?,
        swept: row.unsigned("swept")?,
        bytes: row.unsigned("bytes")?,
    })
}

fn content_row(row: &Row) -> Result<ContentRow, StoreError> {
    Ok(ContentRow {
        collection: row.get("collection")?,
        key: row.get("key")?,
        content_type: row.get("content_type")?,
        value: row.get::<Option<Vec<u8>>>("value")?.map(Bytes::from),
        version: row.unsigned("version")?,
        updated_at_ms: row.unsigned("updated_at")?,
    })
}
