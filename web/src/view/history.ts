/** "Past results": what this device keeps, to be saved, sent or deleted. */

import { ICONS, fleeting, icon, make } from "../dom";
import type { History, PastResult } from "../offline/contract";
import { type Texts, fill } from "../texts";
import { headline, hundredths } from "../words";

export interface HistoryPanel {
  element: HTMLElement;
  refresh(): Promise<void>;
}

export function historyPanel(texts: Texts, history: History): HistoryPanel {
  const { page } = texts;
  const body = make("div", {});
  const said = make("p", { role: "status" });

  const refresh = async () => {
    const results = await history.list();
    const pending = results.filter(isPending).length;
    body.replaceChildren(...(results.length === 0 ? [make("p", {}, page.history.empty)] : filled(results, pending)));
  };

  const filled = (results: PastResult[], pending: number): Node[] => [
    make("ul", { class: "past" }, ...results.map((result) => line(texts, result, remove))),
    make(
      "div",
      { class: "buttons" },
      button("history-save", page.history.save, save),
      pending > 0 && button("history-send", `${page.history.send} (${pending})`, send),
      button("history-clear", page.history.clear, clear),
    ),
  ];

  const save = async () => download(await history.exportAll());

  const remove = async (id: number) => {
    await history.remove(id);
    await refresh();
  };

  const send = async () => {
    try {
      said.textContent = fill(page.history.sent, { count: await history.sendPending() });
    } catch {
      said.textContent = page.history.send_failed;
    }
    await refresh();
  };

  const clear = async () => {
    if (confirm(page.history.clear_sure)) {
      await history.clear();
      said.textContent = "";
      await refresh();
    }
  };

  void refresh();
  return {
    element: make(
      "details",
      { id: "history", class: "panel" },
      make("summary", {}, page.history.heading),
      make("p", {}, page.history.about),
      body,
      said,
    ),
    refresh,
  };
}

function button(id: string, words: string, act: () => Promise<void>): HTMLElement {
  return make("button", { id, type: "button", onclick: () => void act() }, words);
}

function isPending({ sent, refusal }: PastResult): boolean {
  return !sent && refusal === null;
}

function line(texts: Texts, result: PastResult, remove: (id: number) => Promise<void>): HTMLElement {
  const { language, advice, page } = texts;
  const { at, answer, thumbnail } = result;
  const when = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at));
  const sure = fill(page.answer.of_hundred, { count: hundredths(answer.confidence) });
  return make(
    "li",
    {},
    thumbnail !== null && fleeting(thumbnail, page.history.photo),
    make(
      "div",
      {},
      make("p", {}, make("strong", {}, headline(advice, answer))),
      make("p", { class: "small" }, `${when} · ${sure}`),
      make("p", { class: "small" }, whereItStands(texts, result)),
    ),
    make(
      "button",
      { type: "button", class: "remove", "aria-label": page.history.remove, onclick: () => void remove(result.id) },
      icon(...ICONS.cross),
    ),
  );
}

/** Who answered, and what the server says of what this device has answered. */
function whereItStands({ advice, page }: Texts, { by, refusal, serverAnswer }: PastResult): string {
  if (by === "server") {
    return page.answer.by_server;
  }
  if (refusal !== null) {
    return page.history.refused;
  }
  return serverAnswer === null
    ? `${page.answer.by_device} ${page.history.not_sent}`
    : fill(page.history.server_says, { verdict: headline(advice, serverAnswer) });
}

function download(file: File): void {
  const url = URL.createObjectURL(file);
  make("a", { href: url, download: file.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
