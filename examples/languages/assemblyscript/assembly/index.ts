// The conformance match in AssemblyScript. What it does is said in ../../README.md; the same match is written beside it in four other
// languages, and ../../conformance.txt says what all five answer.

import {
  Audience, Codec, Entry, LeaveReason, Level, Manifest, Match, Pair, Player, Role, Setup,
  backfill, bytes, clock, content, log, mail, play, random, room, storage, text,
} from "./rookery";
export {
  answer, cabi_realloc, describe, join, leave, load_ as load, message, receive, resync, save, signal, start, tick, timer,
} from "./rookery";

class Conformance extends Match {
  /** How many things were heard, and a hash over all of them. */
  count: u32 = 0;
  hash: u32 = 2_166_136_261;
  /** Moved by every tick: arithmetic that must give the same bits everywhere. */
  clock: f64 = 0;
  /** What somebody asked to be kept. */
  kept: string = "";
  /** What `grow` took. */
  held: Uint8Array = new Uint8Array(0);

  describe(): Manifest {
    const manifest = new Manifest("conformance");
    manifest.version = "1.0.0";
    manifest.codec = Codec.binary;
    manifest.tickHz = 10;
    manifest.minPlayers = 1;
    manifest.maxPlayers = 4;
    manifest.maxSpectators = 2;
    manifest.graceMs = 5_000;
    manifest.quickPlay = true;
    manifest.extra = [new Pair("language", "assemblyscript")];
    return manifest;
  }

  start(setup: Setup): string | null {
    const params = text(setup.params);
    if (params.startsWith("refuse ")) return params.substring(7);
    room.publish("match", bytes(setup.matchId + " " + orDash(setup.name) + " " + params));
    for (let i = 0; i < setup.invited.length; i++) {
      const invitee = setup.invited[i];
      const value = `${invitee.playerId} ${invitee.team} ${orDash(invitee.party)} ${invitee.properties}`;
      room.publish(`invited.${i}`, bytes(value));
    }
    log.write(Level.info, `started at ${<u64>clock.unix()}`);
    this.announce(`started ${setup.invited.length}`);
    return null;
  }

  join(player: Player, ctx: Uint8Array): string | null {
    const data = text(ctx);
    if (data.startsWith("refuse ")) return data.substring(7);
    const role = player.role == Role.player ? "player" : player.role == Role.spectator ? "spectator" : "bot";
    const team = player.hasTeam ? player.team.toString() : "-";
    let line = `joined ${player.seat} ${role} ${team} ${player.playerId} ${player.displayName} ${player.extra.length}`;
    for (let i = 0; i < player.extra.length; i++) line += ` ${player.extra[i].name}=${player.extra[i].value}`;
    this.announce(line + " " + data);
    return null;
  }

  leave(seat: u32, reason: LeaveReason): void {
    const reasons = ["left", "timed-out", "kicked", "transferred", "ended"];
    this.announce(`left ${seat} ${reasons[reason]}`);
  }

  message(seat: u32, n: u32, data: Uint8Array): void {
    this.hear(data);
    const reply = this.obey(n, text(data));
    if (reply !== null) room.send(Audience.one(seat), bytes(reply));
  }

  tick(elapsedMs: u32): void {
    this.clock = this.clock * 1.0001 + <f64>elapsedMs / 3.0;
    room.publish("clock", bytes(halves(reinterpret<u64>(this.clock))));
  }

  timer(id: u32): void {
    this.announce(`timer ${id} ${<u64>clock.now()}`);
  }

  receive(sender: string, data: Uint8Array): void {
    this.announce(`mail ${sender} ${text(data)}`);
  }

  answer(request: u32, entries: Entry[], error: string | null): void {
    let line = `answer ${request}`;
    if (error !== null) {
      line += " error " + error;
    } else {
      line += " ok";
      for (let i = 0; i < entries.length; i++) {
        const entry = entries[i];
        line += ` ${entry.key} ${entry.version} ${text(entry.data)}`;
      }
    }
    this.announce(line);
  }

  signal(topic: string, data: string): void {
    this.announce(`signal ${topic} ${data}`);
  }

  resync(seat: u32): void {
    room.send(Audience.one(seat), bytes("view " + this.view()));
  }

  save(): Uint8Array {
    return bytes(`v1 ${this.count} ${this.hash} ${halves(reinterpret<u64>(this.clock))} ${this.kept}`);
  }

  load(setup: Setup, savedBy: string, state: Uint8Array): string | null {
    const words = new Words(text(state));
    if (words.next() != "v1") return "not a state of this match";
    this.count = words.number();
    this.hash = words.number();
    const high: u64 = words.number();
    const low: u64 = words.number();
    this.clock = reinterpret<f64>((high << 32) | low);
    this.kept = words.rest;
    room.publish("loaded", bytes(`${savedBy} ${this.count}`));
    return null;
  }

  /** Takes something into the count and the hash (FNV-1a). */
  hear(heard: Uint8Array): void {
    this.count++;
    for (let i = 0; i < heard.length; i++) this.hash = (this.hash ^ heard[i]) * 16_777_619;
  }

  announce(line: string): void {
    const data = bytes(line);
    this.hear(data);
    room.send(Audience.everyone(), data);
  }

  view(): string {
    return `${this.count} ${this.hash} ${this.kept}`;
  }

