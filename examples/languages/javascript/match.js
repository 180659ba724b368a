// The conformance match in JavaScript. What it does is said in ../README.md; the same match is written beside it in four other
// languages, and ../conformance.txt says what all five answer.
//
// An export that can refuse does it by throwing a string. A thrown Error is a trap: the node undoes the call.

import * as backfill from 'rookery:game/backfill@1.0.0';
import * as clock from 'rookery:game/clock@1.0.0';
import * as content from 'rookery:game/content@1.0.0';
import * as log from 'rookery:game/log@1.0.0';
import * as mail from 'rookery:game/mail@1.0.0';
import * as random from 'rookery:game/random@1.0.0';
import * as room from 'rookery:game/room@1.0.0';
import * as storage from 'rookery:game/storage@1.0.0';

// ---- State: variables of the module, since each match has an instance of its own ----

/** How many things were heard, and a hash over all of them. */
let count = 0;
let hash = 2166136261;
/** Moved by every tick: arithmetic that must give the same bits everywhere. */
let matchClock = 0;
/** What somebody asked to be kept. */
let kept = '';
/** What `grow` took. */
let held = new Uint8Array(0);

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const bytes = (text) => encoder.encode(text);
const text = (bytes) => decoder.decode(bytes);

const EVERYONE = { tag: 'everyone' };
const one = (seat) => ({ tag: 'one', val: seat });

// ---- What the node calls ----

export function describe() {
  return {
    name: 'conformance',
    version: '1.0.0',
    codec: 'binary',
    durability: 'memory',
    tickHz: 10,
    minPlayers: 1,
    maxPlayers: 4,
    maxSpectators: 2,
    graceMs: 5000,
    quickPlay: true,
    listed: true,
    extra: [['language', 'javascript']],
  };
}

export function start(setup) {
  const params = text(setup.params);
  if (params.startsWith('refuse ')) throw params.slice(7);
  room.publish(undefined, 'match', bytes(`${setup.matchId} ${setup.name ?? '-'} ${params}`));
  setup.invited.forEach((invitee, index) => {
    const value = `${invitee.playerId} ${invitee.team} ${invitee.party ?? '-'} ${invitee.properties}`;
    room.publish(undefined, `invited.${index}`, bytes(value));
  });
  log.write('info', `started at ${clock.unix()}`);
  announce(`started ${setup.invited.length}`);
}

export function join(player, ctx) {
  const data = text(ctx);
  if (data.startsWith('refuse ')) throw data.slice(7);
  const extra = player.extra.map(([name, value]) => ` ${name}=${value}`).join('');
  announce(
    `joined ${player.seat} ${player.role} ${player.team ?? '-'} ${player.playerId} ${player.displayName} ` +
      `${player.extra.length}${extra} ${data}`,
  );
}

export function leave(seat, reason) {
  announce(`left ${seat} ${reason}`);
}

export function message(seat, n, data) {
  hear(data);
  const reply = obey(n, text(data));
  if (reply !== undefined) room.send(one(seat), bytes(reply));
}

export function tick(elapsedMs) {
  matchClock = matchClock * 1.0001 + elapsedMs / 3.0;
  room.publish(undefined, 'clock', bytes(halves(bitsOf(matchClock))));
}

export function timer(id) {
  announce(`timer ${id} ${clock.now()}`);
}

export function receive(sender, data) {
  announce(`mail ${sender} ${text(data)}`);
}

export function answer(request, outcome) {
  if (outcome.tag === 'err') {
    announce(`answer ${request} error ${outcome.val}`);
  } else {
    const entries = outcome.val.map((entry) => ` ${entry.key} ${entry.version} ${text(entry.data)}`);
    announce(`answer ${request} ok${entries.join('')}`);
  }
}

export function signal(topic, data) {
  announce(`signal ${topic} ${data}`);
}

export function resync(seat) {
  room.send(one(seat), bytes(`view ${view()}`));
}

export function save() {
  return bytes(`v1 ${count} ${hash} ${halves(bitsOf(matchClock))} ${kept}`);
}

export function load(setup, savedBy, state) {
  const words = new Words(text(state));
  if (words.next() !== 'v1') throw 'not a state of this match';
  count = words.number();
  hash = words.number();
  matchClock = doubleOf((BigInt(words.number()) << 32n) | BigInt(words.number()));
  kept = words.rest;
  room.publish(undefined, 'loaded', bytes(`${savedBy} ${count}`));
}

// ---- What a message asks for ----

