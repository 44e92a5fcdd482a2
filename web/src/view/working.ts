/** What is seen while an answer is on its way. */

import { make } from "../dom";
import type { AnsweredBy } from "../offline/contract";
import { type PageWords, fill } from "../texts";

export interface Working {
  element: HTMLElement;
  asking(by: AnsweredBy): void;
  sent(part: number): void;
  waiting(seconds: number): void;
}

export function working(page: PageWords, photo: string, cancel: () => void): Working {
  const words = make("p", { role: "status", class: "stage" });
  const progress = make("progress", { max: 1, "aria-label": page.picker.diagnose });
  const say = (text: string, part: number | null) => {
    words.textContent = text;
    if (part === null) {
      progress.removeAttribute("value"); // moves without an end in sight
    } else {
      progress.value = part;
    }
  };
  return {
    element: make(
      "section",
      { class: "working", "aria-labelledby": "heading" },
      make("h1", { id: "heading", class: "unseen" }, page.heading),
      make("img", { src: photo, alt: page.answer.photo }),
      words,
      progress,
      make("button", { id: "cancel", type: "button", onclick: cancel }, page.work.cancel),
    ),
    asking: (by) => say(by === "server" ? fill(page.work.sending, { percent: 0 }) : page.work.looking_here, null),
    sent: (part) =>
      part < 1
        ? say(fill(page.work.sending, { percent: Math.floor(part * 100) }), part)
        : say(page.work.looking, null),
    waiting: (seconds) => say(fill(page.work.busy, { seconds }), null),
  };
}
