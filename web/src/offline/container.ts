/**
 * A JPEG or PNG judged by its content, walked without decoding, as `imaging/decode.py` does: size, EXIF orientation,
 * animation, truncation. What codes the picture itself is all that is left of it, so that the browser's decoder sees
 * no orientation and no colour profile, as the server's does not.
 */

import { Refused } from "../diagnoser";
import type { Limits } from "./model";
import { bytesRepr, thousands } from "./words";

export interface Coded {
  kind: "JPEG" | "PNG";
  parts: Uint8Array<ArrayBuffer>[];
  width: number;
  height: number;
  /** 1 to 8, of EXIF. */
  orientation: number;
}

type Bytes = Uint8Array<ArrayBuffer>;

const JPEG_SIGNATURE = [0xff, 0xd8, 0xff];
const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const MAX_JPEG_SCANS = 500;
const MAX_CHUNKS = 100_000;

/** What else arrives as "a photo": where its mark stands in the first 32 bytes. */
const OTHER_FORMATS: [name: string, offset: number, mark: RegExp][] = [
  ["GIF", 0, /^GIF8[79]a/s],
  ["WebP", 0, /^RIFF.{4}WEBP/s],
  ["AVIF", 4, /^ftypavi[fs]/s],
  ["HEIC", 4, /^ftyp(hei[cxms]|hev[cx]|mif1|msf1)/s],
  ["MP4 or QuickTime video", 4, /^ftyp/s],
  ["BMP", 0, /^BM.{4}\0{4}/s],
  ["TIFF", 0, /^(II\*\0|MM\0\*)/s],
  ["JPEG XL", 0, /^(\xff\x0a|\0{3}\x0cJXL )/s],
  ["JPEG 2000", 0, /^(\0{3}\x0cjP {2}|\xff\x4f\xff\x51)/s],
  ["PSD", 0, /^8BPS/s],
  ["ICO", 0, /^\0\0\x01\0/s],
  ["PDF", 0, /^%PDF-/s],
  ["ZIP", 0, /^PK\x03\x04/s],
  ["SVG, HTML or XML", 0, /^(\xef\xbb\xbf)?[ \t\n\r\f\v]*<[?!a-zA-Z]/s],
];

/** @throws Refused with the API's status and words. */
export function openContainer(bytes: Bytes, limits: Limits, name: string): Coded {
  if (bytes.length === 0) {
    throw new Refused(422, `${name}: empty, 0 bytes`, "a JPEG or PNG photo; send the file again");
  }
  if (bytes.length > limits.max_upload_bytes) {
    const most = `one photo of at most ${thousands(limits.max_upload_bytes)} bytes`;
    throw new Refused(413, `${name}: more than ${thousands(limits.max_upload_bytes)} bytes`, `${most}; save it smaller`);
  }
  if (startsWith(bytes, JPEG_SIGNATURE)) return walkJpeg(bytes, limits, name);
  if (startsWith(bytes, PNG_SIGNATURE)) return walkPng(bytes, limits, name);
  throw new Refused(415, `${name}: ${seenIn(bytes)}`, "a JPEG or PNG photo; save it as JPEG");
}

export function damaged(kind: string, why: string, name: string): Refused {
  return new Refused(422, `${name}: a truncated or damaged ${kind} (${why})`, "a whole photo; send it again");
}

function startsWith(bytes: Bytes, mark: number[] | string, from = 0): boolean {
  const wanted = typeof mark === "string" ? Array.from(mark, (character) => character.charCodeAt(0)) : mark;
  return wanted.every((byte, index) => bytes[from + index] === byte);
}

function seenIn(bytes: Bytes): string {
  for (const [kind, offset, mark] of OTHER_FORMATS) {
    if (mark.test(String.fromCharCode(...bytes.subarray(offset, offset + 32)))) return `a ${kind} file`;
  }
  return `no image (${thousands(bytes.length)} bytes starting ${bytesRepr(bytes.subarray(0, 8))})`;
}

