/** What the service says of itself: `GET /model`. */

import { keyHeaders } from "./key";

/** What the page needs of it. */
export interface ModelCard {
  /** The model for phones, null where there is none. */
  offline: { bytes: number; sha256: string } | null;
  /** Whether photos and corrections are taken. */
  feedback: boolean;
}

const FEEDBACK_ITEM = "cassava-feedback";

/** Null where the service cannot be asked. */
export async function modelCard(timeoutMs: number): Promise<ModelCard | null> {
  if (!navigator.onLine) return null;
  try {
    const address = new URL("model", document.baseURI);
    const reply = await fetch(address, { headers: keyHeaders(), signal: AbortSignal.timeout(timeoutMs) });
    if (!reply.ok) return null;
    const card = (await reply.json()) as ModelCard;
    localStorage.setItem(FEEDBACK_ITEM, String(card.feedback));
    return card;
  } catch {
    return null; // no network
  }
}

/** Whether the service takes feedback; what it said the last time where it cannot be asked. */
export async function takesFeedback(timeoutMs = 5000): Promise<boolean> {
  return (await modelCard(timeoutMs))?.feedback ?? localStorage.getItem(FEEDBACK_ITEM) === "true";
}
