//! Parties: players who queue together, and a code by which others join them.
//!
//! A player is in one party at most: joining another one is leaving this one. A party with nobody in it is gone. Each change
//! raises the party's version. Whoever leaves takes the tickets of the party out of their queues, in the same transaction: a party
//! plays whole.

use rookery_protocol::{PartyId, PlayerId};
use serde_json::json;

use super::sql::{Row, Sql, Transaction, args};
use super::tickets::leave_with_party;
use super::{Store, StoreError};

/// A party as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyRow {
    pub id: PartyId,
    pub code: String,
    pub leader: PlayerId,
    pub version: u64,
    /// In the order in which they joined.
    pub members: Vec<PartyMember>,
}

/// Somebody in a party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyMember {
    pub player: PlayerId,
    pub name: String,
}

impl PartyRow {
    pub fn has(&self, player: PlayerId) -> bool {
        self.members.iter().any(|member| member.player == player)
    }
}

/// What became of joining a party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartyOutcome {
    /// The player is in it, since now or before, and may have left another one for it.
    Joined {
        party: PartyRow,
        left: Option<Box<LeftParty>>,
    },
    /// No party has that code.
    NotFound,
    Full,
}

/// A party that somebody left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftParty {
    /// As it is now; without members it is gone.
    pub party: PartyRow,
    /// Who was in it before.
    pub players: Vec<PlayerId>,
}

macro_rules! members {
    ($from:literal) => {
        concat!(
            "select p.id, p.code, p.leader, p.version, m.player, m.name from ",
            $from,
            " join party_members m on m.party = p.id "
        )
    };
}

const OF_ID: Sql = Sql {
    sqlite: concat!(members!("parties p"), "where p.id = $1 order by m.number"),
    postgres: concat!(members!("parties p"), "where p.id = $1 order by m.number"),
};

/// By its id or its code.
const FIND: Sql = Sql::both(concat!(
    members!("parties p"),
    "where p.id = $1 or p.code = upper($1) order by m.number"
));

/// The parties of these players, each once.
const OF_PLAYERS: Sql = Sql {
    sqlite: concat!(
        members!("parties p"),
        "where p.id in (select o.party from party_members o where o.player in (select value from json_each($1)))
         order by p.id, m.number"
    ),
    postgres: concat!(
        members!("parties p"),
        "where p.id in (select o.party from party_members o
                        where o.player in (select v from jsonb_array_elements_text($1::jsonb) as a (v)))
         order by p.id, m.number"
    ),
};

/// Whoever changes a party has its row first, so that two who come at once do not both get the last place. Taken in the order of
/// ids where there are two.
const LOCK_OF_PLAYER: Sql = Sql {
    sqlite: "select p.id from parties p where p.id in (select party from party_members where player = $1) or p.code = upper($2)
             order by p.id",
    postgres: "select p.id from parties p
               where p.id in (select party from party_members where player = $1) or p.code = upper($2)
               order by p.id for update",
};

const PARTY_OF: Sql = Sql::both("select party from party_members where player = $1");

const INSERT: Sql = Sql {
    sqlite: "insert into parties (id, code, leader, version, created_at)
             select $1, $2, $3, 1, now_ms from clock where true on conflict do nothing returning id",
    postgres: "insert into parties (id, code, leader, version, created_at)
               select $1, $2, $3, 1, now_ms from clock on conflict do nothing returning id",
};

const ADD: Sql = Sql {
    sqlite: "insert into party_members (player, party, name, number, seen_at)
             select $1, $2, $3, coalesce((select max(number) + 1 from party_members where party = $2), 1), now_ms from clock
             where true on conflict do nothing returning player",
    postgres: "insert into party_members (player, party, name, number, seen_at)
               select $1, $2, $3, coalesce((select max(number) + 1 from party_members where party = $2), 1), now_ms from clock
               on conflict do nothing returning player",
};

const CHANGED: Sql = Sql::both("update parties set version = version + 1 where id = $1 returning id");

const REMOVE: Sql = Sql::both("delete from party_members where player = $1 and party = $2 returning player");

