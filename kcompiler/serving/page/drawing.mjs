// Drawing a heat map over its picture: colours, overlay, colour bar. Depends on canvases alone.

// Red where covering lowers the score, blue where it raises it: ColorBrewer's RdBu, from -1 to 1.
const RED_BLUE = [
  [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
  [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
];
const STRONGEST = 0.75; // opacity of the largest drop
const TICKS = [1, 0.5, 0, -0.5, -1];

/** The colour [red, green, blue], 0 to 255, of a value from -1 to 1; values beyond are those at the ends. */
export function colourOf(value) {
  const place = ((Math.min(Math.max(value, -1), 1) + 1) / 2) * (RED_BLUE.length - 1);
  const before = Math.min(Math.floor(place), RED_BLUE.length - 2), share = place - before;
  return RED_BLUE[before].map((channel, index) => channel + (RED_BLUE[before + 1][index] - channel) * share);
}

const SHADES_A_SIDE = 255;
const SHADES = Array.from({ length: 2 * SHADES_A_SIDE + 1 }, (_, index) => colourOf(index / SHADES_A_SIDE - 1));

/** The largest absolute value; 1 if there is none but NaN and zeros. */
export function limitOf(values) {
  return values.reduce((largest, value) => Math.max(largest, Math.abs(value) || 0), 0) || 1;
}

/** Pixels of the heat, Uint8ClampedArray [H * W * 4] (RGBA): the larger the drop, the more opaque; NaN is clear. */
export function heatOf(drop, limit) {
  const pixels = new Uint8ClampedArray(drop.length * 4);
  drop.forEach((value, index) => {
    if (Number.isNaN(value)) return;
    const share = Math.min(Math.max(value / limit, -1), 1);
    pixels.set(SHADES[Math.round((share + 1) * SHADES_A_SIDE)], index * 4);
    pixels[index * 4 + 3] = 255 * STRONGEST * Math.abs(share);
  });
  return pixels;
}

function canvasOf(pixels, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas;
}

/** Draws the picture in gray, at its own size, and the heat of `drop` [height, width] over the box that the model saw of it.
 *
 * @param context of a canvas of the picture's size.
 * @param picture what a canvas can draw.
 * @param box [top, left, bottom, right] in the picture's pixels.
 * @param limit the drop that is drawn in the strongest colour.
 */
export function drawOverlay(context, picture, drop, [height, width], [top, left, bottom, right], limit) {
  const { canvas } = context, layer = new OffscreenCanvas(canvas.width, canvas.height), heat = layer.getContext("2d");
  const box = [left, top, right - left, bottom - top], known = new Uint8ClampedArray(drop.length * 4);
  drop.forEach((value, index) => { known[4 * index + 3] = Number.isNaN(value) ? 0 : 255; });
  context.globalCompositeOperation = "source-over";
  context.drawImage(picture, 0, 0);
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "black"; // has no saturation: what is under it becomes gray
  context.fillRect(0, 0, canvas.width, canvas.height);
  heat.drawImage(canvasOf(heatOf(drop, limit), width, height), ...box);
  heat.imageSmoothingEnabled = false; // smoothing must not colour what has no number
  heat.globalCompositeOperation = "destination-in";
  heat.drawImage(canvasOf(known, width, height), ...box);
  context.globalCompositeOperation = "source-over";
  context.drawImage(layer, 0, 0);
}

/** A number in few digits. */
export function short(value) {
  return String(Number(value.toPrecision(3))).replace("-", "\u2212");
}

/** Draws a colour bar from `limit`, at the top, down to -`limit`, with numbers beside it.
 *
 * @param x, y, width, height of the bar without its numbers, in pixels of the context.
 * @param size of the numbers, in pixels.
 * @param ink colour of the numbers.
 */
export function drawBar(context, { x, y, width, height, size, ink }, limit) {
  const gradient = context.createLinearGradient(0, y, 0, y + height);
  RED_BLUE.forEach((colour, index) => gradient.addColorStop(1 - index / (RED_BLUE.length - 1), `rgb(${colour})`));
  context.fillStyle = gradient;
  context.fillRect(x, y, width, height);
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillStyle = ink;
  for (const tick of TICKS) {
    const at = y + ((1 - tick) / 2) * height;
    context.fillRect(x + width, at - 0.5, size / 3, 1);
    context.fillText(short(tick * limit), x + width + size * 0.6, at);
  }
}

/** The overlay with a line of text above and a colour bar beside it, as a new canvas. */
export function withBar(overlay, limit, text) {
  const size = Math.max(12, Math.round(overlay.height / 30)), margin = size, bar = Math.round(size * 1.2);
  const canvas = new OffscreenCanvas(overlay.width + 3 * margin + bar + 4 * size, overlay.height + 2 * margin + 2 * size);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "black";
  context.font = `${size}px system-ui, sans-serif`;
  context.fillText(text, margin, margin + size, canvas.width - 2 * margin);
  const y = margin + 2 * size;
  context.drawImage(overlay, margin, y);
  drawBar(context, { x: 2 * margin + overlay.width, y, width: bar, height: overlay.height, size, ink: "black" }, limit);
  return canvas;
}
