// The settings that all pictures share.
const at = (id) => document.getElementById(id);
const FILLS = {
  "": "zero in model units", colour: "a colour", mean: "the picture's mean colour", blur: "the picture, blurred", noise: "noise like the picture",
  "patch-mean": "the mean of what it covers", marginal: "other places of the picture (slow)", conditional: "what its surroundings suggest (slow)",
};
const PAUSE = 350; // ms without a change before maps are made again

const option = (text, value) => new Option(text, value);

/** Offers what the bundle has. @param about what the server tells of it. */
export function offer(about) {
  at("target").append(...about.classes.map((name, index) => option(name, String(index))));
  const after = about.squashing ? `output (after ${about.squashing.toLowerCase()})` : "output";
  at("score").append(...(about.has_logits ? [option("logit", "logit")] : []), option(after, "output"));
  at("score-option").hidden = !about.has_logits;
  const fills = ["", ...(about.takes === "pictures" ? ["colour"] : []), ...about.fills];
  at("fill").append(...fills.map((name) => option(FILLS[name] ?? name, name)));
  at("patch").append(...about.patches.map((patch) => option(patch.join(" × "), patch.join("x"))));
  at("patch").value = about.patch.join("x");
  at("patch-option").hidden = about.patches.length < 2;
  offerQuality(about);
}

/** Offers the plans that the bundle is tuned for with a patch. */
export function offerQuality(about) {
  at("quality").replaceChildren(option("exact", ""));
  about.tuned.forEach((plan, index) => {
    const promise = plan.promised ? `on ${Math.round(100 * plan.share)}% of images` : "not promised";
    at("quality").append(option(`SSIM ${plan.ssim}, ${promise}`, String(index)));
  });
  at("settings").dataset.tuned = JSON.stringify(about.tuned);
  follow();
}

const planOf = () => (at("quality").value === "" ? null : JSON.parse(at("settings").dataset.tuned)[Number(at("quality").value)]);

function colour() {
  return [1, 3, 5].map((from) => parseInt(at("colour").value.slice(from, from + 2), 16));
}

/** What the server takes of the settings, without a picture. */
export function covering({ channels, patch }) {
  const fill = at("fill").value, [red, green, blue] = colour();
  const gray = 0.299 * red + 0.587 * green + 0.114 * blue;
  return {
    fill: fill === "" ? null : fill !== "colour" ? fill : channels === 1 ? [gray] : [red, green, blue],
    score: at("score").value || "auto", patch,
  };
}

/** The settings of a map of a whole picture. */
export function whole() {
  const target = at("target").value, budget = at("budget").valueAsNumber, plan = planOf();
  return {
    stride: at("stride").valueAsNumber, target: target === "" ? null : Number(target), quality: plan?.ssim ?? null,
    budget: Number.isFinite(budget) ? budget : null,
  };
}

/** The settings of a map of a box: always exact. */
export const boxed = () => ({ ...whole(), stride: at("box-stride").valueAsNumber, quality: null, budget: null });

function follow() {
  const plan = planOf();
  at("colour-option").hidden = at("fill").value !== "colour";
  at("stride").disabled = plan !== null;
  if (plan) Object.assign(at("stride"), { value: plan.stride });
  if (plan && plan.score !== at("score").value) at("score").value = plan.score;
  at("settings-note").textContent = plan ? `The plan is tuned for stride ${plan.stride} and the ${plan.score}. Boxes are exact.` : "";
}

/** Calls `chosen`, with "HxW", when another patch is chosen. */
export function listenToPatch(chosen) {
  at("patch").addEventListener("change", () => chosen(at("patch").value));
}

/** Calls `changed` when the settings have changed, and are valid. */
export function listen(changed) {
  let waiting = 0;
  at("settings").addEventListener("submit", (event) => event.preventDefault());
  at("settings").addEventListener("input", (event) => {
    if (!event.target.name) return;
    follow();
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (at("settings").reportValidity()) changed();
    }, PAUSE);
  });
  follow();
}
