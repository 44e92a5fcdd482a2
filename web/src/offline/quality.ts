/** Whether a photo shows anything, as `imaging/quality.py` measures it. */

import { type Pixels, reduce } from "./pixels";
import { resizeShorterSide } from "./preprocess";

const WORKING_SIDE_PX = 192;
const DARK = 16;
const BRIGHT = 245;
const COLOR_STEPS = 32;
const RED = Math.fround(0.299);
const GREEN = Math.fround(0.587);
const BLUE = Math.fround(0.114);

export interface PhotoQuality {
  /** The variance of the Laplacian of luma. */
  sharpness: number;
  /** Mean and standard deviation of luma, in [0, 1]. */
  brightness: number;
  contrast: number;
  /** Fractions of pixels that are nearly black, and nearly white. */
  dark: number;
  bright: number;
  /** Distinct colours, each channel in 32 steps up to the brightest value. */
  colors: number;
}

export function measureQuality(picture: Pixels): PhotoQuality {
  const factor = Math.floor(Math.min(picture.width, picture.height) / (2 * WORKING_SIDE_PX));
  const small = resizeShorterSide(factor < 2 ? picture : reduce(picture, factor), WORKING_SIDE_PX);
  const luma = lumaOf(small);
  const spread = moments(luma);
  return {
    sharpness: moments(laplacian(luma, small.width, small.height)).variance,
    brightness: spread.mean / 255,
    contrast: Math.sqrt(spread.variance) / 255,
    dark: luma.filter((value) => value < DARK).length / luma.length,
    bright: luma.filter((value) => value > BRIGHT).length / luma.length,
    colors: countColors(small.data),
  };
}

/** ITU-R BT.601, 0 to 255. */
function lumaOf({ data, width, height }: Pixels): Float32Array {
  const luma = new Float32Array(width * height);
  for (let place = 0, from = 0; place < luma.length; place++, from += 3) {
    luma[place] = Math.fround(Math.fround(data[from]! * RED) + Math.fround(data[from + 1]! * GREEN)) + Math.fround(data[from + 2]! * BLUE);
  }
  return luma;
}

function laplacian(luma: Float32Array, width: number, height: number): Float32Array {
  const out = new Float32Array((width - 2) * (height - 2));
  let place = 0;
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1, from = y * width + 1; x < width - 1; x++, from++) {
      out[place++] = luma[from - width]! + luma[from + width]! + luma[from - 1]! + luma[from + 1]! - 4 * luma[from]!;
    }
  }
  return out;
}

function moments(values: Float32Array): { mean: number; variance: number } {
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return { mean, variance: squares / values.length };
}

function countColors(data: Uint8Array): number {
  let brightest = 1;
  for (const value of data) if (value > brightest) brightest = value;
  const step = Uint8Array.from({ length: 256 }, (_, value) => Math.floor((value * (COLOR_STEPS - 1)) / brightest));
  const seen = new Uint8Array(COLOR_STEPS ** 3);
  let colors = 0;
  for (let from = 0; from < data.length; from += 3) {
    const code = (step[data[from]!]! * COLOR_STEPS + step[data[from + 1]!]!) * COLOR_STEPS + step[data[from + 2]!]!;
    colors += 1 - seen[code]!;
    seen[code] = 1;
  }
  return colors;
}
