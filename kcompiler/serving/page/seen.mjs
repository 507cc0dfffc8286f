// What the model sees: its own pixels, and the patch, which can be pulled about.
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Seen {
  /** @param canvas to draw in. @param move (y, x): where the patch's corner is to be. */
  constructor(canvas, move) {
    Object.assign(this, { canvas, move, place: null, fill: null, patchPixels: null, held: false });
    const pull = (event) => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      const y = ((event.clientY - top) / height) * this.image[0], x = ((event.clientX - left) / width) * this.image[1];
      this._to(y - this.patch[0] / 2, x - this.patch[1] / 2);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.held = true;
      pull(event);
    });
    canvas.addEventListener("pointermove", (event) => this.held && pull(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.held = false; });
    canvas.addEventListener("keydown", (event) => this._step(event));
  }

  _step(event) {
    if (!(event.key in STEPS) || !this.picture) return;
    event.preventDefault();
    const [down, across] = STEPS[event.key], [y, x] = this.place ?? [0, 0], [height, width] = event.shiftKey ? this.patch : [1, 1];
    this._to(y + down * height, x + across * width);
  }

  _to(y, x) {
    const within = (value, most) => Math.min(Math.max(Math.round(value), 0), most);
    this.move(within(y, this.image[0] - this.patch[0]), within(x, this.image[1] - this.patch[1]));
  }

  /** Shows another picture. @param {ImageBitmap} picture the model's own pixels. */
  show(picture, image, patch) {
    Object.assign(this, { picture, image, patch, place: null, patchPixels: null });
    Object.assign(this.canvas, { width: picture.width, height: picture.height });
    this.draw(null);
  }

  /** Draws the picture with the patch's corner at `place`, (y, x); null draws no patch. */
  draw(place, patchPixels = null) {
    const context = this.canvas.getContext("2d"), [height, width] = this.patch;
    this.place = place;
    context.drawImage(this.picture, 0, 0);
    if (!place) return void this.canvas.setAttribute("aria-label", "The model's picture, uncovered");
    const [y, x] = place;
    if (patchPixels) context.putImageData(new ImageData(patchPixels, width, height), x, y);
    else if (this.fill) context.drawImage(this.fill, x, y, width, height, x, y, width, height);
    this._outline(context, x, y, width, height);
    this.canvas.setAttribute("aria-label", `The model's picture with the patch at row ${y}, column ${x}`);
  }

  _outline(context, x, y, width, height) {
    const thick = Math.max(1, Math.round(this.image[1] / 224));
    for (const [colour, out] of [["black", 1.5 * thick], ["white", 0.5 * thick]]) {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.strokeRect(x - out, y - out, width + 2 * out, height + 2 * out);
    }
  }
}
