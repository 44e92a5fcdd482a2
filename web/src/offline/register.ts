/** The service worker of this page (`sw.ts`), by which it opens without a network. */

/**
 * Nothing happens in browsers without service workers, nor on plain http.
 *
 * A newer page is fetched whole beside this one and takes over when the page is opened the next time: never while
 * somebody works with it.
 */
export async function registerServiceWorker(): Promise<void> {
  if (!("serviceWorker" in navigator)) return;
  const { serviceWorker } = navigator;
  const waiting = (await serviceWorker.getRegistration())?.waiting;
  if (waiting) {
    serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    waiting.postMessage("take over");
  } else {
    await serviceWorker.register("sw.js");
  }
}
