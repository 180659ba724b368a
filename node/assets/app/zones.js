// The map of the village: which node runs each zone, who is where, and people walking. Fed once a second by the picture of the
// cluster; what it shows of this tab it hears at once.

import { make } from "./elements.js";

// As examples/village/src/map.rs draws it.
const LAYOUT = ["orchard", "chapel", "forest", "mill", "square", "smithy", "river", "market", "gate"];
const DOTS_MAX = 12;
const COLOURS = 6;

export class Zones {
  #map;
  #cells = new Map();

  constructor(map) {
    this.#map = map;
    for (const zone of LAYOUT) {
      const cell = { box: make("li", { className: "zone" }), node: make("span", { className: "zone-node" }), dots: make("span", { className: "zone-dots" }), shown: 0 };
      cell.box.dataset.zone = zone;
      cell.box.append(make("span", { className: "zone-name", textContent: zone }), cell.node, cell.dots);
      this.#cells.set(zone, cell);
      map.append(cell.box);
    }
  }

  /** `view` is the cluster as `/v1/demo/cluster` tells it; `here` the zone that this tab's player is in. */
  show(view, world, here) {
    const nodes = view.nodes.map((node) => node.name).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const rows = new Map(view.matches.filter((row) => row.name?.startsWith(`${world}/`)).map((row) => [row.name.slice(world.length + 1), row]));
    for (const [zone, cell] of this.#cells) {
      const row = rows.get(zone);
      const index = row ? nodes.indexOf(row.owner) : -1;
      cell.box.className = ["zone", index >= 0 ? `node-${index % COLOURS}` : "missing"].join(" ");
      cell.node.textContent = row?.owner ?? "nobody yet";
      cell.box.dataset.node = row?.owner ?? "";
      this.#people(cell, row?.players ?? 0, zone === here);
    }
    this.#map.dataset.running = rows.size;
  }

  /** This tab's player is in another zone: their dot moves before the cluster says so. */
  move(here) {
    for (const [zone, cell] of this.#cells) this.#people(cell, Math.max(cell.shown, zone === here ? 1 : 0), zone === here);
  }

  #people(cell, players, mine) {
    cell.shown = players;
    cell.box.classList.toggle("mine", mine);
    const dots = [];
    for (let index = 0; index < Math.min(players, DOTS_MAX); index += 1) dots.push(make("i", { className: mine && index === 0 ? "dot me" : "dot" }));
    if (players > DOTS_MAX) dots.push(`+${players - DOTS_MAX}`);
    if (cell.dots.childNodes.length !== dots.length || Boolean(cell.dots.querySelector(".me")) !== (mine && players > 0)) cell.dots.replaceChildren(...dots);
    cell.dots.setAttribute("aria-label", `${players} ${players === 1 ? "player" : "players"}${mine ? ", you among them" : ""}`);
    cell.dots.setAttribute("role", "img");
  }
}
