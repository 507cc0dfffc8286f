// A picture with its map, its box and the place of the patch.
import { limitOf } from "./drawing.mjs";
import { onFile } from "./drops.mjs";
import { heatMapOf } from "./events.mjs";
import { cellNear, combined, dropAt, inside, regionOf } from "./grids.mjs";
import { showOutputs } from "./outputs.mjs";
import { Seen } from "./seen.mjs";
import * as server from "./server.mjs";
import * as settings from "./settings.mjs";
import { Stage } from "./stage.mjs";
import * as words from "./words.mjs";

const STATUS_MS = 1000; // at least, between two changes of the status, which screen readers read aloud
const AROUND = 1.5; // sides of the patch around it that "refine around" takes

export class Panel {
  /**
   * @param about what the server tells of the bundle.
   * @param told drawn(): the map is another; moved(place): the patch is elsewhere.
   */
  constructor(about, told) {
    const template = document.getElementById("panel-template");
    this.root = template.content.firstElementChild.cloneNode(true);
    Object.assign(this, { about, told, maps: {}, jobs: {}, box: null, place: null, held: false, drop: null, given: null });
    this.at = (name) => this.root.querySelector(`.${name}`);
    this.table = this.root.querySelector("table");
    this.stage = new Stage(this.root, {
      point: (y, x) => this.held || this._snap(y, x), step: (rows, cols) => this._step(rows, cols),
      hold: (y, x) => this._hold(y, x), box: (box) => this.refine(box),
    });
    this.seen = new Seen(this.at("seen"), (y, x) => { this.held = true; this.move([y, x]); });
    if (about.takes === "arrays") this.at("choose-text").textContent = "Choose an array (.npy)";
    this._listen();
  }

  get patch() { return this.about.patch; }

  get image() { return this.about.image.slice(1); }

  _listen() {
    onFile(this.root, this.at("file"), (file) => this.open(file));
    this.at("stop").addEventListener("click", () => (this._running() ? this.stop() : this.restart()));
    this.at("refine").addEventListener("click", () => this._refineAround());
    this.at("unbox").addEventListener("click", () => this.refine(null));
    this.at("show-map").addEventListener("change", () => this.told.drawn());
    this.at("save").addEventListener("click", () => this._trying(() => this._save()));
  }

  async _trying(work) {
    this.at("error").textContent = "";
    try {
      await work();
    } catch (error) {
      if (error.name !== "AbortError") this.at("error").textContent = error.message;
    }
  }

  /** Takes another picture, and makes its map. @param {File} file */
  open(file) {
    return this._trying(async () => {
      this.stop();
      const given = await server.give(file);
      const [whole, model] = await Promise.all(["whole", "model"].map((kind) => server.pixels(given.picture, kind)));
      Object.assign(this, { given, maps: {}, box: null, place: null, held: false, drop: null, outputs: null });
      this.at("name").textContent = given.file;
      this.at("work").hidden = false;
      this.root.classList.add("given");
      this.at("unbox").hidden = true;
      this.stage.show(whole, given.box, this.image);
      this.seen.show(model, this.image, this.patch);
      this.restart();
    });
  }

  /** Goes on with the patch that `about` now tells of. */
  repatch() {
    if (!this.given) return;
    this.seen.patch = this.patch;
    this.place &&= this.place.map((corner, axis) => Math.min(corner, this.image[axis] - this.patch[axis]));
    this.restart();
  }

  /** Makes the maps anew, by the settings as they are now. */
  restart() {
    if (!this.given) return;
    this.maps = {};
    this.outputs = null;
    this.at("save").disabled = true;
    this._trying(() => this._loadFill());
    this._run("whole", settings.whole());
    if (this.box) this._runBox();
  }

  async _loadFill() {
    this.seen.fill = await server.fillPicture(this._asked());
    if (this.place) this.move(this.place);
    else this._evaluate([0, 0], false);
  }

  _asked() {
    return { picture: this.given.picture, ...settings.covering(this.about) };
  }

  _running() { return Object.values(this.jobs).some((job) => !job.signal.aborted); }

