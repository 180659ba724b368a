//! Players, how they prove who they are, and the families of refresh tokens that their sign-ins began.
//!
//! Secrets arrive here hashed: this file never sees a password, a device id or a refresh token. A family that is revoked stays
//! in `revocations` for as long as an access token of it could live.

use std::collections::BTreeMap;
use std::str::FromStr;

use rookery_protocol::PlayerId;
use serde_json::json;

use super::batch::Write;
use super::sql::{Row, Sql, Transaction, args};
use super::{Store, StoreError};

/// A player account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Player {
    pub id: PlayerId,
    pub name: String,
}

/// What a credential's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CredentialKind {
    /// The hash of a device id.
    Device,
    /// A registered name in lower case; the secret is the password's hash.
    Password,
    /// Another issuer's subject.
    External,
}

impl CredentialKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Password => "password",
            Self::External => "external",
        }
    }
}

impl FromStr for CredentialKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Device, Self::Password, Self::External]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(())
    }
}

/// A credential on its way into the store; `(kind, key)` is unique.
#[derive(Debug, Clone)]
pub struct NewCredential {
    pub kind: CredentialKind,
    pub key: String,
    pub secret: Option<String>,
}

/// A family of tokens on its way into the store.
#[derive(Debug, Clone)]
pub struct NewFamily {
    pub family: String,
    /// The hash of its first refresh token.
    pub hash: String,
    pub expires_in_ms: u64,
}

/// What to do when the credential belongs to a player already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExisting {
    /// Whoever has the credential is that player.
    Adopt,
    Refuse,
}

/// A player who is to exist afterwards, with a credential and a family of tokens.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The id if the player is new.
    pub player: PlayerId,
    /// The name if the player is new.
    pub name: String,
    /// Whether an existing player takes the name too.
    pub rename: bool,
    pub credential: Option<NewCredential>,
    pub on_existing: OnExisting,
    pub family: Option<NewFamily>,
}

/// An account that exists now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub player: Player,
    pub is_new: bool,
}

/// What became of a [`NewAccount`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountOutcome {
    Opened(Account),
    /// The credential belongs to somebody else. Nothing was written.
    Taken,
}

/// A credential as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRow {
    pub player: Player,
    pub secret: Option<String>,
}

/// What became of a refresh token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The successor counts now.
    Done(Player),
    /// It was replaced a moment ago by the other successor, which counts.
    DoneByOther(Player),
    /// The token was replaced before: somebody has a copy. The whole family is revoked now.
    Reused,
    /// No such family, or it has expired or was revoked.
    Unknown,
}

/// Families that were revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    pub families: Vec<String>,
    /// The database's time of reading: ask from a little before it the next time, because a transaction that was under way
    /// carries an earlier one.
    pub as_of_ms: u64,
}

/// Each row `[kind, key, player, secret]`.
const INSERT_CREDENTIALS: Sql = Sql {
    sqlite: "insert into credentials (kind, key, player, secret, created_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, r.value ->> 3, (select now_ms from clock)
             from json_each($1) as r where true on conflict do nothing returning kind, key",
    postgres: "insert into credentials (kind, key, player, secret, created_at)
               select r.v ->> 0, r.v ->> 1, r.v ->> 2, r.v ->> 3, (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v) on conflict do nothing returning kind, key",
};

const READ_CREDENTIALS: Sql = Sql {
    sqlite: "select c.kind, c.key, p.id, p.name from json_each($1) as r
             join credentials c on c.kind = r.value ->> 0 and c.key = r.value ->> 1 join players p on p.id = c.player",
    postgres: "select c.kind, c.key, p.id, p.name from jsonb_array_elements($1::jsonb) as r (v)
               join credentials c on c.kind = r.v ->> 0 and c.key = r.v ->> 1 join players p on p.id = c.player",
};

