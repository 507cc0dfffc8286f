// The page: what the bundle is, the settings, one picture or two.
import { onMissed } from "./drops.mjs";
import { Panel } from "./panel.mjs";
import * as server from "./server.mjs";
import * as settings from "./settings.mjs";

const at = (id) => document.getElementById(id);
const MANY = 4; // classes that are named in the page's head

function tell({ model, image, patches, classes, device, resize }) {
  const [channels, height, width] = image;
  const named = classes.length > MANY ? "" : `: ${classes.join(", ")}`;
  const how = { stretch: ", whole pictures stretched to it", crop: ", the middle of pictures" }[resize] ?? "";
  at("model").textContent = model;
  at("facts").textContent = `The model sees ${height} × ${width} pixels${how}, ${channels === 1 ? "gray" : `${channels} channels`}. `
    + `Patch ${patches.map((patch) => patch.join(" × ")).join(" or ")} pixels, set when it was compiled. ${classes.length} classes${named}. Runs on this machine (${device}).`;
  document.title = `${model}: occlusion heat maps`;
}

function start(about) {
  const panels = [];
  const shown = () => panels.filter((panel) => !panel.root.hidden && panel.drop);
  const drawn = (panel) => {
    const others = at("same-colours").checked ? shown() : [panel];
    const limit = Math.max(...others.map((one) => one.limit));
    for (const one of others) one.draw(limit);
  };
  const moved = (panel, place) => {
    if (at("same-place").checked) for (const one of shown()) if (one !== panel) one.move(place, true);
  };
  const add = () => {
    const panel = new Panel(about, { drawn: () => drawn(panel), moved: (place) => moved(panel, place) });
    panels.push(panel);
    at("panels").append(panel.root);
  };
  add();
  at("compare").addEventListener("change", ({ target }) => {
    if (target.checked && panels.length < 2) add();
    at("panels").classList.toggle("two", target.checked);
    for (const option of document.querySelectorAll(".for-two")) option.hidden = !target.checked;
    panels[1].root.hidden = !target.checked;
    if (target.checked) panels[1].repatch();
    else panels[1].stop();
  });
  at("same-colours").addEventListener("change", () => shown().forEach(drawn));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => panels.forEach((panel) => panel.stage.drawBar()));
  settings.listenToPatch(async (patch) => {
    try {
      Object.assign(about, await server.about(patch));
      at("failure").textContent = "";
    } catch (error) {
      at("failure").textContent = error.message;
    }
    settings.offerQuality(about);
    panels.filter((panel) => !panel.root.hidden).forEach((panel) => panel.repatch());
  });
  settings.listen(() => panels.filter((panel) => !panel.root.hidden).forEach((panel) => panel.restart()));
  onMissed((file) => (panels.find((panel) => !panel.root.hidden && !panel.given) ?? panels[0]).open(file));
}

try {
  const about = await server.about();
  tell(about);
  settings.offer(about);
  start(about);
} catch (error) {
  at("failure").textContent = error.message;
  at("settings").hidden = true;
}
