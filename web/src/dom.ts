/** Elements with attributes, listeners and content, in one expression. */

type Content = Node | string | null | undefined | false;
type Value = string | number | boolean | null | undefined | ((event: Event) => void);

/**
 * `make("button", { type: "button", onclick: go }, "Go")`. Attributes that are null or false are left out; those that
 * begin with `on` are listeners. The page's Content-Security-Policy has no inline styles: use classes.
 */
export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Record<string, Value> = {},
  ...content: Content[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...content.filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing beside words that say the same: hidden from those who cannot see it. `paths` are for a 24 × 24 field. */
export function icon(...paths: string[]): SVGSVGElement {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", "icon");
  for (const line of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", line);
    drawing.append(path);
  }
  return drawing;
}

export const ICONS = {
  camera: ["M4 8h3l2-3h6l2 3h3v11H4z", "M12 17a4 4 0 1 0 0-8 4 4 0 0 0 0 8z"],
  pictures: ["M7 4h13v12H7z", "M4 8v12h13", "M8 15l4-5 3 3 2-2 3 4"],
  cross: ["M6 6l12 12", "M18 6L6 18"],
  check: ["M4 13l5 5L20 6"],
  warning: ["M12 3L2 20h20z", "M12 10v4", "M12 17v.5"],
  question: ["M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2", "M12 17v.5", "M12 22a10 10 0 1 0 0-20 10 10 0 0 0 0 20z"],
  download: ["M12 3v12", "M7 11l5 5 5-5", "M4 20h16"],
} as const;

/** A bar from 0 to 1, with its name and words for those who do not see it. */
export function bar(name: string, part: number, words: string): HTMLElement {
  const filled = make("div", { class: "bar-filled" });
  filled.style.width = `${part * 100}%`;
  const attributes = { "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuetext": words };
  return make("div", { class: "bar", role: "meter", "aria-valuenow": Math.round(part * 100), ...attributes }, filled);
}

/** A picture that lets go of its blob when it is drawn. */
export function fleeting(blob: Blob, words: string): HTMLElement {
  const url = URL.createObjectURL(blob);
  return make("img", { src: url, alt: words, onload: () => URL.revokeObjectURL(url) });
}
