/** What the page asks of the offline part, which `offline/index.ts` and `offline/history.ts` export as functions. */

import type { ModelIdentity, PlantPrediction, Prediction } from "../answer";
import type { Diagnoser } from "../diagnoser";

export interface OfflineState {
  /** Whether this browser can run the model (WebAssembly, Cache Storage, a secure origin). */
  supported: boolean;
  /** The model on this device, null where there is none yet. */
  model: ModelIdentity | null;
  /** What the download takes or took; null where the server has no light model to give, or cannot be asked. */
  bytes: number | null;
  /** Whether the server offers another model than the one on this device; `download` fetches it. */
  newer: boolean;
}

/** `offline/index.ts` */
export interface Offline {
  offlineState(): Promise<OfflineState>;
  /** Null where the model is not on this device. */
  offlineDiagnoser(): Promise<Diagnoser | null>;
  /** What has arrived is kept: a download that broke goes on when it is asked for again. */
  download(onProgress: (doneBytes: number, totalBytes: number) => void, signal?: AbortSignal): Promise<void>;
  /** Takes the model off this device. */
  removeModel(): Promise<void>;
}

export type AnsweredBy = "server" | "device";

export interface PastResult {
  id: number;
  /** ISO 8601, UTC. */
  at: string;
  by: AnsweredBy;
  answer: Prediction | PlantPrediction;
  /** The photos as they were asked about: what is sent when there is a network again. */
  photos: Blob[];
  /** A small JPEG of the first photo. */
  thumbnail: Blob | null;
  /** Whether the server has it: at once where the server answered. */
  sent: boolean;
  /** What the server said of photos that this device answered about. */
  serverAnswer: Prediction | PlantPrediction | null;
  /** Why the server took them not, and never will. */
  refusal: { status: number; seen: string; expected: string } | null;
}

/** `offline/history.ts`: results on this device, in IndexedDB. */
export interface History {
  add(result: Omit<PastResult, "id" | "serverAnswer" | "refusal">): Promise<PastResult>;
  /** Newest first. */
  list(): Promise<PastResult[]>;
  remove(id: number): Promise<void>;
  /** All results as a ZIP file with a name: `results.json` and the photos. */
  exportAll(): Promise<File>;
  /**
   * Sends what the server does not have yet; how many were sent. Each is sent once: what the server has answered is
   * marked, and two pages do not send at a time.
   *
   * @throws Unreachable or Refused where not all could be sent; those that were stay marked.
   */
  sendPending(): Promise<number>;
  clear(): Promise<void>;
}
