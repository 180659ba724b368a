// Plays the village in headless Chromium: two players on two nodes meet, talk, and walk to a zone that a third node runs, in a real
// cluster that is already running. Usage: node village.mjs URL_OF_A_NODE URL_OF_ANOTHER OUT_DIR
//
// What the page shows is read from the data attributes of <body> (see village.js) and from its elements, never from its variables.

import path from "node:path";
import { ARRIVE_MS, compose, eventually, expect, play, Tab } from "./stage.mjs";

// As examples/village/src/map.rs draws it: from the green to the out-of-doors room of every other zone.
const WAYS = {
  chapel: ["north"], smithy: ["east"], market: ["south"], mill: ["west"],
  orchard: ["west", "north"], forest: ["east", "north"], river: ["west", "south"], gate: ["east", "south"],
};
const BACK = { north: "south", south: "north", east: "west", west: "east" };

/** One tab in the village. */
class Village extends Tab {
  async open(url) {
    await this.page.goto(`${url}village`);
    return this.stands("square");
  }

  /** Waits until this player is in a zone, and returns what the page says. */
  stands(zone) {
    return eventually(
      async () => `${this.name} in ${zone}: it is ${JSON.stringify(await this.data())} and says “${await this.page.locator("#status").textContent()}”`,
      async () => {
        const data = await this.data();
        return data.state === "playing" && data.zone === zone && data;
      },
      ARRIVE_MS,
    );
  }

  async data() {
    const data = await this.page.evaluate(() => ({ ...document.body.dataset }));
    return { ...data, people: JSON.parse(data.people ?? "[]"), carried: JSON.parse(data.carried ?? "[]") };
  }

  async type(line) {
    await this.page.locator("#line").fill(line);
    await this.page.locator("#line").press("Enter");
  }

  press(line) {
    return this.page.locator(`button[data-line="${line}"]`).first().click();
  }

  /** Waits for a line in the log. */
  reads(text) {
    return eventually(
      async () => `${this.name} reads “${text}”; it read ${JSON.stringify(await this.log())}`,
      async () => (await this.log()).some((line) => line.includes(text)),
    );
  }

  log() {
    return this.page.locator("#log li").allTextContents();
  }

  async who() {
    const status = await this.page.locator("#status").textContent();
    return status.replace("Walking about as ", "").replace(/\.$/, "");
  }
}

