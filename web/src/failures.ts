/** Why there is no answer, in plain words. */

import { Refused, Unreachable } from "./diagnoser";
import type { PageWords } from "./texts";

export type FailureKind = "network" | "large" | "kind" | "damaged" | "busy" | "key" | "other";

export interface Failure {
  kind: FailureKind;
  /** What the server said, in English; null where the plain words say it all. */
  detail: string | null;
}

const KINDS: Record<number, FailureKind> = {
  401: "key",
  408: "network",
  413: "large",
  415: "kind",
  422: "damaged",
  502: "network",
  503: "busy",
  504: "busy",
};

export function describeFailure(failure: unknown): Failure {
  if (failure instanceof Unreachable) {
    return { kind: "network", detail: null };
  }
  if (!(failure instanceof Refused)) {
    return { kind: "other", detail: String(failure) };
  }
  const kind = KINDS[failure.status] ?? "other";
  return { kind, detail: kind === "damaged" || kind === "other" ? failure.seen : null };
}

export function failureWords(page: PageWords, kind: FailureKind): { title: string; next: string } {
  return { title: page.failures[kind], next: page.failures[`${kind}_next`] };
}
