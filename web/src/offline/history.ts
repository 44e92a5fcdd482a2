/** Results on this device, in IndexedDB: kept until their owner deletes them, sent when there is a network again. */

import { Refused } from "../diagnoser";
import { serverDiagnoser } from "../server";
import type { PastResult } from "./contract";
import { alone, keptIn } from "./database";
import { storedKey } from "./key";
import { type ZipEntry, zip } from "./zip";

const results = keptIn("cassava", "results", { keyPath: "id", autoIncrement: true });
const LOCK = "cassava-send";

/** Statuses by which the server says that it will never take these photos; all others may pass. */
const FINAL = [400, 413, 415, 422];

export async function add(result: Omit<PastResult, "id" | "serverAnswer" | "refusal">): Promise<PastResult> {
  const whole = { ...result, serverAnswer: null, refusal: null };
  const id = await results.ask("readwrite", (store) => store.add(whole));
  return { ...whole, id: id as number };
}

/** Newest first. */
export async function list(): Promise<PastResult[]> {
  const all = (await results.ask("readonly", (store) => store.getAll())) as PastResult[];
  return all.reverse();
}

export async function remove(id: number): Promise<void> {
  await results.ask("readwrite", (store) => store.delete(id));
}

export async function clear(): Promise<void> {
  await results.ask("readwrite", (store) => store.clear());
}

/** All results as a ZIP file: `results.json`, and the photos that it names. */
export async function exportAll(): Promise<File> {
  const entries: ZipEntry[] = [];
  const listed = (await list()).map(({ photos, thumbnail: _, ...result }) => {
    const at = new Date(result.at);
    const names = photos.map((photo, index) => `photos/${result.id}-${index + 1}${photo.type === "image/png" ? ".png" : ".jpg"}`);
    photos.forEach((content, index) => entries.push({ name: names[index]!, content, at }));
    return { ...result, photos: names };
  });
  const content = new Blob([JSON.stringify({ format: 1, results: listed }, null, 2)], { type: "application/json" });
  const packed = await zip([{ name: "results.json", content, at: new Date() }, ...entries]);
  return new File([packed], `cassava-results-${new Date().toISOString().slice(0, 10)}.zip`, { type: "application/zip" });
}

/** Sends what the server does not have yet, oldest first; see `History` in `contract.ts`. */
export function sendPending(): Promise<number> {
  sending ??= alone(LOCK, sendAll).finally(() => {
    sending = null;
  });
  return sending;
}

let sending: Promise<number> | null = null;

async function sendAll(): Promise<number> {
  let sent = 0;
  for (const { id } of (await list()).reverse()) {
    const result = (await results.ask("readonly", (store) => store.get(id))) as PastResult | undefined;
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
    await results.change(id, { sent: true, serverAnswer });
    return true;
  } catch (failure) {
    if (!(failure instanceof Refused) || !FINAL.includes(failure.status)) throw failure;
    await results.change(id, { refusal: { status: failure.status, seen: failure.seen, expected: failure.expected } });
    return false;
  }
}
