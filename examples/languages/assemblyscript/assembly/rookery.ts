/**
 * Match logic for the Rookery game server in AssemblyScript: one file, to be copied beside your own.
 *
 *     import { Match, play, room } from "./rookery";
 *     export { answer, cabi_realloc, describe, join, leave, load_ as load, message, receive, resync, save, signal, start, tick, timer }
 *         from "./rookery";
 *     class Duel extends Match { .. }
 *     play(new Duel());
 *
 * Everything has the name and the meaning that it has in match.wit, which is the contract; this file is its canonical ABI by hand.
 *
 *     asc assembly/index.ts -O --use abort=assembly/rookery/abort -o core.wasm
 *     rookery module componentize core.wasm --out match.wasm
 *
 * WHO OWNS MEMORY: you need not care. What the node brings is copied into objects of yours before your method is called, and the
 * node copies what you give it before the function returns; the garbage collector does the rest, and is as deterministic as all
 * else. Each match has an instance of its own, so that fields of your class and global variables are the match's state.
 *
 * WHAT MAY NOT BE USED: `Math.random`, `Date.now`, `console` and `process` would need imports that no node has; making the component
 * fails and names them. Time is `clock`, chance is `random`, and lines go to `log`.
 */

// ---- What is passed around ----

export enum Codec { json, binary }
export enum Durability { memory, replicated, stored }
export enum Role { player, spectator, bot }
export enum LeaveReason { left, timedOut, kicked, transferred, ended }
export enum Level { debug, info, warn, error }

/** What a module says about itself. */
export class Manifest {
  version: string = "0.1.0";
  codec: Codec = Codec.json;
  durability: Durability = Durability.memory;
  /** Calls of `tick` a second; 0: only events wake the match. */
  tickHz: u32 = 0;
  minPlayers: u32 = 1;
  maxPlayers: u32 = 8;
  maxSpectators: u32 = 0;
  graceMs: u32 = 15_000;
  quickPlay: bool = false;
  listed: bool = true;
  extra: Pair[] = [];
  constructor(public name: string) {}
}

export class Pair {
  constructor(public name: string, public value: string) {}
}

/** A player for whom the matchmaker reserved a seat. */
export class Invitee {
  constructor(public playerId: string, public team: u32, public party: string | null, public properties: string) {}
}

/** How a match was created. */
export class Setup {
  constructor(
    public matchId: string,
    public name: string | null,
    public params: Uint8Array,
    public invited: Invitee[],
    public extra: Pair[],
  ) {}
}

/** Who sits on a seat. `team` means something only with `hasTeam`. */
export class Player {
  constructor(
    public seat: u32,
    public playerId: string,
    public displayName: string,
    public role: Role,
    public hasTeam: bool,
    public team: u32,
    public extra: Pair[],
  ) {}
}

/** One durable value and its key. */
export class Entry {
  constructor(public key: string, public data: Uint8Array, public version: string) {}
}

/** Who hears an output. */
export class Audience {
  private constructor(public kind: u32, public seat: u32, public seats: StaticArray<u32>) {}
  static everyone(): Audience { return new Audience(0, 0, []); }
  static players(): Audience { return new Audience(1, 0, []); }
  static spectators(): Audience { return new Audience(2, 0, []); }
  static one(seat: u32): Audience { return new Audience(3, seat, []); }
  static some(seats: u32[]): Audience { return new Audience(4, 0, StaticArray.fromArray(seats)); }
  static except(seat: u32): Audience { return new Audience(5, seat, []); }
}

/**
 * The rules of one match. Methods that may refuse return the reason, or null when all is well. Only `describe` is required.
 */
export abstract class Match {
  abstract describe(): Manifest;
  start(setup: Setup): string | null { return null; }
  join(player: Player, ctx: Uint8Array): string | null { return null; }
  leave(seat: u32, reason: LeaveReason): void {}
  message(seat: u32, n: u32, data: Uint8Array): void {}
  tick(elapsedMs: u32): void {}
  timer(id: u32): void {}
  receive(sender: string, data: Uint8Array): void {}
  /** Either `error` says why not, or it is null. */
  answer(request: u32, entries: Entry[], error: string | null): void {}
  signal(topic: string, data: string): void {}
  resync(seat: u32): void {}
  save(): Uint8Array { return new Uint8Array(0); }
  load(setup: Setup, savedBy: string, state: Uint8Array): string | null { return "this match does not carry its state"; }
}

let game: Match | null = null;

/** Says which rules are played; to be called once, at the top level of your module. */
export function play(match: Match): void {
  game = match;
}

