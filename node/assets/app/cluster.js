// The live picture of the cluster: which nodes there are, which one this tab is on, which one runs the match, and the player's
// moves on their way. It asks the node that the page plays through, once a second, and is quiet when that node does not say.

import { sameNode } from "./places.js";

const SVG = "http://www.w3.org/2000/svg";
const POLL_MS = 1000;
const STALE_MS = 4000;
const BOX = { width: 138, height: 62 };
const WIDTH = 380;
// Where the nodes stand, by how many there are beside this tab's own; that one is always at the bottom with "you" below it.
const LAYOUTS = [
  { here: 60, others: [] },
  { here: 172, others: [[190, 54]] },
  { here: 192, others: [[73, 62], [307, 62]] },
  { here: 218, others: [[73, 134], [190, 50], [307, 134]] },
  { here: 244, others: [[73, 150], [104, 50], [276, 50], [307, 150]] },
];
const DRAWN_MAX = LAYOUTS.length;
const YOU_BELOW = 78;
const FOOT = 26;
const TRAVEL_MS = 750;
const CROWN = "M-13 7L-14-6L-6 0L0-10L6 0L14-6L13 7Z";
const LAMPS = { ready: "good", joining: "warn", draining: "warn", leaving: "warn", suspect: "warn", dead: "bad" };

export class Cluster {
  #elements;
  #onView;
  #noun;
  #place = { base: location.origin, node: null, match: null };
  #view = null;
  #viewAt = 0;
  #why = "looking";
  #drawn = "";
  #route = null;
  #dots = [];
  #dotLayer = null;
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #lastIn = 0;
  #lastOut = 0;
  #known = null;

  /** `elements` are `card, picture, route, age, second`; `onView(view)` hears every new state; `noun` is what the match is called. */
  constructor(elements, onView, noun = "match") {
    this.#elements = elements;
    this.#onView = onView;
    this.#noun = noun;
    this.#poll();
  }

  /** Says where this tab is: the URL it plays through, the node's name, the match. */
  place(place) {
    this.#place = { ...this.#place, ...place };
    this.#draw();
  }

  get nodes() {
    return this.#view?.nodes ?? [];
  }

  /**
   * The node that runs the match; null while nobody said. A node that has just died takes its matches out of the view before
   * the cluster has decided about them, so that what was last said of this match stands until then.
   */
  get owner() {
    const { match } = this.#place;
    const owner = this.#view?.matches?.find((row) => row.match === match)?.owner;
    if (owner) this.#known = { match, owner };
    return match && this.#known?.match === match ? this.#known.owner : null;
  }

  /** A move leaves this tab (`out`), or a state of the world arrives (`in`). */
  pulse(direction, now) {
    if (this.#still.matches || !this.#route || this.#dots.length > 30) return;
    const last = direction === "out" ? this.#lastOut : this.#lastIn;
    if (now - last < (direction === "out" ? 110 : 330)) return;
    if (direction === "out") this.#lastOut = now;
    else this.#lastIn = now;
    const dot = make("circle", { r: direction === "out" ? 4.5 : 3, class: direction });
    this.#dotLayer.append(dot);
    this.#dots.push({ dot, direction, now });
  }

  /** Moves the dots; called once a frame. */
  frame(now) {
    if (!this.#dots.length) return;
    const length = this.#route.getTotalLength();
    this.#dots = this.#dots.filter(({ dot, direction, now: since }) => {
      const share = (now - since) / TRAVEL_MS;
      if (share >= 1) {
        dot.remove();
        return false;
      }
      const point = this.#route.getPointAtLength(length * (direction === "out" ? share : 1 - share));
      dot.setAttribute("cx", point.x);
      dot.setAttribute("cy", point.y);
      return true;
    });
  }

  async #poll() {
    const { base } = this.#place;
    try {
      const response = await fetch(`${base}/v1/demo/cluster`, { cache: "no-store", signal: AbortSignal.timeout(3000) });
      if (response.ok) {
        this.#view = await response.json();
        this.#viewAt = performance.now();
        this.#why = "fresh";
        this.#onView(this.#view);
      } else {
        this.#why = "absent";
      }
    } catch {
      this.#why = this.#why === "absent" ? "absent" : "unreachable";
    }
    this.#draw();
    // A node that does not serve the picture will not begin to; after a move to another node it may.
    setTimeout(() => this.#poll(), this.#why === "absent" ? POLL_MS * 5 : POLL_MS);
  }

