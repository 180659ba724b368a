// What the plays of this directory share: checks that are counted, waiting without sleeping, a browser and its tabs.

import { mkdir } from "node:fs/promises";
import { chromium } from "playwright-core";

export const ARRIVE_MS = 30000;
const SETTLE_MS = 10000;

export function expect(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

/** Waits until `probe` returns something, and returns it; `what` is a sentence, or makes one of what is seen instead. */
export async function eventually(what, probe, within = SETTLE_MS) {
  const until = Date.now() + within;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > until) throw new Error(`not within ${within / 1000} s: ${typeof what === "string" ? what : await what()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** One tab, and what it has complained about. */
export class Tab {
  constructor(name, page) {
    this.name = name;
    this.page = page;
    this.complaints = [];
    page.on("console", (line) => ["error", "warning"].includes(line.type()) && this.complaints.push(line.text()));
    page.on("pageerror", (error) => this.complaints.push(String(error)));
  }
}

/** The browser of one play, its tabs, and the count of what held. */
class Stage {
  #browser;
  #kind;
  #height;
  #passed = 0;
  #failed = 0;
  tabs = [];

  constructor(browser, kind, height) {
    this.#browser = browser;
    this.#kind = kind;
    this.#height = height;
  }

  /** Opens a tab that shares nothing with the others. */
  async tab(name, options) {
    const context = await this.#browser.newContext({ viewport: { width: 1280, height: this.#height }, ...options });
    return this.take(name, await context.newPage());
  }

  /** Takes a page that was opened by another one. */
  take(name, page) {
    const made = new this.#kind(name, page);
    this.tabs.push(made);
    return made;
  }

  check = async (sentence, body) => {
    try {
      await body();
      this.#passed += 1;
      console.log(`ok    ${sentence}`);
    } catch (error) {
      this.#failed += 1;
      console.log(`FAIL  ${sentence}\n      ${String(error.message ?? error).split("\n").join("\n      ")}`);
    }
  };

  everythingHasAName = ({ page }) =>
    this.check("everything that can be pressed has a name", async () => {
      const nameless = await page.evaluate(() =>
        [...document.querySelectorAll("button:not([hidden]), a[href]:not([hidden]), input")]
          .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim()))
          .map((one) => one.outerHTML));
      expect(nameless.length === 0, nameless.join("\n"));
    });

  nobodyComplained = () =>
    this.check("no tab complained", async () => {
      const all = this.tabs.flatMap(({ name, complaints }) => complaints.map((line) => `${name}: ${line}`));
      expect(all.length === 0, all.join("\n"));
    });

  broke(error) {
    this.#failed += 1;
    console.log(`FAIL  the test itself: ${error.stack ?? error}`);
  }

  /** The last line, and the exit code. */
  verdict() {
    console.log(`${this.#passed} passed, ${this.#failed} failed`);
    return this.#failed ? 1 : 0;
  }
}

/**
 * Runs a play in a browser of its own and ends the process. The arguments are URL_OF_A_NODE URL_OF_ANOTHER OUT_DIR; the last line
 * says how many checks passed, and the exit code is 1 if any failed. `kind` is the class of its tabs.
 */
export async function play(title, kind, height, body) {
  const [first, second, out] = process.argv.slice(2);
  if (!out) {
    console.error(`usage: node ${title} URL_OF_A_NODE URL_OF_ANOTHER OUT_DIR`);
    process.exit(64);
  }
  await mkdir(out, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
  const stage = new Stage(browser, kind, height);
  try {
    await body(stage, { first, second, out });
  } catch (error) {
    stage.broke(error);
  } finally {
    await browser.close();
  }
  process.exit(stage.verdict());
}

/** A page as a visitor sees it: nothing focused by the checks before, nothing scrolled. */
export function compose({ page }) {
  return page.evaluate(() => {
    document.activeElement?.blur();
    scrollTo(0, 0);
  });
}