// ---- Texts and bytes ----

/** A text as UTF-8. */
export function bytes(text: string): Uint8Array {
  return Uint8Array.wrap(encode(text));
}

/** UTF-8 as a text. */
export function text(bytes: Uint8Array): string {
  return String.UTF8.decodeUnsafe(bytes.dataStart, bytes.length);
}

/** What has no UTF-8 (half a surrogate pair) is replaced: the node takes no other strings. */
function encode(text: string): ArrayBuffer {
  return String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
}

const NOTHING = new ArrayBuffer(0);

function encodeOption(text: string | null): ArrayBuffer {
  return text === null ? NOTHING : encode(text);
}

// @ts-ignore: decorator
@inline
function at(buffer: ArrayBuffer): usize {
  return changetype<usize>(buffer);
}

// ---- What may be called: the imports of match.wit ----

@external("rookery:game/room@1.0.0", "send")
declare function abiSend(kind: u32, a: usize, b: u32, data: usize, len: u32): void;
@external("rookery:game/room@1.0.0", "publish")
declare function abiPublish(one: u32, seat: u32, key: usize, keyLen: u32, some: u32, data: usize, len: u32): void;
@external("rookery:game/room@1.0.0", "kick")
declare function abiKick(seat: u32, reason: usize, len: u32): void;
@external("rookery:game/room@1.0.0", "add-bot")
declare function abiAddBot(name: usize, len: u32, result: usize): void;
@external("rookery:game/room@1.0.0", "set-joinable")
declare function abiSetJoinable(joinable: u32): void;
@external("rookery:game/room@1.0.0", "set-label")
declare function abiSetLabel(pairs: usize, len: u32): void;
@external("rookery:game/room@1.0.0", "finish")
declare function abiFinish(outcome: usize, len: u32): void;
@external("rookery:game/clock@1.0.0", "now")
declare function abiNow(): f64;
@external("rookery:game/clock@1.0.0", "unix")
declare function abiUnix(): f64;
@external("rookery:game/clock@1.0.0", "set-timer")
declare function abiSetTimer(id: u32, afterMs: u32): void;
@external("rookery:game/clock@1.0.0", "cancel-timer")
declare function abiCancelTimer(id: u32): void;
@external("rookery:game/random@1.0.0", "bits")
declare function abiBits(): u64;
@external("rookery:game/random@1.0.0", "below")
declare function abiBelow(limit: u32): u32;
@external("rookery:game/random@1.0.0", "unit")
declare function abiUnit(): f64;
@external("rookery:game/log@1.0.0", "write")
declare function abiLog(level: u32, line: usize, len: u32): void;
@external("rookery:game/mail@1.0.0", "tell")
declare function abiTell(request: u32, target: usize, targetLen: u32, data: usize, len: u32): void;
@external("rookery:game/mail@1.0.0", "transfer")
declare function abiTransfer(request: u32, seat: u32, target: usize, targetLen: u32, ctx: usize, len: u32): void;
@external("rookery:game/mail@1.0.0", "say")
declare function abiSay(channel: usize, channelLen: u32, text: usize, len: u32): void;
@external("rookery:game/mail@1.0.0", "claim")
declare function abiClaim(request: u32, name: usize, len: u32): void;
@external("rookery:game/mail@1.0.0", "release")
declare function abiRelease(name: usize, len: u32): void;
@external("rookery:game/storage@1.0.0", "read")
declare function abiStorageRead(
  request: u32, owned: u32, owner: usize, ownerLen: u32, collection: usize, collectionLen: u32, key: usize, keyLen: u32,
): void;
@external("rookery:game/storage@1.0.0", "write")
declare function abiStorageWrite(
  request: u32, owned: u32, owner: usize, ownerLen: u32, collection: usize, collectionLen: u32, key: usize, keyLen: u32,
  some: u32, value: usize, len: u32, conditional: u32, version: usize, versionLen: u32,
): void;
@external("rookery:game/storage@1.0.0", "scan")
declare function abiStorageScan(
  request: u32, owned: u32, owner: usize, ownerLen: u32, collection: usize, collectionLen: u32, prefix: usize, prefixLen: u32,
  limit: u32,
): void;
@external("rookery:game/content@1.0.0", "read")
declare function abiContentRead(request: u32, collection: usize, collectionLen: u32, key: usize, keyLen: u32): void;
@external("rookery:game/backfill@1.0.0", "open")
declare function abiBackfillOpen(seats: u32): void;
@external("rookery:game/backfill@1.0.0", "close")
declare function abiBackfillClose(): void;

