/** The page's own engine computes what the Python package does, which wrote `fixture.json`. */

import { describe, expect, it } from "vitest";
import type { Prediction } from "../../src/answer";
import { Refused } from "../../src/diagnoser";
import { combinePhotos } from "../../src/offline/aggregate";
import { openContainer } from "../../src/offline/container";
import { drawHeatmap } from "../../src/offline/explain";
import { judge, openGates } from "../../src/offline/gate";
import { type Preprocessing, type StoredGate, halfToNumber, isUnderstood } from "../../src/offline/model";
import { reduce, resize, resizeValues, upright } from "../../src/offline/pixels";
import { normalize, resizedSize, toNetworkSize } from "../../src/offline/preprocess";
import { type PhotoQuality, measureQuality } from "../../src/offline/quality";
import { bytesRepr, fixed, percent, thousands } from "../../src/offline/words";
import { bytes, described, draw, fixture, floats } from "./drawn";

describe("pictures", () => {
  it.each(fixture.resize)("are resized to the bit as by Pillow: $from to $to", ({ from, to, pixels }) => {
    const resized = resize(draw(from[0]!, from[1]!), to[0]!, to[1]!);

    expect([resized.width, resized.height]).toEqual(to);
    expect(resized.data).toEqual(bytes(pixels));
  });

  it.each(fixture.resize)("of real numbers too: $from to $to", ({ from, to, values }) => {
    const picture = draw(from[0]!, from[1]!);
    const red = Float32Array.from({ length: from[0]! * from[1]! }, (_, place) => picture.data[place * 3]! / 255);
    const resized = resizeValues(red, { width: from[0]!, height: from[1]! }, { width: to[0]!, height: to[1]! });

    floats(values).forEach((value, place) => expect(resized[place]).toBeCloseTo(value, 6));
  });

  it.each(fixture.reduce)("are reduced to the bit as by Pillow: $from by $factor", ({ from, factor, to, pixels }) => {
    const reduced = reduce(draw(from[0]!, from[1]!), factor);

    expect([reduced.width, reduced.height]).toEqual(to);
    expect(reduced.data).toEqual(bytes(pixels));
  });

  it.each(fixture.upright)("are turned upright by orientation $orientation", ({ orientation, to, pixels }) => {
    const turned = upright(draw(5, 3), orientation);

    expect([turned.width, turned.height]).toEqual(to);
    expect(turned.data).toEqual(bytes(pixels));
  });

  it.each(fixture.preprocess)("become the network's input: $from", ({ from, spec, resize_side_px, ...expected }) => {
    const model = described({ preprocessing: spec as Preprocessing, resize_side_px });
    const picture = draw(from[0]!, from[1]!);
    const square = toNetworkSize(picture, model);

    expect(Object.values(resizedSize(picture, resize_side_px))).toEqual(expected.resized);
    expect(square.data).toEqual(bytes(expected.pixels));
    expect(normalize(square, model)).toEqual(floats(expected.normalized));
  });

  it("that are strips are refused", () => {
    expect(() => toNetworkSize(draw(510, 10), described({}))).toThrow("a strip of 510x10 pixels; expected sides within");
  });
});

describe("quality", () => {
  it.each(fixture.quality)("of a $kind picture of $from", ({ kind, from, quality }) => {
    const measured = measureQuality(draw(from[0]!, from[1]!, kind));

    expect(measured.colors).toBe(quality.colors);
    for (const name of ["sharpness", "brightness", "contrast", "dark", "bright"] as const) {
      expect(Math.abs(measured[name] - quality[name])).toBeLessThanOrEqual(1e-5 * Math.max(1, quality[name]));
    }
  });
});

describe("the gate", () => {
  it.each(fixture.gates)("$gate.score says how foreign photos are", ({ gate, logits, features, foreign }) => {
    const ask = openGates(described({ gates: [gate as unknown as StoredGate] }));
    const answers = logits.map((row, index) => ask?.(Float32Array.from(row), Float32Array.from(features[index]!)));

    answers.forEach((answer, index) => expect(answer).toBeCloseTo(foreign[index]!, 9));
  });

  it("of several networks is their mean, each with its own features", () => {
    const [gate] = fixture.gates.filter(({ gate: { score } }) => score === "knn");
    const stored = gate!.gate as unknown as StoredGate;
    const row = Float32Array.from(gate!.features[0]!);
    const ask = openGates(described({ gates: [{ ...stored, features: [0, 12] }, { ...stored, features: [12, 24] }] }));

    expect(ask?.(new Float32Array(5), Float32Array.from([...row, ...row]))).toBeCloseTo(gate!.foreign[0]!, 9);
    expect(() => ask?.(new Float32Array(5), row)).toThrow("download the model again");
    expect(openGates(described({}))).toBeNull();
  });

  it.each(fixture.judged)("judges as the server: $verdict", ({ quality, confidence, foreign, ...expected }) => {
    expect(judge(confidence, fixture.thresholds, quality as PhotoQuality, fixture.quality_limits, foreign)).toEqual(expected);
  });
});