  #draw() {
    const { card, picture, age } = this.#elements;
    const shown = this.#view !== null && this.#why !== "absent";
    picture.toggleAttribute("hidden", !shown);
    const old = performance.now() - this.#viewAt;
    card.classList.toggle("stale", shown && old > STALE_MS);
    age.textContent = shown && old > STALE_MS ? `as of ${Math.round(old / 1000)} s ago` : shown ? `${this.nodes.length} ${this.nodes.length === 1 ? "node" : "nodes"}` : "";
    const key = JSON.stringify([shown, this.#why, this.#place, this.#view]);
    if (key === this.#drawn) return;
    this.#drawn = key;
    this.#say(shown);
    if (shown) this.#paint();
  }

  #paint() {
    const { picture } = this.#elements;
    const focused = picture.contains(document.activeElement) ? document.activeElement.dataset.node : null;
    const here = this.#place.node ?? this.#view.node;
    const owner = this.owner;
    // Its own node first; the owner is never among those that do not fit.
    const rank = (node) => (node.name === here ? 0 : node.name === owner ? 1 : 2);
    const chosen = [...this.nodes].sort((a, b) => rank(a) - rank(b)).slice(0, DRAWN_MAX);
    const others = chosen.filter((node) => node.name !== here).slice(0, DRAWN_MAX - 1).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    const layout = LAYOUTS[others.length];
    const home = { x: WIDTH / 2, y: layout.here };
    const tab = { x: home.x, y: home.y + YOU_BELOW };
    const at = new Map([[here, home]]);
    others.forEach((node, index) => {
      const [x, y] = layout.others[index];
      at.set(node.name, { x, y });
    });
    picture.setAttribute("viewBox", `0 0 ${WIDTH} ${tab.y + FOOT}`);

    const mesh = make("g", {});
    const places = [...at.values()];
    places.forEach((a, index) => {
      for (const b of places.slice(index + 1)) mesh.append(make("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: "mesh" }));
    });
    const stops = [tab, home];
    if (owner && owner !== here && at.has(owner)) stops.push(at.get(owner));
    const route = make("path", { d: `M${stops.map(({ x, y }) => `${x} ${y}`).join("L")}`, class: "way" });
    const dotLayer = make("g", {});
    dotLayer.append(...this.#dots.map(({ dot }) => dot));

    const boxes = chosen.filter((node) => at.has(node.name)).map((node) => this.#box(node, at.get(node.name), { here: node.name === here, owner: node.name === owner }));
    const you = make("g", {});
    you.append(
      make("circle", { cx: tab.x, cy: tab.y, r: 20, class: "you-disc" }),
      text("you", tab.x, tab.y + 4.5, "you-text", "middle"),
      text("are here, in this tab", tab.x + 29, tab.y + 4.5, "soft"),
    );
    const left = this.nodes.length - chosen.length;
    if (left > 0) you.append(text(`and ${left} more`, 4, tab.y + 4, "soft"));
    picture.replaceChildren(mesh, route, dotLayer, ...boxes, you);
    this.#route = route;
    this.#dotLayer = dotLayer;
    if (focused) picture.querySelector(`[data-node="${CSS.escape(focused)}"]`)?.focus();
  }

  #box(node, { x, y }, { here, owner }) {
    const lamp = LAMPS[node.state] ?? "warn";
    const group = here ? make("g", {}) : make("a", { href: pageOn(node.client), target: "_blank", rel: "noopener", "aria-label": `Open a second player on ${node.name}` });
    group.setAttribute("class", [here && "here", owner && "owner", lamp === "bad" && "gone"].filter(Boolean).join(" "));
    group.dataset.node = node.name;
    const left = x - BOX.width / 2;
    const top = y - BOX.height / 2;
    group.append(make("rect", { x: left, y: top, width: BOX.width, height: BOX.height, rx: 11, class: "box" }));
    const name = text(node.name.length > 15 ? `${node.name.slice(0, 14)}…` : node.name, left + 12, top + 21, "name");
    const state = text(node.state, left + 24, top + 37.5, "soft");
    // A second sign beside the colour: a healthy lamp is round, any other is square.
    const light = lamp === "good"
      ? make("circle", { cx: left + 16, cy: top + 33.5, r: 4, class: lamp })
      : make("rect", { x: left + 12, y: top + 29.5, width: 8, height: 8, class: lamp });
    const load = text(`${count(node.sessions, "session", "sessions")} · ${count(node.matches, "match", "matches")}`, left + 12, top + 53, "soft");
    group.append(name, light, state, load);
    if (owner) {
      const crown = make("path", { d: CROWN, class: "crown", transform: `translate(${x + BOX.width / 2 - 24} ${top})` });
      group.append(crown, text(`runs your ${this.#noun}`, x + BOX.width / 2 - 43, top - 5, "duty", "end"));
    }
    return group;
  }

  /** The same in words: what the picture shows, for those who do not see it and those who wonder what it means. */
  #say(shown) {
    const { route, second } = this.#elements;
    const here = this.#place.node;
    const owner = shown ? this.owner : null;
    const parts = [];
    if (here) parts.push("You are on ", strong(here));
    if (here && owner && owner !== here) {
      parts.push(`; your ${this.#noun} runs on `, strong(owner), `. Your moves take one hop, ${here} to ${owner}, and everyone else sees them from their own node.`);
    } else if (here && owner) {
      parts.push(`, which also runs your ${this.#noun}. Players on other nodes reach it in one hop.`);
    } else if (here) {
      parts.push(".");
    }
    if (this.#why === "absent") parts.push(" This node does not serve the live picture of the cluster; ", code("rookery demo"), " does.");
    if (this.#why === "unreachable" && !shown) parts.push(" The node does not answer at the moment; the picture comes back with it.");
    if (!parts.length) parts.push("Looking for the cluster…");
    route.replaceChildren(...parts);

    const ready = this.nodes.filter((node) => node.state === "ready" && node.name !== here);
    const next = ready.find((node) => node.name !== owner) ?? ready[0];
    second.hidden = !shown;
    second.href = pageOn(next ? next.client : this.#place.base);
    second.textContent = next ? `Open a second player on ${next.name}` : "Open a second player";
  }
}

/** This page, as another node serves it. */
function pageOn(client) {
  return sameNode(client) + (location.pathname === "/" ? "" : location.pathname);
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(content, x, y, kind, anchor = "start") {
  return Object.assign(make("text", { x, y, class: kind, "text-anchor": anchor }), { textContent: content });
}

function count(number, one, many) {
  return `${number ?? "–"} ${number === 1 ? one : many}`;
}

function strong(content) {
  return Object.assign(document.createElement("strong"), { textContent: content });
}

function code(content) {
  return Object.assign(document.createElement("code"), { textContent: content });
}