/** Talking to the players. */
export namespace room {
  /** Reliable and in order. */
  export function send(to: Audience, data: Uint8Array): void {
    const seats = to.seats;
    const a: usize = to.kind == 4 ? changetype<usize>(seats) : to.seat;
    abiSend(to.kind, a, seats.length, data.dataStart, data.length);
  }
  /** A value of the match's state that everyone sees; no data removes the key. */
  export function publish(key: string, data: Uint8Array | null): void {
    const k = encode(key);
    if (data === null) abiPublish(0, 0, at(k), k.byteLength, 0, 0, 0);
    else abiPublish(0, 0, at(k), k.byteLength, 1, data.dataStart, data.length);
  }
  /** A value that one seat sees. */
  export function publishTo(seat: u32, key: string, data: Uint8Array | null): void {
    const k = encode(key);
    if (data === null) abiPublish(1, seat, at(k), k.byteLength, 0, 0, 0);
    else abiPublish(1, seat, at(k), k.byteLength, 1, data.dataStart, data.length);
  }
  export function kick(seat: u32, reason: string): void {
    const r = encode(reason);
    abiKick(seat, at(r), r.byteLength);
  }
  /** The bot's seat, or 0 when the match is full: seats begin at 1. */
  export function addBot(displayName: string): u32 {
    const name = encode(displayName);
    abiAddBot(at(name), name.byteLength, RESULT);
    return load<u8>(RESULT) ? load<u32>(RESULT, 4) : 0;
  }
  export function setJoinable(joinable: bool): void { abiSetJoinable(u32(joinable)); }
  export function setLabel(pairs: Pair[]): void {
    const records = new ArrayBuffer(16 * pairs.length);
    // The buffers must be reachable until the call is done.
    const held: ArrayBuffer[] = [];
    for (let i = 0; i < pairs.length; i++) {
      const name = encode(pairs[i].name), value = encode(pairs[i].value), record = at(records) + 16 * i;
      held.push(name);
      held.push(value);
      store<usize>(record, at(name), 0);
      store<u32>(record, name.byteLength, 4);
      store<usize>(record, at(value), 8);
      store<u32>(record, value.byteLength, 12);
    }
    abiSetLabel(at(records), pairs.length);
  }
  /** Ends the match after this event. */
  export function finish(outcome: Uint8Array): void { abiFinish(outcome.dataStart, outcome.length); }
}

/** Milliseconds, as of the current event. */
export namespace clock {
  export function now(): f64 { return abiNow(); }
  export function unix(): f64 { return abiUnix(); }
  export function setTimer(id: u32, afterMs: u32): void { abiSetTimer(id, afterMs); }
  export function cancelTimer(id: u32): void { abiCancelTimer(id); }
}

/** Chance that a replay repeats. */
export namespace random {
  export function bits(): u64 { return abiBits(); }
  export function below(limit: u32): u32 { return abiBelow(limit); }
  export function unit(): f64 { return abiUnit(); }
}

export namespace log {
  export function write(level: Level, line: string): void {
    const l = encode(line);
    abiLog(level, at(l), l.byteLength);
  }
}

/** Between matches. A target is a match's id or a registered name. */
export namespace mail {
  export function tell(request: u32, target: string, data: Uint8Array): void {
    const t = encode(target);
    abiTell(request, at(t), t.byteLength, data.dataStart, data.length);
  }
  export function transfer(request: u32, seat: u32, target: string, ctx: Uint8Array): void {
    const t = encode(target);
    abiTransfer(request, seat, at(t), t.byteLength, ctx.dataStart, ctx.length);
  }
  export function say(channel: string, text: string): void {
    const c = encode(channel), t = encode(text);
    abiSay(at(c), c.byteLength, at(t), t.byteLength);
  }
  export function claim(request: u32, name: string): void {
    const n = encode(name);
    abiClaim(request, at(n), n.byteLength);
  }
  export function release(name: string): void {
    const n = encode(name);
    abiRelease(at(n), n.byteLength);
  }
}

