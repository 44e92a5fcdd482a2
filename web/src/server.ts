/** Answers of the server, over its API. */

import type { PlantPrediction, Prediction } from "./answer";
import { type Diagnoser, Refused, Unreachable } from "./diagnoser";

export const KEY_HEADER = "X-API-Key";
const TIMEOUT_MS = 120_000; // an upload of 20 MB at 1.4 Mbit/s

export interface ServerOptions {
  /** The service's key, where it has one. */
  key: string | null;
  /** What part of the photos has been sent, in [0, 1]. */
  onSent?: (part: number) => void;
}

export function serverDiagnoser({ key, onSent }: ServerOptions): Diagnoser {
  const ask = (path: string, field: string, photos: Blob[], signal?: AbortSignal) => {
    const form = new FormData();
    photos.forEach((photo, index) => form.append(field, photo, photo instanceof File ? photo.name : `${index}.jpg`));
    return post(path, form, key, { onSent, signal });
  };
  return {
    photo: async (photo, signal) => JSON.parse(await (await ask("predict", "file", [photo], signal)).text()) as Prediction,
    plant: async (photos, signal) =>
      JSON.parse(await (await ask("predict/plant", "files", photos, signal)).text()) as PlantPrediction,
    heatmap: (photo, classId, signal) => ask(`explain?class_id=${classId}`, "file", [photo], signal),
  };
}

interface Sending {
  onSent?: ((part: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * By XMLHttpRequest, since `fetch` does not tell how much of an upload has been sent.
 *
 * @throws Refused, Unreachable, or an AbortError when `signal` says so.
 */
export function post(path: string, body: FormData | Blob, key: string | null, { onSent, signal }: Sending = {}): Promise<Blob> {
  const request = new XMLHttpRequest();
  return new Promise<Blob>((resolve, reject) => {
    signal?.throwIfAborted();
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.open("POST", new URL(path, document.baseURI));
    request.responseType = "blob";
    request.timeout = TIMEOUT_MS;
    if (key !== null) {
      request.setRequestHeader(KEY_HEADER, key);
    }
    request.upload.onprogress = ({ loaded, total }) => onSent?.(total > 0 ? loaded / total : 0);
    request.onabort = () => reject(signal?.reason);
    request.onerror = request.ontimeout = () => reject(new Unreachable(path));
    request.onload = () => {
      const reply = request.response as Blob;
      if (request.status === 200) {
        resolve(reply);
      } else {
        reply.text().then((text) => reject(refusal(request.status, text, request.getResponseHeader("Retry-After"))), reject);
      }
    };
    request.send(body);
  });
}

/** What a reply that is no answer says; a proxy's page instead of our JSON is told by its status alone. */
export function refusal(status: number, body: string, retryAfter: string | null): Refused {
  const seconds = retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
  try {
    const { error, expected } = JSON.parse(body) as { error: unknown; expected: unknown };
    if (typeof error === "string" && typeof expected === "string") {
      return new Refused(status, error, expected, seconds);
    }
  } catch {
    // told below
  }
  return new Refused(status, `HTTP status ${status}`, "an answer of the service", seconds);
}
