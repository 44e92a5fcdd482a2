/** "What you gave": the photos that the service has, or will have, from this device; each can be deleted. */

import { ICONS, fleeting, icon, make } from "../dom";
import { type Gift, stateOf } from "../feedback/gifts";
import { saidInWords } from "../feedback/said";
import { type Texts, fill } from "../texts";

export interface GiftsPanel {
  element: HTMLElement;
  refresh(): Promise<void>;
}

export interface GiftsActions {
  list: () => Promise<Gift[]>;
  takeBack: (id: string) => Promise<void>;
  settle: () => Promise<unknown>;
}

/** It is not shown where nothing was given. */
export function giftsPanel(texts: Texts, actions: GiftsActions): GiftsPanel {
  const { page } = texts;
  const words = page.feedback;
  const body = make("div", {});
  const said = make("p", { role: "status" });
  const summary = make("summary", {}, words.heading);
  const element = make("details", { id: "gifts", class: "panel", hidden: true }, summary, make("p", {}, words.about), body, said);

  const refresh = async () => {
    const gifts = await actions.list();
    const waiting = gifts.some((gift) => ["waiting", "forgetting"].includes(stateOf(gift)));
    element.hidden = gifts.length === 0;
    body.replaceChildren(
      make("ul", { class: "past" }, ...gifts.map((gift) => line(texts, gift, () => void takeBack(gift.id)))),
      ...(waiting ? [make("button", { id: "settle", type: "button", onclick: () => void settle() }, page.failures.again)] : []),
    );
  };

  const takeBack = async (id: string) => {
    summary.focus(); // the button goes with its line
    await actions.takeBack(id);
    await settle();
  };

  const settle = async () => {
    said.textContent = (await actions.settle()) === null ? "" : page.failures.network;
    await refresh();
  };

  void refresh();
  return { element, refresh };
}

function line(texts: Texts, gift: Gift, remove: () => void): HTMLElement {
  const { language, page } = texts;
  const words = page.feedback;
  const when = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(gift.at));
  return make(
    "li",
    {},
    gift.thumbnail !== null && fleeting(gift.thumbnail, words.photo),
    make(
      "div",
      {},
      make("p", {}, make("strong", {}, fill(words.said, { name: saidInWords(texts, gift.said) }))),
      make("p", { class: "small" }, `${when} · ${words[`state_${stateOf(gift)}`]}`),
    ),
    make("button", { type: "button", class: "remove", "aria-label": words.remove, onclick: remove }, icon(...ICONS.cross)),
  );
}
