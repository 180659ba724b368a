// Hands to intentions: keyboard, mouse and touch become a direction and a dash. What they do in the match is not known here.

// Under the server's limit by a factor of ten, and as often as the arena looks at its inputs.
const STEER_EVERY_MS = 50;
// How far a thumb is dragged for full speed, in CSS pixels; the same on every screen, because thumbs are.
const REACH_PX = 48;
const DOUBLE_TAP_MS = 280;

const DIRECTIONS = {
  KeyW: [0, -1], KeyA: [-1, 0], KeyS: [0, 1], KeyD: [1, 0],
  ArrowUp: [0, -1], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowRight: [1, 0],
};

export class Controls {
  #held = new Set();
  #drag = null;
  #tappedAt = 0;
  #sent = "0,0";
  #sentAt = 0;
  #timer = null;
  #onSteer;
  #onDash;
  #canvas;

  /** `onSteer(dx, dy)` hears a direction of length 0 to 1, at most 20 times a second; `onDash()` each dash. */
  constructor(canvas, { onSteer, onDash }) {
    this.#canvas = canvas;
    this.#onSteer = onSteer;
    this.#onDash = onDash;
    addEventListener("keydown", (event) => this.#keyDown(event));
    addEventListener("keyup", (event) => {
      if (this.#held.delete(event.code)) this.#changed();
    });
    // Keys that go up in another window are never heard to.
    addEventListener("blur", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
    canvas.addEventListener("pointerdown", (event) => this.#pointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.#pointerMove(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.#pointerUp(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** The drag under way as `{from, to}` in pixels of the canvas, for drawing; null without one. */
  get stick() {
    return this.#drag;
  }

  /** The direction now, `[dx, dy]`. */
  direction() {
    if (this.#drag) {
      const dx = this.#drag.to.x - this.#drag.from.x;
      const dy = this.#drag.to.y - this.#drag.from.y;
      const length = Math.hypot(dx, dy);
      if (length < 6) return [0, 0];
      const strength = Math.min(1, length / REACH_PX) / length;
      return [dx * strength, dy * strength];
    }
    let dx = 0;
    let dy = 0;
    for (const code of this.#held) {
      dx += DIRECTIONS[code][0];
      dy += DIRECTIONS[code][1];
    }
    // Both an arrow and its letter may be held; opposite keys cancel.
    dx = Math.sign(dx);
    dy = Math.sign(dy);
    return dx && dy ? [dx * Math.SQRT1_2, dy * Math.SQRT1_2] : [dx, dy];
  }

  /** Lets go of everything. */
  release() {
    this.#held.clear();
    this.#drag = null;
    this.#changed();
  }

  /** Says the direction again, to a match that has not heard it. */
  repeat() {
    this.#sent = "0,0";
    this.#changed();
  }

  #keyDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // Arrows and space belong to the field only while nothing else has the focus: a radio or a button needs them itself.
    const ours = document.activeElement === document.body || document.activeElement === this.#canvas;
    if (event.code === "Space" && ours) {
      event.preventDefault();
      if (!event.repeat) this.#onDash();
      return;
    }
    if (!(event.code in DIRECTIONS) || (event.code.startsWith("Arrow") && !ours)) return;
    if (event.code.startsWith("Arrow")) event.preventDefault();
    if (event.repeat) return;
    this.#held.add(event.code);
    this.#changed();
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #pointerDown(event) {
    if (this.#drag) return;
    this.#canvas.setPointerCapture(event.pointerId);
    const from = this.#point(event);
    this.#drag = { id: event.pointerId, from, to: from };
    if (event.timeStamp - this.#tappedAt < DOUBLE_TAP_MS) this.#onDash();
    this.#tappedAt = event.timeStamp;
  }

  #pointerMove(event) {
    if (this.#drag?.id !== event.pointerId) return;
    const to = this.#point(event);
    let { from } = this.#drag;
    // The stick follows a thumb that goes too far, so that turning back answers at once.
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    if (length > REACH_PX * 1.5) {
      const pull = (length - REACH_PX * 1.5) / length;
      from = { x: from.x + (to.x - from.x) * pull, y: from.y + (to.y - from.y) * pull };
    }
    this.#drag = { ...this.#drag, from, to };
    this.#changed();
  }

  #pointerUp(event) {
    if (this.#drag?.id !== event.pointerId) return;
    this.#drag = null;
    this.#changed();
  }

  #changed() {
    if (this.#timer !== null) return;
    const wait = STEER_EVERY_MS - (performance.now() - this.#sentAt);
    if (wait > 0) {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.#changed();
      }, wait);
      return;
    }
    const [dx, dy] = this.direction();
    const said = `${Math.round(dx * 127)},${Math.round(dy * 127)}`;
    if (said === this.#sent) return;
    this.#sent = said;
    this.#sentAt = performance.now();
    this.#onSteer(dx, dy);
  }
}