interface Part {
  start: number;
  body: number;
  end: number;
}

/** Keeps tables, frame, scans and the two markers that tell the colour space (JFIF, Adobe). */
function walkJpeg(bytes: Bytes, limits: Limits, name: string): Coded {
  const view = viewOf(bytes);
  const parts = [bytes.subarray(0, 2)];
  let frame: { width: number; height: number } | null = null;
  let [orientation, scans, components, adobe] = [1, 0, 3, false];
  for (const { marker, start, body, end } of jpegSegments(bytes, name)) {
    if (isFrame(marker)) {
      if (end - body < 6) throw damaged("JPEG", "its frame header is cut short", name);
      const bits = bytes[body]!;
      components = bytes[body + 5]!;
      if (bits !== 8 || ![1, 3, 4].includes(components)) {
        const seen = `${name}: a JPEG of ${bits} bits and ${components} components`;
        throw new Refused(415, seen, "8 bits and 1, 3 or 4; save it as an 8-bit JPEG");
      }
      frame = { height: view.getUint16(body + 1), width: view.getUint16(body + 3) };
      checkPixels(frame.width, frame.height, limits, name);
    } else if (marker === 0xe1 && startsWith(bytes, "Exif\0\0", body) && body + 6 <= end) {
      orientation = exifOrientation(bytes.subarray(body + 6, end));
    } else if (marker === 0xda && ++scans > MAX_JPEG_SCANS) {
      const seen = `${name}: a JPEG of more than ${MAX_JPEG_SCANS} scans`;
      throw new Refused(422, seen, "a photo of few scans; save it anew");
    }
    const isAdobe = startsWith(bytes, "Adobe", body);
    adobe ||= marker === 0xee && isAdobe;
    const isMetadata = marker >= 0xe0 && marker <= 0xfe && !startsWith(bytes, "JFIF\0", body) && !isAdobe;
    if (!isMetadata) parts.push(bytes.subarray(start, end));
  }
  if (!frame || scans === 0) throw damaged("JPEG", "it holds no picture", name);
  if (components === 4 && !adobe) {
    // Browsers take its inks for their opposites, and only the server can tell.
    throw new Refused(415, `${name}: a CMYK JPEG without Adobe's mark`, "an RGB photo; save it as an RGB JPEG");
  }
  return { kind: "JPEG", parts, ...frame, orientation };
}

/** A scan ends with its coded data, the last segment is EOI. */
function* jpegSegments(bytes: Bytes, name: string): Generator<Part & { marker: number }> {
  let position = 2;
  for (let count = 0; count < MAX_CHUNKS; count++) {
    const start = nextMarker(bytes, position);
    if (start < 0) break;
    const marker = bytes[start + 1]!;
    if (marker === 0xd9) {
      yield { marker, start, body: start + 2, end: start + 2 };
      return;
    }
    const length = start + 3 < bytes.length ? bytes[start + 2]! * 256 + bytes[start + 3]! : 0;
    position = start + 2 + length;
    if (length < 2 || position > bytes.length) break;
    if (marker === 0xda) {
      const after = nextMarker(bytes, position);
      position = after < 0 ? bytes.length : after;
    }
    yield { marker, start, body: start + 4, end: position };
  }
  throw truncated("JPEG", bytes, name);
}

/** Where the next marker stands that is no stuffing, fill, restart or start; -1 where none does. */
function nextMarker(bytes: Bytes, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at >= 0 && at + 1 < bytes.length; at = bytes.indexOf(0xff, at + 1)) {
    const marker = bytes[at + 1]!;
    if (marker > 1 && marker !== 0xff && (marker < 0xd0 || marker > 0xd8)) return at;
  }
  return -1;
}

function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
}

