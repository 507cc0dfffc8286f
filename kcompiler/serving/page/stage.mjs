// The picture with the map over it: drawn, pointed at, and boxes dragged in it.
import { drawBar, drawOverlay, short } from "./drawing.mjs";

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const DRAG = 5; // pixels of the screen from which on a press is a drag
const BAR = { width: 18, size: 13 };

export class Stage {
  /**
   * @param root the panel's element.
   * @param told point(y, x): of the model's image; hold(); step(rows, columns); box([top, left, bottom, right]).
   */
  constructor(root, told) {
    const find = (name) => root.querySelector(`.${name}`);
    [this.canvas, this.bar, this.marker, this.frame] = ["map", "bar", "marker", "box"].map(find);
    this.over = find("over");
    this.told = told;
    this.drag = null; // { from: [y, x], screen: [x, y], far }
    this.limit = 0;
    this._listen();
    new ResizeObserver(() => this.drawBar()).observe(this.over);
  }

  /** Shows another picture. @param seen the box that the model sees of it, in shares of its height and width. */
  show(picture, seen, image) {
    Object.assign(this, { picture, seen, image });
    Object.assign(this.canvas, { width: picture.width, height: picture.height });
    this.over.style.setProperty("--ratio", String(picture.width / picture.height));
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    this.marker.hidden = this.frame.hidden = true;
  }

  /** Draws the drop at each pixel of the model's image; null draws the picture alone. */
  draw(drop, limit, text) {
    const { width, height } = this.canvas, [top, left, bottom, right] = this.seen;
    const box = [top * height, left * width, bottom * height, right * width];
    const context = this.canvas.getContext("2d");
    if (drop) drawOverlay(context, this.picture, drop, this.image, box, limit);
    else context.drawImage(this.picture, 0, 0);
    this.canvas.setAttribute("aria-label", text);
    this.limit = limit;
    this.drawBar();
  }

  /** The colour bar, as high as the picture is on the screen. */
  drawBar() {
    if (!this.limit) return;
    const height = this.canvas.clientHeight, width = this.bar.clientWidth, ratio = devicePixelRatio;
    Object.assign(this.bar, { width: width * ratio, height: height * ratio });
    this.bar.style.height = `${height}px`;
    const context = this.bar.getContext("2d");
    context.scale(ratio, ratio);
    const ink = getComputedStyle(this.bar).color, { size } = BAR;
    drawBar(context, { x: 0, y: size / 2, width: BAR.width, height: height - size, size, ink }, this.limit);
    const [falls, rises] = [short(this.limit), short(-this.limit)];
    this.bar.setAttribute("aria-label", `Colours: from ${falls}, red, the score falls, to ${rises}, blue, it rises`);
  }

  /** Marks a box of the model's image; null marks none. */
  mark(element, box) {
    element.hidden = !box;
    if (!box) return;
    const [top, left, bottom, right] = this.seen, [rows, cols] = this.image;
    const [down, across] = [(bottom - top) / rows, (right - left) / cols];
    const shares = { top: top + box[0] * down, left: left + box[1] * across, height: (box[2] - box[0]) * down, width: (box[3] - box[1]) * across };
    for (const [side, share] of Object.entries(shares)) element.style[side] = `${100 * share}%`;
  }

  /** The point of the model's image under the pointer, inside the image. */
  _point({ clientX, clientY }) {
    const { left: x0, top: y0, width, height } = this.canvas.getBoundingClientRect(), [top, left, bottom, right] = this.seen;
    const inside = (share, size) => Math.min(Math.max(share * size, 0), size - 1e-6);
    return [
      inside(((clientY - y0) / height - top) / (bottom - top), this.image[0]),
      inside(((clientX - x0) / width - left) / (right - left), this.image[1]),
    ];
  }

  _box(to) {
    const [y, x] = this.drag.from;
    const [top, bottom] = [y, to[0]].sort((a, b) => a - b), [left, right] = [x, to[1]].sort((a, b) => a - b);
    return [Math.floor(top), Math.floor(left), Math.ceil(bottom), Math.ceil(right)];
  }

  _listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = { from: this._point(event), screen: [event.clientX, event.clientY], far: false };
      if (event.pointerType !== "mouse") this.told.point(...this.drag.from);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.picture) return;
      if (!this.drag) return this.told.point(...this._point(event));
      const [x, y] = this.drag.screen;
      this.drag.far ||= Math.hypot(event.clientX - x, event.clientY - y) > DRAG;
      if (this.drag.far) this.mark(this.frame, this._box(this._point(event)));
    });
    canvas.addEventListener("pointerup", (event) => {
      const drag = this.drag;
      if (!drag) return;
      const box = this._box(this._point(event));
      this.drag = null;
      if (drag.far) this.told.box(box);
      else this.told.hold(...this._point(event));
    });
    canvas.addEventListener("pointercancel", () => this._cancel());
    canvas.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.drag) return this._cancel();
      if (event.key === "Enter") this.told.hold();
      else if (event.key in STEPS) this.told.step(...STEPS[event.key]);
      else return;
      event.preventDefault();
    });
  }

  _cancel() {
    this.drag = null;
    this.told.box(null);
  }
}
