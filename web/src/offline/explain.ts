/** Where in a photo the model sees a class, laid over the photo, as `inference/explain.py` draws it. */

import { softmax } from "./aggregate";
import type { OfflineModel } from "./model";
import { type Area, type Pixels, type Size, resizeValues } from "./pixels";
import { centralSquare, resizeShorterSide, resizedSize } from "./preprocess";

const OVERLAY_SIDE_PX = 768;
// Eleven colours of matplotlib's `plasma` (van der Walt and Smith, 2015, CC0).
const PLASMA = [
  [13, 8, 135], [65, 4, 157], [106, 0, 168], [143, 13, 164], [177, 42, 144], [204, 71, 120],
  [225, 100, 98], [242, 132, 75], [252, 166, 54], [252, 206, 37], [240, 249, 33],
] as const;
const COLOUR_LOSS = Math.fround(0.9);
const OPAQUE = 0.55;
const UNSEEN = 0.35;

export interface ClassMaps extends Size {
  /** `(C, h, w)`: the classifier's answer at each place. */
  values: Float32Array;
}

/** The photo, large ones reduced, under the heat of one class. */
export function drawHeatmap(picture: Pixels, maps: ClassMaps, classId: number, model: OfflineModel): Pixels {
  const shown = resizeShorterSide(picture, OVERLAY_SIDE_PX, false);
  const square = resizeValues(placeProbabilities(maps, classId, model), maps, squareOf(model));
  const resized = resizedSize(picture, model.resize_side_px);
  const area = centralSquare(resized, model.preprocessing.image_size_px);
  const covered = resizeValues(within(resized, area, null), resized, shown);
  const total = resizeValues(within(resized, area, square), resized, shown);
  // Along the edge of what was shown the filter mixes in nothing: dividing by what it mixed takes that out again.
  const heat = total.map((value, place) => (covered[place]! > 0.5 ? Math.fround(value / covered[place]!) : 0));
  return overlay(shown, heat, covered);
}

/** The probability that the model would give the class if the whole photo looked to it as each place `(h, w)` does. */
export function placeProbabilities(maps: ClassMaps, classId: number, { temperature }: OfflineModel): Float32Array {
  const plane = maps.width * maps.height;
  const classes = Array.from({ length: maps.values.length / plane }, (_, index) => index);
  return Float32Array.from({ length: plane }, (_, place) => {
    const logits = classes.map((index) => maps.values[index * plane + place]!);
    return softmax(logits, temperature)[classId]!;
  });
}

function squareOf({ preprocessing }: OfflineModel): Size {
  return { width: preprocessing.image_size_px, height: preprocessing.image_size_px };
}

/** A field of nothing with `values` (or ones) in its area. */
function within({ width, height }: Size, area: Area, values: Float32Array | null): Float32Array {
  const field = new Float32Array(width * height);
  for (let row = 0; row < area.height; row++) {
    const start = (area.top + row) * width + area.left;
    if (values) field.set(values.subarray(row * area.width, (row + 1) * area.width), start);
    else field.fill(1, start, start + area.width);
  }
  return field;
}

/** A photo that has lost most of its colour under its heat in [0, 1]; what was not shown to the network is dark. */
export function overlay({ data, width, height }: Pixels, heat: Float32Array, covered: Float32Array): Pixels {
  const { colours, covering } = colourTable();
  const out = new Uint8Array(data.length);
  for (let place = 0, from = 0; place < heat.length; place++, from += 3) {
    const grey = (data[from]! * 19595 + data[from + 1]! * 38470 + data[from + 2]! * 7471 + 0x8000) >> 16;
    const level = roundHalfEven(Math.fround(Math.fround(clamp(heat[place]!)) * 255));
    const seen = covered[place]! > 0.5;
    for (let channel = 0; channel < 3; channel++) {
      const value = data[from + channel]!;
      const muted = Math.trunc(Math.fround(value + Math.fround(COLOUR_LOSS * (grey - value))));
      out[from + channel] = seen
        ? mixed(colours[level * 3 + channel]!, muted, covering[level]!)
        : roundHalfEven(muted * UNSEEN);
    }
  }
  return { data: out, width, height };
}

function clamp(value: number): number {
  return Math.min(Math.max(value, 0), 1);
}

/** Pillow's way to mix two bytes by a third one. */
function mixed(over: number, under: number, share: number): number {
  const sum = under * (255 - share) + over * share + 128;
  return ((sum >> 8) + sum) >> 8;
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

let table: { colours: Uint8Array; covering: Uint8Array } | undefined;

/** For 256 levels of heat the colours, and how much of the photo they cover. */
function colourTable() {
  if (table) return table;
  const colours = new Uint8Array(256 * 3);
  const covering = new Uint8Array(256);
  for (let level = 0; level < 256; level++) {
    const share = level / 255;
    const anchor = Math.min(Math.floor(share * 10), 9);
    for (let channel = 0; channel < 3; channel++) {
      const low = PLASMA[anchor]![channel]!;
      const high = PLASMA[anchor + 1]![channel]!;
      colours[level * 3 + channel] = roundHalfEven(low + (share * 10 - anchor) * (high - low));
    }
    covering[level] = roundHalfEven(OPAQUE * Math.min(share / 0.5, 1) * 255);
  }
  table = { colours, covering };
  return table;
}
