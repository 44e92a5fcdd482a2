/**
 * Pictures as rows of RGB bytes, and what Pillow 13 does to them, to the bit. Only where a picture is more than twice as
 * high as wide does Pillow resize in the other order, which rounds some bytes to their neighbour.
 */

export interface Pixels {
  /** Red, green, blue of each pixel, row by row. */
  data: Uint8Array;
  width: number;
  height: number;
}

export interface Area {
  left: number;
  top: number;
  width: number;
  height: number;
}

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** Which input pixels each output pixel is made of along one side, and how much of each. */
interface Taps {
  first: Int32Array;
  count: Int32Array;
  /** `most` of them for each output pixel; they sum to 1. */
  weights: Float64Array;
  most: number;
}

/** The taps of the triangle filter, widened where the picture shrinks. */
function taps(from: number, to: number): Taps {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  const inverse = 1 / reach;
  const most = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weights = new Float64Array(to * most);
  for (let out = 0; out < to; out++) {
    const center = (out + 0.5) * scale;
    const start = Math.max(Math.trunc(center - reach + 0.5), 0);
    const end = Math.min(Math.trunc(center + reach + 0.5), from);
    let sum = 0;
    for (let place = start; place < end; place++) {
      const distance = Math.abs((place - center + 0.5) * inverse);
      const weight = distance < 1 ? 1 - distance : 0;
      weights[out * most + place - start] = weight;
      sum += weight;
    }
    for (let tap = 0; tap < end - start; tap++) weights[out * most + tap]! /= sum;
    first[out] = start;
    count[out] = end - start;
  }
  return { first, count, weights, most };
}

function fixedPoint({ weights }: Taps): Int32Array {
  return Int32Array.from(weights, (weight) => Math.trunc(0.5 + weight * (1 << PRECISION_BITS)));
}

/** The part `area` of the picture resized to `width` x `height`, antialiased bilinear. */
export function resize(picture: Pixels, width: number, height: number, area?: Area): Pixels {
  const part = area ?? { left: 0, top: 0, width, height };
  const vertical = taps(picture.height, height);
  const bottom = part.top + part.height - 1;
  const firstRow = vertical.first[part.top]!;
  const rows = vertical.first[bottom]! + vertical.count[bottom]! - firstRow;
  const across = resizeAcross(picture, width, part, firstRow, rows);
  const data =
    height === picture.height
      ? across.subarray(0, part.height * part.width * 3)
      : resizeDown(across, part, vertical, firstRow);
  return { data, width: part.width, height: part.height };
}

/** The columns of `part`, of `rows` rows from `firstRow` on. */
function resizeAcross(picture: Pixels, width: number, part: Area, firstRow: number, rows: number): Uint8Array {
  const { data } = picture;
  const out = new Uint8Array(rows * part.width * 3);
  if (width === picture.width) {
    for (let row = 0; row < rows; row++) {
      const from = ((firstRow + row) * width + part.left) * 3;
      out.set(data.subarray(from, from + part.width * 3), row * part.width * 3);
    }
    return out;
  }
  const horizontal = taps(picture.width, width);
  const { first, count, most } = horizontal;
  const weights = fixedPoint(horizontal);
  let place = 0;
  for (let row = firstRow; row < firstRow + rows; row++) {
    const start = row * picture.width * 3;
    for (let column = part.left; column < part.left + part.width; column++) {
      let from = start + first[column]! * 3;
      let tap = column * most;
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      for (const end = tap + count[column]!; tap < end; tap++, from += 3) {
        const weight = weights[tap]!;
        red += data[from]! * weight;
        green += data[from + 1]! * weight;
        blue += data[from + 2]! * weight;
      }
      out[place++] = red >> PRECISION_BITS; // within 0 to 255, since no weight is negative
      out[place++] = green >> PRECISION_BITS;
      out[place++] = blue >> PRECISION_BITS;
    }
  }
  return out;
}

function resizeDown(across: Uint8Array, part: Area, vertical: Taps, firstRow: number): Uint8Array {
  const { first, count, most } = vertical;
  const weights = fixedPoint(vertical);
  const stride = part.width * 3;
  const out = new Uint8Array(part.height * stride);
  const sums = new Int32Array(stride);
  for (let row = 0; row < part.height; row++) {
    sums.fill(HALF);
    const from = first[part.top + row]! - firstRow;
    for (let tap = 0; tap < count[part.top + row]!; tap++) {
      const weight = weights[(part.top + row) * most + tap]!;
      const start = (from + tap) * stride;
      for (let place = 0; place < stride; place++) sums[place]! += across[start + place]! * weight;
    }
    for (let place = 0; place < stride; place++) out[row * stride + place] = sums[place]! >> PRECISION_BITS;
  }
  return out;
}

