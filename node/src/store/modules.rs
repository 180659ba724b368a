//! Published modules: components by digest, and which digest a bare name means.
//!
//! A component never changes under its digest. Publishing one that is stored already makes it its name's newest again, which is
//! how an author goes back, and adds a signature to those that it has. Whose signature counts is not decided here.

use std::collections::BTreeMap;

use bytes::Bytes;
use rookery_protocol::Digest;

use super::sql::{Row, Sql, args};
use super::{LARGE_DEADLINE, Store, StoreError, transact};

/// A checked component on its way into the store.
#[derive(Debug, Clone)]
pub struct NewModule {
    pub digest: Digest,
    pub name: String,
    pub version: String,
    /// The manifest as JSON text.
    pub manifest: String,
    pub component: Bytes,
    pub signature: Option<NewSignature>,
}

/// A signature of a component on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSignature {
    /// In base64.
    pub text: String,
    /// The key by which it is good, where that is known.
    pub key_id: Option<String>,
}

/// How many modules the store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleLimits {
    pub names_max: u32,
    /// Of one name.
    pub versions_max: u32,
}

/// What came of storing a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModulePut {
    New,
    /// Its bytes were there already; it is its name's newest now.
    Again,
    /// There are as many names as there may be. Nothing was stored.
    TooManyNames,
    /// The name has as many versions as it may have. Nothing was stored.
    TooManyVersions,
}

/// What came of removing a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleRemoval {
    Removed,
    NotFound,
    /// So many live matches use it. Nothing was removed.
    Used {
        matches: u64,
    },
    /// The bare name means it, and other versions are there that it does not mean. Nothing was removed.
    Newest,
}

/// A module without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRow {
    pub digest: Digest,
    pub name: String,
    pub version: String,
    pub manifest: String,
    pub published_at_ms: u64,
    /// Whether the bare name means this digest.
    pub is_head: bool,
    /// Length of the component.
    pub bytes: u64,
    /// In no order that means anything.
    pub signatures: Vec<StoredSignature>,
}

/// A signature as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSignature {
    pub text: String,
    /// By which key it was good when it was stored. A remark: it proves nothing.
    pub key_id: Option<String>,
}

/// A module with its bytes.
#[derive(Debug, Clone)]
pub struct StoredModule {
    pub module: ModuleRow,
    pub component: Bytes,
}

/// Signatures kept of one module; the oldest goes when another comes. Where keys are set only good ones get this far.
const SIGNATURES_MAX: u64 = 16;

const INSERT: Sql = Sql::both(
    "insert into modules (digest, name, version, manifest, component, published_at)
     values ($1, $2, $3, $4, $5, (select now_ms from clock)) on conflict do nothing returning digest",
);

/// What is counted before a component is stored. Two that are published in the same moment may both be the last one that fits.
const COUNT: Sql = Sql::both(
    "select (select count(*) from modules where digest = $1) as stored,
            (select count(*) from modules where name = $2) as versions,
            (select count(*) from module_heads) as names",
);

const SET_HEAD: Sql = Sql::both(
    "insert into module_heads (name, digest, published_at) values ($1, $2, (select now_ms from clock))
     on conflict (name) do update set digest = excluded.digest, published_at = excluded.published_at",
);

const INSERT_SIGNATURE: Sql = Sql::both(
    "insert into module_signatures (digest, signature, key_id, signed_at)
     values ($1, $2, $3, (select now_ms from clock))
     on conflict (digest, signature) do update
     set key_id = coalesce(excluded.key_id, module_signatures.key_id), signed_at = excluded.signed_at",
);

const TRIM_SIGNATURES: Sql = Sql::both(
    "delete from module_signatures where digest = $1 and signature <> $2 and signature not in
     (select signature from module_signatures where digest = $1 and signature <> $2
      order by signed_at desc, signature limit $3)",
);

/// Who removes locks the row first, so that what it decides by does not change under it.
const LOCK: Sql = Sql {
    sqlite: "select digest from modules where name = $1 and digest = $2",
    postgres: "select digest from modules where name = $1 and digest = $2 for update",
};

