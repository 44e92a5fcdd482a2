/** Gifts stay on the device until the service has them, and can be taken back. */

import "fake-indexeddb/auto";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { Refused, Unreachable } from "../../src/diagnoser";
import { add, find, list, settle, stateOf, takeBack } from "../../src/feedback/gifts";
import { prediction } from "../answers";

const post = vi.hoisted(() => vi.fn());
vi.mock("../../src/server", () => ({ post }));
vi.mock("../../src/offline/key", () => ({ storedKey: () => "key" }));

const PHOTO = { photo: new Blob(["photo"], { type: "image/png" }), answer: prediction(), correct: "right", remark: null };

function gift(photos = 1) {
  return add({ said: "right", thumbnail: null, given: Array.from({ length: photos }, () => PHOTO) });
}

/** What was posted: path, and the receipt or the body. */
async function posted(): Promise<[string, unknown][]> {
  return Promise.all(
    post.mock.calls.map(async ([path, body]) => [path, body instanceof FormData ? body.get("receipt") : JSON.parse(await body.text())]),
  ) as Promise<[string, unknown][]>;
}

async function stateAfter(id: string): Promise<string> {
  const found = await find(id);
  return found ? stateOf(found) : "gone";
}

beforeEach(async () => {
  post.mockReset().mockResolvedValue(new Blob());
  for (const { id } of await list()) await takeBack(id);
  await settle();
  post.mockClear();
});

describe("a gift", () => {
  it("is sent photo by photo, and its photos leave the device when the service has them", async () => {
    const { id } = await gift(2);
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    await settle();

    expect(await posted()).toEqual([["feedback", `${id}-0`], ["feedback", `${id}-1`]]);
    const [, form, key] = post.mock.calls[0] as [string, FormData, string];
    expect(key).toBe("key");
    expect(Object.fromEntries([...form].filter(([, value]) => typeof value === "string"))).toMatchObject({
      consent: "true",
      source: "page",
      contributor: id,
      correct: "right",
      answer: JSON.stringify(PHOTO.answer),
    });
    expect((form.get("file") as File).name).toBe("photo.png");
    expect(await find(id)).toMatchObject({ kept: true, given: [], sent: 2 });
  });

  it("waits where there is no network, and goes on with what was not acknowledged", async () => {
    const { id } = await gift(2);
    post.mockResolvedValueOnce(new Blob()).mockRejectedValueOnce(new Unreachable("feedback"));
    await expect(settle()).rejects.toThrow(Unreachable);
    expect(await stateAfter(id)).toBe("waiting");

    await Promise.all([settle(), settle()]);
    expect((await posted()).map(([, receipt]) => receipt)).toEqual([`${id}-0`, `${id}-1`, `${id}-1`]);
    expect(await stateAfter(id)).toBe("kept");
  });

  it("that the service will never take is not sent again; others are", async () => {
    const first = await gift();
    await new Promise((later) => setTimeout(later, 5)); // the older one is sent first
    const second = await gift();
    post.mockRejectedValueOnce(new Refused(422, "a damaged photo", "another")).mockRejectedValueOnce(new Refused(507, "", ""));
    await expect(settle()).rejects.toThrow(Refused);
    await settle();

    expect(await posted()).toHaveLength(3);
    expect(await stateAfter(first.id)).toBe("refused");
    expect((await find(first.id))?.refusal).toBe("a damaged photo");
    expect(await stateAfter(second.id)).toBe("kept");
  });

  it("that was never sent is taken back without a word to the service", async () => {
    const { id } = await gift();
    await takeBack(id);
    await settle();

    expect(post).not.toHaveBeenCalled();
    expect(await stateAfter(id)).toBe("gone");
  });

  it("that may have been sent is forgotten by the service first", async () => {
    const { id } = await gift();
    post.mockRejectedValueOnce(new Unreachable("feedback"));
    await expect(settle()).rejects.toThrow(Unreachable);
    await takeBack(id);
    post.mockRejectedValueOnce(new Refused(503, "", ""));
    await expect(settle()).rejects.toThrow(Refused);
    expect(await stateAfter(id)).toBe("forgetting");

    await settle();
    expect((await posted()).slice(1)).toEqual([["forget", { contributor: id }], ["forget", { contributor: id }]]);
    expect(await stateAfter(id)).toBe("gone");
  });

  it("that is taken back while it is being sent is not sent further", async () => {
    const { id } = await gift(2);
    post.mockImplementationOnce(async () => {
      await takeBack(id);
      return new Blob();
    });
    await settle();
    await settle();

    expect(await posted()).toEqual([["feedback", `${id}-0`], ["forget", { contributor: id }]]);
    expect(await stateAfter(id)).toBe("gone");
  });
});
