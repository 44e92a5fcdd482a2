/** The name of the page, the language, and whether there is a network. */

import { make } from "../dom";
import { LANGUAGES, type Language, type Texts } from "../texts";

export function header({ language, page }: Texts, choose: (language: Language) => void): HTMLElement {
  const options = Object.entries(LANGUAGES).map(([code, name]) =>
    make("option", { value: code, lang: code, selected: code === language }, name),
  );
  const select = make("select", { id: "language" }, ...options);
  select.addEventListener("change", () => choose(select.value as Language));
  return make(
    "header",
    {},
    make("img", { src: "icon.svg", alt: "", width: 40, height: 40 }),
    make("span", { class: "name" }, "CassavaVision"),
    make("label", { for: "language", class: "unseen" }, page.language),
    select,
  );
}
