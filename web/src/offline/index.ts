/** Answers on this device, without a network, by the model that was downloaded before. */

import type { PlantPrediction, Prediction } from "../answer";
import { type Diagnoser, Refused } from "../diagnoser";
import { combinePhotos } from "./aggregate";
import { modelCard } from "./card";
import type { OfflineState } from "./contract";
import { WASM_TRANSFER_BYTES } from "./download";
import type { OfflineModel } from "./model";
import type { Asked, Question, Told } from "./questions";
import { ENGINE, MODEL_CACHE, WASM, addressOf, removeStored, storedModel } from "./store";

export { download } from "./download";

const FIRST_TIMEOUT_MS = 30_000; // a slow network, and a service that reads its model for the first time
const AGAIN_TIMEOUT_MS = 5000; // where there is a model already, a newer one is worth no longer wait

export async function offlineState(): Promise<OfflineState> {
  if (!isSupported()) return { supported: false, model: null, bytes: null, newer: false };
  const stored = await storedModel();
  const offer = (await modelCard(stored === null ? FIRST_TIMEOUT_MS : AGAIN_TIMEOUT_MS))?.offline ?? null;
  const newer = stored !== null && offer !== null && offer.sha256 !== stored.sha256;
  const modelBytes = (newer || stored === null ? offer : stored)?.bytes ?? null;
  return {
    supported: true,
    model: stored && identityOf(stored),
    bytes: modelBytes === null ? null : WASM_TRANSFER_BYTES + modelBytes,
    newer,
  };
}

function isSupported(): boolean {
  return isSecureContext && "caches" in window && "WebAssembly" in window && "OffscreenCanvas" in window;
}

function identityOf({ name, version, source }: OfflineModel) {
  return { name, version, source, path: "offline/model.onnx" };
}

/** Null where the model is not on this device. */
export async function offlineDiagnoser(): Promise<Diagnoser | null> {
  const model = isSupported() ? await storedModel() : null;
  if (!model) return null;
  const ask = (question: Question, signal?: AbortSignal) => asking(model).ask(question, signal);
  const one = async (photo: Blob, name: string, signal?: AbortSignal) =>
    (await ask({ kind: "photo", photo, name }, signal)) as Prediction;
  return {
    photo: (photo, signal) => one(photo, nameOf(photo, "photo.jpg"), signal),
    plant: async (photos, signal): Promise<PlantPrediction> => {
      if (photos.length > model.limits.max_files) {
        const seen = `more than ${model.limits.max_files} files in one request`;
        throw new Refused(413, seen, "fewer; send the others in another request");
      }
      const answers: Prediction[] = [];
      for (const [index, photo] of photos.entries()) answers.push(await one(photo, nameOf(photo, `${index}.jpg`), signal));
      return combinePhotos(answers, model);
    },
    heatmap: async (photo, classId, signal) =>
      (await ask({ kind: "heatmap", photo, name: nameOf(photo, "photo.jpg"), classId }, signal)) as Blob,
  };
}

export async function removeModel(): Promise<void> {
  current?.end();
  await removeStored();
}

/** As the server calls it: without folders, and not too long. */
function nameOf(photo: Blob, otherwise: string): string {
  const name = photo instanceof File ? photo.name : otherwise;
  return name.replaceAll("\\", "/").split("/").at(-1)!.replace(/[\p{C};]/gu, "_").slice(0, 120) || otherwise;
}

let current: Engine | null = null;

/** The worker of a model; the one before it ends. */
function asking(model: OfflineModel): Engine {
  if (!current || current.ended || current.model.sha256 !== model.sha256) {
    current?.end();
    current = new Engine(model);
  }
  return current;
}

interface Waiting {
  resolve: (answer: Prediction | Blob | null) => void;
  reject: (failure: unknown) => void;
}

/** A worker with a model in it, so that the page stays alive while a photo is looked at. */
class Engine {
  ended = false;
  private readonly worker = new Worker(ENGINE, { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private readonly opened: Promise<unknown>;
  private asked = 0;

  constructor(readonly model: OfflineModel) {
    this.worker.onmessage = ({ data }: MessageEvent<Told>) => this.hear(data);
    this.worker.onerror = ({ message }) => this.end(new Error(message || "the model's worker cannot be started"));
    const [modelAddress, wasmAddress] = [addressOf(model.url), WASM];
    this.opened = this.send({ kind: "open", model, cache: MODEL_CACHE, modelAddress, wasmAddress });
    this.opened.catch((failure: unknown) => this.end(failure));
  }

  async ask(question: Question, signal?: AbortSignal): Promise<Prediction | Blob | null> {
    signal?.throwIfAborted();
    await this.opened;
    const start = performance.now();
    const answer = await Promise.race([this.send(question), ...(signal ? [aborted(signal)] : [])]);
    performance.measure(`cassava-${question.kind}`, { start }); // for benchmarks/offline_parity.py
    return answer;
  }

  end(why: unknown = new Error("the model was taken off this device")): void {
    this.ended = true;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(why);
    this.waiting.clear();
  }

  private send(question: Question): Promise<Prediction | Blob | null> {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, question } satisfies Asked);
    });
  }

  private hear(told: Told): void {
    const waiting = this.waiting.get(told.id);
    this.waiting.delete(told.id);
    if ("answer" in told) waiting?.resolve(told.answer);
    else if ("refused" in told) waiting?.reject(new Refused(told.refused.status, told.refused.seen, told.refused.expected));
    else waiting?.reject(new Error(told.failed));
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}