/// Each row `[id, name]`.
const INSERT_PLAYERS: Sql = Sql {
    sqlite: "insert into players (id, name, created_at)
             select r.value ->> 0, r.value ->> 1, (select now_ms from clock)
             from json_each($1) as r where true on conflict do nothing",
    postgres: "insert into players (id, name, created_at)
               select r.v ->> 0, r.v ->> 1, (select now_ms from clock)
               from jsonb_array_elements($1::jsonb) as r (v) on conflict do nothing",
};

const RENAME_PLAYERS: Sql = Sql {
    sqlite: "update players set name = r.value ->> 1 from json_each($1) as r where players.id = r.value ->> 0",
    postgres: "update players set name = r.v ->> 1 from jsonb_array_elements($1::jsonb) as r (v)
               where players.id = r.v ->> 0",
};

/// Each row `[family, player, hash, lifetime]`.
const INSERT_FAMILIES: Sql = Sql {
    sqlite: "insert into refresh_tokens (family, player, hash, rotated_at, expires_at, created_at)
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, c.now_ms, c.now_ms + (r.value ->> 3), c.now_ms
             from json_each($1) as r, clock as c where true on conflict do nothing",
    postgres: "insert into refresh_tokens (family, player, hash, rotated_at, expires_at, created_at)
               select r.v ->> 0, r.v ->> 1, r.v ->> 2, c.now_ms, c.now_ms + (r.v ->> 3)::bigint, c.now_ms
               from jsonb_array_elements($1::jsonb) as r (v), clock as c on conflict do nothing",
};

const FIND_CREDENTIAL: Sql = Sql::both(
    "select p.id, p.name, c.secret from credentials c join players p on p.id = c.player where c.kind = $1 and c.key = $2",
);

const READ_PLAYER: Sql = Sql::both("select id, name from players where id = $1");

const ROTATE: Sql = Sql::both(
    "update refresh_tokens set previous = hash, hash = $3, rotated_at = (select now_ms from clock),
         expires_at = (select now_ms from clock) + $4
     where family = $1 and hash = $2 and expires_at > (select now_ms from clock)
     returning player",
);

/// A family that is alive, and whether this is the same rotation once more, shortly after the first.
const REPEATED: Sql = Sql::both(
    "select player,
         cast(case when previous = $2 and hash = $3 and rotated_at > (select now_ms from clock) - $4 then 1 else 0 end as bigint) as repeated
     from refresh_tokens where family = $1 and expires_at > (select now_ms from clock)",
);

const REVOKE: Sql = Sql::both(
    "insert into revocations (family, revoked_at) values ($1, (select now_ms from clock)) on conflict do nothing",
);

const DELETE_FAMILY: Sql = Sql::both("delete from refresh_tokens where family = $1");

/// One row at least, for the time.
const REVOKED_SINCE: Sql =
    Sql::both("select c.now_ms, r.family from clock c left join revocations r on r.revoked_at >= $1");

const SWEEP_REVOCATIONS: Sql = Sql::both("delete from revocations where revoked_at < (select now_ms from clock) - $1");

const SWEEP_FAMILIES: Sql = Sql::both("delete from refresh_tokens where expires_at < (select now_ms from clock)");

impl Store {
    /// Opens an account, or finds the one that the credential belongs to. Asking again with the same credential is safe.
    pub async fn open_account(&self, new: NewAccount) -> Result<AccountOutcome, StoreError> {
        self.submit("open_account", |reply| Write::Account(Box::new(new), reply))
            .await
    }

