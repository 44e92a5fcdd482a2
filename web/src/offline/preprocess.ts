/** What the network sees of a photo, as `imaging/preprocess.py` defines it. */

import { Refused } from "../diagnoser";
import type { OfflineModel } from "./model";
import { type Area, type Pixels, type Size, resize } from "./pixels";

const MAX_ASPECT = 50; // beyond it a strip would outgrow any photo

/** The size with the shorter side `sidePx` and the longer one rounded, halves up. */
export function resizedSize({ width, height }: Size, sidePx: number): Size {
  const shorter = Math.min(width, height);
  const longer = Math.max(width, height);
  const scaled = Math.floor((2 * longer * sidePx + shorter) / (2 * shorter));
  return height <= width ? { width: scaled, height: sidePx } : { width: sidePx, height: scaled };
}

/** The central square; of an odd margin the smaller half lies above and left. */
export function centralSquare({ width, height }: Size, sidePx: number): Area {
  const left = Math.floor((width - sidePx) / 2);
  const top = Math.floor((height - sidePx) / 2);
  return { left, top, width: sidePx, height: sidePx };
}

/** @throws Refused for a strip: one side over `MAX_ASPECT` times the other. */
export function checkAspect({ width, height }: Size): void {
  if (Math.max(width, height) > MAX_ASPECT * Math.min(width, height)) {
    const seen = `image: a strip of ${width}x${height} pixels`;
    throw new Refused(422, seen, `sides within a ratio of ${MAX_ASPECT}; crop it to the leaf`);
  }
}

/** The picture with the shorter side `sidePx`. */
export function resizeShorterSide(picture: Pixels, sidePx: number, enlarge = true): Pixels {
  checkAspect(picture);
  const shorter = Math.min(picture.width, picture.height);
  if (shorter === sidePx || (shorter < sidePx && !enlarge)) return picture;
  const { width, height } = resizedSize(picture, sidePx);
  return resize(picture, width, height);
}

/** The square that the network is shown. */
export function toNetworkSize(picture: Pixels, model: OfflineModel): Pixels {
  checkAspect(picture);
  const { width, height } = resizedSize(picture, model.resize_side_px);
  return resize(picture, width, height, centralSquare({ width, height }, model.preprocessing.image_size_px));
}

/** `(value / 255 - mean) / std` of each channel, one channel after the other: (3, S, S) float32. */
export function normalize({ data, width, height }: Pixels, model: OfflineModel): Float32Array {
  const { mean, std } = model.preprocessing;
  const plane = width * height;
  const out = new Float32Array(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    const scale = Math.fround(1 / (255 * std[channel]!));
    const shift = Math.fround(-mean[channel]! / std[channel]!);
    const table = Float32Array.from({ length: 256 }, (_, value) => Math.fround(value * scale) + shift);
    const start = channel * plane;
    for (let place = 0; place < plane; place++) out[start + place] = table[data[place * 3 + channel]!]!;
  }
  return out;
}
