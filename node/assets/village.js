// The village: a text adventure over nine zones of the cluster. This file is what happens between the player and the zone that they
// are in; the way to a node is app/visit.js. The page says what it shows in data attributes of <body>, which tests/browser reads.

import { Cluster } from "./app/cluster.js";
import { Refused } from "./app/connection.js";
import { Duel } from "./app/duel.js";
import { make } from "./app/elements.js";
import { Inputs } from "./app/inputs.js";
import { Lobby } from "./app/lobby.js";
import { pause, Visit } from "./app/visit.js";
import { Zones } from "./app/zones.js";

const WORLD = "village";
const LINES_MAX = 200;
const RETRY_MS = 1000;

const find = (id) => document.getElementById(id);
const body = document.body;

const lobby = new Lobby(find("lobby"));
const duel = new Duel(find("duel"));
const zones = new Zones(find("map"));
const cluster = new Cluster(
  { card: document.querySelector(".cluster"), picture: find("picture"), route: find("route"), age: find("cluster-age"), second: find("second") },
  (view) => {
    zones.show(view, WORLD, sight.zone);
    body.dataset.owner = cluster.owner ?? "";
  },
  "zone",
);

let game = null;
// What the zone last showed of itself.
let sight = {};

const inputs = new Inputs((n, line) => visit.connection?.tell("match.send", { match: game?.match, data: line, n }));

const visit = new Visit({
  onOpen: () => opened(),
  onPush: (frame) => hear(frame),
  onPing: (ms) => (find("latency-node").textContent = ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`),
  onState: stand,
});

function stand(state, status, notice = null) {
  body.dataset.state = state;
  find("status").textContent = status;
  find("notice").hidden = !notice;
  find("notice-title").textContent = notice?.title ?? "";
  find("notice-text").textContent = notice?.text ?? "";
  const button = find("notice-action");
  button.hidden = !notice?.action;
  button.textContent = notice?.action?.label ?? "";
  button.onclick = notice?.action?.run ?? null;
  find("latency").hidden = state !== "playing";
}

function opened() {
  body.dataset.node = visit.node.name;
  body.dataset.player = visit.player.player;
  document.title = `${visit.node.name} · Rookery village`;
  cluster.place({ base: visit.node.base, node: visit.node.name });
  lobby.use(visit.connection, visit.player);
  duel.use(visit.connection);
  listen(visit.connection);
  enter();
}

/** Hears what is said to the whole world. */
async function listen(mine) {
  while (mine === visit.connection) {
    try {
      await mine.request("channel.join", { channel: `world:${WORLD}` });
      return;
    } catch {
      await pause(3000);
    }
  }
}

/** Takes the seat it had, in the zone where its player is, or a new one at the village green. */
async function enter() {
  const mine = visit.connection;
  stand("joining", `On ${visit.node.name}, walking to the village…`);
  while (mine === visit.connection) {
    try {
      const back = game ? await mine.request("match.join", { match: game.match }).catch(() => null) : null;
      const joined = back ?? (await mine.request("world.enter", { world: WORLD }));
      if (mine === visit.connection) seated(joined, joined.match);
      return;
    } catch (error) {
      if (mine !== visit.connection) return;
      if (error instanceof Refused && error.code.startsWith("world.")) {
        stand("refused", "The village is not online yet.", { title: "Not yet", text: `${error.message}${error.details.why ? `: ${error.details.why}` : ""}. The page looks again every second.` });
      } else {
        stand("joining", `Not in yet: ${error.message}. Trying again…`);
      }
      await pause(error.details?.retry_ms ?? RETRY_MS);
    }
  }
}

function seated(joined, match) {
  game = { match, seat: joined.seat };
  inputs.startAfter(joined.n ?? 0);
  body.dataset.match = match;
  body.dataset.seat = joined.seat;
  cluster.place({ match });
  stand("playing", `Walking about as ${visit.player.name ?? "a guest"}.`);
}

function hear(frame) {
  lobby.hear(frame);
  duel.hear(frame);
  if (frame.type === "channel.message" && frame.channel === `world:${WORLD}`) {
    write("world", frame.text);
    return;
  }
  if (!game || frame.match !== game.match) return;
  switch (frame.type) {
    case "match.data":
      if (body.dataset.state === "waiting") stand("playing", `Walking about as ${visit.player.name ?? "a guest"}.`);
      if (frame.key === "view") show(frame.data);
      else if (!frame.key) write(frame.data.event, frame.data.line);
      break;
    case "match.moved":
      seated(frame, frame.to);
      break;
    case "match.ack":
      inputs.acknowledged(frame.n);
      break;
    case "match.resend":
      inputs.resend(frame.n);
      break;
    case "match.reset":
      inputs.startAfter(frame.n);
      write("world", "You blink. The world is a moment younger than it was.");
      break;
    case "match.waiting":
      stand("waiting", `This zone pauses: ${frame.why || "its node does not answer"}.`);
      break;
    case "match.kicked":
    case "match.lost":
    case "match.failed":
    case "match.ended":
      game = null;
      write("world", "This part of the village is gone. You find yourself on the road back.");
      enter();
      break;
    default:
      // A newer node may say more than this page knows.
      break;
  }
}

function show(view) {
  if (!view) return;
  const moved = view.zone !== sight.zone;
  sight = view;
  find("title").textContent = view.title;
  find("where").textContent = `zone ${view.zone}`;
  find("text").textContent = view.text;
  find("present").textContent = [...view.actors, ...view.people].length ? `Here: ${[...view.actors, ...view.people].join(", ")}.` : "Nobody else is here.";
  find("exits").replaceChildren(...view.exits.map((exit) => button(exit.go, `go ${exit.go}`, exit.zone ? `to ${exit.to}, in the zone ${exit.zone}` : `to ${exit.to}`, exit.zone ? "road" : "")));
  find("things").replaceChildren(
    ...view.items.map((item) => button(`take ${item.name}`, `get ${item.id}`, `Take ${item.name}`, "thing")),
    ...view.carried.map((item) => button(`drop ${item.name}`, `drop ${item.id}`, `Put down ${item.name}`, "thing mine")),
  );
  find("in-village").textContent = `${view.in_village} ${view.in_village === 1 ? "player" : "players"}`;
  Object.assign(body.dataset, { zone: view.zone, room: view.room, people: JSON.stringify(view.people), carried: JSON.stringify(view.carried.map((item) => item.id)), inVillage: view.in_village });
  if (moved) zones.move(view.zone);
}

function button(label, line, title, kind) {
  const made = make("button", { type: "button", textContent: label, title, className: kind });
  made.dataset.line = line;
  made.onclick = () => act(line);
  return made;
}

function act(line) {
  if (!game || !inputs.push(line)) return;
  write("mine", `> ${line}`);
  cluster.pulse("out", performance.now());
}

function write(kind, line) {
  if (!line) return;
  const log = find("log");
  const near = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(make("li", { className: kind, textContent: line }));
  while (log.children.length > LINES_MAX) log.firstChild.remove();
  if (near) log.scrollTop = log.scrollHeight;
}

function frame(now) {
  cluster.frame(now);
  requestAnimationFrame(frame);
}

find("form").onsubmit = (event) => {
  event.preventDefault();
  const line = find("line").value.trim();
  find("line").value = "";
  if (line) act(line);
};
requestAnimationFrame(frame);
stand("connecting", `Connecting to ${location.host}…`);
visit.arrive(location.origin);
