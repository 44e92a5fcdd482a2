/** The pictures of `tools/offline_fixture.py`, and what that computed of them. */

import type { OfflineModel } from "../../src/offline/model";
import type { Pixels } from "../../src/offline/pixels";
import fixture from "./fixture.json";

export { fixture };

/** As `draw` there. */
export function draw(width: number, height: number, kind = "drawn"): Pixels {
  const data = new Uint8Array(width * height * 3);
  let place = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) data[place++] = valueAt(x, y, channel, kind);
    }
  }
  return { data, width, height };
}

function valueAt(x: number, y: number, channel: number, kind: string): number {
  if (kind === "grey 16") return 16;
  if (kind === "page") return (Math.floor(x / 9) + Math.floor(y / 14)) % 5 === 0 ? 20 : 250;
  const block = Math.floor(x / 8) * Math.floor(y / 16) * (channel + 1) * 11;
  return (x * (3 + channel) + y * (5 + 2 * channel) + block) % 256;
}

export function bytes(coded: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(coded), (character) => character.charCodeAt(0));
}

export function floats(coded: string): Float32Array {
  return new Float32Array(bytes(coded).buffer);
}

/** A model's description with what a test is about. */
export function described(changed: Partial<OfflineModel>): OfflineModel {
  return {
    format_version: 1,
    name: "fixture",
    version: "1",
    source: "explicit",
    bytes: 0,
    sha256: "",
    url: "offline/model.onnx",
    input_name: "images",
    output_names: ["logits"],
    class_names: [
      "Cassava Bacterial Blight",
      "Cassava Brown Streak Disease",
      "Cassava Green Mottle",
      "Cassava Mosaic Disease",
      "Healthy",
    ],
    preprocessing: {
      image_size_px: 24,
      crop_ratio: 1,
      resize: "shorter_side",
      interpolation: "bilinear_antialiased",
      crop: "center",
      mean: [0, 0, 0],
      std: [1, 1, 1],
    },
    resize_side_px: 24,
    temperature: 1,
    min_confidence: 0.5,
    quality: null,
    gates: [],
    pooling: fixture.pooling as OfflineModel["pooling"],
    limits: fixture.limits,
    ...changed,
  };
}
