/** A ZIP file of files as they are: photos are compressed already. PKWARE's APPNOTE, sections 4.3 and 4.4. */

import { crc32 } from "./container";

export interface ZipEntry {
  name: string;
  content: Blob;
  at: Date;
}

const UTF8_NAMES = 0x0800;
const VERSION = 20;

export async function zip(entries: ZipEntry[]): Promise<Blob> {
  const parts: BlobPart[] = [];
  const directory: BlobPart[] = [];
  let offset = 0;
  let directoryBytes = 0;
  for (const { name, content, at } of entries) {
    const encoded = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await content.arrayBuffer()));
    const about = [VERSION, UTF8_NAMES, 0, ...dosTime(at)];
    const sizes = [crc, content.size, content.size];
    const local = numbers([[0x04034b50], "long"], [about, "short"], [sizes, "long"], [[encoded.length, 0], "short"]);
    const central = numbers(
      [[0x02014b50], "long"],
      [[VERSION, ...about], "short"],
      [sizes, "long"],
      [[encoded.length, 0, 0, 0, 0], "short"],
      [[0, offset], "long"],
    );
    parts.push(local, encoded, content);
    directory.push(central, encoded);
    offset += local.length + encoded.length + content.size;
    directoryBytes += central.length + encoded.length;
  }
  const count = entries.length;
  const end = numbers(
    [[0x06054b50], "long"],
    [[0, 0, count, count], "short"],
    [[directoryBytes, offset], "long"],
    [[0], "short"],
  );
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Time and date in two-second steps since 1980. */
function dosTime(at: Date): [time: number, date: number] {
  const time = (at.getHours() << 11) | (at.getMinutes() << 5) | (at.getSeconds() >> 1);
  return [time, (Math.max(at.getFullYear() - 1980, 0) << 9) | ((at.getMonth() + 1) << 5) | at.getDate()];
}

function numbers(...groups: [values: number[], size: "short" | "long"][]): Uint8Array<ArrayBuffer> {
  const bytes = groups.flatMap(([values, size]) =>
    values.flatMap((value) => {
      const low = [value & 255, (value >>> 8) & 255];
      return size === "short" ? low : [...low, (value >>> 16) & 255, (value >>> 24) & 255];
    }),
  );
  return Uint8Array.from(bytes);
}
