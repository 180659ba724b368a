// The demo page: one player in the arena, over whichever node this tab reached. This file is the way through a visit (account,
// connection, match, and what happens when one of them goes away); the parts it puts together are in app/.
//
// The page says what it is doing in data attributes of <body>, which style.css colours by and tests/browser reads.

import { account, AccountRefused, renewed } from "./app/account.js";
import { Cluster } from "./app/cluster.js";
import { Connection, Refused } from "./app/connection.js";
import { Controls } from "./app/controls.js";
import { Duel } from "./app/duel.js";
import { Inputs } from "./app/inputs.js";
import { Lobby } from "./app/lobby.js";
import { Painter } from "./app/painter.js";
import { sameNode } from "./app/places.js";
import { Scores } from "./app/scores.js";
import { dash, fromBase64, plumage, readEvent, readWorld, steer, Timeline, toBase64 } from "./app/world.js";

const MODULE = "arena";
const REPORT_EVERY_MS = 200;
const PROBE_EVERY_MS = 2000;
// A seat that was just taken is busy with its first view; after that the first figures need not wait for the rhythm.
const FIRST_PROBE_MS = 300;
// A match that says nothing and applies nothing for so long is waited for, and the player is told; a busy machine is quicker.
const QUIET_MS = 1500;
const RETRY_MS = [250, 500, 1000, 2000, 4000];
const HUES = [6, 28, 62, 100, 132, 168, 200, 232];

const find = (id) => document.getElementById(id);
const body = document.body;

const timeline = new Timeline();
const names = new Map();
const painter = new Painter(find("arena"));
const lobby = new Lobby(find("lobby"));
const duel = new Duel(find("duel"));
const scores = new Scores(find("scores"), find("scores-count"));
const cluster = new Cluster(
  { card: document.querySelector(".cluster"), picture: find("picture"), route: find("route"), age: find("cluster-age"), second: find("second") },
  () => owned(),
);

let connection = null;
let player = null;
let game = null;
let node = { base: location.origin, name: location.host };
// Every client listener that this page has heard of; any of them will do.
let known = [location.origin];
let hue = null;
let steered = false;
let reportedAt = 0;
let heardAt = 0;

const inputs = new Inputs((n, bytes) => connection?.tell("match.send", { match: game?.match, data: toBase64(bytes), n }));

const controls = new Controls(find("arena"), {
  onSteer: (dx, dy) => act(steer(dx, dy)),
  onDash: () => act(dash()),
});

/** Says where the visit stands: `state` for style and tests, `status` in the header, and a notice over the field, or none. */
function stand(state, status, notice = null) {
  body.dataset.state = state;
  if (find("status").textContent !== status) find("status").textContent = status;
  const box = find("notice");
  box.hidden = !notice;
  find("notice-title").textContent = notice?.title ?? "";
  find("notice-text").textContent = notice?.text ?? "";
  const button = find("notice-action");
  button.hidden = !notice?.action;
  button.textContent = notice?.action?.label ?? "";
  button.onclick = notice?.action?.run ?? null;
  if (notice?.action) button.focus({ preventScroll: true });
  if (state !== "playing") {
    find("hint").hidden = true;
    find("latency-node").textContent = "–";
    find("latency-match").textContent = "–";
  }
}

