// The playground of `rookery dev`: several players of one match in one tab, what each of them is told, what the match uses of its
// budgets, and the calls of it that failed. The page says what it shows in data attributes of <body>, which tests/browser reads.

import { post } from "./account.js";
import { Connection } from "./connection.js";
import { make } from "./elements.js";
import { write } from "./payload.js";
import { Player } from "./player.js";

const LOOK_EVERY_MS = 1000;
const NAMES = ["Ana", "Ben", "Cid", "Dan", "Eva", "Fay", "Gus", "Hal"];
// From here on a budget is shown in red.
const TIGHT = 0.8;

const base = location.origin;
const find = (id) => document.getElementById(id);
const players = new Set();

let module = null;
let match = null;
let digest = null;
let made = 0;
// The connection by which matches are created; it has no seat.
let desk = null;
// What went wrong is left on the page for so long.
const TROUBLE_MS = 6000;
let troubleUntil = 0;

async function look() {
  const response = await fetch(`${base}/v1/dev${match ? `?match=${encodeURIComponent(match)}` : ""}`, { signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(`the node answered ${response.status}`);
  show(await response.json());
}

function show(view) {
  module = view.module ?? null;
  document.body.dataset.module = module ? `${module.name}@${module.digest}` : "";
  find("module").textContent = module ? `${module.name} ${module.version}, ${module.codec}, ${module.digest.slice(0, 12)}` : "no module is published";
  if (performance.now() > troubleUntil) stand(module ? "playing" : "waiting", module ? `${module.name} ${module.version} is ready.` : "Waiting for a module…");
  if (view.match) showMatch(view.match);
}

function showMatch(view) {
  document.body.dataset.status = view.status;
  document.body.dataset.digest = view.digest;
  if (digest && digest !== view.digest) {
    for (const player of players) player.note("upgraded", `the match runs ${view.digest.slice(0, 12)} now`, "good");
  }
  digest = view.digest;
  find("digest").textContent = `runs ${view.digest.slice(0, 12)}`;
  const facts = [
    ["match", view.name ? `${view.match} (${view.name})` : view.match],
    ["status", view.reason ? `${view.status}: ${view.reason}` : view.status],
    ["events", view.usage?.events],
    ["state hash", view.state_hash?.slice(0, 16)],
    ["outcome", view.outcome === undefined ? undefined : JSON.stringify(view.outcome)],
  ];
  const shown = facts.filter(([, value]) => value !== undefined && value !== null);
  find("facts").replaceChildren(...shown.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  find("budgets").replaceChildren(...(view.usage?.budgets ?? []).map(budget));
  const failures = view.failures ?? [];
  document.body.dataset.failures = failures.length;
  if (failures.length > 0) find("failures").replaceChildren(...failures.toReversed().map(failure));
  else find("failures").replaceChildren(make("li", { className: "none", textContent: "None so far." }));
}

function budget({ name, used, limit }) {
  const bar = make("progress", { max: limit, value: Math.min(used, limit), ariaLabel: name });
  const amount = make("output", { textContent: `${used.toLocaleString("en")} of ${limit.toLocaleString("en")}` });
  return make("div", { className: used > limit * TIGHT ? "budget tight" : "budget" }, make("span", { textContent: name }), bar, amount);
}

function failure({ event, call, input, kind, message, backtrace = [], undone }) {
  const parts = [
    make("strong", { textContent: kind }),
    ` in ${call} at event ${event}: ${message}${undone ? "; the match went on without it" : ""}`,
  ];
  if (input) parts.push(make("pre", { textContent: input }));
  if (backtrace.length > 0) parts.push(make("pre", { textContent: backtrace.join("\n") }));
  return make("li", {}, ...parts);
}

function stand(state, text) {
  document.body.dataset.state = state;
  find("status").textContent = text;
}

function trouble(error) {
  const reason = error.details?.reason ? `: ${error.details.reason}` : "";
  troubleUntil = performance.now() + TROUBLE_MS;
  stand("refused", `${error.message}${reason}`);
}

async function open() {
  if (desk) return desk;
  const account = await post(base, "/v1/auth/guest", { name: "Desk" });
  const connection = new Connection(base, { onPush: () => {}, onEnd: () => (desk = null), onPing: () => {} });
  await connection.ready;
  await connection.request("session.open", { token: account.access_token });
  connection.begin();
  desk = connection;
  return connection;
}

async function create() {
  if (!module) throw new Error("no module is published yet");
  const text = find("params").value.trim();
  const params = text === "" ? {} : { params: write(module.codec, text) };
  const connection = await open();
  const created = await connection.request("match.create", { module: module.name, ...params });
  use(created.match);
}

/** From now on this is the match; the players of the one before stay in it. */
function use(target) {
  match = target;
  digest = null;
  document.body.dataset.match = target;
  find("add-player").disabled = false;
  find("add-spectator").disabled = false;
}

async function add(role) {
  const name = NAMES[made % NAMES.length] + (made < NAMES.length ? "" : ` ${Math.floor(made / NAMES.length) + 1}`);
  made += 1;
  const player = new Player(name, role, () => players.delete(player));
  players.add(player);
  find("players").append(player.card);
  try {
    await player.join(base, match);
  } catch (error) {
    player.note("not in", `${error.message}${error.details?.reason ? `: ${error.details.reason}` : ""}`, "bad");
  }
}

function on(id, event, act) {
  find(id).addEventListener(event, (happened) => {
    happened.preventDefault();
    Promise.resolve().then(act).then(look).catch(trouble);
  });
}

on("create", "submit", create);
on("open", "submit", () => use(find("target").value.trim()));
on("add-player", "click", () => add("player"));
on("add-spectator", "click", () => add("spectator"));

async function watch() {
  for (;;) {
    await look().catch((error) => stand("connecting", `The node does not answer: ${error.message}`));
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

watch();
