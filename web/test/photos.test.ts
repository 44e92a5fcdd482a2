import { describe, expect, it } from "vitest";
import { MOST_PHOTOS, addFiles, isPhoto, letGo } from "../src/photos";

const JPEG = [0xff, 0xd8, 0xff, 0xe0];
const PNG = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0];
const HEIC = [0, 0, 0, 0x18, ...new TextEncoder().encode("ftypheic")];
const noThumbnail = () => Promise.resolve(null);
const file = (bytes: number[], name = "leaf.jpg") => new File([new Uint8Array(bytes)], name);

describe("isPhoto", () => {
  it.each([
    ["a JPEG", JPEG, true],
    ["a PNG", PNG, true],
    ["a HEIC photo named .jpg", HEIC, false],
    ["a JPEG's first two bytes", JPEG.slice(0, 2), false],
    ["nothing", [], false],
  ])("of %s", async (_, bytes, expected) => {
    expect(await isPhoto(file(bytes))).toBe(expected);
  });
});

describe("addFiles", () => {
  it("keeps what was there, and names what is no photo", async () => {
    const first = await addFiles([], [file(JPEG)], noThumbnail);
    const both = await addFiles(first.photos, [file(HEIC, "IMG_1.HEIC"), file(PNG, "b.png")], noThumbnail);
    expect(both.photos.map((photo) => photo.file.name)).toEqual(["leaf.jpg", "b.png"]);
    expect(both).toMatchObject({ notPhotos: ["IMG_1.HEIC"], tooMany: 0 });
    letGo(both.photos);
  });

  it("takes no more than fit", async () => {
    const many = Array.from({ length: MOST_PHOTOS + 2 }, () => file(JPEG));
    const { photos, tooMany } = await addFiles([], many, noThumbnail);
    expect([photos.length, tooMany]).toEqual([MOST_PHOTOS, 2]);
    letGo(photos);
  });
});
