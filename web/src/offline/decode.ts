/** The bytes of a photo to its pixels, by the browser's own decoder. */

import { Refused } from "../diagnoser";
import { damaged, openContainer } from "./container";
import type { Limits } from "./model";
import { type Pixels, upright } from "./pixels";

const STRIP_PIXELS = 2 ** 22; // of a canvas: iPhones have none for more than 2 ** 24

/** @throws Refused with the API's status and words. */
export async function decodePhoto(bytes: Uint8Array<ArrayBuffer>, limits: Limits, name: string): Promise<Pixels> {
  const coded = openContainer(bytes, limits, name);
  const blob = new Blob(coded.parts, { type: coded.kind === "JPEG" ? "image/jpeg" : "image/png" });
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw damaged(coded.kind, "this browser cannot decode it", name);
  }
  try {
    return upright(pixelsOf(bitmap), coded.orientation);
  } finally {
    bitmap.close();
  }
}

/** Strip by strip through a canvas, laid on white. */
function pixelsOf(bitmap: ImageBitmap): Pixels {
  const { width, height } = bitmap;
  const data = new Uint8Array(width * height * 3);
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Refused(501, "no canvas in this browser", "a newer browser");
  for (let top = 0; top < height; top += rows) {
    const wanted = Math.min(rows, height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    withoutAlpha(context.getImageData(0, 0, width, wanted).data, data, top * width * 3);
  }
  return { data, width, height };
}

function withoutAlpha(rgba: Uint8ClampedArray, rgb: Uint8Array, start: number): void {
  for (let from = 0, to = start; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from]!;
    rgb[to + 1] = rgba[from + 1]!;
    rgb[to + 2] = rgba[from + 2]!;
  }
}

/** Whether a canvas here gives back what was drawn: some browsers change it against tracking, and would mislead. */
export function canvasIsHonest(): boolean {
  const canvas = new OffscreenCanvas(16, 16);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return false;
  const drawn = new ImageData(16, 16);
  for (let place = 0; place < drawn.data.length; place++) drawn.data[place] = place % 4 === 3 ? 255 : (place * 7) % 256;
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 16, 16).data;
  return drawn.data.every((value, place) => Math.abs(value - read[place]!) <= 2);
}

/** The picture as a PNG file. */
export async function toPng({ data, width, height }: Pixels): Promise<Blob> {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (!context) throw new Refused(501, "no canvas in this browser", "a newer browser");
  const drawn = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    drawn.data[to] = data[from]!;
    drawn.data[to + 1] = data[from + 1]!;
    drawn.data[to + 2] = data[from + 2]!;
    drawn.data[to + 3] = 255;
  }
  context.putImageData(drawn, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
