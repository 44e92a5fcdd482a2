/** "Was this right?": what a person says of an answer, the photo that they agree to give, and the way to delete it. */

import type { Answered } from "../choose";
import { make } from "../dom";
import { describeFailure, failureWords } from "../failures";
import { type Gift, stateOf } from "../feedback/gifts";
import { type Said, otherwise, saidInWords } from "../feedback/said";
import { type Texts, fill } from "../texts";
import { isJudged } from "../words";

/** How far the talk about an answer has come; it outlives the card, which is drawn anew in another language. */
export type Talk =
  | { at: "asking" }
  | { at: "choosing"; right: boolean; failed: boolean }
  | { at: "thanked"; declined: { right: boolean } | null }
  | { at: "given"; id: string };

export interface FeedbackActions {
  /** Keeps a gift on this device; its id. */
  add: (said: Said) => Promise<string>;
  find: (id: string) => Promise<Gift | undefined>;
  takeBack: (id: string) => Promise<void>;
  /** Sends and deletes what waits for it; the failure where not all could be done. */
  settle: () => Promise<unknown>;
}

export interface FeedbackCard {
  element: HTMLElement;
  /** Looks again at what has become of the gift. */
  refresh(): Promise<void>;
}

export function feedbackCard(
  texts: Texts,
  { answer }: Answered,
  photos: number,
  talk: { now: Talk },
  actions: FeedbackActions,
): FeedbackCard {
  const { page } = texts;
  const words = page.feedback;
  const heading = make("h2", { id: "feedback-heading", tabindex: -1 });
  const said = make("p", { role: "status" });
  const body = make("div", {});
  let busy = false;
  let failure: unknown = null;

  const draw = (title: string, status: string, ...content: (Node | false)[]) => {
    heading.textContent = title;
    said.textContent = status;
    body.replaceChildren(...content.filter((each) => each !== false));
  };

  const show = async (): Promise<void> => {
    const { now } = talk;
    switch (now.at) {
      case "asking":
        return draw(words.question, "", buttons(button("right", words.right, right), button("wrong", words.wrong, wrong)));
      case "choosing":
        return draw(now.right ? words.right : words.what, now.failed ? words.unsaved : "", form(now.right));
      case "thanked": {
        const { declined } = now;
        const back = () => go({ at: "choosing", right: declined?.right ?? true, failed: false });
        return draw(words.thanks, declined ? words.declined : "", declined !== null && buttons(button("back", words.back, back)));
      }
      case "given":
        return drawGift(now.id, await actions.find(now.id));
    }
  };

  /** A step that a person took: the keyboard and the screen reader go on at the heading. */
  const go = async (next: Talk) => {
    talk.now = next;
    await show();
    heading.focus();
  };

  const right = () =>
    go(isJudged(answer.verdict) ? { at: "choosing", right: true, failed: false } : { at: "thanked", declined: null });
  const wrong = () => go({ at: "choosing", right: false, failed: false });

  const form = (isRight: boolean): HTMLElement => {
    const consent = make("input", { id: "consent", type: "checkbox", "aria-describedby": "consent-about" });
    const about = [words.kept, words.purpose, words.deletion].map((line) => make("li", {}, line));
    const label = photos > 1 ? fill(words.consent_several, { count: photos }) : words.consent;
    const submit = (event: Event) => {
      event.preventDefault();
      const chosen = new FormData(event.currentTarget as HTMLFormElement).get("said");
      const word = isRight ? "right" : otherwise(answer)[Number(chosen)]!;
      void (consent.checked ? give(word, isRight) : go({ at: "thanked", declined: { right: isRight } }));
    };
    return make(
      "form",
      { onsubmit: submit },
      !isRight && choices(),
      make("label", { class: "option" }, consent, make("span", {}, label)),
      make("ul", { id: "consent-about", class: "small" }, ...about),
      buttons(
        make("button", { id: "give", type: "submit", class: "main" }, words.send),
        button("back", words.back, () => go({ at: "asking" })),
      ),
    );
  };

  const choices = (): HTMLElement =>
    make(
      "fieldset",
      { "aria-labelledby": "feedback-heading" },
      ...otherwise(answer).map((word, index) =>
        make(
          "label",
          { class: "option" },
          make("input", { type: "radio", name: "said", value: index, required: true }),
          make("span", {}, saidInWords(texts, word)),
        ),
      ),
    );

  const give = async (word: Said, isRight: boolean) => {
    if (busy) return; // a second touch of the same button
    busy = true;
    let id: string;
    try {
      id = await actions.add(word);
    } catch {
      busy = false;
      return go({ at: "choosing", right: isRight, failed: true });
    }
    await settle({ at: "given", id });
  };

  const takeBack = async (id: string) => {
    await actions.takeBack(id);
    await settle({ at: "given", id });
  };

  const settle = async (next: Talk) => {
    [busy, failure] = [true, null];
    await go(next);
    failure = await actions.settle();
    busy = false;
    await show();
  };

  const drawGift = (id: string, gift: Gift | undefined) => {
    if (gift === undefined) {
      return draw(words.question, words.deleted);
    }
    const title = fill(words.said, { name: saidInWords(texts, gift.said) });
    const remove = button("take-back", words.delete, () => takeBack(id));
    const again = button("again", page.failures.again, () => settle({ at: "given", id }), "main");
    const why = failure === null ? "" : `${failureWords(page, describeFailure(failure).kind).title}. `;
    switch (stateOf(gift)) {
      case "kept":
        return draw(words.thanks, words.done, buttons(remove));
      case "refused":
        return draw(title, fill(words.refused, { detail: gift.refusal ?? "" }), buttons(remove));
      case "waiting":
        return busy ? draw(title, words.sending) : draw(title, why + words.waiting, buttons(again, remove));
      case "forgetting":
        return busy ? draw(title, words.deleting) : draw(title, why + words.deletion_waits, buttons(again));
    }
  };

  /** Leaves alone what somebody is filling in. */
  const refresh = async () => {
    if (talk.now.at === "given") await show();
  };

  void show();
  const element = make("section", { class: "card feedback", "aria-labelledby": "feedback-heading" }, heading, said, body);
  return { element, refresh };
}

function buttons(...each: HTMLElement[]): HTMLElement {
  return make("div", { class: "buttons" }, ...each);
}

function button(id: string, words: string, act: () => Promise<void>, kind: string | null = null): HTMLElement {
  return make("button", { id, type: "button", class: kind, onclick: () => void act() }, words);
}
