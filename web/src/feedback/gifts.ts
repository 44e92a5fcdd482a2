/**
 * Photos and words that people agreed to give, in IndexedDB: sent when the service can be reached, taken back on request.
 *
 * A gift is on this device before it is sent, and its photos stay until the service has acknowledged them. What tells
 * the gift's owner, a random word, is kept as long as the gift, since it alone can have it deleted.
 */

import { Refused, Unreachable } from "../diagnoser";
import { alone, keptIn } from "../offline/database";
import { storedKey } from "../offline/key";
import { post } from "../server";
import type { Given, Said } from "./said";

export interface Gift {
  /** A random word: the contributor of all its photos, and with a number behind it the receipt of each. */
  id: string;
  /** ISO 8601, UTC. */
  at: string;
  said: Said;
  /** A small JPEG of the first photo. */
  thumbnail: Blob | null;
  /** What is to be sent; empty when the service has all, or when it is to be deleted. */
  given: Given[];
  /** How many of `given` the service has acknowledged. */
  sent: number;
  /** Whether the service may have some of it. */
  tried: boolean;
  kept: boolean;
  /** What the service said when it would never take it. */
  refusal: string | null;
  /** Its owner wants it deleted; it goes when the service has done so. */
  forgetting: boolean;
}

export type GiftState = "waiting" | "kept" | "refused" | "forgetting";

const LOCK = "cassava-give";

/** Statuses by which the service says that it will never take this; all others may pass. */
const FINAL = [400, 413, 415, 422];

const gifts = keptIn("cassava-feedback", "gifts", { keyPath: "id" });

export function stateOf({ forgetting, refusal, kept }: Gift): GiftState {
  return forgetting ? "forgetting" : refusal !== null ? "refused" : kept ? "kept" : "waiting";
}

/** Keeps a gift on this device; `settle` sends it. */
export async function add(gift: Pick<Gift, "said" | "thumbnail" | "given">): Promise<Gift> {
  const fresh = { sent: 0, tried: false, kept: false, refusal: null, forgetting: false };
  const whole = { ...gift, ...fresh, id: randomWord(), at: new Date().toISOString() };
  await gifts.ask("readwrite", (store) => store.add(whole));
  return whole;
}

export async function find(id: string): Promise<Gift | undefined> {
  return (await gifts.ask("readonly", (store) => store.get(id))) as Gift | undefined;
}

/** Newest first. */
export async function list(): Promise<Gift[]> {
  const all = (await gifts.ask("readonly", (store) => store.getAll())) as Gift[];
  return all.sort((one, other) => other.at.localeCompare(one.at));
}

/** Marks a gift to be deleted; `settle` deletes it, at the service too. */
export async function takeBack(id: string): Promise<void> {
  await gifts.change(id, { forgetting: true, given: [] });
}

/**
 * Deletes and sends what waits for it, oldest first; whatever was sent before and got no answer is sent again, which
 * the service notices by its receipt.
 *
 * @throws Unreachable or Refused where not all could be done; the others are.
 */
export function settle(): Promise<void> {
  settling = settling.then(settleAlone, settleAlone);
  return settling;
}

let settling: Promise<void> = Promise.resolve();

const settleAlone = () => alone(LOCK, settleAll);

async function settleAll(): Promise<void> {
  const failures: unknown[] = [];
  for (const [wanted, work] of [["forgetting", forget], ["waiting", send]] as const) {
    for (const { id } of (await list()).reverse()) {
      const gift = await find(id);
      if (!gift || stateOf(gift) !== wanted) continue;
      try {
        await work(gift);
      } catch (failure) {
        if (failure instanceof Unreachable) throw failure;
        failures.push(failure);
      }
    }
  }
  if (failures.length > 0) throw failures[0];
}

async function forget({ id, tried }: Gift): Promise<void> {
  if (tried) {
    const body = new Blob([JSON.stringify({ contributor: id })], { type: "application/json" });
    await post("forget", body, storedKey());
  }
  await gifts.ask("readwrite", (store) => store.delete(id));
}

async function send({ id, given, sent }: Gift): Promise<void> {
  for (let index = sent; index < given.length; index++) {
    await gifts.change(id, { tried: true });
    const now = await find(id);
    if (!now || now.forgetting) return;
    try {
      await post("feedback", formOf(id, index, given[index]!), storedKey());
    } catch (failure) {
      if (!(failure instanceof Refused) || !FINAL.includes(failure.status)) throw failure;
      return gifts.change(id, { refusal: failure.seen });
    }
    await gifts.change(id, { sent: index + 1 });
  }
  await gifts.change(id, { kept: true, given: [] });
}

function formOf(id: string, index: number, { photo, answer, correct, remark }: Given): FormData {
  const form = new FormData();
  form.append("file", photo, photo.type === "image/png" ? "photo.png" : "photo.jpg");
  form.append("answer", JSON.stringify(answer));
  form.append("consent", "true");
  form.append("source", "page");
  form.append("contributor", id);
  form.append("receipt", `${id}-${index}`);
  if (correct !== null) form.append("correct", correct);
  if (remark !== null) form.append("remark", remark);
  return form;
}

/** Not by `randomUUID`, which plain http has not. */
function randomWord(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
