/** Results on this device, in IndexedDB: kept until their owner deletes them, sent when there is a network again. */

import { Refused } from "../diagnoser";
import { serverDiagnoser } from "../server";
import type { PastResult } from "./contract";
import { storedKey } from "./key";
import { type ZipEntry, zip } from "./zip";

const DATABASE = "cassava";
const RESULTS = "results";
const LOCK = "cassava-send";

/** Statuses by which the server says that it will never take these photos; all others may pass. */
const FINAL = [400, 413, 415, 422];

export async function add(result: Omit<PastResult, "id" | "serverAnswer" | "refusal">): Promise<PastResult> {
  const whole = { ...result, serverAnswer: null, refusal: null };
  const id = await inStore("readwrite", (store) => store.add(whole));
  return { ...whole, id: id as number };
}

/** Newest first. */
export async function list(): Promise<PastResult[]> {
  const all = (await inStore("readonly", (store) => store.getAll())) as PastResult[];
  return all.reverse();
}

export async function remove(id: number): Promise<void> {
  await inStore("readwrite", (store) => store.delete(id));
}

export async function clear(): Promise<void> {
  await inStore("readwrite", (store) => store.clear());
}

/** All results as a ZIP file: `results.json`, and the photos that it names. */
export async function exportAll(): Promise<File> {
  const entries: ZipEntry[] = [];
  const results = (await list()).map(({ photos, thumbnail: _, ...result }) => {
    const at = new Date(result.at);
    const names = photos.map((photo, index) => `photos/${result.id}-${index + 1}${photo.type === "image/png" ? ".png" : ".jpg"}`);
    photos.forEach((content, index) => entries.push({ name: names[index]!, content, at }));
    return { ...result, photos: names };
  });
  const content = new Blob([JSON.stringify({ format: 1, results }, null, 2)], { type: "application/json" });
  const packed = await zip([{ name: "results.json", content, at: new Date() }, ...entries]);
  return new File([packed], `cassava-results-${new Date().toISOString().slice(0, 10)}.zip`, { type: "application/zip" });
}

/** Sends what the server does not have yet, oldest first; see `History` in `contract.ts`. */
export function sendPending(): Promise<number> {
  sending ??= alone(sendAll).finally(() => {
    sending = null;
  });
  return sending;
}

let sending: Promise<number> | null = null;

/** Not at the same time in two pages. */
function alone(work: () => Promise<number>): Promise<number> {
  const locks = globalThis.navigator?.locks as LockManager | undefined;
  return locks ? locks.request(LOCK, work) : work();
}

async function sendAll(): Promise<number> {
  let sent = 0;
  for (const { id } of (await list()).reverse()) {
    const result = (await inStore("readonly", (store) => store.get(id))) as PastResult | undefined;
    if (!result || result.sent || result.refusal || result.photos.length === 0) continue;
    if (await send(result)) sent++;
  }
  return sent;
}

/** Whether the server took it. */
async function send({ id, photos }: PastResult): Promise<boolean> {
  const server = serverDiagnoser({ key: storedKey() });
  try {
    const serverAnswer = photos.length === 1 ? await server.photo(photos[0]!) : await server.plant(photos);
    await change(id, { sent: true, serverAnswer });
    return true;
  } catch (failure) {
    if (!(failure instanceof Refused) || !FINAL.includes(failure.status)) throw failure;
    await change(id, { refusal: { status: failure.status, seen: failure.seen, expected: failure.expected } });
    return false;
  }
}

/** In one transaction, and only if it is still there. */
async function change(id: number, changes: Partial<PastResult>): Promise<void> {
  const store = await opened("readwrite");
  const result = (await done(store.get(id))) as PastResult | undefined;
  if (result) await done(store.put({ ...result, ...changes }));
}

async function inStore(mode: IDBTransactionMode, ask: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  return done(ask(await opened(mode)));
}

let database: Promise<IDBDatabase> | null = null;

async function opened(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  database ??= openDatabase().catch((failure: unknown) => {
    database = null;
    throw failure;
  });
  return (await database).transaction(RESULTS, mode, { durability: "strict" }).objectStore(RESULTS);
}

async function openDatabase(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(RESULTS, { keyPath: "id", autoIncrement: true });
  const found = (await done(request)) as IDBDatabase;
  found.onversionchange = () => found.close(); // a newer page in another tab
  found.onclose = () => {
    database = null;
  };
  return found;
}

function done(request: IDBRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