/** Reaches a node and takes a seat; goes on trying, here first and then at every other node it knows of. */
async function arrive(from) {
  for (let attempt = 0; ; attempt += 1) {
    const places = [from, ...known.filter((base) => base !== from)];
    const base = places[attempt % places.length];
    try {
      await reach(base);
      break;
    } catch (error) {
      if (error instanceof Refused || error instanceof AccountRefused) {
        stand(body.dataset.state, `The node answers “${error.message}”, trying again…`, {
          title: "Not yet",
          text: `The node refused this visit (${error.code}). The page keeps trying.`,
        });
      } else if (attempt > 0) {
        const where = new URL(places[(attempt + 1) % places.length]).host;
        stand("reconnecting", `No answer, trying ${where}…`, {
          title: "Nobody answers",
          text: "No node that this page knows can be reached at the moment. It goes on trying, your seat is kept for a while.",
        });
      }
      await pause(error.details?.retry_ms ?? RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
    }
  }
  await seat();
}

/** Opens a connection and a session at one node. */
async function reach(base) {
  player = await account(base);
  const opening = new Connection(base, {
    onPush: (frame) => opening === connection && hear(frame),
    onEnd: (code, reason) => opening === connection && ended(code, reason),
    onPing: (ms) => (find("latency-node").textContent = milliseconds(ms)),
  });
  try {
    await opening.ready;
    const opened = await open(opening, base);
    node = { base, name: opened.node };
    known = [...new Set([...(opened.nodes ?? []).map(sameNode), ...known])];
  } catch (error) {
    opening.close();
    throw error;
  }
  const before = connection;
  connection = opening;
  before?.close();
  body.dataset.node = node.name;
  document.title = `${node.name} · Rookery arena`;
  body.dataset.player = player.player;
  cluster.place({ base, node: node.name });
  lobby.use(connection, player);
  duel.use(connection);
  // What was pushed right behind the answer is for the parts that know the new connection now.
  connection.begin();
}

async function open(opening, base) {
  try {
    return await opening.request("session.open", { token: player.access_token });
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "unauthenticated") throw error;
    player = await renewed(base);
    return opening.request("session.open", { token: player.access_token });
  }
}

/** Takes a seat: the one it had, if that match still runs, or one in the fullest match of the module. */
async function seat() {
  const mine = connection;
  stand("joining", `On ${node.name}, looking for a match…`);
  while (mine === connection) {
    try {
      const back = game ? await returned(mine, game.match) : null;
      const joined = back ?? (await mine.request("match.quick", { module: MODULE }));
      if (mine === connection) seated(joined);
      return;
    } catch (error) {
      // The connection ended meanwhile, and `ended` has begun anew.
      if (mine !== connection) return;
      if (error instanceof Refused && error.code === "module.not_found") {
        stand("refused", `${node.name} has no module named ${MODULE} yet.`, {
          title: "No arena here yet",
          text: "This cluster has not published the arena. “rookery demo” does so by itself; the page looks again every few seconds.",
        });
        await pause(3000);
      } else {
        const why = error instanceof Refused ? `${error.message} (${error.code})` : error.message;
        stand("joining", `No seat yet: ${why}. Trying again…`);
        await pause(error.details?.retry_ms ?? 1500);
      }
    }
  }
}

/** The seat it had before, or null when that match is over or no longer takes it. */
async function returned(mine, match) {
  try {
    return await mine.request("match.join", { match });
  } catch (error) {
    if (error instanceof Refused && error.code.startsWith("match.")) return null;
    throw error;
  }
}

function seated(joined) {
  game = { match: joined.match, seat: joined.seat };
  timeline.clear();
  painter.clear();
  names.clear();
  for (const one of joined.players ?? []) names.set(one.seat, one);
  inputs.startAfter(joined.n ?? 0);
  body.dataset.match = joined.match;
  body.dataset.seat = joined.seat;
  cluster.place({ match: joined.match });
  owned();
  if (hue !== null) inputs.push(plumage(hue));
  controls.repeat();
  playing();
  setTimeout(() => {
    connection?.measure();
    probe();
  }, FIRST_PROBE_MS);
}

/** Keeps the owner's name: when its match is lost, nobody owns it any more and people want to know who did. */
function owned() {
  body.dataset.owner = cluster.owner ?? "";
  if (game && cluster.owner) game.owner = cluster.owner;
}

function playing() {
  find("latency").hidden = false;
  stand("playing", `Playing as ${player.name ?? "a guest"}.`);
  const hint = find("hint");
  hint.hidden = steered;
  hint.textContent = matchMedia("(hover: none)").matches ? "Drag to steer, tap twice to dash" : "WASD or arrow keys to fly, space to dash";
}

