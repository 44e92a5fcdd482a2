import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { takesFeedback } from "../../src/offline/card";

const kept = new Map<string, string>();
const ask = vi.fn();

function online(is: boolean): void {
  vi.stubGlobal("navigator", { onLine: is });
}

function says(card: object, status = 200): void {
  ask.mockResolvedValueOnce(new Response(JSON.stringify(card), { status }));
}

beforeEach(() => {
  kept.clear();
  ask.mockReset();
  online(true);
  vi.stubGlobal("document", { baseURI: "http://service/" });
  vi.stubGlobal("localStorage", {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => kept.set(name, value),
  });
  vi.stubGlobal("fetch", ask);
});
afterEach(() => vi.unstubAllGlobals());

describe("whether the service takes feedback", () => {
  it.each([true, false])("is what it says: %s", async (feedback) => {
    says({ offline: null, feedback });
    expect(await takesFeedback()).toBe(feedback);
    expect(String(ask.mock.calls[0]![0])).toBe("http://service/model");
  });

  it("is what it said the last time where it cannot be asked", async () => {
    says({ offline: null, feedback: true });
    await takesFeedback();
    ask.mockRejectedValueOnce(new TypeError("no network"));
    expect(await takesFeedback()).toBe(true);
    says({}, 503);
    expect(await takesFeedback()).toBe(true);
    online(false);
    expect(await takesFeedback()).toBe(true);
    expect(ask).toHaveBeenCalledTimes(3);
  });

  it("is no where it has never said so", async () => {
    online(false);
    expect(await takesFeedback()).toBe(false);
  });
});