const USES: Sql = Sql::both(
    "select (select count(*) from matches where digest = $2 and ended_at is null) as matches,
            (select count(*) from modules where name = $1 and digest <> $2) as others,
            (select count(*) from module_heads where name = $1 and digest = $2) as heads",
);

const NEWEST: Sql =
    Sql::both("select count(*) as names, coalesce(max(published_at), 0) as published_at from module_heads");

const COUNT_MATCHES: Sql =
    Sql::both("select digest, count(*) as matches from matches where ended_at is null group by digest");

const DELETE_HEAD: Sql = Sql::both("delete from module_heads where name = $1 and digest = $2");
const DELETE_SIGNATURES: Sql = Sql::both("delete from module_signatures where digest = $1");
const DELETE: Sql = Sql::both("delete from modules where digest = $1");

/// The columns of a module without its bytes, whose length both databases know without reading them, and its signatures as
/// `signature:key signature:key …`: neither base64 nor hex has a colon or a space.
macro_rules! columns {
    ($join:literal) => {
        concat!(
            "m.digest, m.name, m.version, m.manifest, m.published_at, cast(length(m.component) as bigint) as bytes,
         exists (select 1 from module_heads h where h.name = m.name and h.digest = m.digest) as is_head,
         (select ",
            $join,
            "(s.signature || ':' || coalesce(s.key_id, ''), ' ')
          from module_signatures s where s.digest = m.digest) as signatures"
        )
    };
}

/// A statement that reads modules.
macro_rules! read {
    ($rest:literal) => {
        Sql {
            sqlite: concat!("select ", columns!("group_concat"), $rest),
            postgres: concat!("select ", columns!("string_agg"), $rest),
        }
    };
}

const READ: Sql = read!(", m.component from modules m where m.digest = $1");
const READ_HEAD: Sql = read!(" from module_heads n join modules m on m.digest = n.digest where n.name = $1");
const READ_VERSION: Sql = read!(" from modules m where m.name = $1 and m.digest = $2");
const LIST_HEADS: Sql = read!(" from module_heads n join modules m on m.digest = n.digest order by m.digest");
const LIST: Sql = read!(" from modules m order by m.name, m.published_at, m.digest");

impl Store {
    /// Stores a component with its signature and makes it its name's newest.
    pub async fn put_module(&self, module: &NewModule, limits: ModuleLimits) -> Result<ModulePut, StoreError> {
        let digest = module.digest.to_string();
        let work = transact(&self.inner.database, async |transaction| {
            let count = args![digest.as_str(), module.name.as_str()];
            let counted = transaction.row(&COUNT, count).await?;
            let counted = counted.ok_or(StoreError::Damaged { column: "stored" })?;
            if counted.unsigned("stored")? == 0 {
                let versions = counted.unsigned("versions")?;
                if versions == 0 && counted.unsigned("names")? >= u64::from(limits.names_max) {
                    return Ok(ModulePut::TooManyNames);
                }
                if versions >= u64::from(limits.versions_max) {
                    return Ok(ModulePut::TooManyVersions);
                }
            }
            let args = args![
                digest.as_str(),
                module.name.as_str(),
                module.version.as_str(),
                module.manifest.as_str(),
                module.component.to_vec(),
            ];
            let is_new = transaction.row(&INSERT, args).await?.is_some();
            transaction
                .rows(&SET_HEAD, args![module.name.as_str(), digest.as_str()])
                .await?;
            if let Some(signature) = &module.signature {
                let text = signature.text.as_str();
                let args = args![digest.as_str(), text, signature.key_id.as_deref()];
                transaction.rows(&INSERT_SIGNATURE, args).await?;
                transaction
                    .rows(&TRIM_SIGNATURES, args![digest.as_str(), text, SIGNATURES_MAX - 1])
                    .await?;
            }
            Ok(if is_new { ModulePut::New } else { ModulePut::Again })
        });
        self.timed("put_module", LARGE_DEADLINE, work).await
    }

