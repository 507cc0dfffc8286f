// The files that a user gives: which is what, and whether the card is one.
const KNOWN = new Map([
  ["map.onnx", "model"], ["weights.bin", "weights"], ["card.json", "card"], ["test-map.bin", "testMap"], ["card.txt", "page"],
]);

/** The files of a drop, those in folders too. */
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean); // before anything is awaited
  return (await Promise.all(entries.map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), inside = [];
  for (;;) { // a reader gives part of a folder at a time, and nothing at its end
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) break;
    inside.push(...part.filter((one) => one.isFile));
  }
  return (await Promise.all(inside.map(filesIn))).flat();
}

/** Sorts files by what they are: model, weights, card, testMap, picture, image (raw numbers); and the names of all others. */
export function sorted(files) {
  const found = {}, others = [];
  for (const file of files) {
    if (KNOWN.has(file.name)) found[KNOWN.get(file.name)] = file;
    else if (file.type.startsWith("image/")) found.picture = file;
    else if (file.name.endsWith(".bin")) found.image = file;
    else others.push(file.name);
  }
  return { found, others };
}

const FORMAT = 2; // of the card
const integers = (values) => Array.isArray(values) && values.length > 0 && values.every(Number.isSafeInteger);
const increasing = (values) => integers(values) && values.every((value, index) => index === 0 || value > values[index - 1]);
const numbers = (values) => Array.isArray(values) && values.every(Number.isFinite);

const FIELDS = {
  ys: increasing,
  xs: increasing,
  patch: (patch) => integers(patch) && patch.length === 2 && Math.min(...patch) > 0,
  batches: (batches) => integers(batches) && Math.min(...batches) > 0,
  labels: (labels) => Array.isArray(labels) && labels.every((label) => typeof label === "string"),
  model: (model) => typeof model === "string",
  score: (score) => typeof score === "string",
  files: (files) => Object.values(files).every((one) => typeof one.sha256 === "string" && Number.isSafeInteger(one.bytes)),
  test: ({ image, map, fill, target, batches, tolerance }) =>
    typeof image === "string" && typeof map === "string" && numbers([fill, target, tolerance, ...batches]),
  preprocessing: (recipe) =>
    recipe === null || (numbers([...recipe.mean, ...recipe.std]) && recipe.mean.length === recipe.std.length && recipe.scale > 0),
};

/** The card, parsed. Throws an Error that names the first field that is missing or of another kind. */
export async function readCard(file) {
  let card;
  try {
    card = JSON.parse(await file.text());
  } catch (error) {
    throw new Error(`${file.name}: is no JSON (${error.message}); copy the files of the export again`);
  }
  for (const [name, holds] of Object.entries(FIELDS)) {
    let good = false;
    try {
      good = holds(card[name]);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // a field is null where it should have fields of its own
    }
    if (!good) throw new Error(`${file.name}: "${name}" is missing or wrong, so it is not the card of an export`);
  }
  if (card.format !== FORMAT)
    throw new Error(`${file.name}: card format ${JSON.stringify(card.format)}, expected ${FORMAT}; export again, or take a newer page`);
  return card;
}
