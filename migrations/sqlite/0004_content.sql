-- Content that every node keeps a copy of, and who played which match.

-- One row for each value, deleted ones included: without their tombstones a node that missed the deletion would never hear of it.
-- `version` counts over all content, in the order of commits: a node that has read up to a version lacks nothing below it.
create table content (
    collection   text not null,
    key          text not null,
    content_type text not null,
    value        blob,
    version      integer not null,
    updated_at   integer not null,
    primary key (collection, key)
) strict;

create unique index content_version on content (version);

-- One row. Writers lock it first, which makes the order of versions that of commits. `swept` is the highest version of a
-- tombstone that is gone: a node that has read less than that reads everything again.
create table content_state (
    one   integer primary key check (one = 1),
    last  integer not null,
    swept integer not null,
    bytes integer not null
) strict;

insert into content_state (one, last, swept, bytes) values (1, 0, 0, 0);

-- Who sat in a match, for the records of a player. Written within seconds of the seating.
create table match_players (
    match_id text not null references matches (id) on delete cascade,
    player   text not null,
    primary key (match_id, player)
) strict;

create index match_players_player on match_players (player);
