// Runs the map model beside the page, which stays responsive. Messages in: { call, given }; out: { part }, { result }, { error }.
import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { evaluate, open } from "./heatmap.mjs";

let opened, running;
const bytesOf = async (file) => file && new Uint8Array(await file.arrayBuffer());

const CALLS = {
  async open({ model, weights, card }) {
    opened = await open(ort, { model: await bytesOf(model), weights: await bytesOf(weights), card });
    const { image, grid, pixels, classes, channels } = opened;
    return { image, grid, pixels, classes, channels, threads: ort.env.wasm.numThreads };
  },
  evaluate(given) {
    running = new AbortController();
    return evaluate(opened, given, { onBatch: (part) => postMessage({ part }), signal: running.signal });
  },
};

onmessage = async ({ data: { call, given } }) => {
  if (call === "cancel") return running?.abort();
  try {
    postMessage({ result: await CALLS[call](given) });
  } catch (error) {
    postMessage({ error: error.message ?? String(error), cancelled: error.name === "AbortError" });
  }
};
postMessage({ result: null }); // everything is loaded
