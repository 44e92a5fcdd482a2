/** Whether a diagnosis may be given, as `inference/gate.py` and `inference/ood.py` decide it. */

import type { Check, Verdict } from "../answer";
import { type OfflineModel, type QualityLimits, type StoredGate, valuesOf } from "./model";
import type { PhotoQuality } from "./quality";
import { fixed, percent } from "./words";

const SMALLEST = 1e-12;
const FOREIGN_LIMIT = 1;

export interface Judgement {
  verdict: Verdict;
  reasons: string[];
  checks: Check[];
}

/** How unlike the training's leaves photos are, ready to be asked: 0 as a typical leaf, above 1 refused. */
export type Foreign = (logits: Float32Array, features: Float32Array | undefined) => number;

/** The mean over the gates of a model, null where it has none. */
export function openGates(model: OfflineModel): Foreign | null {
  const gates = model.gates.map(openGate);
  if (gates.length === 0) return null;
  return (logits, features) => gates.reduce((sum, gate) => sum + gate(logits, features), 0) / gates.length;
}

function openGate(gate: StoredGate): Foreign {
  const score = gate.score === "energy" ? energy : distances(gate);
  return (logits, features) => {
    const [start, end] = gate.features;
    const own = features?.subarray(start, end ?? features.length);
    return (score(logits, own) - gate.typical) / (gate.limit - gate.typical);
  };
}

function energy(logits: Float32Array): number {
  const largest = Math.max(...logits);
  return -(largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)));
}

function distances(gate: StoredGate): Foreign {
  const arrays = Object.fromEntries(Object.entries(gate.arrays).map(([name, stored]) => [name, valuesOf(stored)]));
  const { mean, components, bank, whitening, centers } = arrays;
  const weight = arrays["residual_weight"]?.[0];
  return (_, features) => {
    if (!features || !mean || !components || features.length !== mean.length) {
      throw new Error("the gate does not fit the network's features; download the model again");
    }
    const { coordinates, beside } = place(features, mean, components);
    if (bank) return Math.sqrt(nearest(coordinates, bank, gate.neighbors) + beside);
    if (!whitening || !centers || weight === undefined) throw new Error("the gate lacks arrays; download it again");
    const whitened = times(coordinates, whitening);
    return Math.sqrt(nearest(whitened, centers, 1) + beside * weight ** 2);
  };
}

/** Where a photo lies in the plane of the components `(k, D)`, and its squared distance from it. */
function place(features: Float32Array, mean: Float64Array, components: Float64Array) {
  const length = Math.max(Math.sqrt(squares(features)), SMALLEST);
  const centred = Float64Array.from(features, (value, index) => value / length - mean[index]!);
  const coordinates = new Float64Array(components.length / centred.length);
  for (let row = 0; row < coordinates.length; row++) {
    let sum = 0;
    for (let index = 0; index < centred.length; index++) sum += centred[index]! * components[row * centred.length + index]!;
    coordinates[row] = sum;
  }
  return { coordinates, beside: Math.max(squares(centred) - squares(coordinates), 0) };
}

function squares(values: Float32Array | Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value * value;
  return sum;
}

/** A row `(k,)` times a matrix `(k, k)`. */
function times(row: Float64Array, matrix: Float64Array): Float64Array {
  const out = new Float64Array(row.length);
  for (let from = 0; from < row.length; from++) {
    for (let to = 0; to < row.length; to++) out[to]! += row[from]! * matrix[from * row.length + to]!;
  }
  return out;
}

/** The squared distance to the n-th nearest point of a bank `(M, k)`, or to its farthest. */
function nearest(point: Float64Array, bank: Float64Array, neighbors: number): number {
  const own = squares(point);
  const found = new Float64Array(bank.length / point.length);
  for (let row = 0; row < found.length; row++) {
    const other = bank.subarray(row * point.length, (row + 1) * point.length);
    let product = 0;
    for (let index = 0; index < point.length; index++) product += point[index]! * other[index]!;
    found[row] = own + squares(other) - 2 * product;
  }
  return Math.max(found.sort()[Math.min(neighbors, found.length) - 1]!, 0);
}

/** The verdict: `poor_photo`, else `not_cassava`, else `uncertain`, else `diagnosis`. Null was not looked at. */
export function judge(
  confidence: number,
  { min_confidence: minConfidence, other_trouble: other }: Pick<OfflineModel, "min_confidence" | "other_trouble">,
  quality: PhotoQuality | null,
  limits: QualityLimits | null,
  foreign: number | null,
): Judgement {
  const photo = quality && limits ? checkPhoto(quality, limits) : [];
  const most = other && confidence < Math.min(other.below, minConfidence) ? other.within : FOREIGN_LIMIT;
  const leaf = foreign === null ? [] : [check("foreign", foreign, null, most)];
  const sure = [check("confidence", confidence, minConfidence, null)];
  const checks = [...photo, ...leaf, ...sure];
  const stages: [Verdict, Check[]][] = [
    ["poor_photo", photo],
    ["not_cassava", leaf],
    ["uncertain", sure],
  ];
  for (const [verdict, ofStage] of stages) {
    const failed = ofStage.filter(({ passed }) => !passed);
    if (failed.length > 0) return { verdict, reasons: failed.map(inWords), checks };
  }
  return { verdict: "diagnosis", reasons: [], checks };
}

function check(name: Check["name"], value: number, atLeast: number | null, atMost: number | null): Check {
  const passed = (atLeast === null || value >= atLeast) && (atMost === null || value <= atMost);
  return { name, value, at_least: atLeast, at_most: atMost, passed };
}

function checkPhoto(quality: PhotoQuality, limits: QualityLimits): Check[] {
  const contrast = check("contrast", quality.contrast, limits.min_contrast, null);
  const sharpness = check("sharpness", quality.sharpness, limits.min_sharpness, null);
  if (quality.colors < limits.min_colors && sharpness.passed && contrast.passed) return [contrast, sharpness];
  return [
    check("brightness", quality.brightness, limits.min_brightness, limits.max_brightness),
    check("dark", quality.dark, null, limits.max_dark),
    check("bright", quality.bright, null, limits.max_bright),
    contrast,
    sharpness,
  ];
}

/** The server's words, which the page shows to nobody but keeps with the result. */
function inWords({ name, value, at_least, at_most }: Check): string {
  const low = at_least ?? 0;
  const high = at_most ?? 0;
  switch (name) {
    case "brightness":
      return value < low
        ? `too dark: brightness ${percent(value, 0)}, expected at least ${percent(low, 0)}; take it in daylight`
        : `too bright: brightness ${percent(value, 0)}, expected at most ${percent(high, 0)}; turn away from the sun`;
    case "dark":
      return `too dark: ${percent(value, 0)} of it is black, expected at most ${percent(high, 0)}; take it in daylight`;
    case "bright":
      return `overexposed: ${percent(value, 0)} of it is white, expected at most ${percent(high, 0)}; turn away from the sun`;
    case "contrast":
      return `hardly anything to see: contrast ${percent(value, 1)}, expected at least ${percent(low, 1)}; come nearer to the leaf`;
    case "sharpness":
      return `blurred, or too small: sharpness ${fixed(value, 0)}, expected at least ${fixed(low, 0)}; hold still and focus`;
    case "foreign":
      return `not like the cassava leaves of the training: ${fixed(value, 2)} on a scale where they end at ${fixed(high, 2)}; let one leaf fill the photo`;
    case "confidence":
      return `not sure enough: confidence ${percent(value, 0)}, expected at least ${percent(low, 0)}; ask about another leaf too`;
  }
}