/** Durable values of this module, or with an owner (a player's id) of this module for one player. */
export namespace storage {
  export function read(request: u32, owner: string | null, collection: string, key: string): void {
    const o = encodeOption(owner), c = encode(collection), k = encode(key);
    abiStorageRead(request, u32(owner !== null), at(o), o.byteLength, at(c), c.byteLength, at(k), k.byteLength);
  }
  /** No value deletes. `version`: null writes anyway, "" only if there is no value, else only if it is unchanged. */
  export function write(
    request: u32, owner: string | null, collection: string, key: string, value: Uint8Array | null, version: string | null,
  ): void {
    const o = encodeOption(owner), c = encode(collection), k = encode(key), v = encodeOption(version);
    const data: usize = value === null ? 0 : value.dataStart, len: u32 = value === null ? 0 : value.length;
    abiStorageWrite(
      request, u32(owner !== null), at(o), o.byteLength, at(c), c.byteLength, at(k), k.byteLength,
      u32(value !== null), data, len, u32(version !== null), at(v), v.byteLength,
    );
  }
  export function scan(request: u32, owner: string | null, collection: string, prefix: string, limit: u32): void {
    const o = encodeOption(owner), c = encode(collection), p = encode(prefix);
    abiStorageScan(request, u32(owner !== null), at(o), o.byteLength, at(c), c.byteLength, at(p), p.byteLength, limit);
  }
}

/** Shared read-only data. */
export namespace content {
  export function read(request: u32, collection: string, key: string): void {
    const c = encode(collection), k = encode(key);
    abiContentRead(request, at(c), c.byteLength, at(k), k.byteLength);
  }
}

/** Asks the matchmaker for more players while the match runs. */
export namespace backfill {
  export function open(seats: u32): void { abiBackfillOpen(seats); }
  export function close(): void { abiBackfillClose(); }
}

// ---- Arguments: the node allocates by `cabi_realloc`; they are copied into objects and freed before the match is called ----

/** The blocks of the call's arguments, each with the address of the one before at its beginning. */
let blocks: usize = 0;

export function cabi_realloc(old: usize, oldLen: u32, align: u32, len: u32): usize {
  const block = heap.alloc(16 + len);
  store<usize>(block, blocks);
  blocks = block;
  if (oldLen > 0) memory.copy(block + 16, old, min(oldLen, len));
  return block + 16;
}

function freeArguments(): void {
  while (blocks != 0) {
    const before = load<usize>(blocks);
    heap.free(blocks);
    blocks = before;
  }
}

function liftText(at: usize, len: u32): string {
  return String.UTF8.decodeUnsafe(at, len);
}

function liftBytes(at: usize, len: u32): Uint8Array {
  const bytes = new Uint8Array(len);
  memory.copy(bytes.dataStart, at, len);
  return bytes;
}

function liftOption(some: u32, at: usize, len: u32): string | null {
  return some ? liftText(at, len) : null;
}

/** A text in memory: its address and its length. */
function liftTextAt(record: usize): string {
  return liftText(load<usize>(record), load<u32>(record, 4));
}

function liftPairs(at: usize, len: u32): Pair[] {
  const pairs: Pair[] = [];
  for (let i: u32 = 0; i < len; i++) pairs.push(new Pair(liftTextAt(at + 16 * i), liftTextAt(at + 16 * i + 8)));
  return pairs;
}

function liftSetup(
  id: usize, idLen: u32, named: u32, name: usize, nameLen: u32, params: usize, paramsLen: u32, invited: usize, invitedLen: u32,
  extra: usize, extraLen: u32,
): Setup {
  const invitees: Invitee[] = [];
  for (let i: u32 = 0; i < invitedLen; i++) {
    const record = invited + 32 * i;
    const party = liftOption(load<u8>(record, 12), load<usize>(record, 16), load<u32>(record, 20));
    invitees.push(new Invitee(liftTextAt(record), load<u32>(record, 8), party, liftTextAt(record + 24)));
  }
  return new Setup(
    liftText(id, idLen), liftOption(named, name, nameLen), liftBytes(params, paramsLen), invitees, liftPairs(extra, extraLen),
  );
}

// ---- Results: read by the node as soon as the export returns. What they point to is held here until the next one. ----

const RESULT = memory.data(64);
let held: ArrayBuffer[] = [];

function lowerText(record: usize, text: string): void {
  const buffer = encode(text);
  held.push(buffer);
  store<usize>(record, at(buffer));
  store<u32>(record, buffer.byteLength, 4);
}

function lowerRefusal(reason: string | null): usize {
  held = [];
  store<u8>(RESULT, reason === null ? 0 : 1);
  if (reason !== null) lowerText(RESULT + 4, reason);
  return RESULT;
}

// ---- The exports ----

