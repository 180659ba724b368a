// One player of the playground: an account, a session and a seat of its own, and a card that shows all that this player is told. It
// knows nothing of the other players; the page gives it the match.

import { post } from "./account.js";
import { Connection } from "./connection.js";
import { make } from "./elements.js";
import { show, write } from "./payload.js";

const LINES_MAX = 300;

export class Player {
  #connection = null;
  #joined = null;
  #n = 0;
  #values = new Map();
  #card;
  #feed;
  #seat;
  #state;
  #input;

  /** `role` is "player" or "spectator"; `onGone` is called when its card is closed. */
  constructor(name, role, onGone) {
    this.name = name;
    this.role = role;
    this.#seat = make("p", { textContent: "no seat yet" });
    this.#feed = make("ol", { className: "feed", ariaLabel: `What ${name} is told` });
    this.#state = make("div", { className: "state" });
    this.#input = make("textarea", { rows: 2, spellcheck: false, ariaLabel: `What ${name} sends` });
    const form = make("form", {}, this.#input, make("div", { className: "row" },
      make("button", { className: "primary", textContent: "Send" }),
      make("button", { type: "button", textContent: "Leave", onclick: () => this.leave() }),
      make("button", { type: "button", textContent: "Drop the socket", onclick: () => this.#connection?.close() }),
    ));
    form.onsubmit = (event) => {
      event.preventDefault();
      this.send(this.#input.value);
    };
    this.#input.onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    };
    this.#card = make("section", { className: "card player", ariaLabel: name }, make("div", { className: "card-head" }, make("h2", { textContent: name }), this.#seat), form, this.#state, this.#feed);
    this.#card.dataset.player = name;
    this.onGone = onGone;
  }

  get card() {
    return this.#card;
  }

  /** Takes a seat in the match on `base`; rejects when it cannot. */
  async join(base, match, ctx) {
    const account = await post(base, "/v1/auth/guest", { name: this.name });
    const connection = new Connection(base, {
      onPush: (frame) => this.#hear(frame),
      onEnd: (code, reason) => this.#ended(code, reason),
      onPing: () => {},
    });
    this.#connection = connection;
    await connection.ready;
    await connection.request("session.open", { token: account.access_token });
    connection.begin();
    this.#sit(await connection.request("match.join", { match, role: this.role, ...(ctx === undefined ? {} : { ctx }) }));
  }

  /** Sends what a person wrote, as the next numbered input. */
  async send(text) {
    if (!this.#joined) return;
    let data;
    try {
      data = write(this.#joined.codec, text);
    } catch (error) {
      this.#line("not sent", error.message, "bad");
      return;
    }
    const n = ++this.#n;
    this.#line(`→ input ${n}`, show(this.#joined.codec, data));
    try {
      const answer = await this.#connection.request("match.send", { match: this.#joined.match, data, n });
      if (answer.data !== undefined) this.#line(`answer to ${n}`, show(this.#joined.codec, answer.data));
    } catch (error) {
      this.#line(`input ${n} failed`, `${error.code ?? ""} ${error.message} ${details(error)}`, "bad");
    }
  }

  async leave() {
    try {
      if (this.#joined) await this.#connection.request("match.leave", { match: this.#joined.match });
    } catch {
      // It has no seat any more, or no connection: it goes all the same.
    }
    this.#connection?.close();
    this.#card.remove();
    this.onGone(this);
  }

  /** Something happened to the match itself. */
  note(kind, text, tone) {
    this.#line(kind, text, tone);
  }

  #sit(joined) {
    this.#joined = joined;
    this.#n = joined.n ?? 0;
    this.#seat.textContent = `seat ${joined.seat}, ${joined.role ?? this.role}`;
    this.#card.dataset.seat = joined.seat;
    this.#input.placeholder = joined.codec === "json" ? "a JSON payload; Enter sends it" : "JSON, sent as MessagePack; or base64:…";
    this.#line("joined", `seat ${joined.seat}, with ${(joined.players ?? []).map((player) => `${player.seat}: ${player.name}`).join(", ")}`, "good");
  }

  #hear(frame) {
    const codec = this.#joined?.codec ?? "json";
    switch (frame.type) {
      case "match.data":
        if (frame.key === undefined) this.#line(`seq ${frame.seq}`, show(codec, frame.data));
        else this.#publish(frame.key, frame.removed ? undefined : show(codec, frame.data));
        break;
      case "match.players":
        this.#line("players", describe(frame));
        break;
      case "match.moved":
        this.#sit({ ...frame, match: frame.to });
        break;
      case "match.kicked":
      case "match.failed":
        this.#line(frame.type, frame.reason, "bad");
        break;
      case "match.ended":
        this.#line("ended", show(codec, frame.result), "good");
        break;
      case "match.ack":
        break;
      default:
        this.#line(frame.type, JSON.stringify(frame));
    }
  }

  #publish(key, text) {
    if (text === undefined) this.#values.delete(key);
    else this.#values.set(key, text);
    const rows = [...this.#values].map(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]);
    this.#state.replaceChildren(make("dl", { className: "facts" }, ...rows.flat()));
  }

  #line(kind, text, tone = "") {
    const line = make("li", { className: tone }, make("span", { className: "kind", textContent: `${kind} ` }), text ?? "");
    this.#feed.prepend(line);
    while (this.#feed.childElementCount > LINES_MAX) this.#feed.lastElementChild.remove();
  }

  #ended(code, reason) {
    this.#line("the connection ended", `${code} ${reason}`, "bad");
    this.#seat.textContent = "no connection";
    delete this.#card.dataset.seat;
  }
}

function describe({ joined = [], left = [], away = [], back = [] }) {
  const words = [
    ...joined.map((player) => `${player.name} took seat ${player.seat}`),
    ...left.map((departure) => `seat ${departure.seat} is free (${departure.reason})`),
    ...away.map((seat) => `seat ${seat} is away`),
    ...back.map((seat) => `seat ${seat} is back`),
  ];
  return words.join(", ");
}

function details(error) {
  const known = Object.entries(error.details ?? {});
  return known.map(([key, value]) => `${key}: ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
}
