import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Asked, MOST_TRIES, ask } from "../src/choose";
import { type Diagnoser, Refused, Unreachable } from "../src/diagnoser";
import { plant, prediction } from "./answers";

const photo = new Blob(["leaf"]);
const answering = (name: string): Diagnoser => ({
  photo: () => Promise.reject(new Error("not asked")),
  plant: (photos) => {
    const one = prediction({ model: { name, version: "1", source: "explicit", path: name } });
    return Promise.resolve(plant(photos.map(() => one), { model: one.model, more_leaves: 2 }));
  },
  heatmap: () => Promise.reject(new Error("not asked")),
});
const failing = (failure: unknown): Diagnoser => ({ ...answering("none"), plant: () => Promise.reject(failure) });

const asked = (changed: Partial<Asked>): Asked => ({
  photos: [photo],
  server: answering("server"),
  device: () => Promise.resolve(answering("device")),
  online: true,
  signal: new AbortController().signal,
  onAsking: () => undefined,
  onWait: () => undefined,
  ...changed,
});
const nobody = () => Promise.resolve(null);

describe("who answers", () => {
  it.each([
    ["the server while it can be reached", {}, "server"],
    ["this device without network", { online: false }, "device"],
    ["the server where the browser is mistaken about the network", { online: false, device: nobody }, "server"],
    ["this device where the server is away", { server: failing(new Unreachable("predict")) }, "device"],
    ["this device where the server is busy", { server: failing(new Refused(503, "busy", "later", 9)) }, "device"],
    ["this device where the server is broken", { server: failing(new Refused(500, "a bug", "an answer")) }, "device"],
  ])("%s", async (_, changed, by) => {
    const { answer, ...answered } = await ask(asked(changed));
    expect([answered.by, answer.model.name]).toEqual([by, by]);
  });

  it("nobody, where the server is away and the model is not here", async () => {
    const failure = new Unreachable("predict");
    await expect(ask(asked({ server: failing(failure), device: nobody }))).rejects.toBe(failure);
  });

  it("nobody else, where the server refuses the photo", async () => {
    const failure = new Refused(422, "a damaged photo", "another");
    await expect(ask(asked({ server: failing(failure) }))).rejects.toBe(failure);
  });
});

describe("one photo", () => {
  it("gets its own answer, and how many leaves would help", async () => {
    const { answer, moreLeaves } = await ask(asked({}));
    expect("photos" in answer).toBe(false);
    expect(moreLeaves).toBe(2);
  });

  it("and another get one of their plant", async () => {
    const { answer } = await ask(asked({ photos: [photo, photo] }));
    expect("photos" in answer).toBe(true);
  });
});

describe("a busy server", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("is asked again after the time that it tells, which is counted down", async () => {
    const left: number[] = [];
    const server = failing(null);
    server.plant = vi.fn(answering("server").plant).mockRejectedValueOnce(new Refused(503, "busy", "later", 3));
    const answer = ask(asked({ server, device: nobody, onWait: (seconds) => left.push(seconds) }));
    await vi.advanceTimersByTimeAsync(2999);
    expect(server.plant).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(1);
    expect((await answer).by).toBe("server");
    expect(left).toEqual([3, 2, 1]);
  });

  it("is given up after some tries", async () => {
    const server = failing(null);
    server.plant = vi.fn(() => Promise.reject(new Refused(503, "busy", "later", 1)));
    const answer = ask(asked({ server, device: nobody }));
    const refused = expect(answer).rejects.toMatchObject({ status: 503 });
    await vi.advanceTimersByTimeAsync(60_000);
    await refused;
    expect(server.plant).toHaveBeenCalledTimes(MOST_TRIES);
  });

  it("is not waited for by who cancels", async () => {
    const stop = new AbortController();
    const server = failing(new Refused(503, "busy", "later", 5));
    const refused = expect(ask(asked({ server, device: nobody, signal: stop.signal }))).rejects.toThrow(/abort/i);
    await vi.advanceTimersByTimeAsync(1500);
    stop.abort();
    await refused;
  });
});
