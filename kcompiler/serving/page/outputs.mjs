// The scores of the classes, uncovered and with the patch at a place.
import { short } from "./drawing.mjs";
import { SCORES, signed } from "./words.mjs";

const MOST = 8; // classes that are shown, beside the one explained

/** Shows scores in a table. @param told what the server tells; `target` is the class explained. */
export function showOutputs(table, told, classes, target) {
  const { uncovered, covered } = told;
  const ranked = uncovered.map((_, index) => index).sort((a, b) => (uncovered[b] ?? -Infinity) - (uncovered[a] ?? -Infinity));
  const shown = ranked.slice(0, MOST);
  if (!shown.includes(target)) shown.push(target);
  shown.sort((a, b) => a - b);
  const more = classes.length - shown.length;
  table.caption.textContent = `${more > 0 ? `Largest of ${classes.length} classes` : "All classes"}, ${SCORES[told.score]}`;
  table.tBodies[0].replaceChildren(...shown.map((index) => rowOf(classes[index], uncovered[index], covered?.[index], index === target)));
}

function rowOf(name, before, after, explained) {
  const row = document.createElement("tr"), header = document.createElement("th");
  header.scope = "row";
  header.textContent = name;
  row.append(header);
  if (explained) {
    row.className = "explained";
    header.append(Object.assign(document.createElement("span"), { className: "tag", textContent: "explained" }));
  }
  const known = typeof before === "number" && typeof after === "number", change = known ? after - before : 0;
  const texts = [textOf(before), textOf(after), known ? signed(change) : "\u2013"];
  for (const text of texts) row.insertCell().textContent = text;
  row.lastElementChild.className = change < 0 ? "falls" : change > 0 ? "rises" : "";
  return row;
}

const textOf = (value) => (typeof value === "number" ? short(value) : "\u2013");
