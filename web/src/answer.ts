/** The JSON of the API, as `src/cassava_leaf_disease/domain.py` defines it. */

export const CLASS_NAMES = [
  "Cassava Bacterial Blight",
  "Cassava Brown Streak Disease",
  "Cassava Green Mottle",
  "Cassava Mosaic Disease",
  "Healthy",
] as const;

export const HEALTHY = 4;

export type Verdict = "diagnosis" | "uncertain" | "not_cassava" | "poor_photo";

export type CheckName = "sharpness" | "brightness" | "contrast" | "dark" | "bright" | "foreign" | "confidence";

export interface ClassProbability {
  class_id: number;
  class_name: string;
  prob: number;
}

export interface ModelIdentity {
  name: string;
  version: string;
  source: string;
  path: string;
  members?: string[];
}

export interface Check {
  name: CheckName;
  value: number;
  at_least: number | null;
  at_most: number | null;
  passed: boolean;
}

export interface Prediction {
  predicted_class_id: number;
  class_name: string;
  confidence: number;
  probabilities: Record<string, number>;
  top_k: ClassProbability[];
  verdict: Verdict;
  reasons: string[];
  checks: Check[];
  model: ModelIdentity;
  image: string | null;
}

export interface LeftOut {
  index: number;
  image: string | null;
  reason: "not_cassava" | "poor_photo";
}

export interface PlantPrediction extends Prediction {
  counted: number[];
  left_out: LeftOut[];
  /** How many more leaves are expected to make it a diagnosis; null where ten would not. */
  more_leaves: number | null;
  photos: Prediction[];
}

export function isPlant(answer: Prediction | PlantPrediction): answer is PlantPrediction {
  return "photos" in answer;
}
