/* The conformance match in C. What it does is said in ../README.md; the same match is written beside it in four other languages,
 * and ../conformance.txt says what all five answer. */

#define ROOKERY_EXPORTS
#include "rookery.h"

/* ---- State: static variables, since each match has an instance of its own ---- */

/* How many things were heard, and a hash over all of them. */
static uint32_t count;
static uint32_t hash = 2166136261u;
/* Moved by every tick: arithmetic that must give the same bits everywhere. */
static double match_clock;
/* What somebody asked to be kept; ours, so it comes from rookery_malloc. */
static rookery_bytes kept;
/* What `grow` took. */
static uint8_t *held;

/* ---- Reading ---- */

static uint32_t number(rookery_bytes word) {
    uint64_t value = 0;
    if (!word.len) return 0;
    for (uint32_t i = 0; i < word.len; i++) {
        if (word.at[i] < '0' || word.at[i] > '9') return 0;
        value = value * 10 + (word.at[i] - '0');
        if (value > UINT32_MAX) return 0;
    }
    return (uint32_t)value;
}

/* Cuts off what comes before the first `mark`. Without one that is all. */
static rookery_bytes cut(rookery_bytes *text, uint8_t mark) {
    uint32_t len = 0;
    while (len < text->len && text->at[len] != mark) len++;
    rookery_bytes before = rookery_bytes_of(text->at, len);
    *text = rookery_skip(*text, len < text->len ? len + 1 : len);
    return before;
}

static rookery_bytes next_word(rookery_bytes *message) { return cut(message, ' '); }
static uint32_t next_number(rookery_bytes *message) { return number(next_word(message)); }

/* `-` is none, `.` the empty text. */
static rookery_option option(rookery_bytes word) {
    if (rookery_equal(word, "-")) return rookery_none();
    if (rookery_equal(word, ".")) return rookery_some(rookery_text(""));
    return rookery_some(word);
}

/* `everyone`, `players`, `spectators`, `one:SEAT`, `some:SEAT,SEAT`, `except:SEAT`. */
static rookery_audience audience(rookery_bytes word) {
    rookery_bytes who = cut(&word, ':');
    if (rookery_equal(who, "players")) return rookery_players();
    if (rookery_equal(who, "spectators")) return rookery_spectators();
    if (rookery_equal(who, "one")) return rookery_one(number(word));
    if (rookery_equal(who, "except")) return rookery_except(number(word));
    if (!rookery_equal(who, "some")) return rookery_everyone();
    uint32_t *seats = rookery_scratch((word.len + 1) * sizeof(uint32_t)), len = 0;
    do seats[len++] = number(cut(&word, ','));
    while (word.len);
    return rookery_seats(seats, len);
}

/* ---- Writing ---- */

static void put_halves(rookery_writer *line, uint64_t bits) {
    rookery_put_u64(line, bits >> 32);
    rookery_put(line, " ");
    rookery_put_u64(line, bits & 0xffffffff);
}

static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void put_option(rookery_writer *line, rookery_option value) {
    rookery_put_bytes(line, value.is_some ? value.value : rookery_text("-"));
}

/* Takes something into the count and the hash (FNV-1a). */
static void hear(rookery_bytes heard) {
    count++;
    for (uint32_t i = 0; i < heard.len; i++) hash = (hash ^ heard.at[i]) * 16777619u;
}

static void announce_text(rookery_bytes line) {
    hear(line);
    rookery_send(rookery_everyone(), line);
}

static void announce(const rookery_writer *line) { announce_text(rookery_written(line)); }

static void put_view(rookery_writer *line) {
    rookery_put_u32(line, count);
    rookery_put(line, " ");
    rookery_put_u32(line, hash);
    rookery_put(line, " ");
    rookery_put_bytes(line, kept);
}

/* The bytes of a call are gone when it is over, so what is kept is copied. */
static void keep(rookery_bytes text) {
    uint8_t *at = rookery_malloc(text.len);
    memcpy(at, text.at, text.len);
    rookery_free((void *)kept.at);
    kept = rookery_bytes_of(at, text.len);
}

/* ---- What a message asks for ---- */

static void set_label(rookery_bytes pairs) {
    rookery_pair *label = rookery_scratch((pairs.len + 1) * sizeof(rookery_pair));
    uint32_t len = 0;
    while (pairs.len) {
        rookery_bytes value = next_word(&pairs);
        if (!value.len) continue;
        rookery_bytes name = cut(&value, '=');
        label[len++] = (rookery_pair){name, value};
    }
    rookery_set_label(label, len);
}