function hear(frame) {
  lobby.hear(frame);
  duel.hear(frame);
  if (game && frame.match === game.match) {
    heardAt = performance.now();
    // Outputs and acknowledgements come from a match that is at work.
    if (body.dataset.state === "waiting" && ["match.data", "match.ack"].includes(frame.type)) playing();
  }
  switch (frame.type) {
    case "match.data":
      if (frame.match === game?.match) data(frame);
      break;
    case "match.players":
      if (frame.match !== game?.match) break;
      for (const one of frame.joined ?? []) names.set(one.seat, one);
      for (const one of frame.left ?? []) names.delete(one.seat);
      break;
    case "match.ack":
      if (frame.match === game?.match) inputs.acknowledged(frame.n);
      break;
    case "match.resend":
      if (frame.match === game?.match) inputs.resend(frame.n);
      break;
    case "match.reset":
      if (frame.match !== game?.match) break;
      timeline.clear();
      inputs.startAfter(frame.n);
      controls.repeat();
      break;
    case "match.waiting":
      if (frame.match === game?.match) waiting(frame.why || silence());
      break;
    case "match.kicked":
      over(frame, "kicked", "You were taken out of the match.", "Out of the match", frame.reason ? `It said: ${frame.reason}.` : "It gave no reason.");
      break;
    case "match.lost":
      over(frame, "match-lost", "The match was lost.", "The match is lost",
        `${game?.owner ? `${game.owner}, which ran it,` : "The node that ran it"} is gone, and an arena lives in the memory of one node only. Your connection is fine, and the next match is one button away.`);
      break;
    case "match.failed":
      over(frame, "match-failed", "The match failed.", "The match failed", `The server stopped it: ${frame.reason || "no reason given"}.`);
      break;
    case "match.ended":
      over(frame, "match-ended", "The match has ended.", "The match has ended", "It ran its course. There is always another one.");
      break;
    case "session.going_away":
      goingAway(frame);
      break;
    case "session.replaced":
      connection = null;
      stand("replaced", "Playing somewhere else now.", {
        title: "This player moved to another tab",
        text: "The same player opened the arena elsewhere, and one seat has one bird.",
        action: { label: "Play here instead", run: () => restart() },
      });
      break;
    case "error":
      if (frame.code === "rate_limited") inputs.hold(frame.details?.retry_ms ?? 250);
      break;
    default:
      // A newer node may say more than this page knows.
      break;
  }
}

function data(frame) {
  const now = performance.now();
  if (frame.key === undefined || frame.key === null) {
    const event = readEvent(fromBase64(frame.data));
    if (event?.kind === "scored") painter.ring(event.seat, now, false);
    if (event?.kind === "bumped") for (const one of [event.a, event.b]) painter.ring(one, now, true);
    return;
  }
  if (frame.key !== "w" || frame.removed) return;
  const world = readWorld(fromBase64(frame.data));
  if (!world) return;
  timeline.push(frame.at, now, world);
  cluster.pulse("in", now);
  if (now - reportedAt >= REPORT_EVERY_MS) {
    reportedAt = now;
    report(world);
  }
}

/** The slow view of the world: scores, and the attributes that tests read. */
function report(world) {
  const players = [...world.movers].map(([id, mover]) => ({
    seat: id,
    name: names.get(id)?.name ?? `Seat ${id}`,
    bot: mover.bot,
    me: id === game.seat,
    score: mover.score,
    colour: painter.colour(mover.hue, mover.bot),
  }));
  scores.show(players);
  body.dataset.players = players.length;
  body.dataset.positions = JSON.stringify(Object.fromEntries([...world.movers].map(([id, { x, y }]) => [id, [x, y]])));
  body.dataset.hues = JSON.stringify(Object.fromEntries([...world.movers].map(([id, { hue: one }]) => [id, one])));
  const mine = world.movers.get(game.seat);
  if (mine && hue === null) choose(mine.hue);
}

function waiting(why) {
  stand("waiting", `The match pauses: ${why}.`, {
    title: "One moment",
    text: "The node that runs this match does not answer. Your moves are kept; the match goes on, or the cluster says that it is lost.",
  });
}

function silence() {
  return `${game?.owner ?? "its node"} does not answer`;
}