/** Does what a message says, and returns what its sender is told. */
function obey(n, message) {
  const words = new Words(message);
  switch (words.next()) {
    case 'send':
      return void room.send(audience(words.next()), bytes(words.rest));
    case 'publish': {
      const to = option(words.next());
      const key = words.next();
      return void room.publish(to === undefined ? undefined : number(to), key, optionBytes(words.rest));
    }
    case 'kick':
      return void room.kick(words.number(), words.rest);
    case 'bot':
      return `bot ${room.addBot(words.rest) ?? 'none'}`;
    case 'joinable':
      return void room.setJoinable(words.next() === 'yes');
    case 'label':
      return void room.setLabel(words.rest.split(' ').filter((pair) => pair !== '').map(pairOf));
    case 'finish':
      return void room.finish(bytes(words.rest));
    case 'now':
      return `now ${clock.now()} ${clock.unix()}`;
    case 'timer':
      return void clock.setTimer(words.number(), words.number());
    case 'cancel':
      return void clock.cancelTimer(words.number());
    case 'bits':
      return `bits ${halves(random.bits())}`;
    case 'below':
      return `below ${random.below(words.number())}`;
    case 'unit':
      return `unit ${Math.floor(random.unit() * 4294967296)}`;
    case 'log': {
      const level = words.next();
      return void log.write(['info', 'warn', 'error'].includes(level) ? level : 'debug', words.rest);
    }
    case 'tell':
      return void mail.tell(words.number(), words.next(), bytes(words.rest));
    case 'transfer':
      return void mail.transfer(words.number(), words.number(), words.next(), bytes(words.rest));
    case 'say':
      return void mail.say(words.next(), words.rest);
    case 'claim':
      return void mail.claim(words.number(), words.rest);
    case 'release':
      return void mail.release(words.rest);
    case 'read':
      return void storage.read(words.number(), option(words.next()), words.next(), words.rest);
    case 'write': {
      const request = words.number();
      const owner = option(words.next());
      const [collection, key, version] = [words.next(), words.next(), option(words.next())];
      return void storage.write(request, owner, collection, key, optionBytes(words.rest), version);
    }
    case 'scan': {
      const request = words.number();
      const owner = option(words.next());
      const [collection, limit] = [words.next(), words.number()];
      return void storage.scan(request, owner, collection, words.rest, limit);
    }
    case 'content':
      return void content.read(words.number(), words.next(), words.rest);
    case 'backfill': {
      const seats = option(words.next());
      return void (seats === undefined ? backfill.close() : backfill.open(number(seats)));
    }
    case 'keep':
      kept = words.rest;
      return undefined;
    case 'kept':
      return `kept ${view()}`;
    case 'number':
      return `number ${n}`;
    case 'trap':
      announce(words.rest);
      throw new Error('a trap on demand');
    case 'spend': {
      const rounds = words.number();
      let value = 1;
      for (let round = 0; round < rounds; round++) value = (Math.imul(value, 31) + round) >>> 0;
      return `spent ${value}`;
    }
    case 'grow': {
      const size = words.number();
      held = new Uint8Array(size);
      for (let i = 0; i < size; i += 4096) held[i] = 1;
      return `grown ${size}`;
    }
    default:
      return `? ${message}`;
  }
}

/** Takes something into the count and the hash (FNV-1a). */
function hear(heard) {
  count = (count + 1) >>> 0;
  for (const byte of heard) hash = Math.imul(hash ^ byte, 16777619) >>> 0;
}

function announce(line) {
  const data = bytes(line);
  hear(data);
  room.send(EVERYONE, data);
}

function view() {
  return `${count} ${hash} ${kept}`;
}

/** The words of a message, one after the other, and what is left of it. */
class Words {
  constructor(rest) {
    this.rest = rest;
  }

  next() {
    const space = this.rest.indexOf(' ');
    const word = space < 0 ? this.rest : this.rest.slice(0, space);
    this.rest = space < 0 ? '' : this.rest.slice(space + 1);
    return word;
  }

  number() {
    return number(this.next());
  }
}

function number(word) {
  const value = /^[0-9]+$/.test(word) ? Number(word) : 0;
  return value <= 4294967295 ? value : 0;
}

/** `-` is none, `.` the empty text. */
function option(word) {
  return word === '-' ? undefined : word === '.' ? '' : word;
}

function optionBytes(word) {
  const value = option(word);
  return value === undefined ? undefined : bytes(value);
}

/** `everyone`, `players`, `spectators`, `one:SEAT`, `some:SEAT,SEAT`, `except:SEAT`. */
function audience(word) {
  const [who, seats] = pairOf(word, ':');
  switch (who) {
    case 'players':
    case 'spectators':
      return { tag: who };
    case 'one':
    case 'except':
      return { tag: who, val: number(seats) };
    case 'some':
      return { tag: who, val: seats.split(',').map(number) };
    default:
      return EVERYONE;
  }
}

function pairOf(word, mark) {
  const at = word.indexOf(typeof mark === 'string' ? mark : '=');
  return at < 0 ? [word, ''] : [word.slice(0, at), word.slice(at + 1)];
}

/** 64 bits as two decimal numbers, the high half first. */
function halves(bits) {
  return `${bits >> 32n} ${bits & 0xffffffffn}`;
}

function bitsOf(double) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, double);
  return view.getBigUint64(0);
}

function doubleOf(bits) {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, bits);
  return view.getFloat64(0);
}
