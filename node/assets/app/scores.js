// The score list: the best few and always this player, moved gently when ranks change.

const SHOWN = 8;

export class Scores {
  #list;
  #count;
  #rows = new Map();
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(list, count) {
    this.#list = list;
    this.#count = count;
  }

  /** `players` are `{seat, name, bot, me, score, colour}`, in any order. */
  show(players) {
    const ranked = [...players].sort((a, b) => b.score - a.score || a.seat - b.seat).map((player, index) => ({ ...player, rank: index + 1 }));
    const mine = ranked.find((player) => player.me);
    const shown = ranked.slice(0, SHOWN);
    if (mine && !shown.includes(mine)) shown[SHOWN - 1] = mine;
    const bots = ranked.filter((player) => player.bot).length;
    this.#count.textContent = [counted(ranked.length - bots, "player"), bots && counted(bots, "bot")].filter(Boolean).join(", ");

    const before = new Map([...this.#rows].map(([seat, row]) => [seat, { x: row.element.offsetLeft, y: row.element.offsetTop }]));
    for (const [seat, row] of this.#rows) {
      if (shown.some((player) => player.seat === seat)) continue;
      row.element.remove();
      this.#rows.delete(seat);
    }
    shown.forEach((player, index) => {
      const row = this.#rows.get(player.seat) ?? this.#row(player.seat);
      row.rank.textContent = player.rank;
      row.dot.style.background = player.colour;
      row.name.textContent = player.name;
      row.tag.textContent = player.me ? "you" : player.bot ? "bot" : "";
      row.points.textContent = player.score;
      row.element.classList.toggle("me", player.me);
      if (this.#list.children[index] !== row.element) this.#list.insertBefore(row.element, this.#list.children[index] ?? null);
    });
    if (this.#still.matches) return;
    for (const [seat, { x, y }] of before) {
      const element = this.#rows.get(seat)?.element;
      if (!element) continue;
      const moved = { x: x - element.offsetLeft, y: y - element.offsetTop };
      if (moved.x || moved.y) element.animate([{ transform: `translate(${moved.x}px, ${moved.y}px)` }, { transform: "none" }], { duration: 280, easing: "ease-out" });
    }
  }

  #row(seat) {
    const part = (kind) => Object.assign(document.createElement("span"), { className: kind });
    const row = { element: document.createElement("li"), rank: part("rank"), dot: part("dot"), who: part("who"), name: part("name"), tag: part("tag"), points: part("points") };
    row.who.append(row.name, row.tag);
    row.element.append(row.rank, row.dot, row.who, row.points);
    this.#rows.set(seat, row);
    return row;
  }
}

function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
