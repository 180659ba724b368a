// Plays the demo page in headless Chromium, as people would: two desktop tabs on two nodes and a phone on one of them, in a real
// cluster that is already running. Usage: node arena.mjs URL_OF_A_NODE URL_OF_ANOTHER OUT_DIR
//
// What the page shows is read from the data attributes of <body> (see app.js), never from its variables.

import path from "node:path";
import { ARRIVE_MS, compose, eventually, expect, play, Tab } from "./stage.mjs";

// A tenth of the field's width: more than a bump moves anyone, less than a second of flight.
const FLOWN = 60;

/** One tab in the arena. */
class Arena extends Tab {
  async open(url) {
    await this.page.goto(url);
    return this.plays();
  }

  plays(within = ARRIVE_MS) {
    return eventually(
      async () => `${this.name} plays; it is “${(await this.data()).state}” and says “${await this.page.locator("#status").textContent()}”`,
      async () => {
        const data = await this.data();
        return data.state === "playing" && data.seat && data.positions?.[data.seat] && data;
      },
      within,
    );
  }

  async data() {
    const data = await this.page.evaluate(() => ({ ...document.body.dataset }));
    return { ...data, positions: data.positions ? JSON.parse(data.positions) : {} };
  }

  async place(seat) {
    return (await this.data()).positions[seat];
  }
}

/** Holds a key in `pilot` until every one of `watchers` sees `seat` fly that way. */
async function fly(pilot, seat, watchers) {
  const [x] = await eventually(`${pilot.name} has a place`, () => pilot.place(seat));
  const [key, sign] = x < 500 ? ["d", 1] : ["a", -1];
  const before = new Map();
  for (const watcher of watchers) before.set(watcher, await eventually(`${watcher.name} sees seat ${seat}`, () => watcher.place(seat)));
  await pilot.page.bringToFront();
  await pilot.page.keyboard.down(key);
  try {
    for (const watcher of watchers) {
      await eventually(`${watcher.name} sees seat ${seat} fly ${sign > 0 ? "right" : "left"}`, async () => {
        const now = await watcher.place(seat);
        return now && (now[0] - before.get(watcher)[0]) * sign > FLOWN;
      });
    }
  } finally {
    await pilot.page.keyboard.up(key);
  }
}