static void write_value(rookery_bytes words) {
    uint32_t request = next_number(&words);
    rookery_option owner = option(next_word(&words));
    rookery_bytes collection = next_word(&words), key = next_word(&words);
    rookery_option version = option(next_word(&words));
    rookery_storage_write(request, owner, collection, key, option(words), version);
}

/* Does what a message says. What is put into `reply` is told to its sender. */
static void obey(uint32_t n, rookery_bytes message, rookery_writer *reply) {
    rookery_bytes words = message, verb = next_word(&words);
    if (rookery_equal(verb, "send")) {
        rookery_audience to = audience(next_word(&words));
        rookery_send(to, words);
    } else if (rookery_equal(verb, "publish")) {
        rookery_option to = option(next_word(&words));
        rookery_bytes key = next_word(&words);
        if (to.is_some)
            rookery_publish_to(number(to.value), key, option(words));
        else
            rookery_publish(key, option(words));
    } else if (rookery_equal(verb, "kick")) {
        uint32_t seat = next_number(&words);
        rookery_kick(seat, words);
    } else if (rookery_equal(verb, "bot")) {
        uint32_t seat;
        rookery_put(reply, "bot ");
        if (rookery_add_bot(words, &seat))
            rookery_put_u32(reply, seat);
        else
            rookery_put(reply, "none");
    } else if (rookery_equal(verb, "joinable")) {
        rookery_set_joinable(rookery_equal(next_word(&words), "yes"));
    } else if (rookery_equal(verb, "label")) {
        set_label(words);
    } else if (rookery_equal(verb, "finish")) {
        rookery_finish(words);
    } else if (rookery_equal(verb, "now")) {
        rookery_put(reply, "now ");
        rookery_put_u64(reply, (uint64_t)rookery_now());
        rookery_put(reply, " ");
        rookery_put_u64(reply, (uint64_t)rookery_unix());
    } else if (rookery_equal(verb, "timer")) {
        uint32_t id = next_number(&words);
        rookery_set_timer(id, next_number(&words));
    } else if (rookery_equal(verb, "cancel")) {
        rookery_cancel_timer(next_number(&words));
    } else if (rookery_equal(verb, "bits")) {
        rookery_put(reply, "bits ");
        put_halves(reply, rookery_random_bits());
    } else if (rookery_equal(verb, "below")) {
        rookery_put(reply, "below ");
        rookery_put_u32(reply, rookery_random_below(next_number(&words)));
    } else if (rookery_equal(verb, "unit")) {
        rookery_put(reply, "unit ");
        rookery_put_u32(reply, (uint32_t)(rookery_random_unit() * 4294967296.0));
    } else if (rookery_equal(verb, "log")) {
        rookery_bytes level = next_word(&words);
        rookery_log(rookery_equal(level, "info")    ? ROOKERY_INFO
                    : rookery_equal(level, "warn")  ? ROOKERY_WARN
                    : rookery_equal(level, "error") ? ROOKERY_ERROR
                                                    : ROOKERY_DEBUG,
                    words);
    } else if (rookery_equal(verb, "tell")) {
        uint32_t request = next_number(&words);
        rookery_bytes target = next_word(&words);
        rookery_tell(request, target, words);
    } else if (rookery_equal(verb, "transfer")) {
        uint32_t request = next_number(&words), seat = next_number(&words);
        rookery_bytes target = next_word(&words);
        rookery_transfer(request, seat, target, words);
    } else if (rookery_equal(verb, "say")) {
        rookery_bytes channel = next_word(&words);
        rookery_say(channel, words);
    } else if (rookery_equal(verb, "claim")) {
        uint32_t request = next_number(&words);
        rookery_claim(request, words);
    } else if (rookery_equal(verb, "release")) {
        rookery_release(words);
    } else if (rookery_equal(verb, "read")) {
        uint32_t request = next_number(&words);
        rookery_option owner = option(next_word(&words));
        rookery_bytes collection = next_word(&words);
        rookery_storage_read(request, owner, collection, words);
    } else if (rookery_equal(verb, "write")) {
        write_value(words);
    } else if (rookery_equal(verb, "scan")) {
        uint32_t request = next_number(&words);
        rookery_option owner = option(next_word(&words));
        rookery_bytes collection = next_word(&words);
        uint32_t limit = next_number(&words);
        rookery_storage_scan(request, owner, collection, words, limit);
    } else if (rookery_equal(verb, "content")) {
        uint32_t request = next_number(&words);
        rookery_bytes collection = next_word(&words);
        rookery_content_read(request, collection, words);
    } else if (rookery_equal(verb, "backfill")) {
        rookery_option seats = option(next_word(&words));
        if (seats.is_some)
            rookery_backfill_open(number(seats.value));
        else
            rookery_backfill_close();
    } else if (rookery_equal(verb, "keep")) {
        keep(words);
    } else if (rookery_equal(verb, "kept")) {
        rookery_put(reply, "kept ");
        put_view(reply);
    } else if (rookery_equal(verb, "number")) {
        rookery_put(reply, "number ");
        rookery_put_u32(reply, n);
    } else if (rookery_equal(verb, "trap")) {
        announce_text(words);
        __builtin_trap();
    } else if (rookery_equal(verb, "spend")) {
        uint32_t rounds = next_number(&words), value = 1;
        for (uint32_t round = 0; round < rounds; round++) value = value * 31 + round;
        rookery_put(reply, "spent ");
        rookery_put_u32(reply, value);
    } else if (rookery_equal(verb, "grow")) {
        uint32_t bytes = next_number(&words);
        rookery_free(held);
        held = rookery_malloc(bytes);
        for (uint32_t at = 0; at < bytes; at += 4096) held[at] = 1;
        rookery_put(reply, "grown ");
        rookery_put_u32(reply, bytes);
    } else {
        rookery_put(reply, "? ");
        rookery_put_bytes(reply, message);
    }
}

