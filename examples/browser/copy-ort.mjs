// Copies onnxruntime-web's files beside the page, which loads nothing from other hosts: npm run ort
import { copyFileSync, mkdirSync } from "node:fs";

const FILES = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];
const from = new URL("node_modules/onnxruntime-web/dist/", import.meta.url), to = new URL("ort/", import.meta.url);

mkdirSync(to, { recursive: true });
for (const name of FILES) copyFileSync(new URL(name, from), new URL(name, to));
console.log(`${FILES.join(", ")} copied to ort/`);
