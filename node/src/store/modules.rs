//! Published modules: components by digest, and which digest a bare name means.
//!
//! A component never changes under its digest. Publishing one that is stored already makes it its name's newest again, which is
//! how an author goes back.

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
}

/// A module with its bytes.
#[derive(Debug, Clone)]
pub struct StoredModule {
    pub module: ModuleRow,
    pub component: Bytes,
}

const INSERT: Sql = Sql::both(
    "insert into modules (digest, name, version, manifest, component, published_at)
     values ($1, $2, $3, $4, $5, (select now_ms from clock)) on conflict do nothing returning digest",
);

const SET_HEAD: Sql = Sql::both(
    "insert into module_heads (name, digest, published_at) values ($1, $2, (select now_ms from clock))
     on conflict (name) do update set digest = excluded.digest, published_at = excluded.published_at",
);

macro_rules! columns {
    () => {
        "m.digest, m.name, m.version, m.manifest, m.published_at,
         exists (select 1 from module_heads h where h.name = m.name and h.digest = m.digest) as is_head"
    };
}

const READ: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    ", m.component from modules m where m.digest = $1"
));

const READ_HEAD: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from module_heads n join modules m on m.digest = n.digest where n.name = $1"
));

const READ_VERSION: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from modules m where m.name = $1 and m.digest = $2"
));

const LIST: Sql = Sql::both(concat!(
    "select ",
    columns!(),
    " from modules m order by m.name, m.published_at, m.digest"
));

impl Store {
    /// Stores a component and makes it its name's newest. False when it was stored already.
    pub async fn put_module(&self, module: &NewModule) -> Result<bool, StoreError> {
        let digest = module.digest.to_string();
        let work = transact(&self.inner.database, async |transaction| {
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
            Ok(is_new)
        });
        self.timed("put_module", LARGE_DEADLINE, work).await
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
    })
}
