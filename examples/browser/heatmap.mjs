// A heat map from an exported model, in the browser, with onnxruntime-web. In a worker the page stays responsive.
//   import * as ort from "./ort/ort.wasm.bundle.min.mjs"; // with a bundler: from "onnxruntime-web/wasm"
//   const opened = await open(ort, { model, weights, card });
//   const { map, drop } = await evaluate(opened, { data, shape, fill }, { onBatch, signal });
const INPUTS = ["fill", "target", "batches"], OUTPUTS = ["map", "drop", "uncovered", "class"];
const MOST_THREADS = 8, AGAIN = "copy the files of the export again";
const expect = (holds, message) => { if (!holds) throw new Error(message); };

async function verify(name, bytes, { files }) {
  if (name === "weights.bin" && !bytes && files && !files[name]) return; // weights may stand in the model
  expect(files?.[name]?.sha256, `card.json: has no checksum of ${name}, so it is not the card of an export`);
  expect(bytes, `${name}: is missing; it belongs beside map.onnx`);
  expect(globalThis.crypto?.subtle, "checksums cannot be verified here; open the page by https:// or at localhost");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), { sha256, bytes: size } = files[name];
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const difference = `${bytes.length} bytes, SHA-256 ${found.slice(0, 8)}; by card.json ${size}, ${sha256.slice(0, 8)}`;
  expect(found === sha256, `${name}: is damaged, or of another export (${difference}); ${AGAIN}`);
}

// Opens a map model. model, weights: Uint8Array, the bytes of map.onnx and weights.bin; card: card.json, parsed, which has their
// checksums; providers: of onnxruntime-web. Throws an Error for files that are damaged or not those of an export.
export async function open(ort, { model, weights, card, providers = ["wasm"] }) {
  if (card) for (const [name, bytes] of [["map.onnx", model], ["weights.bin", weights]]) await verify(name, bytes, card);
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  const externalData = weights ? [{ path: "weights.bin", data: weights }] : [];
  const options = { executionProviders: providers, externalData, enableMemPattern: false }; // batches differ in shape
  const session = await ort.InferenceSession.create(model, options)
    .catch((error) => expect(false, `map.onnx: ONNX Runtime cannot open it (${error.message ?? error}); ${AGAIN}`));
  const [inputs, outputs] = [session.inputMetadata, session.outputMetadata].map((all) => new Map(all.map((v) => [v.name, v])));
  const image = inputs.get("picture") ?? inputs.get("image");
  expect(image && inputs.size === 4 && INPUTS.every((name) => inputs.has(name)) && OUTPUTS.every((name) => outputs.has(name)),
    `map.onnx: has inputs ${[...inputs.keys()]}, expected picture or image, ${INPUTS}: not an export, or one with --drill-down`);
  const [grid, pixels, [, classes]] = ["map", "drop", "uncovered"].map((name) => outputs.get(name).shape);
  expect(!card || String(grid) === String([card.ys?.length, card.xs?.length]),
    `card.json: is not the card of this map.onnx, whose map is [${grid}]; ${AGAIN}`);
  return { ort, session, card, image, grid, pixels, classes, channels: inputs.get("fill").shape[0] };
}

// How far the score falls, Float32Array [H, W], as the model's output: linear between the patches' centres, NaN beside a NaN.
export function dropOf(map, uncovered, { ys, xs, patch }, [height, width]) {
  const between = (corners, side, size) => Array.from({ length: size }, (_, pixel) => {
    const corner = Math.min(Math.max(pixel - (side - 1) / 2, corners[0]), corners.at(-1));
    const behind = corners.findIndex((one) => one >= corner), before = Math.max(behind - 1, 0);
    return [before, behind, behind && (corner - corners[before]) / (corners[behind] - corners[before])];
  });
  const mixed = (before, behind, share) => (share === 0 ? before : share === 1 ? behind : before + (behind - before) * share);
  const columns = between(xs, patch[1], width), drop = new Float32Array(height * width);
  between(ys, patch[0], height).forEach(([above, below, down], y) => columns.forEach(([left, right, across], x) => {
    const at = (row) => mixed(map[row * xs.length + left], map[row * xs.length + right], across);
    drop[y * width + x] = uncovered - mixed(at(above), at(below), down);
  }));
  return drop;
}

// Evaluates all batches, a call each. data, shape: Uint8Array [H, W, 3] for a model of pictures, else Float32Array [1, C, H, W];
// fill: what covers, a number a channel; target: the class, -1 for the largest; signal: an AbortSignal. onBatch gets the result
// so far: map [rows, cols], drop [H, W] (if there is no card, at last), uncovered [K], class, seen, done and total positions.
export async function evaluate({ ort, session, card, image, grid, pixels, classes, channels }, given, { onBatch, signal } = {}) {
  const { data, shape, fill, target = -1 } = given, map = new Float32Array(grid[0] * grid[1]).fill(NaN), total = map.length;
  let result, done = 0;
  const expected = image.shape.map((size, axis) => (typeof size === "string" ? shape[axis] : size)); // free sizes have names
  const typed = data instanceof (image.type === "uint8" ? Uint8Array : Float32Array), size = shape.reduce((a, b) => a * b, 1);
  expect(typed && String(shape) === String(expected) && data.length === size && size > 0,
    `${image.name}: ${data.constructor.name} of ${data.length} as [${shape}], expected ${image.type} [${image.shape}]`);
  expect(fill.length === channels, `fill: ${fill.length} numbers, expected one for each of ${channels} channels`);
  expect(Number.isInteger(target) && target >= -1 && target < classes, `target: ${target}, expected -1 to ${classes - 1}`);
  const whole = (...numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);
  const feeds = { [image.name]: new ort.Tensor(image.type, data, shape), target: whole(target) };
  feeds.fill = new ort.Tensor("float32", Float32Array.from(fill), [channels]);
  for (let batch = 0; card ? batch < card.batches.length : done < total; batch++) {
    signal?.throwIfAborted();
    const { map: part, uncovered, class: chosen, seen } = await session.run({ ...feeds, batches: whole(batch, 1) });
    part.data.forEach((score, place) => { if (!Number.isNaN(score)) map[place] = score, done++; });
    const last = !card && done === total ? await session.run({ ...feeds, batches: whole(0, batch + 1) }) : null;
    const drop = card ? dropOf(map, uncovered.data[chosen.data[0]], card, pixels) : last?.drop.data;
    result = { map, drop, uncovered: uncovered.data, class: chosen.data, seen: seen?.data, done, total }, onBatch?.(result);
    await new Promise((resolve) => setTimeout(resolve)); // lets the page draw, and cancel
  }
  return result;
}
