/** Results stay on the device until they are sent, once each. */

import "fake-indexeddb/auto";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Prediction } from "../../src/answer";
import { Refused, Unreachable } from "../../src/diagnoser";
import { add, clear, exportAll, list, remove, sendPending } from "../../src/offline/history";

const server = vi.hoisted(() => ({ photo: vi.fn(), plant: vi.fn() }));
vi.mock("../../src/server", () => ({ serverDiagnoser: () => server }));
vi.mock("../../src/offline/key", () => ({ storedKey: () => null }));

const ANSWER = { class_name: "Healthy", verdict: "diagnosis" } as Prediction;
const SAID = { class_name: "Cassava Mosaic Disease", verdict: "diagnosis" } as Prediction;

function result(changed = {}) {
  const photos = [new Blob(["photo"], { type: "image/jpeg" })];
  return { at: "2026-11-25T12:00:00.000Z", by: "device" as const, answer: ANSWER, photos, thumbnail: null, sent: false, ...changed };
}

beforeEach(async () => {
  await clear();
  server.photo.mockReset();
  server.plant.mockReset();
});

describe("past results", () => {
  it("are listed newest first, and go one by one", async () => {
    const first = await add(result());
    const second = await add(result({ by: "server", sent: true }));

    expect((await list()).map(({ id }) => id)).toEqual([second.id, first.id]);
    await remove(second.id);
    expect(await list()).toEqual([expect.objectContaining({ id: first.id, serverAnswer: null, refusal: null })]);
  });

  it("are one file that anybody can open", async () => {
    await add(result());
    const file = await exportAll();
    const content = new Uint8Array(await file.arrayBuffer());

    expect(file.name).toMatch(/^cassava-results-.*\.zip$/);
    expect(String.fromCharCode(...content.subarray(0, 4))).toBe("PK\x03\x04");
    expect(new TextDecoder().decode(content)).toContain('"class_name": "Healthy"');
  });
});

describe("sending", () => {
  it("keeps the server's answer beside the device's, and sends nothing twice", async () => {
    await add(result());
    await add(result({ photos: [new Blob(["a"]), new Blob(["b"])] }));
    await add(result({ by: "server", sent: true }));
    server.photo.mockResolvedValue(SAID);
    server.plant.mockResolvedValue(SAID);

    const both = await Promise.all([sendPending(), sendPending()]);
    expect(both).toEqual([2, 2]);
    expect(await sendPending()).toBe(0);

    expect([server.photo.mock.calls.length, server.plant.mock.calls.length]).toEqual([1, 1]);
    const [, plant, photo] = await list();
    expect(photo).toMatchObject({ sent: true, answer: ANSWER, serverAnswer: SAID });
    expect(plant).toMatchObject({ sent: true, serverAnswer: SAID });
  });

  it("loses nothing when the network goes", async () => {
    await add(result());
    await add(result());
    server.photo.mockResolvedValueOnce(SAID).mockRejectedValueOnce(new Unreachable("predict"));

    await expect(sendPending()).rejects.toThrow(Unreachable);
    expect((await list()).map(({ sent }) => sent)).toEqual([false, true]);

    server.photo.mockResolvedValue(SAID);
    expect(await sendPending()).toBe(1);
    expect(server.photo.mock.calls.length).toBe(3);
  });

  it("waits when the server is busy, and gives up what it refuses for good", async () => {
    await add(result());
    server.photo.mockRejectedValueOnce(new Refused(503, "busy", "later"));
    await expect(sendPending()).rejects.toThrow("busy");

    server.photo.mockRejectedValueOnce(new Refused(422, "damaged", "a whole photo"));
    expect(await sendPending()).toBe(0);
    expect(await sendPending()).toBe(0);
    expect(server.photo.mock.calls.length).toBe(2);
    expect((await list())[0]).toMatchObject({ sent: false, refusal: { status: 422, seen: "damaged" } });
  });

  it("brings nothing back that was deleted meanwhile", async () => {
    const { id } = await add(result());
    server.photo.mockImplementation(async () => {
      await remove(id);
      return SAID;
    });

    await sendPending();
    expect(await list()).toEqual([]);
  });
});
