/* Match logic for the Rookery game server in C: one header, no library, no tool that generates code.
 *
 *     #define ROOKERY_EXPORTS          // in exactly one source file: makes the exports that the node calls
 *     #include "rookery.h"
 *
 * You write the functions `match_*` that are declared below; in them you call the functions `rookery_*`. Everything has the
 * name and the meaning that it has in match.wit, which is the contract; this header is its canonical ABI for wasm32, by hand.
 *
 *     clang --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--stack-first match.c -o core.wasm
 *     rookery module componentize core.wasm --out match.wasm
 *
 * WHO OWNS MEMORY
 *  1. What the node gives you (every `rookery_bytes`, the setup, the player, the entries, and all that they point to) lives in
 *     the memory of the call. It is yours to read until your function returns, and gone then. Copy what you want to keep.
 *  2. `rookery_scratch` gives more memory of the call: for a line that you are about to send. Nothing needs to be freed.
 *  3. What you give the node (a payload, a key, a reason) is copied before the function that takes it returns. What you
 *     *return* (a reason, a saved state, a manifest) must outlive your function: scratch, static and kept memory all do,
 *     a local array does not.
 *  4. `rookery_malloc`, `rookery_realloc` and `rookery_free` are for what the match keeps from call to call. Static variables do,
 *     too: each match has an instance of its own.
 *  No function returns NULL: when there is no more memory the call traps, and the node undoes it.
 *
 * WHAT MAY NOT BE DONE: nothing here is a thread, a clock, a file or a socket, and no such import would be accepted. A text is
 * UTF-8 without a terminating zero; the node refuses (a trap) a string that is not UTF-8. */
#ifndef ROOKERY_H
#define ROOKERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- What is passed around. The layouts are those of the canonical ABI: do not change them. ---- */

/* Bytes or a text; never owned by this struct. */
typedef struct { const uint8_t *at; uint32_t len; } rookery_bytes;

/* Perhaps bytes: `value` means something only with `is_some`. */
typedef struct { bool is_some; rookery_bytes value; } rookery_option;

typedef struct { rookery_bytes name, value; } rookery_pair;

typedef struct { const rookery_pair *at; uint32_t len; } rookery_pairs;

enum { ROOKERY_JSON, ROOKERY_BINARY };
enum { ROOKERY_MEMORY, ROOKERY_REPLICATED, ROOKERY_STORED };

typedef struct {
    rookery_bytes name, version;
    uint8_t codec;      /* ROOKERY_JSON, ROOKERY_BINARY */
    uint8_t durability; /* ROOKERY_MEMORY, ROOKERY_REPLICATED, ROOKERY_STORED */
    uint32_t tick_hz, min_players, max_players, max_spectators, grace_ms;
    bool quick_play, listed;
    rookery_pairs extra;
} rookery_manifest;

typedef struct {
    rookery_bytes player_id;
    uint32_t team;
    rookery_option party;
    rookery_bytes properties;
} rookery_invitee;

typedef struct {
    rookery_bytes match_id;
    rookery_option name;
    rookery_bytes params;
    const rookery_invitee *invited;
    uint32_t invited_len;
    rookery_pairs extra;
} rookery_setup;

typedef enum { ROOKERY_PLAYER, ROOKERY_SPECTATOR, ROOKERY_BOT } rookery_role;

typedef struct {
    uint32_t seat;
    rookery_bytes player_id, display_name;
    rookery_role role;
    bool has_team;
    uint32_t team;
    rookery_pairs extra;
} rookery_player;

typedef enum { ROOKERY_LEFT, ROOKERY_TIMED_OUT, ROOKERY_KICKED, ROOKERY_TRANSFERRED, ROOKERY_ENDED } rookery_leave_reason;

typedef enum { ROOKERY_DEBUG, ROOKERY_INFO, ROOKERY_WARN, ROOKERY_ERROR } rookery_level;

/* One durable value and its key. */
typedef struct { rookery_bytes key, data, version; } rookery_entry;

/* Entries, or with `failed` the error's word: "conflict", "not_found", and so on. */
typedef struct {
    bool failed;
    rookery_bytes error;
    const rookery_entry *entries;
    uint32_t len;
} rookery_outcome;

/* What `match_start`, `match_join` and `match_load` return. */
typedef struct { bool refused; rookery_bytes reason; } rookery_result;

/* Who hears an output; made by the functions below. */
typedef struct { uint32_t kind, a, b; } rookery_audience;

