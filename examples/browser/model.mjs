// An opened map model, in a worker of its own.

/** What a cancelled evaluation rejects with. */
export class Cancelled extends Error {}

export class MapModel {
  #worker;
  #loaded;

  constructor() {
    this.#worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
    this.#loaded = this.#answer();
  }

  #answer(onBatch) {
    return new Promise((resolve, reject) => {
      this.#worker.onerror = ({ message }) =>
        reject(new Error(`worker.mjs cannot run (${message ?? "a file of it is missing"}); npm run ort copies ort/ beside it`));
      this.#worker.onmessage = ({ data: { part, result, error, cancelled } }) => {
        if (part) onBatch(part);
        else if (error !== undefined) reject(cancelled ? new Cancelled(error) : new Error(error));
        else resolve(result);
      };
    });
  }

  async #ask(call, given, onBatch) {
    await this.#loaded;
    const answer = this.#answer(onBatch);
    this.#worker.postMessage({ call, given });
    return answer;
  }

  /** Opens the files: { model, weights } as File, card parsed. Resolves to what heatmap.mjs knows of the model, and threads. */
  open(files) {
    return this.#ask("open", files);
  }

  /** As `evaluate` of heatmap.mjs. Rejects with Cancelled after `cancel`. */
  evaluate(given, onBatch) {
    return this.#ask("evaluate", given, onBatch);
  }

  /** Ends the evaluation after the batch that is running. */
  cancel() {
    this.#worker.postMessage({ call: "cancel" });
  }

  /** Frees the model's memory. */
  close() {
    this.#worker.terminate();
  }
}
