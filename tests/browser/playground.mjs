// Plays a duel in the playground of `rookery dev`, as two players in one tab, and puts another version under it meanwhile. Usage:
// node playground.mjs URL_OF_THE_PLAYGROUND FILE_OF_THE_MODULE OUT_DIR
//
// What the page shows is read from the data attributes of <body> (see playground.js) and from its elements, never from its variables.

import { appendFile } from "node:fs/promises";
import path from "node:path";
import { ARRIVE_MS, compose, eventually, expect, play, Tab } from "./stage.mjs";

/** The playground, and the players in it. */
class Playground extends Tab {
  data() {
    return this.page.evaluate(() => ({ ...document.body.dataset }));
  }

  card(player) {
    return this.page.locator(`.player[data-player="${player}"]`);
  }

  async send(player, text) {
    const input = this.card(player).locator("textarea");
    await input.fill(text);
    await input.press("Enter");
  }

  /** Waits for a line that this player is told. */
  told(player, ...words) {
    const lines = () => this.card(player).locator(".feed li").allTextContents();
    return eventually(
      async () => `${player} is told “${words.join(" … ")}”; it is ${JSON.stringify(await lines())}`,
      async () => (await lines()).some((line) => words.every((word) => line.includes(word))),
    );
  }
}

await play("playground.mjs", Playground, 1000, async (stage, { first, second: file, out }) => {
  const { check } = stage;
  const tab = await stage.tab("the playground", { colorScheme: "light" });

  await check("the page finds the module", async () => {
    await tab.page.goto(first);
    await eventually(
      async () => `a module is there: ${JSON.stringify(await tab.data())}`,
      async () => (await tab.data()).module?.startsWith("duel@"),
      ARRIVE_MS,
    );
  });
  await check("two players of one tab take their seats", async () => {
    await tab.page.locator("#create button").click();
    await eventually("there is a match", async () => (await tab.data()).match);
    for (const player of ["Ana", "Ben"]) {
      await tab.page.locator("#add-player").click();
      await eventually(`${player} sits`, async () => (await tab.card(player).getAttribute("data-seat")) !== null);
    }
    await tab.told("Ana", "Ben took seat");
  });
  await check("what one sends the other is told of", async () => {
    await tab.send("Ana", '{"move": "strike"}');
    await tab.told("Ben", '"chosen"');
    await tab.send("Ben", '{"move": "heal"}');
    for (const player of ["Ana", "Ben"]) await tab.told(player, '"round"');
  });
  await check("what is no payload is not sent, and what the rules forbid is answered", async () => {
    await tab.send("Ana", "{");
    await tab.told("Ana", "not sent");
    await tab.send("Ana", '{"move": "fly"}');
    await tab.told("Ana", '"error"');
  });
  await check("what the match uses of its budgets is shown", async () => {
    await eventually("the budgets", async () => (await tab.page.locator(".budget", { hasText: "memory_bytes" }).locator("output").textContent()).includes("67,108,864"));
    expect((await tab.data()).status === "running", "the match is not running");
  });
  await check("another version of the file is put under the match while it is played", async () => {
    const before = (await tab.data()).digest;
    // A custom section of the component: the same rules under another digest.
    await appendFile(file, Uint8Array.from([0, 3, 1, 0x76, 2]));
    await eventually("the match runs it", async () => (await tab.data()).digest !== before, ARRIVE_MS);
    await tab.told("Ben", "upgraded");
    await tab.send("Ana", '{"move": "guard"}');
    await tab.send("Ben", '{"move": "guard"}');
    for (const player of ["Ana", "Ben"]) {
      await tab.told(player, '"round"', '"guard"');
      expect((await tab.card(player).getAttribute("data-seat")) !== null, `${player} has lost the seat`);
    }
  });
  await check("a spectator watches, and a player who leaves ends the duel", async () => {
    await tab.page.locator("#add-spectator").click();
    await eventually("Cid watches", async () => (await tab.card("Cid").getAttribute("data-seat")) !== null);
    await tab.card("Ben").getByRole("button", { name: "Leave" }).click();
    await tab.told("Ana", "ended");
    await tab.told("Cid", "ended");
  });
  await check("payloads of binary modules are written and read as MessagePack", async () => {
    const wrong = await tab.page.evaluate(async () => {
      const { pack, show, unpack, write } = await import("/dev/payload.js");
      const values = [
        null, true, 0, 127, 128, 255, 256, 65535, 65536, 4294967296, -1, -32, -33, -5000000000, 1.5, -0.25, "", "Ana", "ä".repeat(40),
        "x".repeat(300), [], [1, [2, [3]]], Array(20).fill(1), {}, { a: { b: [null] } },
        Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`key${index}`, index])),
      ];
      const lost = values.filter((value) => JSON.stringify(unpack(pack(value))) !== JSON.stringify(value));
      // {"Steer": {"x": 1.5}} as rmp-serde writes it with field names, x being an f64.
      const known = "gaVTdGVlcoGheMs/+AAAAAAAAA==";
      if (write("binary", '{"Steer": {"x": 1.5}}') !== known) lost.push("what is written");
      if (show("binary", known) !== '{"Steer":{"x":1.5}}') lost.push("what is read");
      if (show("binary", "wQ==") !== "base64:wQ== (1 bytes)") lost.push("what is not MessagePack");
      if (write("binary", "base64: wQ==") !== "wQ==") lost.push("bytes");
      return lost;
    });
    expect(wrong.length === 0, `not as it was: ${JSON.stringify(wrong)}`);
  });
  await compose(tab);
  await tab.page.screenshot({ path: path.join(out, "playground.png"), fullPage: true });
  await stage.everythingHasAName(tab);
  await stage.nobodyComplained();
});
