// Draws the arena on its canvas: field, seeds, birds, and what just happened. It decides nothing and keeps only what drawing
// needs from frame to frame: headings, trails, rings that fade.

// The radius of a mover in the module: birds touch when the match says that they bump.
const BIRD = 16;
const TRAIL_MS = 420;
const RING_MS = 480;

const WINGS = new Path2D(
  "M.42-.12C.3-.75-.1-1.3-.72-1.55C-.5-1.1-.62-.6-.5-.1L-.5.1C-.62.6-.5 1.1-.72 1.55C-.1 1.3.3.75.42.12Z",
);
const BODY = new Path2D("M1.02 0C1.02.26.8.36.55.34C.2.46-.35.4-.62.16L-1.3.4Q-1.12 0-1.3-.4L-.62-.16C-.35-.4.2-.46.55-.34C.8-.36 1.02-.26 1.02 0Z");
const BEAK = new Path2D("M.96-.15L1.36 0L.96.15Z");

export class Painter {
  #canvas;
  #context;
  #ratio = 1;
  #birds = new Map();
  #rings = [];
  #colours = {};
  #still = matchMedia("(prefers-reduced-motion: reduce)");
  #camera = null;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#readColours());
    this.#readColours();
    this.#resize();
  }

  /** The colour of a bird; bots are paler. Also what the score list shows. */
  colour(hue, bot = false) {
    const light = this.#colours.dark ? 0.77 : 0.56;
    return `oklch(${light} ${bot ? 0.055 : 0.15} ${(hue * 360) / 256})`;
  }

  /** A ring where a seat is, for a score or a bump. */
  ring(seat, now, wide) {
    const bird = this.#birds.get(seat);
    if (bird && !this.#still.matches && this.#rings.length < 40) this.#rings.push({ x: bird.x, y: bird.y, hue: bird.hue, now, wide });
  }

  clear() {
    this.#birds.clear();
    this.#rings = [];
    this.#camera = null;
  }

  /** Draws one frame. `names` maps seats to what stands above a bird. */
  draw(world, now, { seat, names, stick }) {
    const context = this.#context;
    const { width, height } = this.#canvas;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = this.#colours.field;
    context.fillRect(0, 0, width, height);
    if (!world) return;

    const scale = Math.max(width / world.width, height / world.height);
    const camera = this.#aim(world, world.movers.get(seat), width / scale, height / scale);
    context.setTransform(scale, 0, 0, scale, -camera.x * scale, -camera.y * scale);
    this.#field(world);
    for (const pellet of world.pellets) this.#seed(pellet);
    this.#fly(world, now);
    for (const [id, bird] of this.#birds) this.#trail(bird, now, id === seat);
    this.#drawRings(now);
    for (const [id, bird] of this.#birds) if (id !== seat) this.#bird(bird, now, false);
    if (this.#birds.has(seat)) this.#bird(this.#birds.get(seat), now, true);

    context.setTransform(this.#ratio, 0, 0, this.#ratio, 0, 0);
    const pixels = scale / this.#ratio;
    for (const [id, bird] of this.#birds) {
      const name = id === seat ? "you" : names.get(id);
      if (name) this.#label(name, (bird.x - camera.x) * pixels, (bird.y - camera.y) * pixels - BIRD * pixels * 1.75, id === seat);
    }
    if (stick) this.#stick(stick);
  }

  /** The corner of the world that is seen: all of it where it fits, else what is around the player. */
  #aim(world, me, width, height) {
    const wanted = {
      x: Math.max(0, Math.min(world.width - width, (me?.x ?? world.width / 2) - width / 2)),
      y: Math.max(0, Math.min(world.height - height, (me?.y ?? world.height / 2) - height / 2)),
    };
    const near = this.#camera && !this.#still.matches && Math.hypot(wanted.x - this.#camera.x, wanted.y - this.#camera.y) < 300;
    this.#camera = near
      ? { x: this.#camera.x + (wanted.x - this.#camera.x) * 0.14, y: this.#camera.y + (wanted.y - this.#camera.y) * 0.14 }
      : wanted;
    return this.#camera;
  }

  #fly(world, now) {
    for (const seat of this.#birds.keys()) if (!world.movers.has(seat)) this.#birds.delete(seat);
    for (const [seat, mover] of world.movers) {
      let bird = this.#birds.get(seat);
      if (!bird) {
        bird = { x: mover.x, y: mover.y, heading: (seat * 2.4) % 6.28, speed: 0, phase: seat * 1.7, seenAt: now, trail: [] };
        this.#birds.set(seat, bird);
      }
      const dx = mover.x - bird.x;
      const dy = mover.y - bird.y;
      const length = Math.hypot(dx, dy);
      const passed = Math.max(1, now - bird.seenAt);
      if (length > world.width / 3) bird.trail = [];
      else if (length > 0.15) {
        const turn = Math.atan2(dy, dx) - bird.heading;
        bird.heading += Math.atan2(Math.sin(turn), Math.cos(turn)) * Math.min(1, passed / 70);
      }
      bird.speed += (length / passed - bird.speed) * Math.min(1, passed / 120);
      bird.phase += passed * (0.004 + Math.min(0.02, bird.speed * 0.05));
      Object.assign(bird, { x: mover.x, y: mover.y, hue: mover.hue, bot: mover.bot, dashing: mover.dashing, seenAt: now });
      bird.trail.push({ x: mover.x, y: mover.y, now });
      while (bird.trail.length && now - bird.trail[0].now > TRAIL_MS) bird.trail.shift();
    }
  }

  #field(world) {
    const context = this.#context;
    context.fillStyle = this.#colours.dot;
    for (let x = 50; x < world.width; x += 50) for (let y = 50; y < world.height; y += 50) context.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
    context.strokeStyle = this.#colours.edge;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(world.width / 2, world.height / 2, 90, 0, Math.PI * 2);
    context.stroke();
    context.beginPath();
    context.roundRect(9, 9, world.width - 18, world.height - 18, 14);
    context.stroke();
  }

  #seed({ x, y }) {
    const context = this.#context;
    context.fillStyle = this.#colours.seed;
    context.globalAlpha = 0.16;
    context.beginPath();
    context.arc(x, y, 9, 0, Math.PI * 2);
    context.fill();
    context.globalAlpha = 1;
    context.beginPath();
    context.ellipse(x, y, 5.2, 3.4, (x * 7 + y * 3) % 3.14, 0, Math.PI * 2);
    context.fill();
  }

  #trail(bird, now, mine) {
    if (this.#still.matches || bird.trail.length < 2) return;
    const context = this.#context;
    context.strokeStyle = this.colour(bird.hue, bird.bot);
    context.lineCap = "round";
    const strength = (bird.dashing ? 0.6 : 0.22) * (mine ? 1.25 : 1);
    for (let index = 1; index < bird.trail.length; index += 1) {
      const age = 1 - (now - bird.trail[index].now) / TRAIL_MS;
      if (age <= 0) continue;
      context.globalAlpha = strength * age;
      context.lineWidth = BIRD * 0.75 * age;
      context.beginPath();
      context.moveTo(bird.trail[index - 1].x, bird.trail[index - 1].y);
      context.lineTo(bird.trail[index].x, bird.trail[index].y);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  #bird(bird, now, mine) {
    const context = this.#context;
    const flap = this.#still.matches ? 0.9 : 0.72 + 0.28 * Math.sin(bird.phase * (bird.dashing ? 1.6 : 1));
    context.save();
    context.translate(bird.x, bird.y);
    if (mine) {
      context.strokeStyle = this.#colours.ink;
      context.globalAlpha = 0.35;
      context.lineWidth = 1.5;
      context.beginPath();
      context.arc(0, 0, BIRD * 1.75, 0, Math.PI * 2);
      context.stroke();
      context.globalAlpha = 1;
    }
    context.rotate(bird.heading);
    context.scale(BIRD, BIRD);
    // A shadow below and to the right on the ground, whichever way the bird flies.
    const below = { x: Math.cos(-bird.heading) * 0.25 - Math.sin(-bird.heading) * 0.55, y: Math.sin(-bird.heading) * 0.25 + Math.cos(-bird.heading) * 0.55 };
    context.save();
    context.translate(below.x, below.y);
    context.fillStyle = this.#colours.shadow;
    context.fill(BODY);
    context.scale(1, flap);
    context.fill(WINGS);
    context.restore();

    const colour = this.colour(bird.hue, bird.bot);
    context.save();
    context.scale(1, flap);
    context.fillStyle = colour;
    context.fill(WINGS);
    context.fillStyle = this.#colours.dark ? "rgb(0 0 0 / 22%)" : "rgb(0 0 0 / 16%)";
    context.fill(WINGS);
    context.restore();
    context.fillStyle = colour;
    context.fill(BODY);
    context.fillStyle = this.#colours.seed;
    context.fill(BEAK);
    context.fillStyle = this.#colours.dark ? "#0c1418" : "#ffffff";
    for (const side of [-1, 1]) {
      context.beginPath();
      context.arc(0.74, side * 0.17, 0.085, 0, Math.PI * 2);
      context.fill();
    }
    context.restore();
  }

  #drawRings(now) {
    const context = this.#context;
    this.#rings = this.#rings.filter((ring) => now - ring.now < RING_MS);
    for (const ring of this.#rings) {
      // A frame carries the time at which it was begun; what was heard since then is younger than nothing.
      const age = Math.max(0, (now - ring.now) / RING_MS);
      context.globalAlpha = (1 - age) ** 1.5 * 0.8;
      context.strokeStyle = ring.wide ? this.#colours.ink : this.#colours.seed;
      context.lineWidth = 3 * (1 - age) + 0.5;
      context.beginPath();
      context.arc(ring.x, ring.y, BIRD * (0.8 + (ring.wide ? 2.6 : 1.7) * (1 - (1 - age) ** 3)), 0, Math.PI * 2);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  #label(text, x, y, mine) {
    const context = this.#context;
    context.font = `${mine ? 700 : 500} 12.5px ${this.#colours.font}`;
    context.textAlign = "center";
    // A name stays on the canvas where its bird is at the edge, and goes with a bird that is not in sight.
    const [right, bottom] = [this.#canvas.width / this.#ratio, this.#canvas.height / this.#ratio];
    if (x < -BIRD || x > right + BIRD || y < -BIRD || y > bottom) return;
    const half = context.measureText(text).width / 2 + 6;
    x = Math.max(half, Math.min(right - half, x));
    y = Math.max(16, y);
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = this.#colours.field;
    context.strokeText(text, x, y);
    context.fillStyle = this.#colours.ink;
    context.fillText(text, x, y);
  }

  #stick({ from, to }) {
    const context = this.#context;
    context.strokeStyle = this.#colours.ink;
    context.fillStyle = this.#colours.ink;
    context.globalAlpha = 0.3;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(from.x, from.y, 48, 0, Math.PI * 2);
    context.stroke();
    context.beginPath();
    context.arc(to.x, to.y, 18, 0, Math.PI * 2);
    context.fill();
    context.globalAlpha = 1;
  }

  #resize() {
    this.#ratio = Math.min(2, devicePixelRatio || 1);
    const box = this.#canvas.getBoundingClientRect();
    this.#canvas.width = Math.max(1, Math.round(box.width * this.#ratio));
    this.#canvas.height = Math.max(1, Math.round(box.height * this.#ratio));
  }

  #readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    this.#colours = {
      dark: matchMedia("(prefers-color-scheme: dark)").matches,
      field: read("--field"),
      edge: read("--field-edge"),
      dot: read("--field-dot"),
      seed: read("--seed"),
      ink: read("--ink"),
      shadow: "rgb(0 0 0 / 12%)",
      font: getComputedStyle(document.body).fontFamily,
    };
  }
}
