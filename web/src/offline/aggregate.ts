/** From the network's logits to an answer, and from a plant's photos to one, as `inference/aggregate.py` does it. */

import type { ClassProbability, LeftOut, PlantPrediction, Prediction } from "../answer";
import type { OfflineModel, Pooling } from "./model";
import { percent } from "./words";

const SMALLEST = 1e-6; // of a photo's probabilities: none can rule a class out alone
const MAX_MORE_LEAVES = 10;

export function softmax(logits: ArrayLike<number>, temperature = 1): number[] {
  const softened = Array.from(logits, (logit) => logit / temperature);
  const largest = Math.max(...softened);
  const powers = softened.map((logit) => Math.exp(logit - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** Most probable first; equal ones by class id. */
export function rankClasses(probabilities: number[], classNames: string[]): ClassProbability[] {
  return probabilities
    .map((prob, class_id) => ({ class_id, class_name: classNames[class_id]!, prob }))
    .sort((one, other) => other.prob - one.prob || one.class_id - other.class_id);
}

export function byName(probabilities: number[], classNames: string[]): Record<string, number> {
  return Object.fromEntries(probabilities.map((prob, index) => [classNames[index]!, prob]));
}

/** The answer from those about photos, `(n, C)`: Bayes' rule with the prior counted once. */
export function pool(photos: number[][], { prior, correlation, doubt }: Pooling): number[] {
  const classes = prior.length;
  const effective = photos.length / (1 + (photos.length - 1) * correlation);
  const scores = prior.map((share, index) => {
    const before = Math.log(share);
    const evidence = photos.map((photo) => Math.log(Math.max(photo[index]!, SMALLEST)) - before);
    return before + effective * mean(evidence);
  });
  return softmax(scores).map((share) => (1 - doubt) * share + doubt / classes);
}

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The answer about a plant from those about its photos, at least one. */
export function combinePhotos(photos: Prediction[], model: OfflineModel): PlantPrediction {
  const { class_names: classNames, min_confidence: minConfidence, pooling } = model;
  const left_out = photos.flatMap(({ image, verdict }, index): LeftOut[] =>
    verdict === "poor_photo" || verdict === "not_cassava" ? [{ index, image, reason: verdict }] : [],
  );
  const all = photos.map((_, index) => index);
  const counted = all.filter((index) => !left_out.some((photo) => photo.index === index));
  const used = (counted.length > 0 ? counted : all).map((index) =>
    classNames.map((name) => photos[index]!.probabilities[name]!),
  );
  const probabilities = pool(used, pooling);
  const ranking = rankClasses(probabilities, classNames);
  const best = ranking[0]!;
  const more = counted.length > 0 ? moreLeaves(used, minConfidence, pooling) : 1;
  const verdict = best.prob >= minConfidence ? "diagnosis" : "uncertain";
  return {
    predicted_class_id: best.class_id,
    class_name: best.class_name,
    confidence: best.prob,
    probabilities: byName(probabilities, classNames),
    top_k: ranking,
    verdict: counted.length > 0 ? verdict : mostFrequent(left_out),
    reasons: counted.length > 0 ? reasonsOf(best.prob, minConfidence, more) : allReasons(photos),
    checks: [],
    model: photos[0]!.model,
    image: null,
    counted,
    left_out,
    more_leaves: more,
    photos,
  };
}

/** How many more photos like these are expected to make it a diagnosis; 0 where it is one, null where ten would not. */
export function moreLeaves(photos: number[][], minConfidence: number, pooling: Pooling): number | null {
  const typical = softmax(
    pooling.prior.map((_, index) => mean(photos.map((photo) => Math.log(Math.max(photo[index]!, SMALLEST))))),
  );
  for (let more = 0; more <= MAX_MORE_LEAVES; more++) {
    const expected = Array.from({ length: photos.length + more }, () => typical);
    if (Math.max(...pool(expected, pooling)) >= minConfidence) return more;
  }
  return null;
}

function reasonsOf(confidence: number, minConfidence: number, more: number | null): string[] {
  if (confidence >= minConfidence) return [];
  const leaves = more === 1 ? "1 more leaf" : `${more} more leaves`;
  const advice = more === null ? "more photos like these would not change that" : `take photos of ${leaves}`;
  const seen = `confidence ${percent(confidence, 0)}, expected at least ${percent(minConfidence, 0)}`;
  return [`not sure enough: ${seen}; ${advice}`];
}

function allReasons(photos: Prediction[]): string[] {
  return [...new Set(photos.flatMap(({ reasons }) => reasons))];
}

/** Of equally frequent ones `poor_photo`: a better photo may yet help. */
function mostFrequent(leftOut: LeftOut[]): LeftOut["reason"] {
  const foreign = leftOut.filter(({ reason }) => reason === "not_cassava").length;
  return foreign > leftOut.length - foreign ? "not_cassava" : "poor_photo";
}
