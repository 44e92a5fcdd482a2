/**
 * The service worker: opens the page without a network, from files that were fetched together.
 *
 * The page's own files come from this device first, so that they always fit one another; a newer page is fetched
 * whole beside the old one, and takes over when its owner says so or all its tabs are closed. The API is never
 * touched: what the server says comes from the server.
 */

declare const self: ServiceWorkerGlobalScope;

/** Set when the page is built (`precache.ts`): names of files and digests of their content. */
declare const __PRECACHE__: [name: string, digest: string][];
/** Files that only a device with the model needs. */
declare const __ON_DEMAND__: string[];

const MODEL_CACHE = "cassava-model"; // offline/store.ts has the same name
const SHELL_PREFIX = "cassava-shell-";
const SHELL_CACHE = SHELL_PREFIX + digestOf(JSON.stringify(__PRECACHE__));
const SHELL = new Set(__PRECACHE__.map(([name]) => addressOf(name)));
const ON_DEMAND = new Set(__ON_DEMAND__.map(addressOf));
const PAGE = addressOf("index.html");

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", ({ data }) => {
  if (data === "take over") void self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const address = request.url.split(/[?#]/)[0]!;
  if (request.method !== "GET") return;
  if (request.mode === "navigate" && (address === self.registration.scope || address === PAGE)) {
    event.respondWith(kept(SHELL_CACHE, PAGE, request));
  } else if (SHELL.has(address)) {
    event.respondWith(kept(SHELL_CACHE, address, request));
  } else if (ON_DEMAND.has(address)) {
    event.respondWith(kept(MODEL_CACHE, address, request));
  }
});

/** All or nothing: where a file cannot be fetched, the page before this one stays. */
async function install(): Promise<void> {
  const cache = await caches.open(SHELL_CACHE);
  await Promise.all([...SHELL].map((address) => fetchInto(cache, address)));
  if (!(await caches.has(MODEL_CACHE))) return;
  const models = await caches.open(MODEL_CACHE);
  if (!(await models.match(addressOf("offline/model.json")))) return;
  for (const address of ON_DEMAND) {
    if (!(await models.match(address, { ignoreVary: true }))) await fetchInto(models, address);
  }
}

async function fetchInto(cache: Cache, address: string): Promise<void> {
  const reply = await fetch(address, { cache: "no-cache" });
  if (!reply.ok) throw new Error(`${address}: status ${reply.status}`);
  await cache.put(address, reply);
}

/** What older pages left goes; the model and past results stay. */
async function activate(): Promise<void> {
  const names = (await caches.keys()).filter((name) => name.startsWith(SHELL_PREFIX) && name !== SHELL_CACHE);
  await Promise.all(names.map((name) => caches.delete(name)));
  if (await caches.has(MODEL_CACHE)) {
    const models = await caches.open(MODEL_CACHE);
    const old = (await models.keys()).filter(({ url }) => url.startsWith(addressOf("assets/")) && !ON_DEMAND.has(url));
    await Promise.all(old.map((request) => models.delete(request)));
  }
  await self.clients.claim();
}

/** From this device, else from the network. */
async function kept(cache: string, address: string, request: Request): Promise<Response> {
  const found = await caches.match(address, { cacheName: cache, ignoreVary: true });
  return found ?? fetch(request);
}

function addressOf(name: string): string {
  return new URL(name, self.registration?.scope ?? self.location.href).href;
}

/** FNV-1a, 32 bits: names a version, protects nothing. */
function digestOf(text: string): string {
  let digest = 0x811c9dc5;
  for (let place = 0; place < text.length; place++) digest = Math.imul(digest ^ text.charCodeAt(place), 0x01000193);
  return (digest >>> 0).toString(16);
}

export {};
