import { beforeAll, describe, expect, it } from "vitest";
import type { Check, CheckName } from "../src/answer";
import { type Advice, LANGUAGES, type Language, loadTexts } from "../src/texts";
import { confidenceWord, headline, hints, hundredths, leavesWanted, source } from "../src/words";
import { plant, prediction } from "./answers";

let advice: Advice;
beforeAll(async () => {
  ({ advice } = await loadTexts("en"));
});

const failed = (name: CheckName): Check => ({ name, value: 0, at_least: 1, at_most: null, passed: false });

describe("headline", () => {
  it("names the disease", () => {
    expect(headline(advice, prediction())).toBe("This looks like Cassava mosaic disease.");
  });

  it("of a healthy leaf names no disease", () => {
    expect(headline(advice, prediction({ predicted_class_id: 4 }))).toBe(advice.verdicts.healthy);
  });

  it("of an answer that is hardly surer than chance names no class", () => {
    const unsure = (confidence: number) => headline(advice, prediction({ verdict: "uncertain", confidence }));
    expect(unsure(0.34)).toBe("Not sure. The leaf fits nothing that this model knows.");
    expect(unsure(0.35)).toBe("Not sure. The most likely is Cassava mosaic disease.");
  });

  it("of a photo that shows no leaf says so, whatever the classes say", () => {
    expect(headline(advice, prediction({ verdict: "not_cassava" }))).toBe(advice.verdicts.not_cassava);
  });
});

describe("hints", () => {
  it("tell what to do better, each once", () => {
    const checks = [failed("contrast"), failed("sharpness"), { ...failed("bright"), passed: true }];
    expect(hints(advice, prediction({ checks }))).toEqual([advice.reasons.contrast, advice.reasons.sharpness]);
  });

  it("of a photo without light are about the light alone", () => {
    const checks = [failed("brightness"), failed("dark"), failed("contrast"), failed("sharpness")];
    expect(hints(advice, prediction({ checks }))).toEqual([advice.reasons.dark]);
    expect(hints(advice, prediction({ checks: [failed("brightness"), failed("contrast")] }))).toEqual([
      advice.reasons.brightness,
    ]);
  });

  it("of a plant without a usable photo are those of its photos", () => {
    const dark = prediction({ verdict: "poor_photo", checks: [failed("dark")] });
    expect(hints(advice, plant([dark, dark], { counted: [], verdict: "poor_photo" }))).toEqual([advice.reasons.dark]);
  });
});

describe("leavesWanted", () => {
  it.each([
    ["diagnosis", 0, null],
    ["poor_photo", 1, null],
    ["uncertain", 3, "More leaves of the same plant needed: 3"],
    ["uncertain", 0, "More leaves of the same plant needed: 1"],
  ] as const)("of %s with %j more is %j", (verdict, more, words) => {
    expect(leavesWanted(advice, verdict, more)).toBe(words);
  });

  it("sends to an expert where more leaves would not help", () => {
    expect(leavesWanted(advice, "uncertain", null)).toBe(advice.more_leaves_unknown);
  });
});

describe("confidenceWord", () => {
  it.each([
    [1, "very_sure"],
    [0.9, "very_sure"],
    [0.8, "sure"],
    [0.5, "likely"],
    [0, "unsure"],
  ])("of %f is %s, as in Python", (confidence, word) => {
    expect(confidenceWord(confidence)).toBe(word);
  });
});

describe("hundredths", () => {
  it.each([
    [1, 100],
    [0.998, 99],
    [0.875, 88],
    [0, 0],
  ])("of %f is %i", (probability, count) => {
    expect(hundredths(probability)).toBe(count);
  });
});

it.each(Object.keys(LANGUAGES) as Language[])("every source that %s names is known", async (language) => {
  const { classes } = (await loadTexts(language)).advice;
  expect(classes.flatMap(({ sources }) => sources).every((name) => source(name).title)).toBe(true);
});
