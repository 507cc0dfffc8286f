// The page: takes files, runs the model, shows the map while it fills in.
import { readCard, filesOf, sorted } from "./files.mjs";
import { colourFor, fillOf, offerClasses } from "./options.mjs";
import { Cancelled, MapModel } from "./model.mjs";
import { keepOffline } from "./offline.mjs";
import { readImage, readPicture } from "./pictures.mjs";
import * as result from "./result.mjs";
import { compared } from "./test-vector.mjs";

const EXPORT = ["model", "weights", "card"];
const STATUS_MS = 1000; // at least, between two changes of the status, which screen readers read aloud
const at = (id) => document.getElementById(id);
const files = {}; // by what they are
let model = null, opened = null, card = null, subject = null; // subject: the picture or image, as pictures.mjs reads it
let running = false, queue = Promise.resolve();

function tell(text) {
  at("status").textContent = text;
}

const sizeOf = ({ size }) => (size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`);

function refresh() {
  for (const row of at("given").children) {
    const kind = row.dataset.file, file = kind === "subject" ? subject : files[kind];
    row.className = file ? "there" : "";
    row.lastElementChild.textContent = !file ? "missing" : kind === "subject" ? file.name : sizeOf(file);
  }
  at("run").disabled = running || !opened || !subject;
  at("cancel").disabled = !running;
  for (const id of ["files", "target", "colour", "numbers"]) at(id).disabled = running || (id !== "files" && !opened);
}

/** Takes files, in the order in which they are given. Those of an export replace those of another. */
function take(given) {
  queue = queue.then(async () => {
    const { found, others } = sorted(given);
    if (running) return void (at("error").textContent = "A map is being made; cancel it before giving other files.");
    at("error").textContent = at("test").textContent = "";
    at("run").disabled = at("result").hidden = true; // until the files are read
    try {
      Object.assign(files, found);
      if (EXPORT.some((kind) => found[kind])) await openModel();
      await readSubject(found);
      if (others.length > 0) throw new Error(`${others.join(", ")}: neither a file of an export nor a picture`);
    } catch (error) {
      at("error").textContent = error.message;
    }
    refresh();
    return tell(waiting());
  });
}

function waiting() {
  if (!opened) return EXPORT.some((kind) => files[kind]) ? "Waiting for the rest of the export." : "Waiting for the model.";
  const threads = opened.threads === 1 ? "one thread" : `${opened.threads} threads`;
  const grid = `${card.ys.length} × ${card.xs.length} positions in ${card.batches.length} batches, ${threads}.`;
  return `${grid} ${subject ? "Ready." : opened.image.name === "picture" ? "Waiting for a picture." : "Waiting for an image."}`;
}

async function openModel() {
  model?.close();
  model = opened = subject = null;
  try {
    if (files.card) card = await readCard(files.card);
    const inModel = files.card && !card.files["weights.bin"]; // an export as a single file
    if (!EXPORT.every((kind) => files[kind] || (kind === "weights" && inModel))) return;
    tell("Opening the model…");
    model = new MapModel();
    opened = await model.open({ model: files.model, weights: inModel ? null : files.weights, card });
  } catch (error) {
    for (const kind of EXPORT) delete files[kind]; // which of them is at fault may not be known: all are to be given again
    throw error;
  }
  offerClasses(card, opened);
  colourFor(card, opened);
}

/** Reads the picture or the image that was given last, now that the model says which of them it takes. */
async function readSubject(found) {
  if (found.picture) delete files.image;
  else if (found.image) delete files.picture;
  if (!opened || (subject && !found.picture && !found.image)) return;
  const takesPictures = opened.image.name === "picture", { picture, image } = files, isTest = image?.name === card.test.image;
  if ((!picture && !image) || (takesPictures && !picture && isTest)) return; // the test image came with the folder
  subject = null;
  try {
    if (takesPictures && !picture)
      throw new Error(`${image.name}: the model takes pictures, not raw numbers; give it a PNG or JPEG file`);
    if (!takesPictures && !image)
      throw new Error(`${picture.name}: the model takes raw numbers; exported with --preprocess it would take pictures`);
    subject = takesPictures ? await readPicture(picture) : await readImage(image, opened.image.shape, card.preprocessing);
  } catch (error) {
    delete files.picture;
    delete files.image;
    throw error;
  }
  if (!takesPictures && isTest) at("numbers").value = card.test.fill;
}

async function run() {
  const started = performance.now();
  let told = started;
  running = true;
  at("error").textContent = at("test").textContent = "";
  at("progress").value = 0;
  refresh();
  tell("Evaluating the first batch…");
  try {
    const fill = fillOf(opened), request = { data: subject.data, shape: subject.shape, fill, target: Number(at("target").value) };
    const shown = { card, pixels: opened.pixels, picture: subject, fill };
    const whole = await model.evaluate(request, (part) => {
      const now = performance.now(), left = ((now - started) / part.done) * (part.total - part.done) / 1000;
      at("progress").value = part.done / part.total;
      result.show(shown, part);
      if (now - told < STATUS_MS) return;
      told = now;
      tell(`${part.done} of ${part.total} positions, about ${Math.ceil(left)} s left.`);
    });
    tell(`Finished: ${whole.total} positions in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
    at("test").textContent = await compared(card, files.testMap, subject, request, whole);
  } catch (error) {
    tell(error instanceof Cancelled ? "Cancelled. The map shows what was evaluated until then." : "Stopped.");
    if (!(error instanceof Cancelled)) at("error").textContent = error.message;
  }
  running = false;
  refresh();
}

function listen() {
  const drop = document.documentElement;
  const mark = (event) => { event.preventDefault(); at("drop").classList.toggle("over-it", event.type === "dragover"); };
  for (const type of ["dragover", "dragleave", "drop"]) drop.addEventListener(type, mark);
  drop.addEventListener("drop", async (event) => take(await filesOf(event.dataTransfer)));
  at("files").addEventListener("change", (event) => { take([...event.target.files]); event.target.value = ""; });
  at("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  at("cancel").addEventListener("click", () => { model.cancel(); tell("Cancelling after this batch…"); });
  result.listen();
}

listen();
refresh();
keepOffline(() => Object.keys(files).length > 0).catch((error) => console.warn(`not kept for use offline: ${error.message}`));
