// From scores at positions to numbers at pixels, and back from a pixel to a position.
/** @typedef {import("./events.mjs").HeatMap} HeatMap */
/** @typedef {[number, number, number, number]} Box (top, left, bottom, right) in pixels of the model's image, half-open */

/** The decrease of the score at a cell of the map: positive where what is covered speaks for the class. */
export function dropAt(map, cell) {
  return map.score === "drop" ? map.scores[cell] : map.unoccluded - map.scores[cell];
}

/** For each pixel of an axis the patch whose centre is before it, and the share of the way to the next; constant at the ends. */
function between(corners, side, size) {
  let index = 0;
  return Array.from({ length: size }, (_, pixel) => {
    const place = pixel - (side - 1) / 2;
    while (index < corners.length - 2 && corners[index + 1] <= place) index++;
    const next = Math.min(index + 1, corners.length - 1), way = corners[next] - corners[index];
    return { index, next, share: way ? Math.min(Math.max((place - corners[index]) / way, 0), 1) : 0 };
  });
}

const mixed = (from, to, share) => (share === 0 ? from : share === 1 ? to : from + (to - from) * share);

/** The drop at each pixel of the model's image, linear between the patches' centres. @param {HeatMap} map */
export function toPixels(map) {
  const [height, width] = map.image, cols = map.xs.length;
  const down = between(map.ys, map.patch[0], height), across = between(map.xs, map.patch[1], width);
  const result = new Float32Array(height * width);
  const at = (row, { index, next, share }) => mixed(dropAt(map, row * cols + index), dropAt(map, row * cols + next), share);
  down.forEach((line, y) => across.forEach((place, x) => {
    result[y * width + x] = mixed(at(line.index, place), line.share ? at(line.next, place) : 0, line.share);
  }));
  return result;
}

/** The drop at each pixel, that of the box's map inside the box. */
export function combined(base, boxed, box) {
  const result = base ? toPixels(base) : new Float32Array(boxed.image[0] * boxed.image[1]).fill(NaN);
  if (!boxed) return result;
  const inner = toPixels(boxed), [top, left, bottom, right] = box, width = boxed.image[1];
  for (let y = top; y < bottom; y++) result.set(inner.subarray(y * width + left, y * width + right), y * width + left);
  return result;
}

const nearest = (corners, wanted) => corners.reduce((best, corner, index) =>
  (Math.abs(corner - wanted) < Math.abs(corners[best] - wanted) ? index : best), 0);

/** The row and column of the map whose patch is nearest to a patch with its corner at (y, x). @param {HeatMap} map */
export const cellNear = (map, y, x) => [nearest(map.ys, y), nearest(map.xs, x)];

/** Whether a point lies inside a box. */
export const inside = ([top, left, bottom, right], y, x) => y >= top && y < bottom && x >= left && x < right;

/** The region in which the patches lie whose centres are in the box: the box and half a patch around, inside the image. */
export function regionOf([top, left, bottom, right], [height, width], image) {
  const [up, before] = [Math.floor(height / 2), Math.floor(width / 2)];
  const span = (from, to, side, size) => {
    const start = Math.min(Math.max(from, 0), size - side);
    return [start, Math.max(Math.min(to, size), start + side)];
  };
  const [y0, y1] = span(top - up, bottom + up, height, image[0]), [x0, x1] = span(left - before, right + before, width, image[1]);
  return [y0, x0, y1, x1];
}
