/** What the page asks of the worker that runs the model, and what it is told. */

import type { Prediction } from "../answer";
import type { OfflineModel } from "./model";

/** First of all: which model, and where its parts lie in Cache Storage. */
export interface Opening {
  kind: "open";
  model: OfflineModel;
  cache: string;
  modelAddress: string;
  wasmAddress: string;
}

export interface PhotoQuestion {
  kind: "photo";
  photo: Blob;
  name: string;
}

export interface HeatmapQuestion {
  kind: "heatmap";
  photo: Blob;
  name: string;
  classId: number;
}

export type Question = Opening | PhotoQuestion | HeatmapQuestion;

export interface Asked {
  id: number;
  question: Question;
}

export type Told =
  | { id: number; answer: Prediction | Blob | null }
  | { id: number; refused: { status: number; seen: string; expected: string } }
  | { id: number; failed: string };
