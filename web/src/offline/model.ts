/** The description of a model that `GET /offline/model.json` gives: `OfflineModel` of `serving/schemas.py`. */

export interface QualityLimits {
  min_sharpness: number;
  min_brightness: number;
  max_brightness: number;
  min_contrast: number;
  max_dark: number;
  max_bright: number;
  min_colors: number;
}

/** An answer less sure than `below` is refused only beyond `within`; an older server knows of none. */
export interface OtherTrouble {
  below: number;
  within: number;
}

export interface StoredArray {
  dtype: "float16" | "float32";
  shape: number[];
  data: string;
}

export interface StoredGate {
  score: "knn" | "mahalanobis" | "energy";
  typical: number;
  limit: number;
  neighbors: number;
  features: [start: number, end: number | null];
  arrays: Record<string, StoredArray>;
}

export interface Preprocessing {
  image_size_px: number;
  crop_ratio: number;
  resize: "shorter_side";
  interpolation: "bilinear_antialiased";
  crop: "center";
  mean: [number, number, number];
  std: [number, number, number];
}

export interface Pooling {
  kind: "logarithms";
  correlation: number;
  doubt: number;
  prior: number[];
}

export interface Limits {
  max_upload_bytes: number;
  max_image_pixels: number;
  max_files: number;
}

export interface OfflineModel {
  format_version: 1;
  name: string;
  version: string;
  source: string;
  bytes: number;
  sha256: string;
  url: string;
  input_name: string;
  output_names: string[];
  class_names: string[];
  preprocessing: Preprocessing;
  resize_side_px: number;
  temperature: number;
  min_confidence: number;
  other_trouble?: OtherTrouble | null;
  quality: QualityLimits | null;
  gates: StoredGate[];
  pooling: Pooling;
  limits: Limits;
}

/** What this page can run; a newer server may describe models that only a newer page understands. */
export function isUnderstood(model: OfflineModel): boolean {
  const { resize, interpolation, crop } = model.preprocessing;
  const known = [resize, interpolation, crop].join() === "shorter_side,bilinear_antialiased,center";
  return model.format_version === 1 && known && model.pooling.kind === "logarithms";
}

/** The values of an array of the description, row by row. */
export function valuesOf(stored: StoredArray): Float64Array {
  const bytes = Uint8Array.from(atob(stored.data), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  if (stored.dtype === "float32") {
    return Float64Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(place * 4, true));
  }
  return Float64Array.from({ length: bytes.length / 2 }, (_, place) => halfToNumber(view.getUint16(place * 2, true)));
}

/** An IEEE 754 binary16 value from its bits. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