function over(frame, state, status, title, text) {
  if (frame.match !== game?.match) return;
  game = null;
  body.dataset.match = "";
  body.dataset.positions = "{}";
  cluster.place({ match: null });
  owned();
  stand(state, status, { title, text, action: { label: "Play again", run: () => seat() } });
}

function ended(code, reason) {
  connection = null;
  const replaced = code === 1008 && reason === "replaced";
  if (replaced) {
    hear({ type: "session.replaced" });
    return;
  }
  stand("reconnecting", `The connection to ${node.name} is lost, looking for another way in…`, {
    title: "Connection lost",
    text: `${node.name} does not answer. Any node will do, so the page tries it again and then the others.`,
  });
  arrive(node.base);
}

function goingAway({ reason, nodes = [] }) {
  known = [...new Set([...nodes.map(sameNode), ...known])];
  const next = nodes.map(sameNode).find((base) => base !== node.base) ?? known.find((base) => base !== node.base) ?? node.base;
  stand("reconnecting", `${node.name} is going away (${reason || "stopping"}), moving to ${new URL(next).host}…`);
  const leaving = connection;
  connection = null;
  leaving?.close();
  arrive(next);
}

function restart() {
  stand("connecting", "Connecting…");
  arrive(node.base);
}

function act(bytes) {
  if (!["playing", "waiting"].includes(body.dataset.state) || !inputs.push(bytes)) return;
  steered = true;
  find("hint").hidden = true;
  cluster.pulse("out", performance.now());
}

/** Measures the way to the match and back with a real input that changes nothing: the direction of now, said again. */
async function probe() {
  if (body.dataset.state !== "playing" || !connection) return;
  const [dx, dy] = controls.direction();
  const sentAt = performance.now();
  const asked = game;
  const quiet = setTimeout(() => {
    if (game === asked && body.dataset.state === "playing" && heardAt < sentAt) waiting(silence());
  }, QUIET_MS);
  const took = await inputs.ask(steer(dx, dy), (n, bytes) => connection.request("match.send", { match: game.match, data: toBase64(bytes), n }));
  // Without an answer the timer stands: whether the match is silent is for its next word to say.
  if (!took) return;
  clearTimeout(quiet);
  find("latency-match").textContent = milliseconds(performance.now() - sentAt);
}

function choose(wanted) {
  hue = wanted;
  const near = (one) => Math.min(Math.abs(one - wanted), 256 - Math.abs(one - wanted));
  const best = [...HUES].sort((a, b) => near(a) - near(b))[0];
  find("plumage").querySelector(`input[value="${best}"]`).checked = true;
}

function palette() {
  const NAMES = ["rose", "copper", "moss", "leaf", "sea", "sky", "iris", "orchid"];
  HUES.forEach((value, index) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "plumage", value: String(value) });
    input.setAttribute("aria-label", NAMES[index]);
    const dot = document.createElement("span");
    dot.style.background = painter.colour(value);
    input.onchange = () => {
      hue = value;
      act(plumage(value));
    };
    label.title = NAMES[index];
    label.append(input, dot);
    find("plumage").append(label);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const input of find("plumage").querySelectorAll("input")) input.nextElementSibling.style.background = painter.colour(Number(input.value));
  });
}

function frame(now) {
  painter.draw(timeline.sample(now), now, { seat: game?.seat, names: labels(), stick: controls.stick });
  cluster.frame(now);
  requestAnimationFrame(frame);
}

/** Only people carry their name over the field; bots would bury them. */
function labels() {
  return new Map([...names].filter(([, one]) => one.role !== "bot").map(([id, one]) => [id, one.name]));
}

function milliseconds(ms) {
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

palette();
find("dash").onclick = () => act(dash());
// What is pressed by hand gives the keys back to the field; who goes through the page by keyboard stays where they are.
document.querySelector(".controls").addEventListener("pointerup", () => setTimeout(() => find("arena").focus({ preventScroll: true })));
setInterval(probe, PROBE_EVERY_MS);
requestAnimationFrame(frame);
stand("connecting", `Connecting to ${location.host}…`);
arrive(location.origin);