/* ---- What you write ---- */

rookery_manifest match_describe(void);
rookery_result match_start(const rookery_setup *setup);
rookery_result match_join(const rookery_player *player, rookery_bytes ctx);
void match_leave(uint32_t seat, rookery_leave_reason reason);
void match_message(uint32_t seat, uint32_t n, rookery_bytes data);
void match_tick(uint32_t elapsed_ms);
void match_timer(uint32_t id);
void match_receive(rookery_bytes sender, rookery_bytes data);
void match_answer(uint32_t request, const rookery_outcome *outcome);
void match_signal(rookery_bytes topic, rookery_bytes data);
void match_resync(uint32_t seat);
rookery_bytes match_save(void);
rookery_result match_load(const rookery_setup *setup, rookery_bytes saved_by, rookery_bytes state);

/* ---- Memory ---- */

void *rookery_scratch(uint32_t size);
void *rookery_malloc(uint32_t size);
void *rookery_realloc(void *old, uint32_t size);
void rookery_free(void *at);

/* ---- Bytes and texts ---- */

/* A string literal as bytes: ROOKERY_TEXT("hello"). Also fit for the initialiser of a static variable. */
#define ROOKERY_TEXT(literal) {(const uint8_t *)("" literal), sizeof(literal) - 1}

static inline rookery_bytes rookery_bytes_of(const void *at, uint32_t len) {
    return (rookery_bytes){(const uint8_t *)at, len};
}

/* A text that ends with a zero. */
static inline rookery_bytes rookery_text(const char *text) {
    uint32_t len = 0;
    while (text[len]) len++;
    return rookery_bytes_of(text, len);
}

static inline bool rookery_equal(rookery_bytes bytes, const char *text) {
    uint32_t i = 0;
    while (i < bytes.len && text[i] && bytes.at[i] == (uint8_t)text[i]) i++;
    return i == bytes.len && !text[i];
}

static inline bool rookery_starts_with(rookery_bytes bytes, const char *text) {
    uint32_t i = 0;
    while (text[i] && i < bytes.len && bytes.at[i] == (uint8_t)text[i]) i++;
    return !text[i];
}

static inline rookery_bytes rookery_skip(rookery_bytes bytes, uint32_t count) {
    if (count > bytes.len) count = bytes.len;
    return rookery_bytes_of(bytes.at + count, bytes.len - count);
}

static inline rookery_option rookery_some(rookery_bytes value) { return (rookery_option){true, value}; }
static inline rookery_option rookery_none(void) { return (rookery_option){false, {0, 0}}; }
static inline rookery_result rookery_ok(void) { return (rookery_result){false, {0, 0}}; }
static inline rookery_result rookery_refuse(rookery_bytes reason) { return (rookery_result){true, reason}; }

/* Writes a text piece by piece into scratch memory: `rookery_writer w = {0}; rookery_put(&w, "seat "); rookery_put_u32(&w, 3);` */
typedef struct { uint8_t *at; uint32_t len, capacity; } rookery_writer;

void rookery_put_bytes(rookery_writer *writer, rookery_bytes bytes);
void rookery_put_u64(rookery_writer *writer, uint64_t number);

static inline void rookery_put(rookery_writer *writer, const char *text) { rookery_put_bytes(writer, rookery_text(text)); }
static inline void rookery_put_u32(rookery_writer *writer, uint32_t number) { rookery_put_u64(writer, number); }
static inline rookery_bytes rookery_written(const rookery_writer *writer) { return rookery_bytes_of(writer->at, writer->len); }

/* ---- What you may call: the imports of match.wit ---- */

#define ROOKERY_IMPORT(interface, name) \
    __attribute__((import_module("rookery:game/" interface "@1.0.0"), import_name(name)))

