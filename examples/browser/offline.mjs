// Keeps the page for use without a network.

/** Registers the service worker.
 *
 * Where the host does not send the headers that threads need, the service worker adds them: then the page is loaded once more,
 * unless it is `inUse` by then.
 */
export async function keepOffline(inUse) {
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register("service-worker.js");
  await navigator.serviceWorker.ready;
  if (crossOriginIsolated || inUse() || sessionStorage.getItem("loaded again")) return;
  sessionStorage.setItem("loaded again", "yes"); // once: a browser may refuse threads all the same
  location.reload();
}
