-- Everything that the first release keeps, and what the rows must be able to carry later (ownership, incarnations, effects).
-- Ids are 26 characters, digests 64 hex digits, times Unix milliseconds of the database's clock. A match is live while it has
-- not ended: `ended_at is null` is that predicate, because partial indexes can prove it.

create view clock as select cast(round(unixepoch('subsec') * 1000) as integer) as now_ms;

create table nodes (
    name          text primary key,
    generation    integer not null,
    client        text not null,
    peer          text not null,
    version       text not null,
    registered_at integer not null,
    renewed_at    integer not null
) strict;

create table matches (
    id                text primary key,
    kind              text not null check (kind in ('match', 'zone')),
    name              text,
    module            text not null,
    digest            text not null,
    durability        text not null check (durability in ('memory', 'replicated', 'stored')),
    params            blob not null,
    seed              integer not null,
    limits            text not null,
    invited           text not null,
    creator           text,
    private           integer not null,
    owner             text not null,
    owner_generation  integer not null,
    backup            text,
    backup_generation integer,
    epoch             integer not null,
    incarnation       integer not null,
    status            text not null check (status in ('starting', 'running', 'ended', 'failed', 'lost')),
    outcome           blob,
    reason            text,
    quick_key         text,
    created_at        integer not null,
    started_at        integer,
    ended_at          integer,
    check ((ended_at is null) = (status in ('starting', 'running'))),
    check ((backup is null) = (backup_generation is null))
) strict;

create unique index matches_live_name on matches (name) where name is not null and ended_at is null;
create unique index matches_live_quick on matches (quick_key) where quick_key is not null and ended_at is null;
create index matches_live_owner on matches (owner, status) where ended_at is null;
create index matches_live_backup on matches (backup) where backup is not null and ended_at is null;
create index matches_live_creator on matches (creator) where creator is not null and ended_at is null;
create index matches_over on matches (ended_at) where ended_at is not null;

-- Further names that a live match claimed. A row of a match that is over counts for nothing and may be taken.
create table names (
    name       text primary key,
    match_id   text not null references matches (id) on delete cascade,
    claimed_at integer not null
) strict;

create index names_match on names (match_id);

create table players (
    id         text primary key,
    name       text not null,
    created_at integer not null
) strict;

-- How a player proves to be one: 'device' (the hash of a device id), 'password' (a name and its argon2 hash) or 'external'
-- (another issuer's subject). The player is inserted after the credential that won, hence the deferred reference.
create table credentials (
    kind       text not null check (kind in ('device', 'password', 'external')),
    key        text not null,
    player     text not null references players (id) deferrable initially deferred,
    secret     text,
    created_at integer not null,
    primary key (kind, key)
) strict;

create index credentials_player on credentials (player);

-- One row for each family of tokens, that is for each sign-in; only hashes of the refresh tokens are kept.
create table refresh_tokens (
    family     text primary key,
    player     text not null references players (id) deferrable initially deferred,
    hash       text not null,
    previous   text,
    rotated_at integer not null,
    expires_at integer not null,
    created_at integer not null
) strict;

create index refresh_tokens_player on refresh_tokens (player);
create index refresh_tokens_expiry on refresh_tokens (expires_at);

create table revocations (
    family     text primary key,
    revoked_at integer not null
) strict;

create index revocations_time on revocations (revoked_at);

create table modules (
    digest       text primary key,
    name         text not null,
    version      text not null,
    manifest     text not null,
    component    blob not null,
    published_at integer not null
) strict;

create index modules_name on modules (name, published_at);

create table module_heads (
    name         text primary key,
    digest       text not null references modules (digest),
    published_at integer not null
) strict;

create table channels (
    name text primary key,
    last integer not null
) strict;

create table channel_lines (
    channel text not null references channels (name),
    number  integer not null,
    sender  text not null,
    text    text not null,
    at      integer not null,
    primary key (channel, number)
) strict;

-- Effects that have been applied, with their first answer, so that a repeat hears the same.
create table applied_effects (
    match_id    text not null references matches (id) on delete cascade,
    incarnation integer not null,
    event       integer not null,
    idx         integer not null,
    answer      text,
    applied_at  integer not null,
    primary key (match_id, incarnation, event, idx)
) strict;

-- `module` is empty for a player's own values, `owner` is empty for a module's own.
create table storage (
    module     text not null,
    owner      text not null,
    collection text not null,
    key        text not null,
    value      blob not null,
    version    text not null,
    updated_at integer not null,
    primary key (module, owner, collection, key)
) strict;
