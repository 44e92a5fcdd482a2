/** Where photos are taken, chosen and removed. */

import { ICONS, icon, make } from "../dom";
import { MOST_PHOTOS, type Photo } from "../photos";
import { type PageWords, fill } from "../texts";

export interface PickerActions {
  add(files: File[]): void;
  remove(index: number): void;
  diagnose(): void;
}

export interface PickerState {
  photos: readonly Photo[];
  /** What became of the files that were chosen last, where not all of them were taken. */
  notices: readonly string[];
  /** Whether the last answer asked for more leaves. */
  wantsLeaves: boolean;
}

export function picker({ page }: { page: PageWords }, state: PickerState, actions: PickerActions): HTMLElement {
  const { photos } = state;
  const full = photos.length >= MOST_PHOTOS;
  return make(
    "section",
    { class: "picker", "aria-labelledby": "heading" },
    make("h1", { id: "heading", tabindex: -1 }, page.heading),
    make("p", { class: "tips" }, state.wantsLeaves ? page.picker.add_leaves : page.picker.tips),
    photos.length > 0 && chosen(page, photos, actions),
    ...state.notices.map((notice) => make("p", { class: "notice", role: "alert" }, notice)),
    !full &&
      make(
        "div",
        { class: "sources" },
        fileButton(page.picker.take, "take", ICONS.camera, { capture: "environment" }, photos.length === 0, actions),
        fileButton(page.picker.choose, "choose", ICONS.pictures, { multiple: true }, false, actions),
      ),
    photos.length > 0 &&
      make(
        "button",
        { id: "diagnose", type: "button", class: "main", onclick: () => actions.diagnose() },
        page.picker.diagnose,
      ),
  );
}

function chosen(page: PageWords, photos: readonly Photo[], actions: PickerActions): HTMLElement {
  return make(
    "div",
    { class: "chosen" },
    make(
      "h2",
      {},
      page.picker.photos,
      make("span", { class: "count" }, fill(page.picker.count, { count: photos.length, most: MOST_PHOTOS })),
    ),
    make(
      "ul",
      { class: "thumbnails" },
      ...photos.map((photo, index) => thumbnail(page, photo, index, () => actions.remove(index))),
    ),
    photos.length === 1 && make("p", {}, page.picker.several),
  );
}

function thumbnail(page: PageWords, photo: Photo, index: number, remove: () => void): HTMLElement {
  const number = index + 1;
  const name = fill(page.picker.remove, { number });
  return make(
    "li",
    {},
    make("img", { src: photo.thumbnailUrl, alt: fill(page.picker.photo, { number }) }),
    make("button", { type: "button", "aria-label": name, title: name, class: "remove", onclick: remove }, icon(...ICONS.cross)),
  );
}

/** A label that looks like a button around a file input that is there but cannot be seen. */
function fileButton(
  words: string,
  id: string,
  paths: readonly string[],
  attributes: Record<string, string | boolean>,
  main: boolean,
  { add }: PickerActions,
): HTMLElement {
  const input = make("input", { id, type: "file", accept: "image/jpeg,image/png", class: "unseen", ...attributes });
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    input.value = ""; // so that the same photo can be chosen again
    add(files);
  });
  return make("label", { class: main ? "file-button main" : "file-button" }, input, icon(...paths), words);
}
