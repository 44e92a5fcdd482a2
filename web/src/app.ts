/** The page's states and what leads from one to the next; `view/` draws them. */

import { type Answered, ask } from "./choose";
import type { Diagnoser } from "./diagnoser";
import { make } from "./dom";
import { type Failure, describeFailure } from "./failures";
import * as gifts from "./feedback/gifts";
import { type Said, given, isWorthAsking } from "./feedback/said";
import { takesFeedback } from "./offline/card";
import type { History, Offline } from "./offline/contract";
import { KEY_ITEM, storedKey } from "./offline/key";
import { MOST_PHOTOS, type Photo, addFiles, letGo } from "./photos";
import { serverDiagnoser } from "./server";
import { type Language, type Texts, fill, loadTexts, rememberLanguage } from "./texts";
import { answerCard } from "./view/answer";
import { failureCard } from "./view/failure";
import { type FeedbackCard, type Talk, feedbackCard } from "./view/feedback";
import { type GiftsPanel, giftsPanel } from "./view/gifts";
import { header } from "./view/header";
import { type HistoryPanel, historyPanel } from "./view/history";
import { type InstallPrompt, type OfflinePanel, offlinePanel } from "./view/offline";
import { picker } from "./view/picker";
import { working } from "./view/working";

type Screen =
  | { at: "choosing"; notices: string[]; wantsLeaves: boolean }
  | { at: "working"; stop: AbortController }
  | { at: "answered"; answered: Answered; talk: { now: Talk }; asks: Promise<boolean> }
  | { at: "failed"; failure: Failure };

export class App {
  private photos: readonly Photo[] = [];
  private adding: Promise<void> = Promise.resolve();
  private screen: Screen = { at: "choosing", notices: [], wantsLeaves: false };
  private readonly main = make("main");
  private readonly network = make("p", { class: "network", role: "status" });
  private panels: { offline: OfflinePanel; history: HistoryPanel; gifts: GiftsPanel } | null = null;
  private feedback: FeedbackCard | null = null;
  private installPrompt: InstallPrompt | null = null;

  constructor(
    private readonly root: HTMLElement,
    private texts: Texts,
    private readonly offline: Offline,
    private readonly history: History,
  ) {
    addEventListener("online", () => {
      void this.showNetwork();
      void this.settle();
    });
    addEventListener("offline", () => this.showNetwork());
    addEventListener("beforeinstallprompt", (event) => {
      event.preventDefault();
      this.offerInstalling(event as InstallPrompt);
    });
    addEventListener("appinstalled", () => this.offerInstalling(null));
    addEventListener("popstate", () => this.goBack());
    this.frame();
    void this.settle();
  }

  /** All but the screen: drawn at first, and in each new language. */
  private frame(): void {
    const { language, page } = this.texts;
    document.documentElement.lang = language;
    document.title = `CassavaVision: ${page.heading}`;
    const offline = offlinePanel(this.texts, this.offline, () => this.showNetwork());
    const history = historyPanel(this.texts, this.history);
    const given = giftsPanel(this.texts, { ...gifts, settle: () => this.settle() });
    this.panels = { offline, history, gifts: given };
    this.root.replaceChildren(
      header(this.texts, (chosen) => void this.speak(chosen)),
      this.network,
      this.main,
      make("aside", {}, offline.element, history.element, given.element),
      make("footer", {}, make("p", { class: "small" }, page.privacy)),
    );
    offline.installable(this.installPrompt);
    this.draw();
  }

  private async speak(language: Language): Promise<void> {
    rememberLanguage(language);
    this.texts = await loadTexts(language);
    this.frame();
    document.getElementById("language")?.focus();
  }

  private draw(): void {
    this.main.replaceChildren(...this.drawn());
  }

  private drawn(): HTMLElement[] {
    const { screen, texts } = this;
    switch (screen.at) {
      case "choosing":
        return [this.picker(screen.notices, screen.wantsLeaves)];
      case "working":
        return []; // drawn by `diagnose`, which moves its bar
      case "answered":
        return [
          answerCard(
            texts,
            screen.answered,
            this.photos,
            {
              heatmap: ({ file }) => screen.answered.diagnoser.heatmap(file, screen.answered.answer.predicted_class_id),
              addLeaves: () => this.addLeaves(screen.answered),
              another: () => this.nextPlant(),
            },
            this.question(screen),
          ),
        ];
      case "failed":
        return [failureCard(texts.page, screen.failure, (key) => this.retry(key)), this.picker([], false)];
    }
  }

  /** "Was this right?", once it is known whether the service wants to hear it. */
  private question({ answered, talk, asks }: Screen & { at: "answered" }): HTMLElement {
    const photos = this.photos;
    const files = photos.map(({ file }) => file);
    const { answer } = answered;
    const add = async (said: Said) => {
      const gift = { said, thumbnail: photos[0]?.thumbnail ?? null, given: given(answer, files, said) };
      return (await gifts.add(gift)).id;
    };
    const count = given(answer, files, "right").length;
    const card = feedbackCard(this.texts, answered, count, talk, { ...gifts, add, settle: () => this.settle() });
    card.element.hidden = true;
    void asks.then((asked) => {
      card.element.hidden = !asked;
    });
    this.feedback = card;
    return card.element;
  }

