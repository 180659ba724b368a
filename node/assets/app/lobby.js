// The lobby: who is online and a line to everyone, over the channel `room:lobby`, whichever node each tab is on. Chat names
// players by their id; each tab says its name as its presence status, and watches who is in the room.

import { Refused } from "./connection.js";
import { make } from "./elements.js";

const CHANNEL = "room:lobby";
const LINES_MAX = 100;
const RETRY_MS = 3000;

export class Lobby {
  #lines;
  #people;
  #count;
  #text;
  #note;
  #connection = null;
  #me = null;
  #last = 0;
  // Player id to what presence last said of them.
  #known = new Map();
  #members = new Set();
  #shown = [];

  constructor(card) {
    this.#count = make("p", { id: "lobby-count" });
    this.#people = make("ul", { id: "lobby-people", className: "people" });
    this.#lines = make("ol", { id: "lobby-lines", className: "lines" });
    this.#lines.setAttribute("aria-live", "polite");
    this.#text = make("input", { id: "lobby-text", maxLength: 300, placeholder: "A line to everyone", autocomplete: "off" });
    this.#text.setAttribute("aria-label", "A line to everyone in the lobby");
    this.#note = make("p", { id: "lobby-note", className: "note", hidden: true });
    const form = make("form", { className: "say" }, this.#text, make("button", { textContent: "Send" }));
    form.onsubmit = (event) => {
      event.preventDefault();
      this.#send();
    };
    card.append(make("div", { className: "card-head" }, make("h2", { textContent: "Lobby" }), this.#count), this.#people, this.#lines, form, this.#note);
  }

  /** Enters the room over a new session; lines that were missed meanwhile follow. */
  async use(connection, me) {
    this.#connection = connection;
    this.#me = me;
    try {
      await connection.request("presence.set", { status: me.name ?? "guest" });
      const joined = await connection.request("channel.join", { channel: CHANNEL, since: this.#last || undefined });
      if (connection !== this.#connection) return;
      // Before anything else is waited for: who comes meanwhile is told once.
      this.#members = new Set([...joined.members, me.player]);
      if (!this.#last) {
        const { messages } = await connection.request("channel.history", { channel: CHANNEL, limit: 20 });
        for (const line of messages) this.#line(line);
      }
      await this.#watch([...this.#members]);
      this.#say("");
    } catch (error) {
      if (connection !== this.#connection) return;
      this.#say(error instanceof Refused ? `The lobby is closed: ${error.message}` : "");
      setTimeout(() => connection === this.#connection && this.use(connection, me), RETRY_MS);
    }
    this.#draw();
  }

  hear(frame) {
    switch (frame.type) {
      case "channel.message":
        if (frame.channel === CHANNEL) this.#line(frame);
        break;
      case "channel.members":
        if (frame.channel !== CHANNEL) break;
        for (const one of frame.joined ?? []) this.#members.add(one);
        for (const one of frame.left ?? []) this.#members.delete(one);
        this.#watch((frame.joined ?? []).filter((one) => !this.#known.has(one)));
        this.#draw();
        break;
      case "presence.changed":
        this.#known.set(frame.player, frame);
        this.#draw();
        break;
      default:
        break;
    }
  }

  async #watch(players) {
    if (!players.length) return;
    try {
      const state = await this.#connection.request("presence.watch", { players });
      for (const one of state.players) this.#known.set(one.player, one);
      this.#draw();
    } catch {
      // Names stay short ids until the next member comes.
    }
  }

  async #send() {
    const text = this.#text.value.trim();
    if (!text || !this.#connection) return;
    try {
      await this.#connection.request("channel.send", { channel: CHANNEL, text });
      this.#text.value = "";
      this.#say("");
    } catch (error) {
      this.#say(error instanceof Refused ? `Not sent: ${error.message}` : "Not sent: the connection is lost.");
    }
  }

  #line({ message, from, text }) {
    if (message <= this.#last) return;
    this.#last = message;
    this.#shown.push({ from, text });
    if (this.#shown.length > LINES_MAX) this.#shown.shift();
    this.#draw();
  }

  #name(player) {
    if (player === this.#me?.player) return this.#me.name ?? "you";
    return this.#known.get(player)?.status ?? `guest ${player.slice(-4)}`;
  }

  #say(text) {
    this.#note.hidden = !text;
    this.#note.textContent = text;
  }

  #draw() {
    const online = [...this.#members].filter((one) => one === this.#me?.player || this.#known.get(one)?.online !== false);
    this.#count.textContent = online.length ? `${online.length} online` : "";
    this.#people.replaceChildren(...online.map((one) => make("li", { textContent: one === this.#me?.player ? `${this.#name(one)} (you)` : this.#name(one) })));
    this.#lines.replaceChildren(...this.#shown.map(({ from, text }) => make("li", {}, make("strong", { textContent: this.#name(from) }), ` ${text}`)));
    this.#lines.scrollTop = this.#lines.scrollHeight;
    document.body.dataset.online = online.length;
  }
}