/// The first of those who stay leads when the leader does not.
const LEAD: Sql = Sql::both(
    "update parties set version = version + 1,
         leader = case when exists (select 1 from party_members m where m.party = parties.id and m.player = parties.leader)
                      then leader
                      else coalesce((select m.player from party_members m where m.party = parties.id order by m.number limit 1),
                                    leader) end
     where id = $1 returning id",
);

const END: Sql = Sql::both(
    "delete from parties where id = $1 and not exists (select 1 from party_members m where m.party = $1) returning id",
);

const SEEN: Sql = Sql {
    sqlite: "update party_members set seen_at = (select now_ms from clock)
             where player in (select value from json_each($1)) returning player",
    postgres: "update party_members set seen_at = (select now_ms from clock) where player in (
                   select player from party_members
                   where player in (select v from jsonb_array_elements_text($1::jsonb) as a (v))
                   for update skip locked)
               returning player",
};

const UNSEEN: Sql = Sql::both(
    "select player from party_members where seen_at < (select now_ms from clock) - $1 order by player limit 256",
);

const STILL_UNSEEN: Sql =
    Sql::both("select party from party_members where player = $1 and seen_at < (select now_ms from clock) - $2");

impl Store {
    /// Makes a party of one, or finds the one that the player is in. `code` is tried; none when another party has it.
    pub async fn create_party(
        &self,
        id: PartyId,
        code: &str,
        player: PlayerId,
        name: &str,
    ) -> Result<Option<PartyRow>, StoreError> {
        self.write("create_party", async |transaction| {
            let player_text = player.to_string();
            if let Some(own) = transaction.row(&PARTY_OF, args![player_text.as_str()]).await? {
                return read(transaction, own.parse("party")?).await;
            }
            let inserted = transaction
                .row(&INSERT, args![id.to_string(), code, player_text.as_str()])
                .await?;
            if inserted.is_none() {
                return Ok(None);
            }
            let added = transaction
                .row(&ADD, args![player_text.as_str(), id.to_string(), name])
                .await?;
            if added.is_none() {
                // Another node put the player into a party between the two statements: there it is.
                transaction.rows(&END, args![id.to_string()]).await?;
                let own = transaction.row(&PARTY_OF, args![player_text]).await?;
                let own = own.ok_or(StoreError::Busy)?;
                return read(transaction, own.parse("party")?).await;
            }
            read(transaction, id).await
        })
        .await
    }

    /// Puts a player into the party of this code, and out of the one that they were in.
    pub async fn join_party(
        &self,
        code: &str,
        player: PlayerId,
        name: &str,
        members_max: usize,
    ) -> Result<PartyOutcome, StoreError> {
        self.write("join_party", async |transaction| {
            let player_text = player.to_string();
            transaction
                .rows(&LOCK_OF_PLAYER, args![player_text.as_str(), code])
                .await?;
            let Some(found) = party(&transaction.rows(&FIND, args![code]).await?)? else {
                return Ok(PartyOutcome::NotFound);
            };
            if found.has(player) {
                return Ok(PartyOutcome::Joined {
                    party: found,
                    left: None,
                });
            }
            if found.members.len() >= members_max {
                return Ok(PartyOutcome::Full);
            }
            let own = transaction.row(&PARTY_OF, args![player_text.as_str()]).await?;
            let left = match own {
                Some(own) => leave(transaction, own.parse("party")?, player).await?,
                None => None,
            };
            let id = found.id.to_string();
            let added = transaction.row(&ADD, args![player_text, id.as_str(), name]).await?;
            if added.is_none() {
                return Err(StoreError::Busy);
            }
            transaction.rows(&CHANGED, args![id]).await?;
            let party = read(transaction, found.id).await?.ok_or(StoreError::Busy)?;
            let left = left.map(Box::new);
            Ok(PartyOutcome::Joined { party, left })
        })
        .await
    }

    /// Takes a player out of their party; none if they are in none.
    pub async fn leave_party(&self, player: PlayerId) -> Result<Option<LeftParty>, StoreError> {
        self.write("leave_party", async |transaction| {
            transaction.rows(&LOCK_OF_PLAYER, args![player.to_string(), ""]).await?;
            match transaction.row(&PARTY_OF, args![player.to_string()]).await? {
                Some(own) => leave(transaction, own.parse("party")?, player).await,
                None => Ok(None),
            }
        })
        .await
    }

