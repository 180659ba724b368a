// One WebSocket to one node: requests and their answers, pushes, and whether the other end still lives. It does not reconnect and
// knows nothing of the game; a connection that has ended stays ended.

const OPEN_MS = 8000;
const ANSWER_MS = 10000;
const PING_EVERY_MS = 2000;
// Three pings unanswered. A stopped process keeps its sockets open, so only silence tells.
const SILENT_MS = 6500;

/** A request that was refused; `code` and `details` are the contract's. */
export class Refused extends Error {
  constructor(frame) {
    super(frame.message || frame.code);
    this.code = frame.code;
    this.details = frame.details ?? {};
  }
}

export class Connection {
  #socket;
  #onPush;
  #onEnd;
  #onPing;
  #waiting = new Map();
  #lastId = 0;
  // Pushes that came before the page was ready for them; none are kept once it is.
  #held = [];
  #timer = null;
  #heardAt = performance.now();
  #ended = false;

  /**
   * `onPush(frame)` hears every push in order, once `begin` was called; `onEnd(code, reason)` is called once; `onPing(ms)` after every
   * round trip.
   */
  constructor(base, { onPush, onEnd, onPing }) {
    this.base = base;
    this.#onPush = onPush;
    this.#onEnd = onEnd;
    this.#onPing = onPing;
    this.#socket = new WebSocket(`${base.replace(/^http/, "ws")}/v1/ws`, "rookery.v1.json");
    this.#socket.onmessage = (event) => this.#hear(event.data);
    this.#socket.onclose = (event) => this.#end(event.code, event.reason);
    const opening = setTimeout(() => this.#end(1006, "timeout"), OPEN_MS);
    this.ready = new Promise((resolve, reject) => {
      this.#waiting.set("open", { resolve, reject });
    });
    this.#socket.onopen = () => {
      clearTimeout(opening);
      const open = this.#waiting.get("open");
      this.#waiting.delete("open");
      open?.resolve();
      this.#heardAt = performance.now();
      this.#timer = setInterval(() => this.#beat(), PING_EVERY_MS);
    };
  }

  /** Sends a request and returns its answer; rejects with `Refused`, or with an error when the connection ends first. */
  request(type, fields = {}) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error(`no answer to ${type}`));
      }, ANSWER_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#send({ type, id, ...fields });
    });
  }

  /** Sends a request that wants no answer. */
  tell(type, fields) {
    this.#send({ type, ...fields });
  }

  /** The session is open and whoever hears its pushes is ready: those that came right behind the answer are heard now. */
  begin() {
    const held = this.#held;
    this.#held = null;
    for (const frame of held ?? []) this.#onPush(frame);
  }

  /** Measures one round trip now; an open session does so by itself every two seconds. */
  measure() {
    const sentAt = performance.now();
    this.request("session.ping", { t: Date.now() }).then(() => this.#onPing(performance.now() - sentAt), () => {});
  }

  close() {
    this.#end(1000, "closed by this page");
  }

  #send(frame) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #hear(text) {
    this.#heardAt = performance.now();
    const frame = JSON.parse(text);
    if (frame.id === undefined || frame.id === null) {
      if (this.#held) this.#held.push(frame);
      else this.#onPush(frame);
      return;
    }
    const waiting = this.#waiting.get(frame.id);
    if (!waiting) return;
    this.#waiting.delete(frame.id);
    clearTimeout(waiting.timer);
    if (frame.type === "error") waiting.reject(new Refused(frame));
    else waiting.resolve(frame);
  }

  #beat() {
    if (performance.now() - this.#heardAt > SILENT_MS) {
      this.#end(1006, "silent");
      return;
    }
    this.measure();
  }

  #end(code, reason) {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Error("the connection ended"));
    }
    this.#waiting.clear();
    this.#onEnd(code, reason);
  }
}