    /// Whose credential this is.
    pub async fn find_credential(&self, kind: CredentialKind, key: &str) -> Result<Option<CredentialRow>, StoreError> {
        let rows = self
            .read("read_player", &FIND_CREDENTIAL, args![kind.as_str(), key])
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(CredentialRow {
            player: player_row(row)?,
            secret: row.get("secret")?,
        }))
    }

    /// A player by id.
    pub async fn read_player(&self, id: PlayerId) -> Result<Option<Player>, StoreError> {
        let rows = self.read("read_player", &READ_PLAYER, args![id.to_string()]).await?;
        rows.first().map(player_row).transpose()
    }

    /// Begins a family of tokens for a player who has signed in.
    pub async fn start_family(&self, player: PlayerId, family: &NewFamily) -> Result<(), StoreError> {
        let rows = json!([[family.family, player, family.hash, family.expires_in_ms]]).to_string();
        self.write("start_family", async |transaction| {
            transaction.rows(&INSERT_FAMILIES, args![rows]).await.map(|_| ())
        })
        .await
    }

    /// Replaces a refresh token by its successor. The same rotation once more within `repeat_within_ms` is answered like the
    /// first, for the client whose answer was lost.
    pub async fn rotate(&self, shown: &ShownToken<'_>, successor: &NewFamily) -> Result<Rotation, StoreError> {
        self.write("rotate_token", async |transaction| {
            let rotation = args![
                shown.family,
                shown.hash,
                successor.hash.as_str(),
                successor.expires_in_ms
            ];
            if let Some(row) = transaction.row(&ROTATE, rotation).await? {
                return rotated(transaction, &row).await;
            }
            let repeat = args![
                shown.family,
                shown.hash,
                successor.hash.as_str(),
                shown.repeat_within_ms
            ];
            match transaction.row(&REPEATED, repeat).await? {
                None => Ok(Rotation::Unknown),
                Some(row) if row.get::<i64>("repeated")? == 1 => rotated(transaction, &row).await,
                Some(_) => {
                    if let Some(other) = shown.other_successor {
                        let repeat = args![shown.family, shown.hash, other, shown.repeat_within_ms];
                        let row = transaction.row(&REPEATED, repeat).await?;
                        if let Some(row) =
                            row.filter(|row| row.get::<i64>("repeated").is_ok_and(|repeated| repeated == 1))
                        {
                            return Ok(match rotated(transaction, &row).await? {
                                Rotation::Done(player) => Rotation::DoneByOther(player),
                                outcome => outcome,
                            });
                        }
                    }
                    revoke(transaction, shown.family).await?;
                    Ok(Rotation::Reused)
                }
            }
        })
        .await
    }

    /// Ends a family: its refresh token is void at once, its access tokens as soon as nodes hear of it.
    pub async fn revoke_family(&self, family: &str) -> Result<(), StoreError> {
        self.write("revoke_tokens", async |transaction| revoke(transaction, family).await)
            .await
    }

    /// The families that were revoked since this time of the database's clock.
    pub async fn revocations_since(&self, since_ms: u64) -> Result<Revocations, StoreError> {
        let rows = self.read("revoke_tokens", &REVOKED_SINCE, args![since_ms]).await?;
        let mut revocations = Revocations::default();
        for row in &rows {
            revocations.as_of_ms = row.unsigned("now_ms")?;
            revocations.families.extend(row.get::<Option<String>>("family")?);
        }
        Ok(revocations)
    }

    /// Forgets families that have expired, and revocations whose access tokens have.
    pub async fn sweep_tokens(&self, access_lifetime_ms: u64) -> Result<(), StoreError> {
        self.write("sweep", async |transaction| {
            transaction.rows(&SWEEP_REVOCATIONS, args![access_lifetime_ms]).await?;
            transaction.rows(&SWEEP_FAMILIES, args![]).await?;
            Ok(())
        })
        .await
    }
}

/// A refresh token that a client showed.
#[derive(Debug, Clone, Copy)]
pub struct ShownToken<'a> {
    pub family: &'a str,
    pub hash: &'a str,
    /// The hash of the successor that a node would make of it which signs with the other secret, while that is being replaced.
    pub other_successor: Option<&'a str>,
    pub repeat_within_ms: u64,
}

async fn rotated(transaction: &mut Transaction, row: &Row) -> Result<Rotation, StoreError> {
    let id: String = row.get("player")?;
    match transaction.row(&READ_PLAYER, args![id]).await? {
        Some(player) => Ok(Rotation::Done(player_row(&player)?)),
        None => Ok(Rotation::Unknown),
    }
}

