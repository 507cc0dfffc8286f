// Numbers and states in words.
import { short } from "./drawing.mjs";
/** @typedef {import("./events.mjs").HeatMap} HeatMap */

/** What a score is called. */
export const SCORES = { logit: "logit", output: "output", drop: "drop" };

/** A number in few digits. */
export const number = short;

/** A number with its sign. */
export const signed = (value) => (value > 0 ? `+${short(value)}` : short(value));

/** Seconds, in few digits. */
export const seconds = (value) => (value < 9.95 ? `${value.toFixed(1)} s` : value < 90 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`);

const count = (number) => number.toLocaleString("en");

/** How a score compares with the uncovered one. */
export const change = (drop) => (drop === 0 ? "unchanged" : drop < 0 ? `higher by ${short(-drop)}` : `lower by ${short(drop)}`);

/** What is explained. @param {HeatMap} map */
export const title = (map) => `${map.label}: ${SCORES[map.score]} ${short(map.unoccluded)} uncovered`;

/** What the colours stand for. @param {HeatMap} map */
export const unit = (map) => `Colours: how far the ${SCORES[map.score]} falls when covered`;

/** How far a map is. @param {HeatMap} map */
export function state(map) {
  const all = map.scores.length;
  if (!map.final) {
    const left = map.remaining === null ? "" : `, about ${seconds(map.remaining)} left`;
    return `${count(map.evaluated)} of ${count(map.most)} positions evaluated${left}. Until then the rest of the map is estimated.`;
  }
  if (map.exact) return `Exact: all ${count(all)} positions evaluated, in ${seconds(map.seconds)}.`;
  const reason = map.complete ? "by the tuned plan" : "when the time was over";
  return `Approximate: ${count(map.evaluated)} of ${count(all)} positions evaluated ${reason}, in ${seconds(map.seconds)}; `
    + `the others are estimated${map.variant === "exact" ? "" : `, by the approximate variant ${map.variant}`}.`;
}

/** The map in a sentence, for those who do not see it. @param {HeatMap} map */
export function strongest(map) {
  const drops = Array.from(map.scores, (score) => (map.score === "drop" ? score : map.unoccluded - score));
  const best = drops.reduce((most, drop, index) => (drop > drops[most] || Number.isNaN(drops[most]) ? index : most), 0);
  if (!(drops[best] > 0)) return "the score falls nowhere";
  const [y, x] = [map.ys[Math.floor(best / map.xs.length)], map.xs[best % map.xs.length]];
  return `the score falls most, by ${short(drops[best])}, with the patch at row ${y}, column ${x}`;
}
