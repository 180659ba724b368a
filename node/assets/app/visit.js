// The way of one tab through the cluster: a guest's account, a connection to one node, a session on it, and another node when that
// one goes away. It knows no game: who uses it hears `onOpen` for each new session and `onPush` for every push.

import { account, AccountRefused, renewed } from "./account.js";
import { Connection, Refused } from "./connection.js";
import { sameNode } from "./places.js";

const RETRY_MS = [250, 500, 1000, 2000, 4000];

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Visit {
  #hooks;
  // Every client listener that this tab has heard of; any of them will do.
  #known = [location.origin];
  connection = null;
  player = null;
  node = { base: location.origin, name: location.host };

  /** `onOpen(visit)`, `onPush(frame)`, `onPing(ms)`, and `onState(state, status, notice)` in words for the person. */
  constructor(hooks) {
    this.#hooks = hooks;
  }

  /** Reaches a node; goes on trying, here first and then at every other node it knows of. */
  async arrive(from = this.node.base) {
    for (let attempt = 0; ; attempt += 1) {
      const places = [from, ...this.#known.filter((base) => base !== from)];
      const base = places[attempt % places.length];
      try {
        await this.#reach(base);
        break;
      } catch (error) {
        const refused = error instanceof Refused || error instanceof AccountRefused;
        if (refused) this.#hooks.onState("reconnecting", `The node answers “${error.message}”, trying again…`, { title: "Not yet", text: `The node refused this visit (${error.code}).` });
        else if (attempt > 0) this.#hooks.onState("reconnecting", "No answer, trying another node…", { title: "Nobody answers", text: "No node that this page knows can be reached at the moment. It goes on trying." });
        await pause(error.details?.retry_ms ?? RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
      }
    }
    const opened = this.connection;
    this.#hooks.onOpen(this);
    // What was pushed right behind the answer is for those whom `onOpen` has told of the new session.
    opened?.begin();
  }

  async #reach(base) {
    this.player = await account(base);
    const opening = new Connection(base, {
      onPush: (frame) => opening === this.connection && this.#hear(frame),
      onEnd: (code, reason) => opening === this.connection && this.#ended(code, reason),
      onPing: (ms) => opening === this.connection && this.#hooks.onPing?.(ms),
    });
    let opened;
    try {
      await opening.ready;
      opened = await this.#open(opening, base);
    } catch (error) {
      opening.close();
      throw error;
    }
    const before = this.connection;
    this.connection = opening;
    before?.close();
    this.node = { base, name: opened.node };
    this.#known = [...new Set([...(opened.nodes ?? []).map(sameNode), ...this.#known])];
    this.player = { ...this.player, player: opened.player };
  }

  async #open(opening, base) {
    try {
      return await opening.request("session.open", { token: this.player.access_token });
    } catch (error) {
      if (!(error instanceof Refused) || error.code !== "unauthenticated") throw error;
      this.player = await renewed(base);
      return opening.request("session.open", { token: this.player.access_token });
    }
  }

  #hear(frame) {
    if (frame.type === "session.going_away") this.#goingAway(frame);
    else if (frame.type === "session.replaced") this.#replaced();
    else this.#hooks.onPush(frame);
  }

  #ended(code, reason) {
    this.connection = null;
    if (code === 1008 && reason === "replaced") {
      this.#replaced();
      return;
    }
    this.#hooks.onState("reconnecting", `The connection to ${this.node.name} is lost, looking for another way in…`, { title: "Connection lost", text: "Any node will do, so the page tries this one again and then the others." });
    this.arrive();
  }

  #goingAway({ reason, nodes = [] }) {
    const bases = nodes.map(sameNode);
    this.#known = [...new Set([...bases, ...this.#known])];
    const next = bases.find((base) => base !== this.node.base) ?? this.#known.find((base) => base !== this.node.base) ?? this.node.base;
    this.#hooks.onState("reconnecting", `${this.node.name} is going away (${reason || "stopping"}), moving on…`);
    const leaving = this.connection;
    this.connection = null;
    leaving?.close();
    this.arrive(next);
  }

  #replaced() {
    this.connection = null;
    this.#hooks.onState("replaced", "Playing somewhere else now.", {
      title: "This player moved to another tab",
      text: "The same player opened the page elsewhere.",
      action: { label: "Play here instead", run: () => this.arrive() },
    });
  }
}
