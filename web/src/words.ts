/** An answer in words, as `texts/advice.py` puts it. */

import facts from "../../src/cassava_leaf_disease/texts/facts.json";
import { type CheckName, HEALTHY, type PlantPrediction, type Prediction, type Verdict, isPlant } from "./answer";
import { type Advice, fill } from "./texts";

export type ConfidenceWord = keyof Advice["confidence"];

export interface Source {
  title: string;
  publisher: string;
  year: number | null;
  where: string;
}

export function confidenceWord(confidence: number): ConfidenceWord {
  const found = (facts.confidence as [number, ConfidenceWord][]).find(([atLeast]) => confidence >= atLeast);
  return found?.[1] ?? "unsure";
}

export function source(name: string): Source {
  const found = (facts.sources as Record<string, Source>)[name];
  if (found === undefined) {
    throw new Error(`${name}: not among the sources of facts.json`);
  }
  return found;
}

export function classOf(advice: Advice, classId: number): Advice["classes"][number] {
  const found = advice.classes[classId];
  if (found === undefined) {
    throw new Error(`class ${classId}: expected one of ${advice.classes.length}`);
  }
  return found;
}

/** Whether the verdict is about the leaf, and not about the photo. */
export function isJudged(verdict: Verdict): boolean {
  return verdict === "diagnosis" || verdict === "uncertain";
}

/** The verdict about a photo or a plant in one sentence. */
export function headline(advice: Advice, answer: Prediction): string {
  return fill(advice.verdicts[verdictWord(answer)], { name: classOf(advice, answer.predicted_class_id).name });
}

function verdictWord({ verdict, predicted_class_id, confidence }: Prediction): keyof Advice["verdicts"] {
  if (verdict === "diagnosis" && predicted_class_id === HEALTHY) return "healthy";
  if (verdict === "uncertain" && confidence < facts.named_from) return "unknown";
  return verdict;
}

/** What to do better, for each check that failed; of a plant, for each that failed in a photo that does not count. */
export function hints(advice: Advice, answer: Prediction | PlantPrediction): string[] {
  const looked = isPlant(answer) && answer.counted.length === 0 ? answer.photos : [answer];
  const failed = looked.flatMap(({ checks }) => checks.filter(({ passed }) => !passed).map(({ name }) => name));
  return worthSaying([...new Set<CheckName>(failed)]).map((name) => advice.reasons[name]);
}

/** Without light there is neither contrast nor sharpness, and "too dark" says more than "too dark or too bright". */
function worthSaying(failed: CheckName[]): CheckName[] {
  const extremes = failed.filter((name) => name === "dark" || name === "bright");
  const light = extremes.length > 0 ? extremes : failed.filter((name) => name === "brightness");
  return light.length > 0 ? light : failed;
}

/** How many more leaves would settle an uncertain answer, in a sentence; null where that is not the question. */
export function leavesWanted(advice: Advice, verdict: Verdict, moreLeaves: number | null): string | null {
  if (verdict !== "uncertain") {
    return null;
  }
  return moreLeaves === null
    ? advice.more_leaves_unknown
    : fill(advice.more_leaves, { count: Math.max(moreLeaves, 1) });
}

/** A number in [0, 1] as whole hundredths; never 100 where it is not. */
export function hundredths(probability: number): number {
  const rounded = Math.round(probability * 100);
  return rounded === 100 && probability < 1 ? 99 : rounded;
}
