/** Who is asked: the server while it can be reached, else this device. */

import type { PlantPrediction, Prediction } from "./answer";
import { type Diagnoser, Refused, Unreachable } from "./diagnoser";
import type { AnsweredBy } from "./offline/contract";

export const MOST_TRIES = 4;
const WAIT_S = 5; // after a 503 that does not say how long
const LONGEST_WAIT_S = 30;

export interface Answered {
  answer: Prediction | PlantPrediction;
  /** As `PlantPrediction.more_leaves`, of a single photo too. */
  moreLeaves: number | null;
  by: AnsweredBy;
  /** Draws heatmaps of this answer. */
  diagnoser: Diagnoser;
}

export interface Asked {
  photos: Blob[];
  server: Diagnoser;
  device: () => Promise<Diagnoser | null>;
  online: boolean;
  signal: AbortSignal;
  onAsking: (by: AnsweredBy) => void;
  /** The server is busy; called with the seconds that are left. */
  onWait: (seconds: number) => void;
}

/** One answer about one plant. @throws Refused, Unreachable, or an AbortError. */
export async function ask(asked: Asked): Promise<Answered> {
  if (!asked.online) {
    const offline = await askDevice(asked);
    if (offline !== null) {
      return offline;
    }
  }
  try {
    return await askServer(asked);
  } catch (failure) {
    if (!isOutOfReach(failure)) {
      throw failure;
    }
    const offline = await askDevice(asked);
    if (offline === null) {
      throw failure;
    }
    return offline;
  }
}

async function askServer(asked: Asked): Promise<Answered> {
  for (let tries = 1; ; tries++) {
    asked.onAsking("server");
    try {
      return { ...(await put(asked.server, asked)), by: "server", diagnoser: asked.server };
    } catch (failure) {
      if (!isBusy(failure) || tries === MOST_TRIES || (await asked.device()) !== null) {
        throw failure;
      }
      const seconds = Math.min(failure.retryAfterS ?? WAIT_S, LONGEST_WAIT_S);
      await countDown(seconds, asked.onWait, asked.signal);
    }
  }
}

async function askDevice(asked: Asked): Promise<Answered | null> {
  const device = await asked.device();
  if (device === null) {
    return null;
  }
  asked.onAsking("device");
  return { ...(await put(device, asked)), by: "device", diagnoser: device };
}

/** A single photo is asked about as a plant too, since only that tells how many leaves would help. */
async function put(diagnoser: Diagnoser, { photos, signal }: Asked): Promise<Pick<Answered, "answer" | "moreLeaves">> {
  const plant = await diagnoser.plant(photos, signal);
  const [only, ...others] = plant.photos;
  return { answer: only !== undefined && others.length === 0 ? only : plant, moreLeaves: plant.more_leaves };
}

function isBusy(failure: unknown): failure is Refused {
  return failure instanceof Refused && failure.status === 503;
}

/** Whether this device may do what the server does not: it is away, broken or busy, and has not refused the photo. */
function isOutOfReach(failure: unknown): boolean {
  return failure instanceof Unreachable || (failure instanceof Refused && failure.status >= 500);
}

async function countDown(seconds: number, onWait: (seconds: number) => void, signal: AbortSignal): Promise<void> {
  for (let left = seconds; left > 0; left--) {
    onWait(left);
    await pause(1000, signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}
