-- The last saved state of each match that is to come back after its owner died: zones, and matches of durability `stored`.
-- `state` is what the match logic saved, `part` what the host keeps beside it.
create table saves (
    match_id    text primary key references matches (id) on delete cascade,
    epoch       bigint not null,
    incarnation bigint not null,
    event       bigint not null,
    saved_by    text not null,
    state       bytea not null,
    part        bytea not null,
    saved_at    bigint not null
);

-- Matches whose owner holds them under a lease: looked through every second for those whose lease ran out.
create index matches_leased on matches (owner, owner_generation)
    where ended_at is null and (kind = 'zone' or name is not null or durability = 'stored');