/** Keeps header, palette, transparency and pixels. */
function walkPng(bytes: Bytes, limits: Limits, name: string): Coded {
  const view = viewOf(bytes);
  const parts = [bytes.subarray(0, 8)];
  let [width, height, orientation] = [0, 0, 1];
  for (const { kind, start, body, end } of pngChunks(bytes, name)) {
    if (kind === "IHDR" && end - body === 17) {
      [width, height] = [view.getUint32(body), view.getUint32(body + 4)];
      checkPixels(width, height, limits, name);
    } else if (width === 0) {
      throw damaged("PNG", "it does not start with a header", name);
    } else if (kind === "acTL" && !startsWith(bytes, [0, 0, 0, 1], body)) {
      const frames = end - body >= 8 ? view.getUint32(body) : 0;
      const seen = `${name}: an animated PNG of ${frames} frames`;
      throw new Refused(422, seen, "one still picture; save a single frame");
    } else if (kind === "eXIf") {
      orientation = exifOrientation(bytes.subarray(body, end - 4));
    }
    if (["IHDR", "PLTE", "tRNS", "IDAT", "IEND"].includes(kind)) parts.push(bytes.subarray(start, end));
  }
  return { kind: "PNG", parts, width, height, orientation };
}

/** Each chunk up to IEND; every checksum is checked. */
function* pngChunks(bytes: Bytes, name: string): Generator<Part & { kind: string }> {
  const view = viewOf(bytes);
  let start = 8;
  for (let count = 0; count < MAX_CHUNKS; count++) {
    const end = start + 8 <= bytes.length ? start + 12 + view.getUint32(start) : Infinity;
    if (end > bytes.length) break;
    const kind = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
    if (crc32(bytes.subarray(start + 4, end - 4)) !== view.getUint32(end - 4)) {
      throw damaged("PNG", `wrong checksum in its ${bytesRepr(bytes.subarray(start + 4, start + 8)).slice(1)} part`, name);
    }
    yield { kind, start, body: start + 8, end };
    if (kind === "IEND") return;
    start = end;
  }
  throw truncated("PNG", bytes, name);
}

/** 1 to 8; 1 (upright) where the block has none or cannot be read: many phones write odd EXIF. */
export function exifOrientation(tiff: Bytes): number {
  const order = String.fromCharCode(...tiff.subarray(0, 2));
  if (order !== "II" && order !== "MM") return 1;
  const little = order === "II";
  const view = viewOf(tiff);
  try {
    const directory = view.getUint32(4, little);
    const entries = view.getUint16(directory, little);
    for (let entry = directory + 2; entry < directory + 2 + 12 * entries; entry += 12) {
      if (view.getUint16(entry, little) !== 0x0112) continue;
      const kind = view.getUint16(entry + 2, little);
      const value = kind === 1 ? view.getUint8(entry + 8) : kind === 4 ? view.getUint32(entry + 8, little) : view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

function checkPixels(width: number, height: number, limits: Limits, name: string): void {
  if (!width || !height) {
    throw new Refused(422, `${name}: a picture of ${width}x${height} pixels`, "a photo; send it again");
  }
  if (width * height > limits.max_image_pixels) {
    const seen = `${name}: ${width}x${height} = ${thousands(width * height)} pixels`;
    const most = `at most ${thousands(limits.max_image_pixels)}`;
    throw new Refused(422, seen, `${most}; save it smaller, or raise the pixel limit`);
  }
}

function truncated(kind: string, bytes: Bytes, name: string): Refused {
  return damaged(kind, `it breaks off within its ${thousands(bytes.length)} bytes, before its end marker`, name);
}

function viewOf(bytes: Bytes): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  let rest = value;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
  return rest;
});

/** CRC-32 as PNG and ZIP have it. */
export function crc32(bytes: Uint8Array): number {
  let rest = 0xffffffff;
  for (let place = 0; place < bytes.length; place++) rest = CRC_TABLE[(rest ^ bytes[place]!) & 255]! ^ (rest >>> 8);
  return (rest ^ 0xffffffff) >>> 0;
}
