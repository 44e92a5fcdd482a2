import { describe, expect, it } from "vitest";
import { given, isWorthAsking, otherwise } from "../../src/feedback/said";
import { plant, prediction } from "../answers";

const MOSAIC = prediction({ predicted_class_id: 3 });
const HEALTHY = prediction({ predicted_class_id: 4 });
const BLACK = prediction({ verdict: "poor_photo" });
const FOREIGN = prediction({ verdict: "not_cassava" });
const [ONE, TWO, THREE] = ["1", "2", "3"].map((text) => new Blob([text])) as [Blob, Blob, Blob];

describe("what can be said instead of an answer", () => {
  it("is another class, no leaf at all, or nothing that is known", () => {
    expect(otherwise(MOSAIC)).toEqual([0, 1, 2, 4, "not_cassava", "unknown"]);
    expect(otherwise(prediction({ verdict: "uncertain" }))).not.toContain(3);
  });

  it("is any class where the answer was that it is no leaf", () => {
    expect(otherwise(FOREIGN)).toEqual([0, 1, 2, 3, 4, "unknown"]);
  });

  it("is not asked about photos that cannot be judged", () => {
    expect([MOSAIC, FOREIGN, BLACK].map(isWorthAsking)).toEqual([true, true, false]);
  });
});

describe("what is given of a single photo", () => {
  it.each([
    ["right", { correct: "right", remark: null }],
    [0, { correct: "0", remark: null }],
    ["unknown", { correct: null, remark: null }],
    ["not_cassava", { correct: null, remark: "not a cassava leaf" }],
  ] as const)("when somebody says %s", (said, told) => {
    expect(given(MOSAIC, [ONE], said)).toEqual([{ photo: ONE, answer: MOSAIC, ...told }]);
  });
});

describe("what is given of a plant", () => {
  it("is each photo that counted, with the plant's class where it was right", () => {
    const answer = plant([MOSAIC, BLACK, HEALTHY], { predicted_class_id: 3, counted: [0, 2] });

    const photos = given(answer, [ONE, TWO, THREE], "right");
    expect(photos.map(({ photo }) => photo)).toEqual([ONE, THREE]);
    expect(photos.map(({ correct }) => correct)).toEqual(["right", "3"]);
    expect(given(answer, [ONE, TWO, THREE], 1).map(({ correct }) => correct)).toEqual(["1", "1"]);
  });

  it("is what was taken for no leaf where nothing counted", () => {
    const answer = plant([BLACK, FOREIGN], { verdict: "not_cassava", counted: [] });

    expect(given(answer, [ONE, TWO], 2)).toEqual([{ photo: TWO, answer: FOREIGN, correct: "2", remark: null }]);
  });
});
