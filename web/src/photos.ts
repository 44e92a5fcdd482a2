/** The photos of one plant that are about to be asked about. */

export const MOST_PHOTOS = 10;

export interface Photo {
  readonly file: File;
  /** For `<img>`, of the photo and of its thumbnail; revoked when the photo is let go. */
  readonly url: string;
  readonly thumbnailUrl: string;
  /** A small JPEG, so that ten photos of a modern camera are not held as pixels; null where none could be made. */
  readonly thumbnail: Blob | null;
}

export interface Chosen {
  photos: Photo[];
  /** How many did not fit. */
  tooMany: number;
  /** Names of files that are neither JPEG nor PNG. */
  notPhotos: string[];
}

/** `photos` and those of `files` that are photos, by content and not by name, up to `MOST_PHOTOS`. */
export async function addFiles(
  photos: readonly Photo[],
  files: readonly File[],
  shrink: (photo: Blob) => Promise<Blob | null> = makeThumbnail,
): Promise<Chosen> {
  const kinds = await Promise.all(files.map(isPhoto));
  const usable = files.filter((_, index) => kinds[index]);
  const fitting = usable.slice(0, Math.max(MOST_PHOTOS - photos.length, 0));
  const added: Photo[] = [];
  for (const file of fitting) {
    const kept = await keepInMemory(file);
    added.push(openPhoto(kept, await shrink(kept))); // one after the other: each is held as pixels meanwhile
  }
  return {
    photos: [...photos, ...added],
    tooMany: usable.length - fitting.length,
    notPhotos: files.filter((_, index) => !kinds[index]).map(({ name }) => name),
  };
}

/** Read at once: what a camera app or a gallery hands over may be gone when it is sent. */
async function keepInMemory(file: File): Promise<File> {
  return new File([await file.arrayBuffer()], file.name, { type: file.type, lastModified: file.lastModified });
}

function openPhoto(file: File, thumbnail: Blob | null): Photo {
  const url = URL.createObjectURL(file);
  return { file, url, thumbnail, thumbnailUrl: thumbnail === null ? url : URL.createObjectURL(thumbnail) };
}

export function letGo(photos: readonly Photo[]): void {
  for (const { url, thumbnailUrl } of photos) {
    URL.revokeObjectURL(url);
    URL.revokeObjectURL(thumbnailUrl);
  }
}

const BEGINNINGS = [
  [0xff, 0xd8, 0xff], // JPEG
  [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a], // PNG
];

/** Whether a file begins as a JPEG or a PNG does. */
export async function isPhoto(file: Blob): Promise<boolean> {
  const head = new Uint8Array(await file.slice(0, 8).arrayBuffer());
  return BEGINNINGS.some((bytes) => bytes.every((byte, index) => head[index] === byte));
}

const THUMBNAIL_PX = 240;

/** For lists only: no verdict rests on it. */
async function makeThumbnail(photo: Blob): Promise<Blob | null> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(photo);
  } catch {
    return null; // damaged, which the diagnosis will tell
  }
  const scale = Math.min(THUMBNAIL_PX / Math.min(bitmap.width, bitmap.height), 1);
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.8));
}
