/** Why there is no answer, and what can be done. */

import { ICONS, icon, make } from "../dom";
import { type Failure, failureWords } from "../failures";
import { type PageWords, fill } from "../texts";

/** `retry` gets the key that was typed, where one was asked for. */
export function failureCard(page: PageWords, failure: Failure, retry: (key: string | null) => void): HTMLElement {
  const { title, next } = failureWords(page, failure.kind);
  const key = failure.kind === "key" ? make("input", { id: "key", type: "password", autocomplete: "off" }) : null;
  const submit = (event: Event) => {
    event.preventDefault();
    retry(key?.value ?? null);
  };
  return make(
    "section",
    { class: "card failed", role: "alert" },
    make("h2", {}, icon(...ICONS.warning), title),
    make("p", {}, next),
    failure.detail !== null && make("p", { class: "small" }, fill(page.failures.detail, { detail: failure.detail })),
    make(
      "form",
      { onsubmit: submit },
      key !== null && make("label", { for: "key" }, page.failures.key_label),
      key,
      make("button", { id: "again", type: "submit", class: "main" }, page.failures.again),
    ),
  );
}
