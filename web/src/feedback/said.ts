/** What a person says of an answer, and what of it `POST /feedback` takes. */

import { type PlantPrediction, type Prediction, isPlant } from "../answer";
import { type Texts } from "../texts";
import { classOf, isJudged } from "../words";

/** A number is the right class. */
export type Said = "right" | "not_cassava" | "unknown" | number;

/** One photo with the answer about it. */
export interface Given {
  photo: Blob;
  answer: Prediction;
  /** `right`, a class id, or null where there is no label. */
  correct: string | null;
  /** For the expert who looks at it: the API has no label for what is no cassava leaf. */
  remark: string | null;
}

const NOT_CASSAVA = "not a cassava leaf";

/** Nobody knows whether a photo that cannot be judged was judged well. */
export function isWorthAsking({ verdict }: Prediction): boolean {
  return verdict !== "poor_photo";
}

/** What somebody can say instead of the answer. */
export function otherwise(answer: Prediction): Said[] {
  const judged = isJudged(answer.verdict);
  const classes = [0, 1, 2, 3, 4].filter((classId) => !judged || classId !== answer.predicted_class_id);
  return judged ? [...classes, "not_cassava", "unknown"] : [...classes, "unknown"];
}

/** The photos that `said` is about: of a plant those that made the answer. What holds for the plant holds for each. */
export function given(answer: Prediction | PlantPrediction, photos: readonly Blob[], said: Said): Given[] {
  const answers = isPlant(answer) ? answer.photos : [answer];
  const counted = isPlant(answer) && answer.counted.length > 0 ? answer.counted : [...answers.keys()];
  const remark = said === "not_cassava" ? NOT_CASSAVA : null;
  return counted.flatMap((index) => {
    const [photo, own] = [photos[index], answers[index]];
    return photo && own && isWorthAsking(own) ? [{ photo, answer: own, correct: correctOf(answer, own, said), remark }] : [];
  });
}

function correctOf(whole: Prediction, own: Prediction, said: Said): string | null {
  if (said === "right") {
    return own.predicted_class_id === whole.predicted_class_id ? "right" : String(whole.predicted_class_id);
  }
  return typeof said === "number" ? String(said) : null;
}

export function saidInWords({ advice, page }: Texts, said: Said): string {
  return typeof said === "number" ? classOf(advice, said).name : page.feedback[said];
}
