/** Who answers about photos: the server (`server.ts`), or this device (`offline/`). */

import type { PlantPrediction, Prediction } from "./answer";

export interface Diagnoser {
  /** @throws Refused, or an AbortError when `signal` says so. */
  photo(photo: Blob, signal?: AbortSignal): Promise<Prediction>;
  plant(photos: Blob[], signal?: AbortSignal): Promise<PlantPrediction>;
  /** A PNG of the photo under a heatmap of one class. */
  heatmap(photo: Blob, classId: number, signal?: AbortSignal): Promise<Blob>;
}

/** An answer that is none: the API's status, and its `{"error", "expected"}`. */
export class Refused extends Error {
  override readonly name = "Refused";

  constructor(
    readonly status: number,
    readonly seen: string,
    readonly expected: string,
    /** After how many seconds the same may be asked again. */
    readonly retryAfterS: number | null = null,
  ) {
    super(`${seen}; expected ${expected}`);
  }
}

/** The server cannot be reached. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}