await play("village.mjs", Village, 860, async (stage, { first, second, out }) => {
  const { check } = stage;
  const ana = await stage.tab("the first tab", { colorScheme: "dark" });
  const ben = await stage.tab("the second tab", { colorScheme: "light" });
  let anaName;
  let benName;
  let third;

  await check("a person who opens the page is soon in the village", async () => {
    await ana.open(first);
    anaName = await ana.who();
  });
  await check("a second person meets the first one through another node", async () => {
    await ben.open(second);
    // Guests' names are drawn from a few; these two are to be told apart.
    for (benName = await ben.who(); benName === anaName; benName = await ben.who()) {
      await ben.page.evaluate(() => sessionStorage.clear());
      await ben.open(second);
    }
    const [a, b] = [await ana.data(), await ben.data()];
    expect(a.node && b.node && a.node !== b.node, `both are on ${a.node}`);
    await eventually("each sees the other", async () => (await ana.data()).people.includes(benName) && (await ben.data()).people.includes(anaName));
  });
  await check("what one says the other reads", async () => {
    await ben.type("say good morning, stranger");
    await ana.reads(`${benName} says: good morning, stranger`);
    await ana.type("'and to you");
    await ben.reads(`${anaName} says: and to you`);
  });
  await check("the map shows nine zones on three nodes, and both players", async () => {
    await eventually("nine zones are run", async () => (await ana.page.locator("#map .zone:not(.missing)").count()) === 9);
    const nodes = await ana.page.locator("#map .zone").evaluateAll((cells) => [...new Set(cells.map((cell) => cell.dataset.node))]);
    expect(nodes.length === 3, `zones run on ${nodes}`);
    await eventually("both are in the square", async () => (await ana.page.locator('#map .zone[data-zone="square"] .dot').count()) >= 2);
    expect((await ana.page.locator("#map .zone.mine").getAttribute("data-zone")) === "square", "the map marks another zone");
  });
  await check("they walk to a zone that runs on the third node, and meet again there", async () => {
    const [a, b] = [await ana.data(), await ben.data()];
    const owners = await ana.page.locator("#map .zone").evaluateAll((cells) => cells.map((cell) => [cell.dataset.zone, cell.dataset.node]));
    const near = owners.filter(([zone, node]) => zone !== "square" && node !== a.node && node !== b.node);
    near.sort(([one], [other]) => WAYS[one].length - WAYS[other].length);
    [third] = near[0] ?? [];
    expect(third, `no zone runs on a third node: ${owners}`);
    for (const walker of [ana, ben]) {
      const carries = walker === ana && (await ana.page.locator('button[data-line="get coin"]').count()) > 0;
      if (carries) await ana.press("get coin");
      for (const way of WAYS[third]) {
        const before = (await walker.data()).zone;
        await walker.press(`go ${way}`);
        await eventually(`${walker.name} leaves ${before}`, async () => (await walker.data()).zone !== before);
      }
      await walker.stands(third);
      if (carries) expect((await walker.data()).carried.includes("coin"), "the coin was lost on the way");
    }
    await eventually("each sees the other", async () => (await ana.data()).people.includes(benName) && (await ben.data()).people.includes(anaName));
    const there = await ana.data();
    await eventually("the picture knows the owner", async () => ![a.node, b.node, ""].includes((await ana.data()).owner));
    expect(there.match !== a.match, "it is the same match still");
  });
  await check("they talk there, on a node that neither is connected to", async () => {
    await ana.type("say here we are");
    await ben.reads(`${anaName} says: here we are`);
  });
  await check("what is told reaches somebody in another zone", async () => {
    await ben.press(`go ${BACK[WAYS[third].at(-1)]}`);
    await eventually("the second player is elsewhere", async () => (await ben.data()).zone !== third);
    await eventually("the first tab knows of both", async () => Number((await ana.data()).inVillage) >= 2);
    const silence = async () => `the word arrives; ${anaName} read ${JSON.stringify(await ana.log())}`;
    await eventually(silence, async () => {
      await ana.type(`tell ${benName} wait for me`);
      await new Promise((resolve) => setTimeout(resolve, 500));
      return (await ben.log()).some((line) => line.includes(`${anaName} tells you: wait for me`));
    });
  });
  await check("a line in the lobby is read on the other node", async () => {
    await ana.page.locator("#lobby-text").fill("anybody for a duel?");
    await ana.page.locator("#lobby-text").press("Enter");
    await eventually("the line arrives", async () => (await ben.page.locator("#lobby-lines").textContent()).includes("anybody for a duel?"));
    await eventually("both are online", async () => Number((await ben.data()).online) >= 2);
  });
  await check("who queues for a duel on one node fights who queues on another", async () => {
    await ana.page.locator("#duel-queue").click();
    await ben.page.locator("#duel-queue").click();
    for (const one of [ana, ben]) await eventually(`${one.name} duels`, async () => (await one.data()).duel === "playing" && (await one.page.locator("#duel-moves").isVisible()));
    await ana.page.locator('#duel-moves [data-move="strike"]').click();
    await ben.page.locator('#duel-moves [data-move="heal"]').click();
    for (const one of [ana, ben]) await eventually(`${one.name} sees the round`, async () => (await one.page.locator("#duel-status").textContent()).includes("Strike"));
  });
  await check("a reload keeps the player where they were", async () => {
    const before = await ana.data();
    await ana.page.reload();
    await eventually("the first tab is back", async () => (await ana.data()).state === "playing" && (await ana.data()).zone);
    expect((await ana.data()).player === before.player, "a new player was made");
  });
  await compose(ana);
  await compose(ben);
  await ana.page.screenshot({ path: path.join(out, "village-dark.png") });
  await ben.page.screenshot({ path: path.join(out, "village-light.png") });

  const phone = await stage.tab("the phone", { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  await check("the village fits a phone, and is walked by its buttons", async () => {
    await phone.open(second);
    const wide = await phone.page.evaluate(() => document.documentElement.scrollWidth);
    expect(wide <= 390, `the page is ${wide} px wide`);
    await phone.press("go in");
    await eventually("the phone is in the hall", async () => (await phone.data()).room === "hall");
    await phone.page.screenshot({ path: path.join(out, "village-phone.png") });
  });
  await stage.everythingHasAName(ana);
  await stage.nobodyComplained();
});