/** Real values `from` resized as Pillow does its mode F. */
export function resizeValues(values: Float32Array, from: Size, to: Size): Float32Array {
  let { width } = from;
  let now = values;
  if (to.width !== width) {
    now = resizeRows(now, from.height, width, to.width);
    width = to.width;
  }
  return to.height === from.height ? now : resizeColumns(now, width, from.height, to.height);
}

export interface Size {
  width: number;
  height: number;
}

function resizeRows(values: Float32Array, rows: number, from: number, to: number): Float32Array {
  const { first, count, weights, most } = taps(from, to);
  const out = new Float32Array(rows * to);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < to; column++) {
      let sum = 0;
      for (let tap = 0; tap < count[column]!; tap++) {
        sum += values[row * from + first[column]! + tap]! * weights[column * most + tap]!;
      }
      out[row * to + column] = sum;
    }
  }
  return out;
}

function resizeColumns(values: Float32Array, width: number, from: number, to: number): Float32Array {
  const { first, count, weights, most } = taps(from, to);
  const out = new Float32Array(to * width);
  const sums = new Float64Array(width);
  for (let row = 0; row < to; row++) {
    sums.fill(0);
    for (let tap = 0; tap < count[row]!; tap++) {
      const weight = weights[row * most + tap]!;
      const start = (first[row]! + tap) * width;
      for (let column = 0; column < width; column++) sums[column]! += values[start + column]! * weight;
    }
    out.set(sums, row * width);
  }
  return out;
}

/** The picture shrunk by a whole factor: each pixel the mean of a square; smaller ones at the right and lower edge. */
export function reduce(picture: Pixels, factor: number): Pixels {
  const width = Math.ceil(picture.width / factor);
  const height = Math.ceil(picture.height / factor);
  const out = new Uint8Array(width * height * 3);
  const sums = new Uint32Array(width * 3);
  for (let row = 0; row < height; row++) {
    const bottom = Math.min((row + 1) * factor, picture.height);
    sums.fill(0);
    for (let y = row * factor; y < bottom; y++) addRow(picture, y, factor, sums);
    for (let column = 0; column < width; column++) {
      const columns = Math.min((column + 1) * factor, picture.width) - column * factor;
      const count = columns * (bottom - row * factor);
      const half = count >> 1;
      const multiplier = Math.trunc(Math.fround(2 ** 32 / Math.fround(256 * count)));
      for (let channel = 0; channel < 3; channel++) {
        const sum = sums[column * 3 + channel]! + half;
        out[(row * width + column) * 3 + channel] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return { data: out, width, height };
}

function addRow({ data, width }: Pixels, y: number, factor: number, sums: Uint32Array): void {
  let from = y * width * 3;
  for (let left = 0, place = 0; left < width; left += factor, place += 3) {
    for (const right = Math.min(left + factor, width) - left, end = from + right * 3; from < end; from += 3) {
      sums[place]! += data[from]!;
      sums[place + 1]! += data[from + 1]!;
      sums[place + 2]! += data[from + 2]!;
    }
  }
}

/** How the EXIF orientations 2 to 8 find the pixel of a source: sides changed, then mirrored across, and down. */
const TURNS: Record<number, [swapped: boolean, mirroredX: boolean, mirroredY: boolean]> = {
  2: [false, true, false],
  3: [false, true, true],
  4: [false, false, true],
  5: [true, false, false],
  6: [true, false, true],
  7: [true, true, true],
  8: [true, true, false],
};

/** The picture upright, by the EXIF orientation 1 to 8 that it was taken with. */
export function upright(picture: Pixels, orientation: number): Pixels {
  const turn = TURNS[orientation];
  if (!turn) return picture;
  const [swapped, mirroredX, mirroredY] = turn;
  const { data } = picture;
  const width = swapped ? picture.height : picture.width;
  const height = swapped ? picture.width : picture.height;
  const out = new Uint8Array(data.length);
  let place = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const alongX = swapped ? y : x;
      const alongY = swapped ? x : y;
      const sourceX = mirroredX ? picture.width - 1 - alongX : alongX;
      const sourceY = mirroredY ? picture.height - 1 - alongY : alongY;
      let from = (sourceY * picture.width + sourceX) * 3;
      out[place++] = data[from++]!;
      out[place++] = data[from++]!;
      out[place++] = data[from]!;
    }
  }
  return { data: out, width, height };
}
