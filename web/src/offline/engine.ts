/** The worker that answers on this device: a photo's bytes to the same JSON that the server would give. */

import { InferenceSession, Tensor, env } from "onnxruntime-web/wasm";
import type { Prediction } from "../answer";
import { Refused } from "../diagnoser";
import { byName, rankClasses, softmax } from "./aggregate";
import { canvasIsHonest, decodePhoto, toPng } from "./decode";
import { drawHeatmap } from "./explain";
import { type Foreign, judge, openGates } from "./gate";
import type { OfflineModel } from "./model";
import type { Pixels } from "./pixels";
import { normalize, toNetworkSize } from "./preprocess";
import { measureQuality } from "./quality";
import type { Asked, HeatmapQuestion, Opening, PhotoQuestion, Told } from "./questions";

interface Opened {
  model: OfflineModel;
  session: InferenceSession;
  foreign: Foreign | null;
}

interface Outputs {
  logits: Float32Array;
  features: Float32Array | undefined;
  maps: { values: Float32Array; width: number; height: number } | undefined;
}

let opened: Promise<Opened> | null = null;

self.onmessage = ({ data: { id, question } }: MessageEvent<Asked>) => {
  const work = question.kind === "open" ? begin(question) : question.kind === "photo" ? answer(question) : heatmap(question);
  work.then(
    (said) => tell({ id, answer: said }),
    (failure: unknown) => tell(failure instanceof Refused ? { id, refused: { ...asPlain(failure) } } : { id, failed: String(failure) }),
  );
};

function tell(told: Told): void {
  self.postMessage(told);
}

function asPlain({ status, seen, expected }: Refused) {
  return { status, seen, expected };
}

async function begin(opening: Opening): Promise<null> {
  opened = open(opening);
  await opened;
  return null;
}

async function open({ model, cache, modelAddress, wasmAddress }: Opening): Promise<Opened> {
  if (!canvasIsHonest()) {
    throw new Refused(501, "a browser that changes what a page reads of a photo", "a browser without that protection");
  }
  const kept = await caches.open(cache);
  env.wasm.wasmBinary = await bytesAt(kept, wasmAddress);
  env.wasm.numThreads = 1; // more need headers that keep a page apart from all others
  env.logLevel = "error";
  const network = new Uint8Array(await bytesAt(kept, modelAddress));
  const session = await InferenceSession.create(network, { executionProviders: ["wasm"] });
  return { model, session, foreign: openGates(model) };
}

async function bytesAt(cache: Cache, address: string): Promise<ArrayBuffer> {
  const kept = await cache.match(address, { ignoreVary: true });
  if (!kept) throw new Error(`${address} is not on this device; download the model again`);
  return kept.arrayBuffer();
}

async function answer({ photo, name }: PhotoQuestion): Promise<Prediction> {
  const { model, session, foreign } = await ready();
  const picture = await decoded(photo, name, model);
  const quality = model.quality ? measureQuality(picture) : null;
  const { logits, features } = await run(session, picture, model);
  const probabilities = softmax(logits, model.temperature);
  const ranking = rankClasses(probabilities, model.class_names);
  const best = ranking[0]!;
  const strange = foreign ? foreign(logits, features) : null;
  return {
    predicted_class_id: best.class_id,
    class_name: best.class_name,
    confidence: best.prob,
    probabilities: byName(probabilities, model.class_names),
    top_k: ranking,
    ...judge(best.prob, model, quality, model.quality, strange),
    model: { name: model.name, version: model.version, source: model.source, path: "offline/model.onnx" },
    image: name,
  };
}

async function heatmap({ photo, name, classId }: HeatmapQuestion): Promise<Blob> {
  const { model, session } = await ready();
  const picture = await decoded(photo, name, model);
  const { maps } = await run(session, picture, model);
  if (!maps) {
    throw new Refused(501, `${model.name}: this model file gives no class maps`, "a model that was exported with them");
  }
  return toPng(drawHeatmap(picture, maps, classId, model));
}

async function ready(): Promise<Opened> {
  if (!opened) throw new Error("no model was opened before a photo");
  return opened;
}

async function decoded(photo: Blob, name: string, { limits }: OfflineModel): Promise<Pixels> {
  return decodePhoto(new Uint8Array(await photo.arrayBuffer()), limits, name);
}

async function run(session: InferenceSession, picture: Pixels, model: OfflineModel): Promise<Outputs> {
  const side = model.preprocessing.image_size_px;
  const images = new Tensor("float32", normalize(toNetworkSize(picture, model), model), [1, 3, side, side]);
  const outputs = await session.run({ [model.input_name]: images });
  const { logits, features, maps } = outputs;
  if (!logits) throw new Error("the model gives no logits; download it again");
  const values = logits.data as Float32Array;
  if (!values.every(Number.isFinite)) throw new Error("the model gives no finite answer; download it again");
  return {
    logits: values,
    features: features?.data as Float32Array | undefined,
    maps: maps && { values: maps.data as Float32Array, height: maps.dims[2]!, width: maps.dims[3]! },
  };
}
