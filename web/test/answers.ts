/** Answers as the API gives them. */

import { CLASS_NAMES, type PlantPrediction, type Prediction } from "../src/answer";

export function prediction(changed: Partial<Prediction> = {}): Prediction {
  const classId = changed.predicted_class_id ?? 3;
  return {
    predicted_class_id: classId,
    class_name: CLASS_NAMES[classId] ?? "",
    confidence: 0.9,
    probabilities: Object.fromEntries(CLASS_NAMES.map((name, index) => [name, index === classId ? 0.9 : 0.025])),
    top_k: [],
    verdict: "diagnosis",
    reasons: [],
    checks: [],
    model: { name: "small", version: "1", source: "explicit", path: "small.onnx" },
    image: null,
    ...changed,
  };
}

export function plant(photos: Prediction[], changed: Partial<PlantPrediction> = {}): PlantPrediction {
  return {
    ...prediction(),
    counted: photos.map((_, index) => index),
    left_out: [],
    more_leaves: 0,
    photos,
    ...changed,
  };
}
