// The options of an explanation: which class, and what covers.
const at = (id) => document.getElementById(id);
const LUMA = [0.299, 0.587, 0.114]; // of red, green, blue in a gray picture

/** Offers the classes of the opened model. */
export function offerClasses({ labels }, { classes }) {
  const names = Array.from({ length: classes }, (_, index) => labels[index] ?? `class ${index}`);
  at("target").replaceChildren(new Option("the largest", -1), ...names.map((name, index) => new Option(name, index)));
}

/** Shows the option that fits the model, a colour for pictures or numbers for images, at the mean of the preprocessing. */
export function colourFor({ preprocessing }, { image }) {
  const pictures = image.name === "picture";
  at("colour-option").hidden = !pictures;
  at("numbers-option").hidden = pictures;
  at("numbers").value = 0;
  if (!pictures || !preprocessing) return;
  const means = preprocessing.mean.map((mean) => Math.min(Math.max(Math.round(mean / preprocessing.scale), 0), 255));
  const colour = means.length !== 3 ? Array(3).fill(means[0]) : preprocessing.channel_order === "BGR" ? means.reverse() : means;
  at("colour").value = `#${colour.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}

/** What covers, a number a channel. Throws an Error if there are as many numbers as neither. */
export function fillOf({ image, channels }) {
  if (image.name === "picture") {
    const colour = [1, 3, 5].map((from) => parseInt(at("colour").value.slice(from, from + 2), 16));
    return channels === 1 ? [colour.reduce((sum, channel, index) => sum + LUMA[index] * channel, 0)] : colour;
  }
  const text = at("numbers").value.trim(), values = text.split(/[\s,;]+/).map(Number);
  if (text === "" || !values.every(Number.isFinite) || ![1, channels].includes(values.length))
    throw new Error(`"${text}" cannot cover: expected a number, or ${channels} numbers with commas between`);
  return values.length === 1 ? Array(channels).fill(values[0]) : values;
}