await play("arena.mjs", Arena, 800, async (stage, { first, second, out }) => {
  const { check } = stage;
  const ana = await stage.tab("the first tab", { colorScheme: "dark" });
  const ben = await stage.tab("the second tab", { colorScheme: "light" });
  let anaSeat;
  let benSeat;

  await check("a person who opens the page is soon playing", async () => {
    anaSeat = (await ana.open(first)).seat;
  });
  await check("a second person plays through another node", async () => {
    benSeat = (await ben.open(second)).seat;
    const [a, b] = [await ana.data(), await ben.data()];
    expect(a.node && b.node && a.node !== b.node, `both are on ${a.node}`);
  });
  await check("both sit in one match, on seats of their own", async () => {
    const [a, b] = [await ana.data(), await ben.data()];
    expect(a.match && a.match === b.match, `matches ${a.match} and ${b.match}`);
    expect(a.seat !== b.seat, `both have seat ${a.seat}`);
    await eventually("each sees the other", async () => (await ana.place(b.seat)) && (await ben.place(a.seat)));
  });
  await check("both tabs see the first player fly where its keys point", () => fly(ana, anaSeat, [ana, ben]));
  await check("both tabs see the second player fly where its keys point", () => fly(ben, benSeat, [ana, ben]));
  await check("the arena is drawn in many colours", async () => {
    const colours = await ana.page.evaluate(() => {
      const canvas = document.getElementById("arena");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4 * 7) seen.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
      return seen.size;
    });
    expect(colours > 24, `only ${colours} colours`);
  });
  await check("the picture shows the nodes, one crown, and which node each tab is on", async () => {
    for (const one of [ana, ben]) {
      await eventually(`${one.name} draws the owner`, async () => (await one.page.locator("#picture .owner").count()) === 1);
      const { node, owner } = await one.data();
      expect((await one.page.locator("#picture .here").getAttribute("data-node")) === node, "another node is marked as here");
      expect((await one.page.locator("#picture .owner").getAttribute("data-node")) === owner, "another node wears the crown");
      expect((await one.page.locator("#picture .box").count()) >= 2, "fewer than two nodes are drawn");
      const words = await one.page.locator("#route").textContent();
      expect(words.includes(node), `the words do not name ${node}: ${words}`);
    }
    expect((await ana.data()).owner === (await ben.data()).owner, "the tabs disagree about the owner");
  });
  await check("both latencies are measured", async () => {
    for (const id of ["#latency-node", "#latency-match"]) {
      await eventually(`${id} has a value`, async () => /^[\d.]+ ms$/.test(await ana.page.locator(id).textContent()));
    }
  });
  await check("plumage chosen in one tab is seen in the other", async () => {
    const hue = (one) => one.page.evaluate((seat) => JSON.parse(document.body.dataset.hues ?? "{}")[seat], anaSeat);
    const old = await hue(ben);
    const wanted = Math.abs(old - 232) < 20 ? 132 : 232;
    await ana.page.locator(`#plumage label:has(input[value="${wanted}"])`).click();
    await eventually(`seat ${anaSeat} has hue ${wanted}`, async () => (await hue(ben)) === wanted);
    await eventually("the field has the keys again", () => ana.page.evaluate(() => document.activeElement.id === "arena"));
  });
  await check("a reload keeps the player and the match", async () => {
    const before = await ben.data();
    await ben.page.reload();
    const after = await ben.plays();
    expect(after.player === before.player, "a new player was made");
    expect(after.match === before.match, "another match was found");
    benSeat = after.seat;
  });
  await check("the button opens a second player, on another node, in the same match", async () => {
    const [popup] = await Promise.all([ana.page.waitForEvent("popup"), ana.page.locator("#second").click()]);
    const cleo = stage.take("the opened tab", popup);
    const opened = await cleo.plays();
    const { node, match, player } = await ana.data();
    expect(opened.node !== node, `it is on ${node} too`);
    expect(opened.match === match, "it is in another match");
    expect(opened.player !== player, "it is the same player");
    await popup.close();
  });
  await check("a tab whose connection is cut comes back to its seat, and flies on", async () => {
    const dana = await stage.tab("the cut tab", {});
    const sockets = [];
    await dana.page.routeWebSocket(/\/v1\/ws$/, (socket) => {
      socket.connectToServer();
      sockets.push(socket);
    });
    const before = await dana.open(first);
    await fly(dana, before.seat, [dana, ben]);
    await sockets.at(-1).close({ code: 4000, reason: "cut by the test" });
    await eventually("a second connection is made", () => sockets.length >= 2);
    const after = await dana.plays();
    expect(after.match === before.match && after.seat === before.seat, `seat ${before.seat} became ${after.seat}`);
    await fly(dana, after.seat, [dana, ben]);
    await dana.page.context().close();
  });
  await check("a match that is told of along with the session's answer is entered", async () => {
    const emma = await stage.tab("the matched tab", {});
    await emma.open(second);
    const { match } = await emma.data();
    // As for a ticket that was matched while the tab was away, in the earliest turn there is: the page knows no session yet.
    await emma.page.routeWebSocket(/\/v1\/ws$/, (socket) => {
      const server = socket.connectToServer();
      server.onMessage((text) => {
        if (JSON.parse(text).type === "session.opened") socket.send(JSON.stringify({ type: "queue.matched", ticket: "T", match, team: 0, players: [] }));
        socket.send(text);
      });
    });
    await emma.page.reload();
    await eventually("it is entered", async () => (await emma.data()).duel === "playing");
    await emma.page.context().close();
  });
  await compose(ana);
  await ana.page.keyboard.down("s");
  await new Promise((resolve) => setTimeout(resolve, 350));
  await ana.page.keyboard.press("Space");
  await new Promise((resolve) => setTimeout(resolve, 120));
  await ana.page.screenshot({ path: path.join(out, "desktop-dark.png") });
  await ana.page.keyboard.up("s");
  await ben.page.screenshot({ path: path.join(out, "desktop-light.png") });

  const phone = await stage.tab("the phone", { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  await check("the page fits a phone: no sideways scrolling, the field in sight", async () => {
    await phone.open(second);
    const seen = await phone.page.evaluate(() => {
      const box = document.getElementById("arena").getBoundingClientRect();
      return { wide: document.documentElement.scrollWidth, window: innerWidth, left: box.left, right: box.right, bottom: box.bottom, high: box.height };
    });
    expect(seen.wide <= 390 && seen.window <= 390, `the page is ${seen.wide} px wide in a window of ${seen.window}`);
    expect(seen.left >= 0 && seen.right <= 390 && seen.bottom <= 844 && seen.high >= 300, `the field is not in sight: ${JSON.stringify(seen)}`);
  });
  await check("a finger that drags on the field steers, and the desktop sees it", async () => {
    const { seat } = await phone.data();
    const touch = await phone.page.context().newCDPSession(phone.page);
    const [x] = await phone.place(seat);
    const sign = x < 500 ? 1 : -1;
    await phone.page.bringToFront();
    const box = await phone.page.locator("#arena").boundingBox();
    const at = { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [at] });
    await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: [{ x: at.x + 60 * sign, y: at.y }] });
    try {
      for (const watcher of [phone, ana]) {
        await eventually(`${watcher.name} sees the phone's bird fly`, async () => ((await watcher.place(seat))?.[0] - x) * sign > FLOWN);
      }
      await phone.page.screenshot({ path: path.join(out, "phone.png") });
    } finally {
      await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
    }
  });
  await phone.page.screenshot({ path: path.join(out, "phone-whole.png"), fullPage: true });
  await stage.everythingHasAName(ana);
  await check("bytes of the arena that are cut short are refused, not guessed at", async () => {
    const wrong = await ana.page.evaluate(async () => {
      const { readWorld, readEvent } = await import("/app/world.js");
      const whole = Uint8Array.of(1, 232, 3, 88, 2, 1, 7, 0, 0, 0, 10, 0, 20, 0, 99, 3, 5, 0, 1, 30, 0, 40, 0);
      const world = readWorld(whole);
      const mover = world?.movers.get(7);
      if (world?.width !== 1000 || world.height !== 600 || mover?.x !== 10 || mover.hue !== 99 || !mover.bot || !mover.dashing || world.pellets[0].y !== 40) return "misread";
      for (let length = 0; length < whole.length; length += 1) if (readWorld(whole.slice(0, length))) return `world of ${length} bytes`;
      for (let length = 0; length < 7; length += 1) if (readEvent(Uint8Array.of(1, 1, 0, 0, 0, 9, 0).slice(0, length))) return `event of ${length} bytes`;
      return null;
    });
    expect(wrong === null, `taken for good: ${wrong}`);
  });
  await check("inputs go out in order, again from where the match asks, and never leave a gap", async () => {
    const sent = await ana.page.evaluate(async () => {
      const { Inputs } = await import("/app/inputs.js");
      const log = [];
      const inputs = new Inputs((n, bytes) => log.push(`${n}:${bytes}`));
      const turn = async (title, act) => {
        log.length = 0;
        await act();
        return `${title} ${log.join(" ")}`;
      };
      const turns = [
        () => turn("new", () => ["a", "b", "c"].forEach((one) => inputs.push(one))),
        () => turn("acknowledged", () => (inputs.acknowledged(1), inputs.resend(2))),
        () => turn("restored from less", () => inputs.resend(1)),
        () => turn("next", () => inputs.push("d")),
        () => turn("seated again", () => (inputs.startAfter(9), inputs.push("e"))),
        () => turn("held", () => (inputs.hold(60), inputs.push("f"), inputs.resend(10))),
        () => turn("released", () => new Promise((resolve) => setTimeout(resolve, 150))),
      ];
      const lines = [];
      for (const next of turns) lines.push(await next());
      return lines.join(", ");
    });
    const wanted = "new 1:a 2:b 3:c, acknowledged 2:b 3:c, restored from less 1:b 2:c, next 3:d, seated again 10:e, held , released 10:e 11:f";
    expect(sent === wanted, `sent   ${sent}\nwanted ${wanted}`);
  });
  await stage.nobodyComplained();
});
