// A duel for whoever wants one: a place in the queue `duel`, and when somebody else wants one too, the match that the cluster made
// for both, on whichever node. The rules are in examples/duel.

import { Refused } from "./connection.js";
import { make } from "./elements.js";
import { Inputs } from "./inputs.js";

const QUEUE = "duel";
const MOVES = { strike: "Strike", guard: "Guard", heal: "Heal" };

export class Duel {
  #button;
  #status;
  #fighters;
  #moves;
  #connection = null;
  #ticket = null;
  // What the match says of itself: `match`, `seat`, and by seat the duellists.
  #game = null;
  #inputs = new Inputs((n, move) => this.#connection?.tell("match.send", { match: this.#game?.match, data: { move }, n }));

  constructor(card) {
    this.#button = make("button", { type: "button", id: "duel-queue", className: "primary", textContent: "Queue for a duel" });
    this.#button.onclick = () => (this.#ticket ? this.#leave() : this.#queue());
    this.#status = make("p", { id: "duel-status", className: "note", textContent: "Two players of any two nodes are matched." });
    this.#status.setAttribute("role", "status");
    this.#fighters = make("ul", { id: "duel-fighters", className: "people", hidden: true });
    this.#moves = make("div", { id: "duel-moves", className: "moves", hidden: true });
    for (const [move, label] of Object.entries(MOVES)) {
      const button = make("button", { type: "button", textContent: label });
      button.dataset.move = move;
      button.onclick = () => this.#choose(move);
      this.#moves.append(button);
    }
    card.append(make("div", { className: "card-head" }, make("h2", { textContent: "Duel" })), this.#fighters, this.#moves, this.#button, this.#status);
    this.#show("idle");
  }

  /** A new session: a ticket waits by itself and is told again, and a duel goes on where it was. */
  async use(connection) {
    this.#connection = connection;
    if (!this.#game) return;
    try {
      this.#seated(await connection.request("match.join", { match: this.#game.match }));
    } catch (error) {
      if (error instanceof Refused) this.#over("The duel is over.");
    }
  }

  hear(frame) {
    if (frame.type === "queue.matched") this.#matched(frame);
    else if (frame.type === "queue.expired" && frame.ticket === this.#ticket) {
      this.#ticket = null;
      this.#show("idle", "Nobody else wanted a duel. Try again?");
    } else if (this.#game && frame.match === this.#game.match) this.#hearMatch(frame);
  }

  async #queue() {
    try {
      const { ticket } = await this.#connection.request("queue.join", { queue: QUEUE, properties: {} });
      this.#ticket ??= ticket;
      if (!this.#game) this.#show("waiting", "Waiting for somebody else…");
    } catch (error) {
      this.#show("idle", error instanceof Refused ? `The queue says: ${error.message}` : "The connection is lost.");
    }
  }

  async #leave() {
    const ticket = this.#ticket;
    this.#ticket = null;
    this.#show("idle", "You left the queue.");
    await this.#connection?.request("queue.leave", { ticket }).catch(() => {});
  }

  async #matched({ ticket, match, players }) {
    if (this.#game?.match === match) return;
    this.#ticket = ticket;
    this.#show("waiting", `Matched: ${players.map((one) => one.name).join(" against ")}…`);
    try {
      this.#seated(await this.#connection.request("match.join", { match }));
    } catch (error) {
      this.#ticket = null;
      this.#show("idle", `The duel did not begin: ${error.message}`);
    }
  }

  #seated(joined) {
    const fighters = this.#game?.match === joined.match ? this.#game.fighters : new Map();
    this.#game = { match: joined.match, seat: joined.seat, fighters };
    this.#inputs.startAfter(joined.n ?? 0);
    this.#ticket = null;
    this.#show("playing", "Waiting for the other to come…");
  }

  #hearMatch(frame) {
    if (frame.type === "match.data") this.#data(frame.data);
    else if (frame.type === "match.ack") this.#inputs.acknowledged(frame.n);
    else if (frame.type === "match.resend") this.#inputs.resend(frame.n);
    else if (frame.type === "match.reset") this.#inputs.startAfter(frame.n);
    else if (frame.type === "match.ended") this.#over(this.#verdict(frame.result));
    else if (["match.lost", "match.failed", "match.kicked"].includes(frame.type)) this.#over("The duel was lost with its node.");
  }

  #data(data) {
    for (const one of data.duellists ?? []) this.#game.fighters.set(one.seat, { ...this.#game.fighters.get(one.seat), ...one });
    if (data.event === "begin" || (data.event === "view" && data.round > 0)) this.#show("playing", "Choose!");
    if (data.event === "chosen") this.#show("playing", data.seat === this.#game.seat ? "Chosen. And the other?" : "The other has chosen.");
    if (data.event === "round") this.#show("playing", `${data.duellists.map((one) => `${this.#name(one.seat)}: ${MOVES[one.move] ?? one.move}`).join(", ")}. Choose!`);
    if (data.event === "error") this.#show("playing", `Not now: ${data.code.replaceAll("_", " ")}.`);
  }

  #choose(move) {
    if (this.#game) this.#inputs.push(move);
  }

  #verdict({ winner, why }) {
    if (winner === null || winner === undefined) return "A draw.";
    return `${winner === this.#game.seat ? "You have won" : `${this.#name(winner)} has won`} (${why}).`;
  }

  #name(seat) {
    return seat === this.#game.seat ? "you" : this.#game.fighters.get(seat)?.name ?? "the other";
  }

  #over(words) {
    this.#game = null;
    this.#ticket = null;
    this.#show("idle", words);
  }

  #show(state, words) {
    document.body.dataset.duel = state;
    if (words) this.#status.textContent = words;
    this.#button.hidden = state === "playing";
    this.#button.textContent = this.#ticket ? "Leave the queue" : "Queue for a duel";
    const fighters = [...(this.#game?.fighters.values() ?? [])];
    this.#fighters.hidden = this.#moves.hidden = !fighters.length;
    this.#fighters.replaceChildren(...fighters.map((one) => make("li", { textContent: `${this.#name(one.seat)}: ${"♥".repeat(Math.max(0, one.health))} ${one.health}` })));
  }
}
