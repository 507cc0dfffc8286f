// The heat map on the page: drawn over the picture, read under the cursor, saved.
import { drawBar, drawOverlay, limitOf, short, withBar } from "./drawing.mjs";

const at = (id) => document.getElementById(id);
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
let shown = null; // { card, pixels, picture, fill, result, limit }
let place = null; // [row, col] of the map under the cursor

const seenOf = ({ picture, result }) => Array.from(result.seen ?? [0, 0, picture.shown.height, picture.shown.width]);
const labelOf = (card, index) => card.labels[index] ?? `class ${index}`;
const classOf = ({ result }) => Number(result.class[0]);

/** Shows a result of heatmap.mjs, whole or so far.
 *
 * @param given card: card.json, parsed; pixels: [H, W] of the drop; picture: as pictures.mjs reads it; fill: what covers.
 */
export function show(given, result) {
  const { card, pixels, picture } = given;
  if (place && (place[0] >= card.ys.length || place[1] >= card.xs.length)) place = null; // of a larger map before
  shown = { ...given, result, limit: limitOf(result.drop) };
  at("result").hidden = false;
  const overlay = at("overlay"), { width, height } = picture.shown;
  if (overlay.width !== width || overlay.height !== height) Object.assign(overlay, { width, height });
  drawOverlay(overlay.getContext("2d"), picture.shown, result.drop, pixels, seenOf(shown), shown.limit);
  drawScale();
  at("caption").textContent = `${titleOf(shown)}. Red: the score falls when the patch covers the place.`;
  overlay.setAttribute("aria-label", `Heat map over ${picture.name}: ${strongestOf(shown)}`);
  at("scores").replaceChildren(...Array.from(result.uncovered, (score, index) => rowOf(index, score)));
  tell();
}

function titleOf({ card, result }) {
  const chosen = Number(result.class[0]);
  return `${labelOf(card, chosen)}: ${short(result.uncovered[chosen])} uncovered`;
}

function strongestOf({ card, result }) {
  const uncovered = result.uncovered[classOf(shown)];
  const best = result.map.reduce((lowest, score, index) => (score < result.map[lowest] ? index : lowest), firstOf(result.map));
  const [y, x] = [card.ys[Math.floor(best / card.xs.length)], card.xs[best % card.xs.length]];
  return `the score falls most, by ${short(uncovered - result.map[best])}, with the patch at row ${y}, column ${x} of the image`;
}

const firstOf = (map) => Math.max(map.findIndex((score) => !Number.isNaN(score)), 0);

function rowOf(index, score) {
  const row = document.createElement("tr");
  row.className = index === classOf(shown) ? "explained" : "";
  for (const text of [labelOf(shown.card, index), short(score)]) row.insertCell().textContent = text;
  return row;
}

/** Draws the colour bar beside the overlay, as high as that is on the page. */
export function drawScale() {
  if (!shown) return;
  const bar = at("bar"), context = bar.getContext("2d"), ratio = devicePixelRatio;
  const [width, height] = [bar.clientWidth, at("overlay").clientHeight];
  Object.assign(bar, { width: width * ratio, height: height * ratio });
  bar.style.height = `${height}px`;
  context.scale(ratio, ratio);
  const ink = getComputedStyle(bar).color, size = 13;
  drawBar(context, { x: 0, y: size / 2, width: 18, height: height - size, size, ink }, shown.limit);
  const [falls, rises] = [short(shown.limit), short(-shown.limit)];
  bar.setAttribute("aria-label", `Colour bar: from ${falls}, red, the score falls, to ${rises}, blue, it rises`);
}

/** Marks the patch at a place of the map, and tells the numbers there. */
function tell() {
  at("marker").hidden = !place;
  if (!place) return void (at("cursor").textContent = "");
  const { card, pixels, picture, result } = shown, [row, col] = place, [top, left, bottom, right] = seenOf(shown);
  const score = result.map[row * card.xs.length + col], { width, height } = picture.shown;
  const [down, across] = [(bottom - top) / pixels[0], (right - left) / pixels[1]]; // pixels of the picture for one of the image
  const box = { top: (top + card.ys[row] * down) / height, left: (left + card.xs[col] * across) / width,
    height: (card.patch[0] * down) / height, width: (card.patch[1] * across) / width };
  for (const [side, share] of Object.entries(box)) at("marker").style[side] = `${100 * share}%`;
  const where = `Patch at row ${card.ys[row]}, column ${card.xs[col]}: `;
  at("cursor").textContent = where + (Number.isNaN(score) ? "not evaluated"
    : `score ${short(score)}, ${changeOf(result.uncovered[classOf(shown)] - score)}`);
}

const changeOf = (drop) => (drop < 0 ? `higher by ${short(-drop)}` : `lower by ${short(drop)}`);

const nearest = (corners, side, pixel) => corners.reduce((best, corner, index) =>
  (Math.abs(corner + side / 2 - pixel) < Math.abs(corners[best] + side / 2 - pixel) ? index : best), 0);

function point({ offsetX, offsetY }) {
  const { card, pixels, picture } = shown, overlay = at("overlay"), [top, left, bottom, right] = seenOf(shown);
  const y = ((offsetY / overlay.clientHeight) * picture.shown.height - top) / (bottom - top) * pixels[0];
  const x = ((offsetX / overlay.clientWidth) * picture.shown.width - left) / (right - left) * pixels[1];
  place = [nearest(card.ys, card.patch[0], y), nearest(card.xs, card.patch[1], x)];
  tell();
}

function step(event) {
  const way = STEPS[event.key];
  if (!way) return;
  event.preventDefault();
  const { ys, xs } = shown.card, within = (value, { length }) => Math.min(Math.max(value, 0), length - 1);
  place = place ? [within(place[0] + way[0], ys), within(place[1] + way[1], xs)] : [0, 0];
  tell();
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // the download has begun by then
}

const stem = () => shown.picture.name.replace(/\.[^.]*$/, "");

async function savePicture() {
  save(await withBar(at("overlay"), shown.limit, titleOf(shown)).convertToBlob({ type: "image/png" }), `${stem()}-heatmap.png`);
}

/** The numbers of the map, null where no batch has been evaluated, and what they are of. */
export function numbers() {
  const { card, picture, result, fill } = shown, cols = card.xs.length;
  const plain = (values) => Array.from(values, (value) => (Number.isFinite(value) ? value : null));
  return {
    model: card.model, score: card.score, picture: picture.name, class: classOf(shown), label: labelOf(card, classOf(shown)),
    uncovered: plain(result.uncovered), patch: card.patch, ys: card.ys, xs: card.xs, seen: seenOf(shown), fill,
    map: card.ys.map((_, row) => plain(result.map.subarray(row * cols, (row + 1) * cols))),
  };
}

/** Listens to the pointer, the keys and the buttons. */
export function listen() {
  for (const type of ["pointermove", "pointerdown"]) at("overlay").addEventListener(type, point);
  at("overlay").addEventListener("keydown", step);
  at("save-picture").addEventListener("click", savePicture);
  at("save-numbers").addEventListener("click", () =>
    save(new Blob([JSON.stringify(numbers())], { type: "application/json" }), `${stem()}-heatmap.json`));
  addEventListener("resize", drawScale);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawScale);
}
