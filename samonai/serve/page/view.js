// One frame on a canvas: pan, zoom, and the way between the screen and frame space.
// Frame space has (0, 0) at the outer corner of the first pixel; nothing is flipped in memory, only
// shown in radiological convention, as the server says ("display").

const CLICK_PIXELS = 4;

/** One frame with masks and prompts. */
export class View {
  #canvas;
  #display = { transpose: false, flip_x: false, flip_y: false, aspect: 1 };
  #zoom = 1;
  #move = [0, 0];
  #drag = null;
  picture = null;
  overlays = []; // canvases in frame space
  prompts = { box: null, clicks: [] };
  heat = null; // a canvas in frame space, above the overlays
  path = null; // an outline that is being drawn, in frame space
  cross = null; // the place that the three planes show, in frame space
  opacity = 0.45;
  filter = "none";
  /** @type {{box: (box: number[]) => any, click: (x: number, y: number, sign: number) => any,
   *   stroke: (point: number[], phase: string) => any, wheel: (step: number) => any}|null} */
  handlers = null;
  painting = () => false;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#resize()).observe(canvas);
  }

  show(picture, display) {
    const changed = !this.picture || picture.naturalWidth !== this.picture.naturalWidth ||
      picture.naturalHeight !== this.picture.naturalHeight || display !== this.#display;
    this.picture = picture;
    this.#display = display;
    if (changed) this.fit();
    this.draw();
  }

  fit() {
    if (!this.picture) return;
    const [width, height] = this.#shownSize();
    const { clientWidth, clientHeight } = this.#canvas;
    this.#zoom = 0.95 * Math.min(clientWidth / width, clientHeight / height);
    this.#move = [(clientWidth - width * this.#zoom) / 2, (clientHeight - height * this.#zoom) / 2];
    this.draw();
  }

  /** A point of the frame on the canvas, in CSS pixels. @returns {number[]} */
  toScreen(x, y) {
    const point = this.#matrix().transformPoint({ x, y });
    return [point.x, point.y];
  }

  /** A point of the canvas on the frame. @returns {number[]} */
  toFrame(x, y) {
    const point = this.#matrix().inverse().transformPoint({ x, y });
    return [point.x, point.y];
  }

  draw() {
    const context = this.#canvas.getContext("2d");
    const ratio = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (!this.picture) return;
    const m = new DOMMatrix().scale(ratio).multiply(this.#matrix());
    context.setTransform(m);
    context.imageSmoothingEnabled = false;
    context.filter = this.filter;
    context.drawImage(this.picture, 0, 0);
    context.filter = "none";
    context.globalAlpha = this.opacity;
    for (const overlay of this.overlays) context.drawImage(overlay, 0, 0);
    context.globalAlpha = 1;
    if (this.heat) context.drawImage(this.heat, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#drawPrompts(context);
  }

  #drawPrompts(context) {
    if (this.cross) this.#drawCross(context);
    if (this.path) {
      context.strokeStyle = "#f0d58c";
      context.beginPath();
      for (const point of this.path) context.lineTo(...this.toScreen(...point));
      context.stroke();
    }
    const box = this.#drag?.box ?? this.prompts.box;
    context.lineWidth = 1.5;
    context.strokeStyle = "#f0d58c";
    if (box) {
      const [x0, y0] = this.toScreen(box[0], box[1]);
      const [x1, y1] = this.toScreen(box[2], box[3]);
      context.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
    }
    for (const [x, y, sign] of this.prompts.clicks) {
      const [sx, sy] = this.toScreen(x, y);
      context.beginPath();
      context.arc(sx, sy, 5, 0, 2 * Math.PI);
      context.fillStyle = sign ? "#3ddc84" : "#ff5a4f";
      context.fill();
      context.strokeStyle = "#000";
      context.stroke();
    }
  }

  #drawCross(context) {
    const [x, y] = this.toScreen(...this.cross);
    context.lineWidth = 1;
    context.strokeStyle = "#5aa9e6";
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 8 * dx, y + 8 * dy);
      context.lineTo(x + 1e4 * dx, y + 1e4 * dy);
    }
    context.stroke();
  }

  #shownSize() {
    const { naturalWidth: w, naturalHeight: h } = this.picture;
    const [width, height] = this.#display.transpose ? [h, w] : [w, h];
    return [width, height * this.#display.aspect];
  }

  #matrix() {
    const { transpose, flip_x, flip_y, aspect } = this.#display;
    const { naturalWidth: w, naturalHeight: h } = this.picture;
    const [width, height] = transpose ? [h, w] : [w, h];
    let m = new DOMMatrix().translate(...this.#move).scale(this.#zoom, this.#zoom * aspect);
    if (flip_x) m = m.translate(width, 0).scale(-1, 1);
    if (flip_y) m = m.translate(0, height).scale(1, -1);
    return transpose ? m.multiply(new DOMMatrix([0, 1, 1, 0, 0, 0])) : m;
  }

  #down(event) {
    if (!this.picture) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#canvas.focus();
    const screen = [event.offsetX, event.offsetY];
    const pan = event.button === 1 || event.altKey;
    this.#drag = { screen, frame: this.toFrame(...screen), pan, button: event.button, box: null };
    if (!pan && this.painting()) this.handlers.stroke(this.#drag.frame, "begin");
  }

  #moved(event) {
    const drag = this.#drag;
    if (!drag) return;
    const screen = [event.offsetX, event.offsetY];
    if (drag.pan) {
      this.#move = [this.#move[0] + event.movementX, this.#move[1] + event.movementY];
      this.draw();
    } else if (this.painting()) {
      this.handlers.stroke(this.toFrame(...screen), "go on");
    } else if (drag.button === 0 && distance(screen, drag.screen) > CLICK_PIXELS) {
      drag.box = [...drag.frame, ...this.toFrame(...screen)];
      this.draw();
    }
  }

  #up(event) {
    const drag = this.#drag;
    this.#drag = null;
    if (!drag || drag.pan) return;
    if (this.painting()) {
      this.handlers.stroke(this.toFrame(event.offsetX, event.offsetY), "end");
    } else if (drag.box) {
      const [x0, y0, x1, y1] = drag.box;
      this.handlers.box([Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]);
    } else {
      const [x, y] = drag.frame;
      const { naturalWidth: w, naturalHeight: h } = this.picture;
      if (x < 0 || y < 0 || x > w || y > h) return;
      this.handlers.click(x, y, event.button === 2 || event.shiftKey ? 0 : 1);
    }
  }

  #wheel(event) {
    event.preventDefault();
    if (!event.ctrlKey) {
      this.handlers.wheel(Math.sign(event.deltaY));
      return;
    }
    this.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY);
  }

  /** Zooms around a point of the canvas; by default its middle. */
  zoomBy(factor, x = this.#canvas.clientWidth / 2, y = this.#canvas.clientHeight / 2) {
    this.#zoom *= factor;
    this.#move = [x - (x - this.#move[0]) * factor, y - (y - this.#move[1]) * factor];
    this.draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.#canvas;
    this.#canvas.width = Math.max(1, Math.round(clientWidth * devicePixelRatio));
    this.#canvas.height = Math.max(1, Math.round(clientHeight * devicePixelRatio));
    this.fit();
  }
}

const distance = ([x0, y0], [x1, y1]) => Math.hypot(x1 - x0, y1 - y0);
