-- Tickets and parties. A ticket belongs to a player and is the notice too: it says `matched`, or `expired`, until its player has
-- heard of it. While it waits or is matched it is the player's only one in that queue. Times are Unix milliseconds of the
-- database's clock.

create table tickets (
    id         text primary key,
    queue      text not null,
    player     text not null,
    -- The player's name as others read it.
    name       text not null,
    -- Whoever queued together plays together: so many tickets have this party.
    party      text,
    party_size bigint not null,
    properties text not null,
    query      text not null,
    state      text not null check (state in ('waiting', 'matched', 'expired')),
    match_id   text,
    team       bigint,
    created_at bigint not null,
    -- When the player was last known to be connected.
    seen_at    bigint not null,
    expires_at bigint not null,
    matched_at bigint,
    check ((state = 'matched') = (match_id is not null))
);

create unique index tickets_live on tickets (queue, player) where state in ('waiting', 'matched');
create index tickets_waiting on tickets (queue, created_at) where state = 'waiting';
create index tickets_expiry on tickets (expires_at) where state <> 'matched';
create index tickets_player on tickets (player);
create index tickets_match on tickets (match_id) where match_id is not null;
create index tickets_party on tickets (party) where party is not null;

-- Who was put into a match together, for as long as one of its tickets stands.
create table formed_matches (
    match_id  text primary key,
    players   text not null,
    formed_at bigint not null
);

create index formed_matches_time on formed_matches (formed_at);

-- How long tickets waited of late, for estimates.
create table queue_waits (
    queue   text primary key,
    wait_ms bigint not null
);

create table parties (
    id         text primary key,
    code       text not null unique,
    leader     text not null,
    -- Counts the changes, so that what is heard late is known to be old.
    version    bigint not null,
    created_at bigint not null
);

create table party_members (
    player  text primary key,
    party   text not null references parties (id) on delete cascade,
    name    text not null,
    -- Its place in the order of joining.
    number  bigint not null,
    seen_at bigint not null
);

create index party_members_party on party_members (party, number);
create index party_members_seen on party_members (seen_at);