  /** Sends and deletes what people gave and it waits for; the failure where not all could be done. */
  private async settle(): Promise<unknown> {
    try {
      await gifts.settle();
      return null;
    } catch (failure) {
      return failure;
    } finally {
      await this.panels?.gifts.refresh();
      await this.feedback?.refresh();
    }
  }

  private picker(notices: string[], wantsLeaves: boolean): HTMLElement {
    return picker(
      this.texts,
      { photos: this.photos, notices, wantsLeaves },
      {
        add: (files) => void this.add(files, wantsLeaves),
        remove: (index) => this.remove(index, wantsLeaves),
        diagnose: () => void this.diagnose(),
      },
    );
  }

  /** One choice after the other: who chooses again while photos are still being read loses none of them. */
  private add(files: File[], wantsLeaves: boolean): Promise<void> {
    const next = (): Promise<void> => this.addNext(files, wantsLeaves);
    this.adding = this.adding.then(next, next);
    return this.adding;
  }

  private async addNext(files: File[], wantsLeaves: boolean): Promise<void> {
    const { page } = this.texts;
    const before = this.photos;
    const { photos, tooMany, notPhotos } = await addFiles(before, files);
    this.photos = [...this.photos, ...photos.slice(before.length)]; // one may have been removed meanwhile
    const notices = notPhotos.map((name) => fill(page.picker.not_a_photo, { name }));
    if (tooMany > 0) {
      notices.push(fill(page.picker.too_many, { most: MOST_PHOTOS }));
    }
    this.show({ at: "choosing", notices, wantsLeaves }, this.photos.length > 0 ? "diagnose" : "take");
  }

  private remove(index: number, wantsLeaves: boolean): void {
    const removed = this.photos[index];
    this.photos = this.photos.filter((_, other) => other !== index);
    letGo(removed === undefined ? [] : [removed]);
    this.show({ at: "choosing", notices: [], wantsLeaves }, this.photos.length > 0 ? "diagnose" : "take");
  }

  private async diagnose(): Promise<void> {
    const stop = new AbortController();
    const view = working(this.texts.page, this.photos[0]?.thumbnailUrl ?? "", () => stop.abort());
    this.show({ at: "working", stop });
    this.main.replaceChildren(view.element);
    document.getElementById("cancel")?.focus();
    let answered: Answered;
    try {
      answered = await ask({
        photos: this.photos.map(({ file }) => file),
        server: this.server(view.sent),
        device: () => this.offline.offlineDiagnoser(),
        online: navigator.onLine,
        signal: stop.signal,
        onAsking: view.asking,
        onWait: view.waiting,
      });
    } catch (failure) {
      if (stop.signal.aborted) {
        this.show({ at: "choosing", notices: [], wantsLeaves: false }, "diagnose");
      } else {
        this.show({ at: "failed", failure: describeFailure(failure) }, "again");
      }
      return;
    }
    const asks = isWorthAsking(answered.answer) ? takesFeedback() : Promise.resolve(false);
    this.show({ at: "answered", answered, talk: { now: { at: "asking" } }, asks }, "heading");
    window.history.pushState(null, "");
    await this.remember(answered);
  }

  private retry(key: string | null): void {
    if (key !== null) {
      localStorage.setItem(KEY_ITEM, key);
    }
    void this.diagnose();
  }

  /** The photos stay where more leaves of the plant are wanted; else they were of no use. */
  private addLeaves({ answer }: Answered): void {
    const wantsLeaves = answer.verdict === "uncertain";
    if (!wantsLeaves) {
      this.forgetPhotos();
    }
    this.leaveAnswer(wantsLeaves);
  }

  private nextPlant(): void {
    this.forgetPhotos();
    this.leaveAnswer(false);
  }

  private leaveAnswer(wantsLeaves: boolean): void {
    this.show({ at: "choosing", notices: [], wantsLeaves }, "heading");
    window.history.back();
  }

  /** By the phone's own button, which leads from an answer back to its photos, and not out of the page. */
  private goBack(): void {
    if (this.screen.at === "answered") {
      this.show({ at: "choosing", notices: [], wantsLeaves: false }, "heading");
    }
  }

  private forgetPhotos(): void {
    letGo(this.photos);
    this.photos = [];
  }

  /** `focused` is the id of what a keyboard or a screen reader goes on with. */
  private show(screen: Screen, focused?: string): void {
    this.screen = screen;
    this.draw();
    if (focused !== undefined) {
      document.getElementById(focused)?.focus();
    }
  }

  private server(onSent: (part: number) => void): Diagnoser {
    return serverDiagnoser({ key: storedKey(), onSent });
  }

  private async remember({ answer, by }: Answered): Promise<void> {
    const photos = this.photos.map(({ file }) => file);
    const thumbnail = this.photos[0]?.thumbnail ?? null;
    await this.history.add({ at: new Date().toISOString(), by, answer, photos, thumbnail, sent: by === "server" });
    await this.panels?.history.refresh();
  }

  private offerInstalling(prompt: InstallPrompt | null): void {
    this.installPrompt = prompt;
    this.panels?.offline.installable(prompt);
  }

  private async showNetwork(): Promise<void> {
    const { page } = this.texts;
    const { model } = await this.offline.offlineState();
    const words = model === null ? page.offline.no_network : page.offline.no_network_ready;
    this.network.textContent = navigator.onLine ? "" : words;
  }
}
