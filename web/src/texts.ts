/** The words of the page's language: those shared with the bot and the reports (advice), and the page's own. */

import type advice from "../../src/cassava_leaf_disease/texts/advice.en.json";
import type page from "../../src/cassava_leaf_disease/texts/page.en.json";

export const LANGUAGES = { en: "English", fr: "Français", pt: "Português", sw: "Kiswahili", ru: "Русский" } as const;

export type Language = keyof typeof LANGUAGES;
export type PageWords = typeof page;
export type ClassAdvice = Omit<(typeof advice)["classes"][number], "note"> & { note: string | null };
export type Advice = Omit<typeof advice, "classes"> & { classes: ClassAdvice[] };

export interface Texts {
  language: Language;
  advice: Advice;
  page: PageWords;
}

const REMEMBERED = "cassava-language";
const FOLDER = "../../src/cassava_leaf_disease/texts";
const advices = import.meta.glob<Advice>("../../src/cassava_leaf_disease/texts/advice.*.json", { import: "default" });
const pages = import.meta.glob<PageWords>("../../src/cassava_leaf_disease/texts/page.*.json", { import: "default" });

/** Fetches the words of one language and of no other. */
export async function loadTexts(language: Language): Promise<Texts> {
  const [advice, page] = await Promise.all([
    need(advices, `${FOLDER}/advice.${language}.json`)(),
    need(pages, `${FOLDER}/page.${language}.json`)(),
  ]);
  return { language, advice, page };
}

function need<T>(table: Record<string, T>, name: string): T {
  const found = table[name];
  if (found === undefined) {
    throw new Error(`${name}: not among the page's texts`);
  }
  return found;
}

/** The first of `codes` (such as `pt-BR`) that there are words of; English where there is none. */
export function nearestLanguage(codes: readonly string[]): Language {
  const mains = codes.map((code) => code.split(/[-_]/)[0]?.toLowerCase() ?? "");
  return mains.find(isLanguage) ?? "en";
}

export function rememberedLanguage(): Language {
  const chosen = localStorage.getItem(REMEMBERED);
  return nearestLanguage(chosen === null ? navigator.languages : [chosen]);
}

export function rememberLanguage(language: Language): void {
  localStorage.setItem(REMEMBERED, language);
}

/** `"{count} of {most}"` with its placeholders filled. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (placeholder, name: string) => String(values[name] ?? placeholder));
}

function isLanguage(code: string): code is Language {
  return Object.hasOwn(LANGUAGES, code);
}
