// The page of a report: numbers under the pointer, the slider between picture and map, the table's order.

/** Float32 numbers of base64 text. */
function floats(text) {
  return new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

/** A number as text, with as many digits as float32 has. */
function shown(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(6))).replace("-", "\u2212") : String(value);
}

/** The patch whose middle is nearest; of two, the one that begins there. */
function nearest(corners, side, at) {
  const distances = corners.map((corner) => Math.abs(corner + side / 2 - at));
  return distances.lastIndexOf(Math.min(...distances));
}

function bounded(value, count) {
  return Math.min(Math.max(value, 0), count - 1);
}

/** Lets a map be read by pointer and by keyboard. */
function readable(map) {
  const { ys, xs, patch: [height, width], view, kind, scores: text, sampled } = JSON.parse(map.querySelector(".numbers").textContent);
  const scores = floats(text), uncovered = scores[scores.length - 1];
  const stage = map.querySelector(".stage"), box = map.querySelector(".patch"), cursor = map.querySelector(".cursor");
  let row = 0, col = 0;

  function show() {
    const index = row * xs.length + col, score = scores[index], drop = kind === "drop" ? score : Math.fround(uncovered - score);
    const [top, left] = [ys[row], xs[col]].map((corner, axis) => view.offset[axis] + view.scale[axis] * corner);
    const part = (value, axis) => `${(100 * value) / view.picture[axis]}%`;
    Object.assign(box.style, {
      top: part(top, 0), left: part(left, 1), height: part(height * view.scale[0], 0), width: part(width * view.scale[1], 1),
    });
    box.hidden = false;
    const place = `Patch at y ${Math.round(top)}, x ${Math.round(left)} of the picture (y ${ys[row]}, x ${xs[col]} of the model's image)`;
    const numbers = kind === "drop" ? `drop ${shown(drop)}` : `${kind} ${shown(score)}, drop ${shown(drop)}`;
    const known = sampled === null || sampled[index] === "1" ? "" : Number.isNaN(score) ? " (not evaluated)" : " (estimated)";
    cursor.textContent = `${place}: ${numbers}${known}.`;
  }

  stage.addEventListener("pointermove", (event) => {
    const { top, left, height: high, width: wide } = stage.querySelector(".overlay").getBoundingClientRect();
    const inPicture = [((event.clientY - top) / high) * view.picture[0], ((event.clientX - left) / wide) * view.picture[1]];
    const [y, x] = inPicture.map((at, axis) => (at - view.offset[axis]) / view.scale[axis]);
    [row, col] = [nearest(ys, height, y), nearest(xs, width, x)];
    if (y >= ys[row] && y < ys[row] + height && x >= xs[col] && x < xs[col] + width) return show();
    box.hidden = true;
    cursor.textContent = `y ${Math.floor(inPicture[0])}, x ${Math.floor(inPicture[1])} of the picture: no patch covered it.`;
  });
  stage.addEventListener("focus", () => { if (box.hidden) show(); });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    [row, col] = [bounded(row + step[0], ys.length), bounded(col + step[1], xs.length)];
    show();
  });
  const overlay = map.querySelector(".overlay");
  map.querySelector("input").addEventListener("input", (event) => { overlay.style.opacity = event.target.value / 100; });
}

/** Sorts the table by the column of `header`, and the other way round if it was. */
function sort(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const value = (row) => row.cells[column].dataset.value;
  const numeric = body.rows[0].cells[column].classList.contains("number");
  const compare = (one, other) => numeric
    ? (Number(value(one)) || 0) - (Number(value(other)) || 0)
    : value(one).localeCompare(value(other), undefined, { numeric: true });
  const rows = [...body.rows].sort(compare);
  body.append(...(order === "ascending" ? rows : rows.reverse()));
}

/** Opens the map that the address names. */
function openNamed() {
  const map = /^#map-\d+$/.test(location.hash) ? document.querySelector(location.hash) : null;
  if (map === null) return;
  map.open = true; // of several; one alone is no disclosure
  map.scrollIntoView();
}

for (const map of document.querySelectorAll(".map")) {
  if (map.open ?? true) readable(map);
  else map.addEventListener("toggle", () => readable(map), { once: true });
}
for (const header of document.querySelectorAll("main > .wide th")) header.querySelector("button").addEventListener("click", () => sort(header));
window.addEventListener("hashchange", openNamed);
openNamed();
