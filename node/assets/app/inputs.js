// This player's inputs on their way to the match: numbered from 1 without gaps, kept until the match has applied them, and sent
// again from wherever it asks.

// The node keeps 64 KiB of a seat's unacknowledged inputs; this many of ours are far below it, and far more than a healthy match leaves open.
const OPEN_MAX = 256;

export class Inputs {
  #send;
  #next = 1;
  #open = [];
  #heldUntil = 0;
  #release = null;

  /** `send(n, bytes)` puts one input on the wire. */
  constructor(send) {
    this.#send = send;
  }

  /** The match says that it has applied `n` inputs of this seat; the next one is `n + 1`. What was open is out of date. */
  startAfter(n) {
    this.#open = [];
    this.#next = n + 1;
  }

  /** Sends an input; returns whether there was room for it. */
  push(bytes) {
    if (this.#open.length >= OPEN_MAX) return false;
    const input = { n: this.#next++, bytes };
    this.#open.push(input);
    if (performance.now() >= this.#heldUntil) this.#send(input.n, input.bytes);
    return true;
  }

  /** Sends an input by `request(n, bytes)` and waits for its answer; returns whether it was applied. */
  async ask(bytes, request) {
    if (this.#open.length || performance.now() < this.#heldUntil) return false;
    const input = { n: this.#next++, bytes };
    this.#open.push(input);
    try {
      await request(input.n, input.bytes);
      this.acknowledged(input.n);
      return true;
    } catch {
      // Refused or unanswered: it stays open, and the match asks for it again if it wants it.
      return false;
    }
  }

  acknowledged(n) {
    while (this.#open.length && this.#open[0].n <= n) this.#open.shift();
  }

  /** The node refuses inputs for now: nothing is sent for so long, then all that is open, which the match takes up where it was. */
  hold(ms) {
    this.#heldUntil = Math.max(this.#heldUntil, performance.now() + ms);
    clearTimeout(this.#release);
    this.#release = setTimeout(() => {
      this.#heldUntil = 0;
      this.#sendFrom(0);
    }, this.#heldUntil - performance.now());
  }

  /** Input `n` was refused or never came: everything from it on is sent again, in order. */
  resend(n) {
    // The match may want a number that was never ours to keep (it was restored from less, say). What is open then takes the
    // numbers from there, because a gap would hold this seat up for good.
    const first = this.#open.length ? this.#open[0].n : this.#next;
    if (first > n) {
      this.#open.forEach((input, index) => {
        input.n = n + index;
      });
      this.#next = n + this.#open.length;
    }
    this.#sendFrom(n);
  }

  #sendFrom(n) {
    if (performance.now() < this.#heldUntil) return;
    for (const input of this.#open) if (input.n >= n) this.#send(input.n, input.bytes);
  }
}
