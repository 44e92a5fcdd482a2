/** "Use without network": the model's download with a bar, and the page on the device's home screen. */

import { ICONS, icon, make } from "../dom";
import type { Offline, OfflineState } from "../offline/contract";
import { type Texts, fill } from "../texts";

const MEGABYTE = 1_000_000;

/** What Chromium asks before it offers to install a page. */
export interface InstallPrompt extends Event {
  prompt(): Promise<unknown>;
}

export interface OfflinePanel {
  element: HTMLElement;
  /** The browser would install the page; null once it has been asked. */
  installable(prompt: InstallPrompt | null): void;
}

export function offlinePanel(texts: Texts, offline: Offline, onChange: () => void): OfflinePanel {
  const { page } = texts;
  const body = make("div", {});
  const said = make("p", { role: "status" });
  const install = make("div", {});

  const refresh = async () => {
    const state = await offline.offlineState();
    body.replaceChildren(...offer(state));
    onChange();
  };

  const offer = (state: OfflineState): Node[] => {
    if (state.model !== null) {
      const remove = make("button", { id: "remove-model", type: "button" }, page.offline.remove);
      remove.addEventListener("click", () => void offline.removeModel().then(refresh));
      const ready = make("p", { class: "ready" }, icon(...ICONS.check), page.offline.ready);
      return [ready, ...(state.newer ? [downloadButton(page.offline.newer, state.bytes)] : []), remove];
    }
    if (!state.supported) {
      return [make("p", {}, page.offline.unsupported)];
    }
    if (state.bytes === null) {
      return [make("p", {}, page.offline.not_offered)];
    }
    return [make("p", {}, page.offline.about), downloadButton(page.offline.download, state.bytes)];
  };

  const downloadButton = (words: string, bytes: number | null): HTMLElement => {
    const label = bytes === null ? words : `${words} (${megabytes(texts, bytes)})`;
    const attributes = { id: "download", type: "button", class: "main", onclick: () => void fetchModel() };
    return make("button", attributes, icon(...ICONS.download), label);
  };

  const fetchModel = async () => {
    const stop = new AbortController();
    const progress = make("progress", { id: "download-bar", max: 1, "aria-label": page.offline.download });
    const amount = make("p", {});
    const cancel = make("button", { type: "button", onclick: () => stop.abort() }, page.work.cancel);
    body.replaceChildren(amount, progress, cancel);
    said.textContent = "";
    try {
      await offline.download((done, total) => {
        progress.value = total > 0 ? done / total : 0;
        const amounts = { done: megabytes(texts, done), total: megabytes(texts, total) };
        amount.textContent = fill(page.offline.progress, amounts);
      }, stop.signal);
    } catch {
      said.textContent = stop.signal.aborted ? "" : page.offline.failed;
    }
    await refresh();
  };

  void refresh();
  return {
    element: make(
      "details",
      { id: "offline", class: "panel" },
      make("summary", {}, page.offline.heading),
      body,
      said,
      install,
    ),
    installable: (prompt) => {
      const ask = make("button", { id: "install", type: "button" }, page.offline.install);
      ask.addEventListener("click", () => {
        install.replaceChildren();
        void prompt?.prompt();
      });
      install.replaceChildren(...(prompt === null ? [] : [ask]));
    },
  };
}

function megabytes({ language, page }: Texts, bytes: number): string {
  const format = new Intl.NumberFormat(language, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return fill(page.offline.size, { count: format.format(bytes / MEGABYTE) });
}
