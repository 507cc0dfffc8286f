// Server-Sent Events out of the body of an answer, and the numbers in them.

/** Splits a stream of text into events.
 *
 * @returns {(text: string) => { event: string, data: any }[]} takes the next piece, and gives the events that it completes.
 */
export function eventReader() {
  let rest = "";
  return (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop() ?? "";
    return blocks.map((block) => {
      const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      return { event: fields.event, data: JSON.parse(fields.data) };
    });
  };
}

/** The bytes of a text in base64. @param {string} text */
export const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/**
 * A map as the page keeps it: the event with its numbers unpacked.
 *
 * @typedef {object} HeatMap
 * @property {string} name by which the server keeps it
 * @property {boolean} final @property {boolean} exact @property {boolean} complete
 * @property {number} target @property {string} label @property {string} score "logit", "output" or "drop"
 * @property {number} unoccluded the score of the uncovered picture
 * @property {number[]} ys @property {number[]} xs corners of the patch, in pixels of the model's image
 * @property {[number, number]} patch @property {[number, number]} image (height, width)
 * @property {number} seconds @property {number | null} remaining @property {number} evaluated @property {number} most
 * @property {string} variant @property {string} method @property {string[]} warnings
 * @property {Float32Array} scores [rows * cols] @property {Uint8Array} sampled 1 where the model was evaluated
 */

/** @returns {HeatMap} */
export function heatMapOf(data) {
  return { ...data, scores: new Float32Array(bytesOf(data.scores).buffer), sampled: bytesOf(data.sampled) };
}