async fn revoke(transaction: &mut Transaction, family: &str) -> Result<(), StoreError> {
    transaction.rows(&DELETE_FAMILY, args![family]).await?;
    transaction.rows(&REVOKE, args![family]).await?;
    Ok(())
}

/// Opens the group's accounts. No two of them have the same credential.
pub(super) async fn open(
    transaction: &mut Transaction,
    accounts: &[Box<NewAccount>],
) -> Result<Vec<AccountOutcome>, StoreError> {
    let existing = claim_credentials(transaction, accounts).await?;
    let mut outcomes = Vec::with_capacity(accounts.len());
    let (mut created, mut renamed, mut families) = (Vec::new(), Vec::new(), Vec::new());
    for account in accounts {
        let holder = account
            .credential
            .as_ref()
            .and_then(|credential| existing.get(&(credential.kind, credential.key.as_str())));
        let mut player = match holder {
            None => {
                created.push(json!([account.player, account.name]));
                Player {
                    id: account.player,
                    name: account.name.clone(),
                }
            }
            // The same id is an earlier try of this very request.
            Some(holder) if account.on_existing == OnExisting::Refuse && holder.id != account.player => {
                outcomes.push(AccountOutcome::Taken);
                continue;
            }
            Some(holder) => holder.clone(),
        };
        if account.rename && player.name != account.name {
            renamed.push(json!([player.id, account.name]));
            player.name.clone_from(&account.name);
        }
        if let Some(family) = &account.family {
            families.push(json!([family.family, player.id, family.hash, family.expires_in_ms]));
        }
        outcomes.push(AccountOutcome::Opened(Account {
            player,
            is_new: holder.is_none(),
        }));
    }
    for (sql, rows) in [
        (&INSERT_PLAYERS, created),
        (&RENAME_PLAYERS, renamed),
        (&INSERT_FAMILIES, families),
    ] {
        if !rows.is_empty() {
            transaction.rows(sql, args![json!(rows).to_string()]).await?;
        }
    }
    Ok(outcomes)
}

/// Inserts the credentials that are free and returns whose the others are.
async fn claim_credentials<'a>(
    transaction: &mut Transaction,
    accounts: &'a [Box<NewAccount>],
) -> Result<BTreeMap<(CredentialKind, &'a str), Player>, StoreError> {
    let wanted: Vec<_> = accounts
        .iter()
        .filter_map(|account| {
            account
                .credential
                .as_ref()
                .map(|credential| (account.player, credential))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<_> = wanted
        .iter()
        .map(|(player, credential)| json!([credential.kind.as_str(), credential.key, player, credential.secret]))
        .collect();
    let mut free = std::collections::BTreeSet::new();
    for row in transaction
        .rows(&INSERT_CREDENTIALS, args![json!(rows).to_string()])
        .await?
    {
        free.insert((row.parse::<CredentialKind>("kind")?, row.get::<String>("key")?));
    }
    let taken: BTreeMap<_, _> = wanted
        .iter()
        .map(|(_, credential)| (credential.kind, credential.key.as_str()))
        .filter(|(kind, key)| !free.contains(&(*kind, (*key).to_owned())))
        .map(|key| ((key.0, key.1.to_owned()), key))
        .collect();
    let mut existing = BTreeMap::new();
    if !taken.is_empty() {
        let rows: Vec<_> = taken.values().map(|(kind, key)| json!([kind.as_str(), key])).collect();
        for row in transaction
            .rows(&READ_CREDENTIALS, args![json!(rows).to_string()])
            .await?
        {
            let key = (row.parse::<CredentialKind>("kind")?, row.get::<String>("key")?);
            if let Some(&key) = taken.get(&key) {
                existing.insert(key, player_row(&row)?);
            }
        }
        if existing.len() != taken.len() {
            // Whoever held it is gone: the next try finds it free.
            return Err(StoreError::Busy);
        }
    }
    Ok(existing)
}

fn player_row(row: &Row) -> Result<Player, StoreError> {
    Ok(Player {
        id: row.parse("id")?,
        name: row.get("name")?,
    })
}