export function describe(): usize {
  const manifest = game!.describe();
  held = [];
  lowerText(RESULT, manifest.name);
  lowerText(RESULT + 8, manifest.version);
  store<u8>(RESULT, manifest.codec, 16);
  store<u8>(RESULT, manifest.durability, 17);
  store<u32>(RESULT, manifest.tickHz, 20);
  store<u32>(RESULT, manifest.minPlayers, 24);
  store<u32>(RESULT, manifest.maxPlayers, 28);
  store<u32>(RESULT, manifest.maxSpectators, 32);
  store<u32>(RESULT, manifest.graceMs, 36);
  store<u8>(RESULT, manifest.quickPlay ? 1 : 0, 40);
  store<u8>(RESULT, manifest.listed ? 1 : 0, 41);
  const extra = new ArrayBuffer(16 * manifest.extra.length);
  held.push(extra);
  for (let i = 0; i < manifest.extra.length; i++) {
    lowerText(at(extra) + 16 * i, manifest.extra[i].name);
    lowerText(at(extra) + 16 * i + 8, manifest.extra[i].value);
  }
  store<usize>(RESULT, at(extra), 44);
  store<u32>(RESULT, manifest.extra.length, 48);
  return RESULT;
}

export function start(
  id: usize, idLen: u32, named: u32, name: usize, nameLen: u32, params: usize, paramsLen: u32, invited: usize, invitedLen: u32,
  extra: usize, extraLen: u32,
): usize {
  const setup = liftSetup(id, idLen, named, name, nameLen, params, paramsLen, invited, invitedLen, extra, extraLen);
  freeArguments();
  return lowerRefusal(game!.start(setup));
}

export function join(
  seat: u32, id: usize, idLen: u32, name: usize, nameLen: u32, role: u32, hasTeam: u32, team: u32, extra: usize, extraLen: u32,
  ctx: usize, len: u32,
): usize {
  const player = new Player(
    seat, liftText(id, idLen), liftText(name, nameLen), <Role>role, hasTeam != 0, team, liftPairs(extra, extraLen),
  );
  const data = liftBytes(ctx, len);
  freeArguments();
  return lowerRefusal(game!.join(player, data));
}

export function leave(seat: u32, reason: u32): void {
  game!.leave(seat, <LeaveReason>reason);
}

export function message(seat: u32, n: u32, data: usize, len: u32): void {
  const bytes = liftBytes(data, len);
  freeArguments();
  game!.message(seat, n, bytes);
}

export function tick(elapsedMs: u32): void {
  game!.tick(elapsedMs);
}

export function timer(id: u32): void {
  game!.timer(id);
}

export function receive(sender: usize, senderLen: u32, data: usize, len: u32): void {
  const from = liftText(sender, senderLen), bytes = liftBytes(data, len);
  freeArguments();
  game!.receive(from, bytes);
}

export function answer(request: u32, failed: u32, list: usize, len: u32): void {
  const entries: Entry[] = [];
  let error: string | null = null;
  if (failed) {
    error = liftText(list, len);
  } else {
    for (let i: u32 = 0; i < len; i++) {
      const record = list + 24 * i;
      const data = liftBytes(load<usize>(record, 8), load<u32>(record, 12));
      entries.push(new Entry(liftTextAt(record), data, liftTextAt(record + 16)));
    }
  }
  freeArguments();
  game!.answer(request, entries, error);
}

export function signal(topic: usize, topicLen: u32, data: usize, len: u32): void {
  const about = liftText(topic, topicLen), json = liftText(data, len);
  freeArguments();
  game!.signal(about, json);
}

export function resync(seat: u32): void {
  game!.resync(seat);
}

export function save(): usize {
  const state = game!.save();
  held = [state.buffer];
  store<usize>(RESULT, state.dataStart);
  store<u32>(RESULT, state.length, 4);
  return RESULT;
}

// The name is that of the built-in which reads memory, so it is given where it is exported: `export { load_ as load }`.
export function load_(
  id: usize, idLen: u32, named: u32, name: usize, nameLen: u32, params: usize, paramsLen: u32, invited: usize, invitedLen: u32,
  extra: usize, extraLen: u32, by: usize, byLen: u32, state: usize, len: u32,
): usize {
  const setup = liftSetup(id, idLen, named, name, nameLen, params, paramsLen, invited, invitedLen, extra, extraLen);
  const savedBy = liftText(by, byLen), bytes = liftBytes(state, len);
  freeArguments();
  return lowerRefusal(game!.load(setup, savedBy, bytes));
}

/** What `asc --use abort=..` calls for a failed assertion, an index out of bounds and the like: a line for the author, and a trap. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message === null ? "aborted" : message;
  const where = file === null ? "?" : file;
  log.write(Level.error, what + " at " + where + ":" + line.toString() + ":" + column.toString());
  unreachable();
}
