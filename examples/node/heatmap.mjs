// A heat map from an exported model, in Node.js: npm install onnxruntime-node, then
//   node heatmap.mjs FOLDER [IMAGE.bin] [--threads N] [--out map.bin]
//
// FOLDER is what `kcompiler export` wrote. The image is raw little-endian float32, preprocessed, channels first; without one,
// the folder's own test image is taken and the map compared with the test map. Each thread evaluates every N-th batch.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import ort from "onnxruntime-node";

const floats = (bytes) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));

function fail(message) {
  console.error(message);
  process.exit(1);
}

function readCard(folder) {
  try {
    const card = JSON.parse(readFileSync(join(folder, "card.json"), "utf8"));
    if (card.format !== 2)
      fail(`${folder}: card format ${JSON.stringify(card.format)}, expected 2; export again or copy a newer program`);
    if (card.inputs.map(({ name }) => name).join() !== "image,fill,target,batches")
      fail(`${folder}: takes other inputs; export without --preprocess and --drill-down`);
    for (const [name, { sha256 }] of Object.entries(card.files)) {
      const found = createHash("sha256").update(readFileSync(join(folder, name))).digest("hex");
      if (found !== sha256) throw new Error(`${name} is damaged; copy the folder again`);
    }
    return card;
  } catch (error) {
    return fail(`${folder}: is not an exported model (${error.message})`);
  }
}

async function evaluate({ folder, image, shape, fill, first, step, count }) {
  const options = { intraOpNumThreads: 1, enableMemPattern: false }; // batches differ in shape
  const session = await ort.InferenceSession.create(join(folder, "map.onnx"), options);
  const whole = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);
  for (let batch = first; batch < count; batch += step) {
    const { map, class: chosen } = await session.run({
      image: new ort.Tensor("float32", image, shape), fill: new ort.Tensor("float32", fill, [shape[1]]),
      target: whole([-1]), batches: whole([batch, 1]),
    });
    parentPort.postMessage({ map: map.data, chosen: Number(chosen.data[0]) });
  }
}

async function main() {
  const options = { threads: { type: "string", default: "2" }, out: { type: "string" } };
  const { values, positionals: [folder, path] } = parseArgs({ options, allowPositionals: true });
  const card = readCard(folder), [{ shape }] = card.inputs, { test } = card, threads = Number(values.threads);
  const image = floats(readFileSync(path ?? join(folder, test.image)));
  if (image.length !== shape.reduce((a, b) => a * b)) fail(`${path}: ${image.length} numbers, expected float32 [${shape}]`);
  const fill = new Float32Array(shape[1]).fill(path ? 0 : test.fill);
  const count = path ? card.batches.length : test.batches[1];
  const scores = new Float32Array(card.ys.length * card.xs.length).fill(NaN);
  let done = 0, chosen;
  await Promise.all(Array.from({ length: threads }, (_, first) => new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { folder, image, shape, fill, first, step: threads, count } });
    worker.on("message", (part) => {
      part.map.forEach((score, place) => { if (!Number.isNaN(score)) scores[place] = score; });
      chosen = part.chosen;
      process.stderr.write(`\r${++done} of ${count} batches${done === count ? "\n" : ""}`);
    });
    worker.on("error", reject).on("exit", resolve);
  }))).catch((error) => fail(`${folder}: ${error.message}`));
  const known = scores.filter((score) => !Number.isNaN(score));
  console.log(`class ${chosen}, ${known.length} positions, ${Math.min(...known)} to ${Math.max(...known)}`);
  if (values.out) writeFileSync(values.out, Buffer.from(scores.buffer));
  if (path) return;
  const expected = floats(readFileSync(join(folder, test.map))), told = expected.filter((score) => !Number.isNaN(score));
  const off = Math.max(...scores.map((score, place) => Math.abs(score - expected[place])).filter((d) => !Number.isNaN(d)));
  const difference = off / (Math.max(...told) - Math.min(...told));
  console.log(`largest difference from the test map: ${difference.toPrecision(2)} of its range`);
  process.exitCode = difference <= test.tolerance && chosen === test.chosen && known.length === told.length ? 0 : 1;
}

await (isMainThread ? main() : evaluate(workerData));