/* ---- What the node calls ---- */

rookery_manifest match_describe(void) {
    static const rookery_pair extra[] = {{ROOKERY_TEXT("language"), ROOKERY_TEXT("c")}};
    return (rookery_manifest){
        .name = ROOKERY_TEXT("conformance"),
        .version = ROOKERY_TEXT("1.0.0"),
        .codec = ROOKERY_BINARY,
        .durability = ROOKERY_MEMORY,
        .tick_hz = 10,
        .min_players = 1,
        .max_players = 4,
        .max_spectators = 2,
        .grace_ms = 5000,
        .quick_play = true,
        .listed = true,
        .extra = {extra, 1},
    };
}

rookery_result match_start(const rookery_setup *setup) {
    if (rookery_starts_with(setup->params, "refuse ")) return rookery_refuse(rookery_skip(setup->params, 7));
    rookery_writer value = {0};
    rookery_put_bytes(&value, setup->match_id);
    rookery_put(&value, " ");
    put_option(&value, setup->name);
    rookery_put(&value, " ");
    rookery_put_bytes(&value, setup->params);
    rookery_publish(rookery_text("match"), rookery_some(rookery_written(&value)));
    for (uint32_t i = 0; i < setup->invited_len; i++) {
        const rookery_invitee *invitee = &setup->invited[i];
        rookery_writer key = {0}, invited = {0};
        rookery_put(&key, "invited.");
        rookery_put_u32(&key, i);
        rookery_put_bytes(&invited, invitee->player_id);
        rookery_put(&invited, " ");
        rookery_put_u32(&invited, invitee->team);
        rookery_put(&invited, " ");
        put_option(&invited, invitee->party);
        rookery_put(&invited, " ");
        rookery_put_bytes(&invited, invitee->properties);
        rookery_publish(rookery_written(&key), rookery_some(rookery_written(&invited)));
    }
    rookery_writer line = {0}, started = {0};
    rookery_put(&line, "started at ");
    rookery_put_u64(&line, (uint64_t)rookery_unix());
    rookery_log(ROOKERY_INFO, rookery_written(&line));
    rookery_put(&started, "started ");
    rookery_put_u32(&started, setup->invited_len);
    announce(&started);
    return rookery_ok();
}

rookery_result match_join(const rookery_player *player, rookery_bytes ctx) {
    static const char *const roles[] = {"player", "spectator", "bot"};
    if (rookery_starts_with(ctx, "refuse ")) return rookery_refuse(rookery_skip(ctx, 7));
    rookery_writer line = {0};
    rookery_put(&line, "joined ");
    rookery_put_u32(&line, player->seat);
    rookery_put(&line, " ");
    rookery_put(&line, roles[player->role]);
    rookery_put(&line, " ");
    if (player->has_team)
        rookery_put_u32(&line, player->team);
    else
        rookery_put(&line, "-");
    rookery_put(&line, " ");
    rookery_put_bytes(&line, player->player_id);
    rookery_put(&line, " ");
    rookery_put_bytes(&line, player->display_name);
    rookery_put(&line, " ");
    rookery_put_u32(&line, player->extra.len);
    for (uint32_t i = 0; i < player->extra.len; i++) {
        rookery_put(&line, " ");
        rookery_put_bytes(&line, player->extra.at[i].name);
        rookery_put(&line, "=");
        rookery_put_bytes(&line, player->extra.at[i].value);
    }
    rookery_put(&line, " ");
    rookery_put_bytes(&line, ctx);
    announce(&line);
    return rookery_ok();
}