    /// Removes a version of a module that no live match uses. One that is its name's newest goes only as the last one of the name.
    pub async fn remove_module(&self, name: &str, digest: &Digest) -> Result<ModuleRemoval, StoreError> {
        let digest = digest.to_string();
        self.write("remove_module", async |transaction| {
            let both = || args![name, digest.as_str()];
            if transaction.row(&LOCK, both()).await?.is_none() {
                return Ok(ModuleRemoval::NotFound);
            }
            let uses = transaction.row(&USES, both()).await?;
            let uses = uses.ok_or(StoreError::Damaged { column: "matches" })?;
            let matches = uses.unsigned("matches")?;
            if matches > 0 {
                return Ok(ModuleRemoval::Used { matches });
            }
            if uses.unsigned("heads")? > 0 && uses.unsigned("others")? > 0 {
                return Ok(ModuleRemoval::Newest);
            }
            transaction.rows(&DELETE_HEAD, both()).await?;
            transaction.rows(&DELETE_SIGNATURES, args![digest.as_str()]).await?;
            transaction.rows(&DELETE, args![digest.as_str()]).await?;
            Ok(ModuleRemoval::Removed)
        })
        .await
    }

    /// A module with its bytes.
    pub async fn get_module(&self, digest: &Digest) -> Result<Option<StoredModule>, StoreError> {
        let work = self.inner.database.rows(&READ, args![digest.to_string()]);
        let rows = self.timed("read_module", LARGE_DEADLINE, work).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(StoredModule {
            module: module_row(row)?,
            component: row.get::<Vec<u8>>("component")?.into(),
        }))
    }

    /// What `name` or `name@digest` means.
    pub async fn find_module(&self, reference: &str) -> Result<Option<ModuleRow>, StoreError> {
        let rows = match reference.split_once('@') {
            None => self.read("read_module", &READ_HEAD, args![reference]).await?,
            Some((name, digest)) => match digest.parse::<Digest>() {
                Ok(digest) => {
                    self.read("read_module", &READ_VERSION, args![name, digest.to_string()])
                        .await?
                }
                Err(_) => return Ok(None),
            },
        };
        rows.first().map(module_row).transpose()
    }

    /// How many live matches there are of each module that has any.
    pub async fn module_matches(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let rows = self.read("count_matches", &COUNT_MATCHES, args![]).await?;
        rows.iter()
            .map(|row| Ok((row.parse("digest")?, row.unsigned("matches")?)))
            .collect()
    }

    /// How many names there are and when the last publication was: what differs when something was published or removed.
    pub async fn newest_publication(&self) -> Result<(u64, u64), StoreError> {
        let rows = self.read("read_module", &NEWEST, args![]).await?;
        let row = rows.first().ok_or(StoreError::Damaged { column: "names" })?;
        Ok((row.unsigned("names")?, row.unsigned("published_at")?))
    }

    /// The newest version of each name.
    pub async fn list_module_heads(&self) -> Result<Vec<ModuleRow>, StoreError> {
        let rows = self.read("list_modules", &LIST_HEADS, args![]).await?;
        rows.iter().map(module_row).collect()
    }

    /// Every module, by name and time of first publication.
    pub async fn list_modules(&self) -> Result<Vec<ModuleRow>, StoreError> {
        let rows = self.read("list_modules", &LIST, args![]).await?;
        rows.iter().map(module_row).collect()
    }
}

fn module_row(row: &Row) -> Result<ModuleRow, StoreError> {
    Ok(ModuleRow {
        digest: row.parse("digest")?,
        name: row.get("name")?,
        version: row.get("version")?,
        manifest: row.get("manifest")?,
        published_at_ms: row.unsigned("published_at")?,
        is_head: row.get("is_head")?,
        bytes: row.unsigned("bytes")?,
        signatures: signatures(row.get("signatures")?),
    })
}

fn signatures(listed: Option<String>) -> Vec<StoredSignature> {
    let listed = listed.unwrap_or_default();
    let signature = |item: &str| {
        let (text, key_id) = item.split_once(':').unwrap_or((item, ""));
        StoredSignature {
            text: text.into(),
            key_id: (!key_id.is_empty()).then(|| key_id.into()),
        }
    };
    listed.split_whitespace().map(signature).collect()
}
