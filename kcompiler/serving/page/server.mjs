// What the page asks its server for; every question carries the token from the page's address.
import { eventReader } from "./events.mjs";

const token = location.hash.slice(1);

/** An answer of the server. Throws an Error with the server's own sentence where it refuses. */
async function ask(path, { method = "POST", headers = {}, ...rest } = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, headers: { ...headers, Authorization: `Bearer ${token}` }, ...rest });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Error("The server does not answer: it was ended, or restarted. Start it again, and open the address that it prints.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `The server answered with status ${answer.status}.`);
}

const json = (content) => ({ headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });

/** What the bundle is, for a patch, "HxW"; by default for the first. */
export const about = async (patch) => (await ask(`/api/model${patch ? `?patch=${patch}` : ""}`, { method: "GET" })).json();

/** Gives the server a picture. @param {File} file */
export async function give(file) {
  const kind = file.type.startsWith("image/") || file.type === "application/dicom" ? file.type : "application/octet-stream";
  const path = `/api/pictures?name=${encodeURIComponent(file.name)}`;
  return (await ask(path, { headers: { "Content-Type": kind }, body: file })).json();
}

/** A picture's pixels: "whole", or as the "model" sees them. @returns {Promise<ImageBitmap>} */
export async function pixels(picture, kind) {
  return createImageBitmap(await (await ask(`/api/pictures/${picture}/${kind}.png`, { method: "GET" })).blob());
}

/** The picture that shows through the patch; null where each position has a patch of its own. */
export async function fillPicture(asked) {
  const answer = await ask("/api/fill", json(asked));
  return answer.status === 204 ? null : createImageBitmap(await answer.blob());
}

export const outputs = async (asked, signal) => (await ask("/api/outputs", { ...json(asked), signal })).json();

export const saved = async (maps) => (await ask("/api/save", json({ maps }))).blob();

/** Asks for a map, and hands over each event of it; `signal` ends it. */
export async function map(asked, signal, onMap) {
  const answer = await ask("/api/maps", { ...json(asked), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(), events = eventReader();
  let ended = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    for (const { event, data } of events(value)) {
      if (event === "error") throw new Error(data.error);
      ended ||= data.final;
      onMap(data);
    }
  }
  if (!ended) throw new Error("The server ended before the map was finished.");
}