describe("plants", () => {
  it.each(fixture.plants)("get the server's verdict: $plant.verdict", ({ min_confidence, photos, plant }) => {
    const combined = combinePhotos(photos as unknown as Prediction[], described({ min_confidence }));

    expect(combined).toMatchObject({ ...plant, probabilities: {}, confidence: expect.anything(), top_k: expect.anything() });
    for (const [name, share] of Object.entries(plant.probabilities)) {
      expect(combined.probabilities[name]).toBeCloseTo(share, 9);
    }
    expect(combined.top_k.map(({ class_id }) => class_id)).toEqual(plant.top_k.map(({ class_id }) => class_id));
  });
});

describe("the heatmap", () => {
  it("is the server's within a step of 255", () => {
    const { from, spec, resize_side_px, temperature, maps, map_size, class_id, pixels } = fixture.heatmap;
    const model = described({ preprocessing: spec as Preprocessing, resize_side_px, temperature });
    const values = { values: Float32Array.from(maps), width: map_size[0]!, height: map_size[1]! };
    const drawn = drawHeatmap(draw(from[0]!, from[1]!), values, class_id, model);

    const differences = bytes(pixels).map((value, place) => Math.abs(value - drawn.data[place]!));
    expect(Math.max(...differences)).toBeLessThanOrEqual(1);
  });
});

describe("files", () => {
  const limits = fixture.limits;

  it.each(fixture.files)("are judged by content: $name", ({ name, data, bytes: size, ...expected }) => {
    const content = new Uint8Array(size);
    content.set(bytes(data));
    const open = () => openContainer(content, limits, name);

    if ("refused" in expected && expected.refused) {
      const { status, seen, expected: wanted } = expected.refused;
      const told = refusalOf(open);
      expect(told.status).toBe(status);
      if (status !== 413) expect([told.seen, told.expected]).toEqual([seen, wanted]);
    } else {
      const { width, height, orientation } = open();
      expect(orientation > 4 ? [height, width] : [width, height]).toEqual(expected.size);
    }
  });

  it("keep nothing but their picture", async () => {
    const [turned] = fixture.files.filter(({ name }) => name === "turned.jpg");
    const content = bytes(turned!.data);
    const coded = openContainer(content, limits, "turned.jpg");
    const kept = new Blob(coded.parts);

    expect(coded.orientation).toBe(6);
    expect(await kept.text()).not.toContain("Exif");
    expect(await kept.text()).not.toContain("hello");
  });
});

describe("words", () => {
  it.each(fixture.words)("$value as Python prints it", ({ value, whole, tenths, hundredths }) => {
    expect([fixed(value, 0), fixed(value, 1), fixed(value, 2)]).toEqual([whole, tenths, hundredths]);
  });

  it("have commas, percents and bytes", () => {
    expect([thousands(20_000_000), thousands(999), percent(0.125, 0), percent(0.0375, 1)]).toEqual([
      ...["20,000,000", "999", "12%", "3.8%"],
    ]);
    expect(bytesRepr(Uint8Array.of(0, 39, 9, 255, 92, 65))).toBe(`b"\\x00'\\t\\xff\\\\A"`);
    expect(bytesRepr(Uint8Array.of(39, 34))).toBe(`b'\\'"'`);
  });
});

describe("a model's description", () => {
  it("has half precision numbers", () => {
    expect([0x3c00, 0xc000, 0x0001, 0x7c00, 0x3555].map(halfToNumber)).toEqual([1, -2, 2 ** -24, Infinity, 0.333251953125]);
    expect(halfToNumber(0x7e00)).toBeNaN();
  });

  it("of a newer kind is not run", () => {
    const known = described({});

    expect(isUnderstood(known)).toBe(true);
    expect(isUnderstood({ ...known, format_version: 2 as 1 })).toBe(false);
    expect(isUnderstood({ ...known, preprocessing: { ...known.preprocessing, crop: "corner" as "center" } })).toBe(false);
  });
});

function refusalOf(open: () => unknown): Refused {
  try {
    open();
  } catch (failure) {
    if (failure instanceof Refused) return failure;
    throw failure;
  }
  throw new Error("it was taken");
}