  /** Does what a message says, and returns what its sender is told. */
  obey(n: u32, message: string): string | null {
    const words = new Words(message);
    const verb = words.next();
    if (verb == "send") {
      const to = audience(words.next());
      room.send(to, bytes(words.rest));
    } else if (verb == "publish") {
      const to = option(words.next()), key = words.next(), value = optionBytes(words.rest);
      if (to === null) room.publish(key, value);
      else room.publishTo(number(to), key, value);
    } else if (verb == "kick") {
      const seat = words.number();
      room.kick(seat, words.rest);
    } else if (verb == "bot") {
      const seat = room.addBot(words.rest);
      return seat == 0 ? "bot none" : `bot ${seat}`;
    } else if (verb == "joinable") {
      room.setJoinable(words.next() == "yes");
    } else if (verb == "label") {
      room.setLabel(pairs(words.rest));
    } else if (verb == "finish") {
      room.finish(bytes(words.rest));
    } else if (verb == "now") {
      return `now ${<u64>clock.now()} ${<u64>clock.unix()}`;
    } else if (verb == "timer") {
      const id = words.number();
      clock.setTimer(id, words.number());
    } else if (verb == "cancel") {
      clock.cancelTimer(words.number());
    } else if (verb == "bits") {
      return "bits " + halves(random.bits());
    } else if (verb == "below") {
      return `below ${random.below(words.number())}`;
    } else if (verb == "unit") {
      return `unit ${<u32>(random.unit() * 4294967296.0)}`;
    } else if (verb == "log") {
      const level = words.next();
      log.write(
        level == "info" ? Level.info : level == "warn" ? Level.warn : level == "error" ? Level.error : Level.debug,
        words.rest,
      );
    } else if (verb == "tell") {
      const request = words.number(), target = words.next();
      mail.tell(request, target, bytes(words.rest));
    } else if (verb == "transfer") {
      const request = words.number(), seat = words.number(), target = words.next();
      mail.transfer(request, seat, target, bytes(words.rest));
    } else if (verb == "say") {
      const channel = words.next();
      mail.say(channel, words.rest);
    } else if (verb == "claim") {
      const request = words.number();
      mail.claim(request, words.rest);
    } else if (verb == "release") {
      mail.release(words.rest);
    } else if (verb == "read") {
      const request = words.number(), owner = option(words.next()), collection = words.next();
      storage.read(request, owner, collection, words.rest);
    } else if (verb == "write") {
      const request = words.number(), owner = option(words.next()), collection = words.next(), key = words.next();
      const version = option(words.next());
      storage.write(request, owner, collection, key, optionBytes(words.rest), version);
    } else if (verb == "scan") {
      const request = words.number(), owner = option(words.next()), collection = words.next(), limit = words.number();
      storage.scan(request, owner, collection, words.rest, limit);
    } else if (verb == "content") {
      const request = words.number(), collection = words.next();
      content.read(request, collection, words.rest);
    } else if (verb == "backfill") {
      const seats = option(words.next());
      if (seats === null) backfill.close();
      else backfill.open(number(seats));
    } else if (verb == "keep") {
      this.kept = words.rest;
    } else if (verb == "kept") {
      return "kept " + this.view();
    } else if (verb == "number") {
      return `number ${n}`;
    } else if (verb == "trap") {
      this.announce(words.rest);
      unreachable();
    } else if (verb == "spend") {
      const rounds = words.number();
      let value: u32 = 1;
      for (let round: u32 = 0; round < rounds; round++) value = value * 31 + round;
      return `spent ${value}`;
    } else if (verb == "grow") {
      const size = words.number();
      this.held = new Uint8Array(size);
      for (let i: u32 = 0; i < size; i += 4096) this.held[i] = 1;
      return `grown ${size}`;
    } else {
      return "? " + message;
    }
    return null;
  }
}

play(new Conformance());

/** The words of a message, one after the other, and what is left of it. */
class Words {
  constructor(public rest: string) {}

  next(): string {
    const space = this.rest.indexOf(" ");
    const word = space < 0 ? this.rest : this.rest.substring(0, space);
    this.rest = space < 0 ? "" : this.rest.substring(space + 1);
    return word;
  }

  number(): u32 {
    return number(this.next());
  }
}

function number(word: string): u32 {
  let value: u64 = 0;
  for (let i = 0; i < word.length; i++) {
    const digit = word.charCodeAt(i) - 48;
    if (digit < 0 || digit > 9) return 0;
    value = value * 10 + digit;
    if (value > u32.MAX_VALUE) return 0;
  }
  return <u32>value;
}

/** `-` is none, `.` the empty text. */
function option(word: string): string | null {
  return word == "-" ? null : word == "." ? "" : word;
}

function optionBytes(word: string): Uint8Array | null {
  const value = option(word);
  return value === null ? null : bytes(value);
}

function orDash(word: string | null): string {
  return word === null ? "-" : word;
}

/** `everyone`, `players`, `spectators`, `one:SEAT`, `some:SEAT,SEAT`, `except:SEAT`. */
function audience(word: string): Audience {
  const colon = word.indexOf(":");
  const who = colon < 0 ? word : word.substring(0, colon);
  const seats = colon < 0 ? "" : word.substring(colon + 1);
  if (who == "players") return Audience.players();
  if (who == "spectators") return Audience.spectators();
  if (who == "one") return Audience.one(number(seats));
  if (who == "some") return Audience.some(seats.split(",").map<u32>((seat) => number(seat)));
  if (who == "except") return Audience.except(number(seats));
  return Audience.everyone();
}

function pairs(words: string): Pair[] {
  const pairs: Pair[] = [];
  const parts = words.split(" ");
  for (let i = 0; i < parts.length; i++) {
    if (parts[i].length == 0) continue;
    const equals = parts[i].indexOf("=");
    if (equals < 0) pairs.push(new Pair(parts[i], ""));
    else pairs.push(new Pair(parts[i].substring(0, equals), parts[i].substring(equals + 1)));
  }
  return pairs;
}

/** 64 bits as two decimal numbers, the high half first. */
function halves(bits: u64): string {
  return `${bits >> 32} ${bits & 0xffff_ffff}`;
}
