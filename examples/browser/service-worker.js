// Keeps the page's files for use without a network, and adds the headers with which browsers allow threads. Files come from the
// network where there is a connection, so that a new version of the page is not held back.
const CACHE = "occlusion-heat-map";
const FILES = [
  "./", "index.html", "page.css", "icon.svg", "page.mjs", "drawing.mjs", "files.mjs", "heatmap.mjs", "model.mjs", "offline.mjs",
  "options.mjs", "pictures.mjs", "result.mjs", "test-vector.mjs", "worker.mjs", "ort/ort.wasm.bundle.min.mjs",
  "ort/ort-wasm-simd-threaded.wasm",
].map((name) => new URL(name, self.registration.scope).href);
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  // as the page's own, for the workers too
  "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    + "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'",
};

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

function withHeaders(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return withHeaders(response);
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (!kept) throw error;
    return withHeaders(kept);
  }
}

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && FILES.includes(url.split(/[?#]/)[0])) event.respondWith(answer(event.request));
});
