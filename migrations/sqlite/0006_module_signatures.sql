-- Who answers for a module: signatures over its digest, in base64. A node that has keys believes a signature by them and by nothing
-- else; `key_id` only says by which key it was good when it was stored, and is null where the storing node had no keys.
create table module_signatures (
    digest    text not null references modules (digest) on delete cascade,
    signature text not null,
    key_id    text,
    signed_at integer not null,
    primary key (digest, signature)
) strict;
