/** Fetching the model and what runs it, with progress; what has arrived is kept, so that the next try goes on. */

import { Refused, Unreachable } from "../diagnoser";
import { refusal } from "../server";
import { keyHeaders } from "./key";
import { type OfflineModel, isUnderstood } from "./model";
import { DESCRIPTION, ENGINE, MODEL_CACHE, WASM, addressOf } from "./store";

/** Set when the page is built (`engine-files.ts`): the size of ONNX Runtime's file here, and as it travels. */
declare const __WASM_BYTES__: number;
declare const __WASM_TRANSFER_BYTES__: number;
const WASM_BYTES = typeof __WASM_BYTES__ === "number" ? __WASM_BYTES__ : 0;
export const WASM_TRANSFER_BYTES = typeof __WASM_TRANSFER_BYTES__ === "number" ? __WASM_TRANSFER_BYTES__ : 0;

type Progress = (doneBytes: number, totalBytes: number) => void;

/**
 * Brings the offered model onto this device, in place of an older one.
 *
 * @throws Refused where the service offers none, Unreachable, or an AbortError when `signal` says so.
 */
export async function download(onProgress: Progress, signal?: AbortSignal): Promise<void> {
  const cache = await caches.open(MODEL_CACHE);
  const description = await ask(DESCRIPTION, { cache: "no-cache" }, signal);
  const model = (await description.clone().json()) as OfflineModel;
  if (!isUnderstood(model)) {
    throw new Refused(501, "a model that this version of the page does not know", "the newest page; load it again");
  }
  // What travels is smaller than what is unpacked of it: the bar moves by what travels, or nearly so.
  const total = WASM_TRANSFER_BYTES + model.bytes;
  onProgress(0, total);
  await fetchEngine(cache, (part) => onProgress(part * WASM_TRANSFER_BYTES, total), signal);
  await fetchModel(cache, model, (part) => onProgress(WASM_TRANSFER_BYTES + part * model.bytes, total), signal);
  await cache.put(addressOf(DESCRIPTION), description); // last: from now on the new model answers
  await removeOthers(cache, model);
  await navigator.storage?.persist?.();
}

type PartDone = (part: number) => void;

async function fetchEngine(cache: Cache, onPart: PartDone, signal?: AbortSignal): Promise<void> {
  for (const [address, bytes] of [[ENGINE, 0], [WASM, WASM_BYTES]] as const) {
    if (await cache.match(address, { ignoreVary: true })) continue;
    const reply = await ask(address, {}, signal);
    const parts: Uint8Array<ArrayBuffer>[] = [];
    await read(reply, parts, signal, (done) => onPart(bytes > 0 ? Math.min(done / bytes, 1) : 0));
    await cache.put(address, stored(parts, reply.headers));
  }
  onPart(1);
}

async function fetchModel(cache: Cache, model: OfflineModel, onPart: PartDone, signal?: AbortSignal): Promise<void> {
  const address = addressOf(model.url);
  if (await cache.match(address)) return onPart(1);
  const partly = `${address}&partly`;
  const before = await cache.match(partly);
  const parts = before ? [new Uint8Array(await before.arrayBuffer())] : [];
  const start = sizeOf(parts);
  try {
    if (start < model.bytes) {
      const range: Record<string, string> = start > 0 ? { Range: `bytes=${start}-`, "If-Range": `"${model.sha256}"` } : {};
      const reply = await ask(address, { headers: range, cache: "no-store" }, signal);
      if (reply.status !== 206) parts.length = 0;
      await read(reply, parts, signal, (done) => onPart(done / model.bytes));
    }
  } catch (failure) {
    if (parts.length > 0) await cache.put(partly, stored(parts));
    throw failure;
  }
  await cache.delete(partly);
  if ((await sha256(parts)) !== model.sha256) {
    throw new Refused(422, "a model file that was damaged on its way", "the same bytes as the service has; try again");
  }
  await cache.put(address, stored(parts));
}

interface AskOptions {
  headers?: Record<string, string>;
  cache?: RequestCache;
}

/** A reply of the service that is one. */
async function ask(path: string, options: AskOptions, signal?: AbortSignal): Promise<Response> {
  let reply: Response;
  try {
    const headers = { ...options.headers, ...keyHeaders() };
    reply = await fetch(addressOf(path), { ...options, headers, signal: signal ?? null });
  } catch (failure) {
    signal?.throwIfAborted();
    throw failure instanceof TypeError ? new Unreachable(path) : failure;
  }
  if (!reply.ok) throw refusal(reply.status, await reply.text(), reply.headers.get("Retry-After"));
  return reply;
}

/** Appends to `parts` what arrives; `onBytes` is told how much all of them have. */
async function read(
  reply: Response,
  parts: Uint8Array<ArrayBuffer>[],
  signal: AbortSignal | undefined,
  onBytes: (done: number) => void,
): Promise<void> {
  const reader = reply.body?.getReader();
  let done = sizeOf(parts);
  try {
    for (let next = await reader?.read(); next && !next.done; next = await reader?.read()) {
      parts.push(next.value);
      done += next.value.length;
      onBytes(done);
    }
  } catch (failure) {
    signal?.throwIfAborted();
    throw failure instanceof TypeError ? new Unreachable(reply.url) : failure;
  }
}

function sizeOf(parts: Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

/** As a cache keeps it; the headers of a script are its safety. */
function stored(parts: Uint8Array<ArrayBuffer>[], from?: Headers): Response {
  const headers = new Headers(from);
  for (const ofTransfer of ["Content-Encoding", "Content-Length"]) headers.delete(ofTransfer);
  return new Response(new Blob(parts), { headers });
}

async function sha256(parts: Uint8Array<ArrayBuffer>[]): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Older models, and what is left of downloads that were given up. */
async function removeOthers(cache: Cache, model: OfflineModel): Promise<void> {
  const models = (await cache.keys()).filter(({ url }) => url.startsWith(addressOf("offline/model.onnx")));
  const others = models.filter(({ url }) => url !== addressOf(model.url));
  await Promise.all(others.map((request) => cache.delete(request)));
}
