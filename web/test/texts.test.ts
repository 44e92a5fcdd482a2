import { describe, expect, it } from "vitest";
import { LANGUAGES, type Language, fill, loadTexts, nearestLanguage } from "../src/texts";

const languages = Object.keys(LANGUAGES) as Language[];

/** Keys and placeholders of a text, without its words. */
function shape(value: unknown): unknown {
  if (typeof value === "string") {
    return (value.match(/\{\w+\}/g) ?? []).sort();
  }
  return typeof value === "object" && value !== null
    ? Object.fromEntries(Object.entries(value).map(([key, each]) => [key, shape(each)]))
    : value;
}

describe.each(languages)("%s", (language) => {
  it("says as much as English, with the same placeholders", async () => {
    expect(shape((await loadTexts(language)).page)).toEqual(shape((await loadTexts("en")).page));
  });

  it("has the name that the page offers it under", async () => {
    expect((await loadTexts(language)).advice.language).toBe(LANGUAGES[language]);
  });
});

describe("nearestLanguage", () => {
  it.each([
    [["pt-BR", "en"], "pt"],
    [["de", "sw_TZ"], "sw"],
    [["de-AT"], "en"],
    [["toString"], "en"],
    [[], "en"],
  ] as const)("of %j is %s", (codes, language) => {
    expect(nearestLanguage(codes)).toBe(language);
  });
});

describe("fill", () => {
  it("puts values in the places of their names, as often as they are named", () => {
    expect(fill("{a} of {b}, {a}", { a: 1, b: "two" })).toBe("1 of two, 1");
  });

  it("leaves a place without a value visible", () => {
    expect(fill("{a}", {})).toBe("{a}");
  });
});