  stop() {
    for (const job of Object.values(this.jobs)) job.abort();
    this.jobs = {};
    this._refresh("Stopped; the map is as far as it came.");
  }

  /** Makes the map of the whole picture, or of the box. */
  _run(kind, wanted) {
    this.jobs[kind]?.abort();
    const job = this.jobs[kind] = new AbortController();
    this._refresh("Running the model on the uncovered picture…");
    return this._trying(async () => {
      try {
        await server.map({ ...this._asked(), ...wanted }, job.signal, (data) => this._took(kind, job, heatMapOf(data)));
      } finally {
        if (this.jobs[kind] === job) delete this.jobs[kind];
        if (!job.signal.aborted) this._refresh();
      }
    });
  }

  _took(kind, job, map) {
    if (job.signal.aborted) return;
    this.maps[kind] = map;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this._mapped();
    });
  }

  _mapped() {
    const { whole, box } = this.maps;
    if (!whole && !box) return;
    this.drop = combined(whole, box, this.box);
    this.told.drawn();
    this._refresh();
    if (this.outputs) this._tabulate();
    this._read();
  }

  /** The drop that this picture would have in the strongest colour. */
  get limit() { return this.drop ? limitOf(this.drop) : 0; }

  draw(limit) {
    const map = this.maps.whole ?? this.maps.box;
    if (!map) return;
    const text = `Heat map over ${this.given.file}: ${words.strongest(map)}`;
    this.stage.draw(this.at("show-map").checked ? this.drop : null, limit, text);
    this.at("title").textContent = words.title(map);
    this.at("unit").textContent = words.unit(map);
  }

  /** Progress, status and buttons. */
  _refresh(text) {
    const { whole, box } = this.maps, running = this._running();
    this.at("stop").textContent = running ? "Stop" : "Make the map again";
    this.at("save").disabled = !whole;
    const bar = this.root.querySelector("progress");
    const shown = (this.jobs.whole || !box ? whole : box) ?? box, now = performance.now();
    if (shown) bar.value = shown.final ? 1 : shown.evaluated / shown.most;
    const said = text ?? [whole && words.state(whole), box && `Box: ${words.state(box)}`].filter(Boolean).join(" ");
    if (said && (text || !running || now - (this.toldAt ?? 0) > STATUS_MS)) {
      this.at("status").textContent = said;
      this.toldAt = text ? 0 : now;
    }
    const caveats = [...new Set([...(whole?.warnings ?? []), ...(box?.warnings ?? [])])];
    this.at("warnings").replaceChildren(...caveats.map((caveat) => Object.assign(document.createElement("li"), { textContent: caveat })));
  }

  _mapAt(y, x) {
    const { whole, box } = this.maps;
    return box && this.box && inside(this.box, y + this.patch[0] / 2, x + this.patch[1] / 2) ? box : whole ?? box;
  }

  /** Moves the patch to the position of the map that is nearest to a point. */
  _snap(y, x) {
    const corner = [y - this.patch[0] / 2, x - this.patch[1] / 2], map = this._mapAt(...corner);
    if (!map) return;
    const [row, col] = cellNear(map, ...corner), place = [map.ys[row], map.xs[col]];
    if (!this.place || place[0] !== this.place[0] || place[1] !== this.place[1]) this.move(place);
  }

  _step(rows, cols) {
    const [y, x] = this.place ?? [0, 0], map = this._mapAt(y, x);
    if (!map) return;
    const [row, col] = cellNear(map, y, x), within = (value, { length }) => Math.min(Math.max(value, 0), length - 1);
    this.move(this.place ? [map.ys[within(row + rows, map.ys)], map.xs[within(col + cols, map.xs)]] : [map.ys[0], map.xs[0]]);
  }

  _hold(y, x) {
    this.held = !this.held;
    if (!this.held && y !== undefined) this._snap(y, x);
    this._read();
  }

  /** Puts the patch's corner at `place`, (y, x), and asks for the outputs there. */
  move(place, linked = false) {
    if (!this.given) return;
    this.place = place;
    this.patchPixels = null;
    this.seen.draw(place);
    this.stage.mark(this.stage.marker, [place[0], place[1], place[0] + this.patch[0], place[1] + this.patch[1]]);
    this._read();
    this._evaluate(place, true);
    if (!linked) this.told.moved(place);
  }

  /** Asks for the outputs at a place: one question at a time, the latest place next. */
  async _evaluate(place, covered) {
    this.next = [place, covered];
    if (this.asking) return;
    this.asking = true;
    while (this.next) {
      const [[y, x], shown] = this.next, { given } = this;
      this.next = null;
      await this._answered(given, y, x, shown);
    }
    this.asking = false;
  }

  async _answered(given, y, x, shown) {
    const asked = this._asked();
    try {
      const told = await server.outputs({ ...asked, y, x });
      if (this.given !== given || this.patch !== asked.patch) return;
      this.outputs = { ...told, covered: shown ? told.covered : null, place: [y, x] };
      this._tabulate();
      this._read();
      if (shown && !this.seen.fill && this.place?.[0] === y && this.place[1] === x) this.seen.draw(this.place, rgba(told.patch));
    } catch (error) {
      this.at("error").textContent = error.message;
    }
  }

  _tabulate() {
    const map = this.maps.whole ?? this.maps.box, { uncovered } = this.outputs;
    const target = map?.target ?? uncovered.indexOf(Math.max(...uncovered));
    showOutputs(this.table, this.outputs, this.about.classes, target);
  }

  /** Tells the number at the patch's place: of the map, or, between its positions, of the model itself. */
  _read() {
    if (!this.place) return void (this.at("reading").textContent = "");
    const [y, x] = this.place, map = this._mapAt(y, x);
    if (!map) return;
    const [row, col] = cellNear(map, y, x), cell = row * map.xs.length + col, on = map.ys[row] === y && map.xs[col] === x;
    const fresh = this.outputs?.place?.[0] === y && this.outputs.place[1] === x;
    const drop = on ? dropAt(map, cell) : fresh && this.outputs.covered ? this.outputs.uncovered[map.target] - this.outputs.covered[map.target] : NaN;
    const how = !on ? "evaluated by hand" : map.sampled[cell] ? "evaluated" : "estimated so far";
    const text = Number.isNaN(drop) ? "not known yet" : `${words.SCORES[map.score]} ${words.number(map.unoccluded - drop)}, ${words.change(drop)} (${how})`;
    this.at("reading").textContent = `Patch at row ${y}, column ${x}: ${text}${this.held ? "; held" : ""}`;
  }

  /** Refines a box of the model's image; null removes the box. */
  refine(box) {
    this.box = box;
    this.jobs.box?.abort();
    delete this.jobs.box;
    delete this.maps.box;
    this.at("unbox").hidden = !box;
    this.stage.mark(this.stage.frame, box);
    if (box) this._runBox();
    else this._mapped();
  }

  _runBox() {
    return this._run("box", { ...settings.boxed(), region: regionOf(this.box, this.patch, this.image), target: this.maps.whole?.target ?? settings.whole().target });
  }

  _refineAround() {
    const [y, x] = this.place ?? this.image.map((size, axis) => (size - this.patch[axis]) / 2), [height, width] = this.patch;
    this.refine([
      Math.max(Math.round(y - AROUND * height), 0), Math.max(Math.round(x - AROUND * width), 0),
      Math.min(Math.round(y + (1 + AROUND) * height), this.image[0]), Math.min(Math.round(x + (1 + AROUND) * width), this.image[1]),
    ]);
  }

  async _save() {
    const names = [this.maps.whole, this.maps.box].filter(Boolean).map((map) => map.name);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await server.saved(names));
    link.download = `${this.given.file.replace(/\.[^.]*$/, "")}-maps.zip`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000); // the download has begun by then
  }
}

/** Pixels for a canvas of RGB in base64. */
function rgba(text) {
  const rgb = atob(text), pixels = new Uint8ClampedArray((rgb.length / 3) * 4).fill(255);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4)
    for (let channel = 0; channel < 3; channel++) pixels[to + channel] = rgb.charCodeAt(from + channel);
  return pixels;
}
