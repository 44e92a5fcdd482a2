/** What the download leaves on this device, in Cache Storage: the model, its description, and what runs it. */

import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import engineUrl from "./engine?worker&url";
import type { OfflineModel } from "./model";

export const MODEL_CACHE = "cassava-model"; // sw.ts has the same name
export const DESCRIPTION = "offline/model.json";

/** Addresses of the files that run a model, in this version of the page. */
export const ENGINE = new URL(engineUrl, document.baseURI).href;
export const WASM = new URL(wasmUrl, document.baseURI).href;

/** The description of the model on this device; null unless all that it needs is there. */
export async function storedModel(): Promise<OfflineModel | null> {
  if (!(await caches.has(MODEL_CACHE))) return null;
  const cache = await caches.open(MODEL_CACHE);
  const description = await cache.match(addressOf(DESCRIPTION));
  if (!description) return null;
  const model = (await description.json()) as OfflineModel;
  const needed = [addressOf(model.url), ENGINE, WASM];
  const found = await Promise.all(needed.map((address) => cache.match(address, { ignoreVary: true })));
  return found.every(Boolean) ? model : null;
}

/** The whole address of a path of the service. */
export function addressOf(path: string): string {
  return new URL(path, document.baseURI).href;
}

/** Takes everything off this device but past results. */
export async function removeStored(): Promise<void> {
  await caches.delete(MODEL_CACHE);
}