void match_leave(uint32_t seat, rookery_leave_reason reason) {
    static const char *const reasons[] = {"left", "timed-out", "kicked", "transferred", "ended"};
    rookery_writer line = {0};
    rookery_put(&line, "left ");
    rookery_put_u32(&line, seat);
    rookery_put(&line, " ");
    rookery_put(&line, reasons[reason]);
    announce(&line);
}

void match_message(uint32_t seat, uint32_t n, rookery_bytes data) {
    rookery_writer reply = {0};
    hear(data);
    obey(n, data, &reply);
    if (reply.len) rookery_send(rookery_one(seat), rookery_written(&reply));
}

void match_tick(uint32_t elapsed_ms) {
    match_clock = match_clock * 1.0001 + (double)elapsed_ms / 3.0;
    rookery_writer value = {0};
    put_halves(&value, bits_of(match_clock));
    rookery_publish(rookery_text("clock"), rookery_some(rookery_written(&value)));
}

void match_timer(uint32_t id) {
    rookery_writer line = {0};
    rookery_put(&line, "timer ");
    rookery_put_u32(&line, id);
    rookery_put(&line, " ");
    rookery_put_u64(&line, (uint64_t)rookery_now());
    announce(&line);
}

void match_receive(rookery_bytes sender, rookery_bytes data) {
    rookery_writer line = {0};
    rookery_put(&line, "mail ");
    rookery_put_bytes(&line, sender);
    rookery_put(&line, " ");
    rookery_put_bytes(&line, data);
    announce(&line);
}

void match_answer(uint32_t request, const rookery_outcome *outcome) {
    rookery_writer line = {0};
    rookery_put(&line, "answer ");
    rookery_put_u32(&line, request);
    if (outcome->failed) {
        rookery_put(&line, " error ");
        rookery_put_bytes(&line, outcome->error);
    } else {
        rookery_put(&line, " ok");
        for (uint32_t i = 0; i < outcome->len; i++) {
            rookery_put(&line, " ");
            rookery_put_bytes(&line, outcome->entries[i].key);
            rookery_put(&line, " ");
            rookery_put_bytes(&line, outcome->entries[i].version);
            rookery_put(&line, " ");
            rookery_put_bytes(&line, outcome->entries[i].data);
        }
    }
    announce(&line);
}

void match_signal(rookery_bytes topic, rookery_bytes data) {
    rookery_writer line = {0};
    rookery_put(&line, "signal ");
    rookery_put_bytes(&line, topic);
    rookery_put(&line, " ");
    rookery_put_bytes(&line, data);
    announce(&line);
}

void match_resync(uint32_t seat) {
    rookery_writer line = {0};
    rookery_put(&line, "view ");
    put_view(&line);
    rookery_send(rookery_one(seat), rookery_written(&line));
}

rookery_bytes match_save(void) {
    rookery_writer state = {0};
    rookery_put(&state, "v1 ");
    rookery_put_u32(&state, count);
    rookery_put(&state, " ");
    rookery_put_u32(&state, hash);
    rookery_put(&state, " ");
    put_halves(&state, bits_of(match_clock));
    rookery_put(&state, " ");
    rookery_put_bytes(&state, kept);
    return rookery_written(&state);
}

rookery_result match_load(const rookery_setup *setup, rookery_bytes saved_by, rookery_bytes state) {
    (void)setup;
    if (!rookery_starts_with(state, "v1 ")) return rookery_refuse(rookery_text("not a state of this match"));
    state = rookery_skip(state, 3);
    count = next_number(&state);
    hash = next_number(&state);
    uint64_t high = next_number(&state), bits = high << 32 | next_number(&state);
    memcpy(&match_clock, &bits, sizeof bits);
    keep(state);
    rookery_writer value = {0};
    rookery_put_bytes(&value, saved_by);
    rookery_put(&value, " ");
    rookery_put_u32(&value, count);
    rookery_publish(rookery_text("loaded"), rookery_some(rookery_written(&value)));
    return rookery_ok();
}
