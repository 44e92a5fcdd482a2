/** The photos of an answer, one at a time, each with its heatmap on demand. */

import { make } from "../dom";
import type { Photo } from "../photos";
import { type PageWords, fill } from "../texts";

/** `draw` makes the heatmap of a photo, and is asked once for each; null where there is nothing to show. */
export function picture(
  page: PageWords,
  photos: readonly Photo[],
  draw: ((photo: Photo) => Promise<Blob>) | null,
): HTMLElement {
  const drawn = new Map<Photo, string>();
  const image = make("img", { class: "shown", alt: page.answer.photo });
  const toggle = make("button", { id: "heatmap", type: "button", "aria-pressed": "false" });
  const said = make("p", { role: "status", class: "small" });
  let current = photos[0];
  let heated = false;

  const show = () => {
    const heatmap = heated && current !== undefined ? drawn.get(current) : undefined;
    image.src = heatmap ?? current?.url ?? "";
    image.alt = heatmap === undefined ? page.answer.photo : page.answer.heatmap;
    toggle.textContent = heated ? page.answer.heatmap_hide : page.answer.heatmap_show;
    toggle.setAttribute("aria-pressed", String(heated));
    choices.forEach((choice, index) => choice.setAttribute("aria-pressed", String(photos[index] === current)));
  };

  const drawOne = async (photo: Photo) => {
    if (draw === null) {
      return;
    }
    said.textContent = page.answer.heatmap_wait;
    toggle.disabled = true;
    try {
      drawn.set(photo, URL.createObjectURL(await draw(photo)));
      said.textContent = "";
    } catch {
      said.textContent = page.answer.heatmap_failed;
      heated = false;
    }
    toggle.disabled = false;
  };

  const turn = async (to: Photo | undefined, heat: boolean) => {
    current = to;
    heated = heat;
    if (heat && to !== undefined && !drawn.has(to)) {
      await drawOne(to);
    }
    show();
  };

  const choices = photos.map((photo, index) =>
    make(
      "button",
      { type: "button", class: "choice", onclick: () => void turn(photo, heated) },
      make("img", { src: photo.thumbnailUrl, alt: fill(page.picker.photo, { number: index + 1 }) }),
    ),
  );
  toggle.addEventListener("click", () => void turn(current, !heated));
  show();
  return make(
    "div",
    { class: "picture" },
    image,
    photos.length > 1 && make("div", { class: "choices" }, ...choices),
    draw !== null && toggle,
    said,
  );
}