    /// Takes a player out of this party; none if they are not in it.
    pub async fn kick_from_party(&self, party: PartyId, player: PlayerId) -> Result<Option<LeftParty>, StoreError> {
        self.write("leave_party", async |transaction| {
            transaction.rows(&LOCK_OF_PLAYER, args![player.to_string(), ""]).await?;
            leave(transaction, party, player).await
        })
        .await
    }

    /// A party by its id or its code.
    pub async fn find_party(&self, id_or_code: &str) -> Result<Option<PartyRow>, StoreError> {
        party(&self.read("read_parties", &FIND, args![id_or_code]).await?)
    }

    /// The parties that these players are in, each once.
    pub async fn parties_of(&self, players: &[PlayerId]) -> Result<Vec<PartyRow>, StoreError> {
        let rows = self
            .read("read_parties", &OF_PLAYERS, args![json!(players).to_string()])
            .await?;
        parties(&rows)
    }

    /// These players are connected now.
    pub async fn see_party_members(&self, players: &[PlayerId]) -> Result<(), StoreError> {
        let args = args![json!(players).to_string()];
        self.write("see_parties", async |transaction| {
            transaction.rows(&SEEN, args).await.map(|_| ())
        })
        .await
    }

    /// Takes those out of their parties who were not connected for this long.
    pub async fn sweep_parties(&self, unseen_for_ms: u64) -> Result<Vec<LeftParty>, StoreError> {
        let unseen = self.read("read_parties", &UNSEEN, args![unseen_for_ms]).await?;
        let mut left = Vec::new();
        for row in &unseen {
            let player: PlayerId = row.parse("player")?;
            left.extend(
                self.write("sweep_parties", async |transaction| {
                    transaction.rows(&LOCK_OF_PLAYER, args![player.to_string(), ""]).await?;
                    match transaction
                        .row(&STILL_UNSEEN, args![player.to_string(), unseen_for_ms])
                        .await?
                    {
                        Some(own) => leave(transaction, own.parse("party")?, player).await,
                        None => Ok(None),
                    }
                })
                .await?,
            );
        }
        Ok(left)
    }
}

async fn read(transaction: &mut Transaction, id: PartyId) -> Result<Option<PartyRow>, StoreError> {
    party(&transaction.rows(&OF_ID, args![id.to_string()]).await?)
}

async fn leave(transaction: &mut Transaction, id: PartyId, player: PlayerId) -> Result<Option<LeftParty>, StoreError> {
    let Some(before) = read(transaction, id).await? else {
        return Ok(None);
    };
    let removed = transaction
        .row(&REMOVE, args![player.to_string(), id.to_string()])
        .await?;
    if removed.is_none() {
        return Ok(None);
    }
    leave_with_party(transaction, id).await?;
    transaction.rows(&LEAD, args![id.to_string()]).await?;
    let after = read(transaction, id).await?;
    if after.is_none() {
        transaction.rows(&END, args![id.to_string()]).await?;
    }
    let players = before.members.iter().map(|member| member.player).collect();
    let party = after.unwrap_or(PartyRow {
        version: before.version + 1,
        members: Vec::new(),
        ..before
    });
    Ok(Some(LeftParty { party, players }))
}

fn party(rows: &[Row]) -> Result<Option<PartyRow>, StoreError> {
    Ok(parties(rows)?.into_iter().next())
}

fn parties(rows: &[Row]) -> Result<Vec<PartyRow>, StoreError> {
    let mut parties: Vec<PartyRow> = Vec::new();
    for row in rows {
        let id: PartyId = row.parse("id")?;
        if parties.last().is_none_or(|last| last.id != id) {
            parties.push(PartyRow {
                id,
                code: row.get("code")?,
                leader: row.parse("leader")?,
                version: row.unsigned("version")?,
                members: Vec::new(),
            });
        }
        if let Some(last) = parties.last_mut() {
            last.members.push(PartyMember {
                player: row.parse("player")?,
                name: row.get("name")?,
            });
        }
    }
    Ok(parties)
}
