-- Leases: who may do what only one may do at a time, and under which epoch. A row is never deleted, so that an epoch is never
-- used twice. `until` is by the database's clock; 0 when nobody holds it.

create table leases (
    name              text primary key,
    holder            text not null,
    holder_generation integer not null,
    epoch             integer not null,
    until             integer not null
) strict;