ROOKERY_IMPORT("room", "send") void rookery_abi_send(uint32_t, uint32_t, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("room", "publish")
void rookery_abi_publish(uint32_t, uint32_t, const void *, uint32_t, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("room", "kick") void rookery_abi_kick(uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("room", "add-bot") void rookery_abi_add_bot(const void *, uint32_t, void *);
ROOKERY_IMPORT("room", "set-joinable") void rookery_abi_set_joinable(uint32_t);
ROOKERY_IMPORT("room", "set-label") void rookery_abi_set_label(const void *, uint32_t);
ROOKERY_IMPORT("room", "finish") void rookery_abi_finish(const void *, uint32_t);
ROOKERY_IMPORT("log", "write") void rookery_abi_log(uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("mail", "tell") void rookery_abi_tell(uint32_t, const void *, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("mail", "transfer")
void rookery_abi_transfer(uint32_t, uint32_t, const void *, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("mail", "say") void rookery_abi_say(const void *, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("mail", "claim") void rookery_abi_claim(uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("mail", "release") void rookery_abi_release(const void *, uint32_t);
ROOKERY_IMPORT("storage", "read")
void rookery_abi_storage_read(uint32_t, uint32_t, const void *, uint32_t, const void *, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("storage", "write")
void rookery_abi_storage_write(uint32_t, uint32_t, const void *, uint32_t, const void *, uint32_t, const void *, uint32_t,
                               uint32_t, const void *, uint32_t, uint32_t, const void *, uint32_t);
ROOKERY_IMPORT("storage", "scan")
void rookery_abi_storage_scan(uint32_t, uint32_t, const void *, uint32_t, const void *, uint32_t, const void *, uint32_t,
                              uint32_t);
ROOKERY_IMPORT("content", "read") void rookery_abi_content_read(uint32_t, const void *, uint32_t, const void *, uint32_t);

static inline rookery_audience rookery_everyone(void) { return (rookery_audience){0, 0, 0}; }
static inline rookery_audience rookery_players(void) { return (rookery_audience){1, 0, 0}; }
static inline rookery_audience rookery_spectators(void) { return (rookery_audience){2, 0, 0}; }
static inline rookery_audience rookery_one(uint32_t seat) { return (rookery_audience){3, seat, 0}; }
/* The array is read when the output is sent, so it must live until then. */
static inline rookery_audience rookery_seats(const uint32_t *seats, uint32_t len) {
    return (rookery_audience){4, (uint32_t)(uintptr_t)seats, len};
}
static inline rookery_audience rookery_except(uint32_t seat) { return (rookery_audience){5, seat, 0}; }

/* Reliable and in order. */
static inline void rookery_send(rookery_audience to, rookery_bytes data) {
    rookery_abi_send(to.kind, to.a, to.b, data.at, data.len);
}

/* A value of the match's state, for everyone; no data removes the key. */
static inline void rookery_publish(rookery_bytes key, rookery_option data) {
    rookery_abi_publish(0, 0, key.at, key.len, data.is_some, data.value.at, data.value.len);
}

/* A value that one seat sees. */
static inline void rookery_publish_to(uint32_t seat, rookery_bytes key, rookery_option data) {
    rookery_abi_publish(1, seat, key.at, key.len, data.is_some, data.value.at, data.value.len);
}

static inline void rookery_kick(uint32_t seat, rookery_bytes reason) { rookery_abi_kick(seat, reason.at, reason.len); }

/* False when the match is full. */
static inline bool rookery_add_bot(rookery_bytes display_name, uint32_t *seat) {
    struct { uint8_t is_some; uint32_t seat; } answer;
    rookery_abi_add_bot(display_name.at, display_name.len, &answer);
    if (answer.is_some) *seat = answer.seat;
    return answer.is_some;
}

static inline void rookery_set_joinable(bool joinable) { rookery_abi_set_joinable(joinable); }
static inline void rookery_set_label(const rookery_pair *pairs, uint32_t len) { rookery_abi_set_label(pairs, len); }
static inline void rookery_finish(rookery_bytes outcome) { rookery_abi_finish(outcome.at, outcome.len); }

/* Milliseconds as of the current event: since the match started, and since the Unix epoch. */
ROOKERY_IMPORT("clock", "now") double rookery_now(void);
ROOKERY_IMPORT("clock", "unix") double rookery_unix(void);
ROOKERY_IMPORT("clock", "set-timer") void rookery_set_timer(uint32_t id, uint32_t after_ms);
ROOKERY_IMPORT("clock", "cancel-timer") void rookery_cancel_timer(uint32_t id);

ROOKERY_IMPORT("random", "bits") uint64_t rookery_random_bits(void);
ROOKERY_IMPORT("random", "below") uint32_t rookery_random_below(uint32_t limit);
ROOKERY_IMPORT("random", "unit") double rookery_random_unit(void);

static inline void rookery_log(rookery_level level, rookery_bytes line) { rookery_abi_log(level, line.at, line.len); }

/* Requests: the number is yours; `match_answer` brings it back. A target is a match's id or a registered name. */
static inline void rookery_tell(uint32_t request, rookery_bytes target, rookery_bytes data) {
    rookery_abi_tell(request, target.at, target.len, data.at, data.len);
}
static inline void rookery_transfer(uint32_t request, uint32_t seat, rookery_bytes target, rookery_bytes ctx) {
    rookery_abi_transfer(request, seat, target.at, target.len, ctx.at, ctx.len);
}
static inline void rookery_say(rookery_bytes channel, rookery_bytes text) {
    rookery_abi_say(channel.at, channel.len, text.at, text.len);
}
static inline void rookery_claim(uint32_t request, rookery_bytes name) { rookery_abi_claim(request, name.at, name.len); }
static inline void rookery_release(rookery_bytes name) { rookery_abi_release(name.at, name.len); }

/* Durable values of this module, or with an owner (a player's id) of this module for one player. */
static inline void rookery_storage_read(uint32_t request, rookery_option owner, rookery_bytes collection, rookery_bytes key) {
    rookery_abi_storage_read(request, owner.is_some, owner.value.at, owner.value.len, collection.at, collection.len, key.at,
                             key.len);
}
/* No value deletes. `version`: none writes anyway, the empty text only if there is no value, else only if it is unchanged. */
static inline void rookery_storage_write(uint32_t request, rookery_option owner, rookery_bytes collection, rookery_bytes key,
                                         rookery_option value, rookery_option version) {
    rookery_abi_storage_write(request, owner.is_some, owner.value.at, owner.value.len, collection.at, collection.len, key.at,
                              key.len, value.is_some, value.value.at, value.value.len, version.is_some, version.value.at,
                              version.value.len);
}
static inline void rookery_storage_scan(uint32_t request, rookery_option owner, rookery_bytes collection, rookery_bytes prefix,
                                        uint32_t limit) {
    rookery_abi_storage_scan(request, owner.is_some, owner.value.at, owner.value.len, collection.at, collection.len, prefix.at,
                             prefix.len, limit);
}
static inline void rookery_content_read(uint32_t request, rookery_bytes collection, rookery_bytes key) {
    rookery_abi_content_read(request, collection.at, collection.len, key.at, key.len);
}

ROOKERY_IMPORT("backfill", "open") void rookery_backfill_open(uint32_t seats);
ROOKERY_IMPORT("backfill", "close") void rookery_backfill_close(void);

#endif /* ROOKERY_H */

#if defined(ROOKERY_EXPORTS) && !defined(ROOKERY_EXPORTS_MADE)
#define ROOKERY_EXPORTS_MADE

/* ---- The C functions that compilers call by themselves; a library's own take precedence ---- */

__attribute__((weak)) void *memcpy(void *restrict to, const void *restrict from, size_t len) {
    uint8_t *t = to;
    for (const uint8_t *f = from; len; len--) *t++ = *f++;
    return to;
}

__attribute__((weak)) void *memmove(void *to, const void *from, size_t len) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if (t < f) {
        for (; len; len--) *t++ = *f++;
    } else {
        while (len--) t[len] = f[len];
    }
    return to;
}

__attribute__((weak)) void *memset(void *at, int byte, size_t len) {
    for (uint8_t *a = at; len; len--) *a++ = (uint8_t)byte;
    return at;
}

__attribute__((weak)) int memcmp(const void *left, const void *right, size_t len) {
    const uint8_t *l = left, *r = right;
    for (; len; len--, l++, r++)
        if (*l != *r) return *l - *r;
    return 0;
}

/* ---- Memory that is kept. Blocks are powers of two with eight bytes before them that say which; a freed block waits in the list of
 * its size. Simple, never fragments, and wastes at most half. ---- */

extern uint8_t __heap_base;

typedef union rookery_block {
    union rookery_block *next;
    uint64_t size_class;
} rookery_block;

static rookery_block *rookery_free_blocks[32];
static uint8_t *rookery_heap_end;

void *rookery_malloc(uint32_t size) {
    if (size > 0x7ffffff0) __builtin_trap();
    uint32_t size_class = 4;
    while ((1u << size_class) < size + sizeof(rookery_block)) size_class++;
    rookery_block *block = rookery_free_blocks[size_class];
    if (block) {
        rookery_free_blocks[size_class] = block->next;
    } else {
        if (!rookery_heap_end) rookery_heap_end = (uint8_t *)(((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15);
        uint64_t end = (uint64_t)(uintptr_t)rookery_heap_end + (1ull << size_class);
        uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
        if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (size_t)-1) __builtin_trap();
        block = (rookery_block *)rookery_heap_end;
        rookery_heap_end = (uint8_t *)(uintptr_t)end;
    }
    block->size_class = size_class;
    return block + 1;
}

void rookery_free(void *at) {
    if (!at) return;
    rookery_block *block = (rookery_block *)at - 1;
    uint32_t size_class = (uint32_t)block->size_class;
    block->next = rookery_free_blocks[size_class];
    rookery_free_blocks[size_class] = block;
}

void *rookery_realloc(void *old, uint32_t size) {
    if (!old) return rookery_malloc(size);
    uint32_t had = (1u << ((rookery_block *)old - 1)->size_class) - sizeof(rookery_block);
    if (size <= had) return old;
    void *at = rookery_malloc(size);
    memcpy(at, old, had);
    rookery_free(old);
    return at;
}

/* ---- Memory of the call: a page that is kept for good, and blocks for what does not fit, freed when the call is over ---- */

typedef struct rookery_large { struct rookery_large *next; uint64_t pad; } rookery_large;

static _Alignas(8) uint8_t rookery_small[4096];
static uint32_t rookery_small_used;
static rookery_large *rookery_large_blocks;

void *rookery_scratch(uint32_t size) {
    uint32_t rounded = (size + 7) & ~7u;
    if (rounded >= size && rounded <= sizeof(rookery_small) - rookery_small_used) {
        void *at = rookery_small + rookery_small_used;
        rookery_small_used += rounded;
        return at;
    }
    if (size > 0x7fffff00) __builtin_trap();
    rookery_large *block = rookery_malloc(size + sizeof(rookery_large));
    block->next = rookery_large_blocks;
    rookery_large_blocks = block;
    return block + 1;
}

static void rookery_call_is_over(void) {
    while (rookery_large_blocks) {
        rookery_large *next = rookery_large_blocks->next;
        rookery_free(rookery_large_blocks);
        rookery_large_blocks = next;
    }
    rookery_small_used = 0;
}

void rookery_put_bytes(rookery_writer *writer, rookery_bytes bytes) {
    if (bytes.len > writer->capacity - writer->len) {
        uint64_t capacity = 2 * ((uint64_t)writer->len + bytes.len) + 64;
        if (capacity > 0x7fffff00) __builtin_trap();
        uint8_t *at = rookery_scratch((uint32_t)capacity);
        memcpy(at, writer->at, writer->len);
        writer->at = at;
        writer->capacity = (uint32_t)capacity;
    }
    memcpy(writer->at + writer->len, bytes.at, bytes.len);
    writer->len += bytes.len;
}

void rookery_put_u64(rookery_writer *writer, uint64_t number) {
    uint8_t digits[20];
    uint32_t at = sizeof(digits);
    do digits[--at] = (uint8_t)('0' + number % 10);
    while (number /= 10);
    rookery_put_bytes(writer, rookery_bytes_of(digits + at, sizeof(digits) - at));
}

/* ---- The exports, in the canonical ABI. The node puts the arguments into memory of the call by `cabi_realloc`. What is returned by
 * address is read before `cabi_post_*`, which ends the call; the others end it themselves. ---- */

#define ROOKERY_EXPORT(name) __attribute__((export_name(name)))
#define ROOKERY_SETUP \
    const uint8_t *id, uint32_t id_len, uint32_t has_name, const uint8_t *name, uint32_t name_len, const uint8_t *params, \
        uint32_t params_len, const rookery_invitee *invited, uint32_t invited_len, const rookery_pair *extra, uint32_t extra_len
#define ROOKERY_THE_SETUP \
    {{id, id_len}, {has_name, {name, name_len}}, {params, params_len}, invited, invited_len, {extra, extra_len}}

_Static_assert(sizeof(rookery_manifest) == 52 && sizeof(rookery_invitee) == 32 && sizeof(rookery_entry) == 24 &&
                   sizeof(rookery_result) == 12 && offsetof(rookery_manifest, extra) == 44 && offsetof(rookery_result, reason) == 4,
               "the layouts are those of the canonical ABI for wasm32");

ROOKERY_EXPORT("cabi_realloc") void *rookery_cabi_realloc(void *old, uint32_t old_len, uint32_t align, uint32_t len) {
    (void)align; /* Eight is the largest there is, and what scratch memory has. */
    void *at = rookery_scratch(len);
    if (old_len) memcpy(at, old, old_len < len ? old_len : len);
    return at;
}

static rookery_manifest rookery_the_manifest;
static rookery_result rookery_the_result;
static rookery_bytes rookery_the_state;

ROOKERY_EXPORT("describe") rookery_manifest *rookery_export_describe(void) {
    rookery_the_manifest = match_describe();
    return &rookery_the_manifest;
}
ROOKERY_EXPORT("cabi_post_describe") void rookery_post_describe(void *result) { (void)result; rookery_call_is_over(); }

ROOKERY_EXPORT("start") rookery_result *rookery_export_start(ROOKERY_SETUP) {
    rookery_setup setup = ROOKERY_THE_SETUP;
    rookery_the_result = match_start(&setup);
    return &rookery_the_result;
}
ROOKERY_EXPORT("cabi_post_start") void rookery_post_start(void *result) { (void)result; rookery_call_is_over(); }

ROOKERY_EXPORT("join")
rookery_result *rookery_export_join(uint32_t seat, const uint8_t *id, uint32_t id_len, const uint8_t *name, uint32_t name_len,
                                    uint32_t role, uint32_t has_team, uint32_t team, const rookery_pair *extra,
                                    uint32_t extra_len, const uint8_t *ctx, uint32_t ctx_len) {
    rookery_player player = {seat,     {id, id_len}, {name, name_len}, (rookery_role)role,
                             has_team, team,         {extra, extra_len}};
    rookery_the_result = match_join(&player, rookery_bytes_of(ctx, ctx_len));
    return &rookery_the_result;
}
ROOKERY_EXPORT("cabi_post_join") void rookery_post_join(void *result) { (void)result; rookery_call_is_over(); }

ROOKERY_EXPORT("leave") void rookery_export_leave(uint32_t seat, uint32_t reason) {
    match_leave(seat, (rookery_leave_reason)reason);
    rookery_call_is_over();
}

ROOKERY_EXPORT("message")
void rookery_export_message(uint32_t seat, uint32_t n, const uint8_t *data, uint32_t len) {
    match_message(seat, n, rookery_bytes_of(data, len));
    rookery_call_is_over();
}

ROOKERY_EXPORT("tick") void rookery_export_tick(uint32_t elapsed_ms) {
    match_tick(elapsed_ms);
    rookery_call_is_over();
}

ROOKERY_EXPORT("timer") void rookery_export_timer(uint32_t id) {
    match_timer(id);
    rookery_call_is_over();
}

ROOKERY_EXPORT("receive")
void rookery_export_receive(const uint8_t *sender, uint32_t sender_len, const uint8_t *data, uint32_t len) {
    match_receive(rookery_bytes_of(sender, sender_len), rookery_bytes_of(data, len));
    rookery_call_is_over();
}

ROOKERY_EXPORT("answer") void rookery_export_answer(uint32_t request, uint32_t failed, const void *at, uint32_t len) {
    rookery_outcome outcome = {failed, {0, 0}, 0, 0};
    if (failed) {
        outcome.error = rookery_bytes_of(at, len);
    } else {
        outcome.entries = at;
        outcome.len = len;
    }
    match_answer(request, &outcome);
    rookery_call_is_over();
}

ROOKERY_EXPORT("signal")
void rookery_export_signal(const uint8_t *topic, uint32_t topic_len, const uint8_t *data, uint32_t len) {
    match_signal(rookery_bytes_of(topic, topic_len), rookery_bytes_of(data, len));
    rookery_call_is_over();
}

ROOKERY_EXPORT("resync") void rookery_export_resync(uint32_t seat) {
    match_resync(seat);
    rookery_call_is_over();
}

ROOKERY_EXPORT("save") rookery_bytes *rookery_export_save(void) {
    rookery_the_state = match_save();
    return &rookery_the_state;
}
ROOKERY_EXPORT("cabi_post_save") void rookery_post_save(void *result) { (void)result; rookery_call_is_over(); }

ROOKERY_EXPORT("load")
rookery_result *rookery_export_load(ROOKERY_SETUP, const uint8_t *by, uint32_t by_len, const uint8_t *state, uint32_t len) {
    rookery_setup setup = ROOKERY_THE_SETUP;
    rookery_the_result = match_load(&setup, rookery_bytes_of(by, by_len), rookery_bytes_of(state, len));
    return &rookery_the_result;
}
ROOKERY_EXPORT("cabi_post_load") void rookery_post_load(void *result) { (void)result; rookery_call_is_over(); }

#endif
