// What the arena says, read from its bytes, and where everything is between two of its states. No drawing, no network.

const VERSION = 1;
// Two states at 20 Hz and half of one for jitter: below that, movers stutter whenever a state comes late.
const BEHIND_MS = 120;
const KEPT = 12;

export const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
export const toBase64 = (bytes) => btoa(String.fromCharCode(...bytes));

export const steer = (dx, dy) => Uint8Array.of(1, Math.round(dx * 127) & 255, Math.round(dy * 127) & 255);
export const dash = () => Uint8Array.of(2);
export const plumage = (hue) => Uint8Array.of(3, hue);

/** Reads the published value `w`; null for bytes of another version or cut short. */
export function readWorld(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 6 || view.getUint8(0) !== VERSION) return null;
  const world = { width: view.getUint16(1, true), height: view.getUint16(3, true), movers: new Map(), pellets: [] };
  let at = 6;
  for (let left = view.getUint8(5); left > 0; left -= 1, at += 12) {
    if (at + 12 > bytes.length) return null;
    const flags = view.getUint8(at + 9);
    world.movers.set(view.getUint32(at, true), {
      x: view.getUint16(at + 4, true),
      y: view.getUint16(at + 6, true),
      hue: view.getUint8(at + 8),
      bot: (flags & 1) !== 0,
      dashing: (flags & 2) !== 0,
      score: view.getUint16(at + 10, true),
    });
  }
  if (at >= bytes.length) return null;
  for (let left = view.getUint8(at++); left > 0; left -= 1, at += 4) {
    if (at + 4 > bytes.length) return null;
    world.pellets.push({ x: view.getUint16(at, true), y: view.getUint16(at + 2, true) });
  }
  return world;
}

/** Reads an event; null for kinds that this page does not know. */
export function readEvent(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[0] === 1 && bytes.length >= 7) return { kind: "scored", seat: view.getUint32(1, true), score: view.getUint16(5, true) };
  if (bytes[0] === 2 && bytes.length >= 9) return { kind: "bumped", a: view.getUint32(1, true), b: view.getUint32(5, true) };
  return null;
}

/** The last few states, and the world as it was a moment ago between two of them. */
export class Timeline {
  #states = [];
  #lead = null;

  get newest() {
    return this.#states.at(-1)?.world ?? null;
  }

  clear() {
    this.#states = [];
    this.#lead = null;
  }

  /** Takes a state that was true at match time `at` and heard at page time `now`, both in milliseconds. */
  push(at, now, world) {
    if (this.#states.length && at < this.#states.at(-1).at) this.clear();
    // The quickest delivery seen tells the two clocks apart best; it is forgotten slowly, as clocks drift apart.
    const lead = now - at;
    this.#lead = this.#lead === null || lead < this.#lead ? lead : this.#lead + (lead - this.#lead) * 0.01;
    this.#states.push({ at, world });
    if (this.#states.length > KEPT) this.#states.shift();
  }

  /** The world to draw at page time `now`; null before the first state. */
  sample(now) {
    if (!this.#states.length) return null;
    const at = now - this.#lead - BEHIND_MS;
    let next = this.#states.findIndex((state) => state.at > at);
    if (next === -1) return this.#states.at(-1).world;
    if (next === 0) return this.#states[0].world;
    const from = this.#states[next - 1];
    const to = this.#states[next];
    const share = (at - from.at) / (to.at - from.at);
    const movers = new Map();
    for (const [seat, mover] of to.world.movers) {
      const before = from.world.movers.get(seat);
      // A mover that crossed a third of the field within one state was put there, it did not fly.
      const flew = before && Math.hypot(mover.x - before.x, mover.y - before.y) < to.world.width / 3;
      movers.set(seat, flew ? { ...mover, x: before.x + (mover.x - before.x) * share, y: before.y + (mover.y - before.y) * share } : mover);
    }
    return { ...from.world, movers };
  }
}
