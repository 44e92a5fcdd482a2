/** A verdict in plain words, how sure it is, and what to do next. */

import { CLASS_NAMES, type PlantPrediction, type Prediction, type Verdict, HEALTHY, isPlant } from "../answer";
import type { Answered } from "../choose";
import { ICONS, bar, icon, make } from "../dom";
import type { Photo } from "../photos";
import { type Texts, fill } from "../texts";
import { classOf, confidenceWord, headline, hints, hundredths, isJudged, leavesWanted, source } from "../words";
import { picture } from "./picture";

export interface AnswerActions {
  heatmap: (photo: Photo) => Promise<Blob>;
  addLeaves: () => void;
  another: () => void;
}

export function answerCard(
  texts: Texts,
  { answer, by, moreLeaves }: Answered,
  photos: readonly Photo[],
  actions: AnswerActions,
  feedback: HTMLElement,
): HTMLElement {
  const { advice, page } = texts;
  const tone = toneOf(answer);
  const told = [...hints(advice, answer), leavesWanted(advice, answer.verdict, moreLeaves)].filter((line) => line !== null);
  const diagnosed = answer.verdict === "diagnosis";
  return make(
    "section",
    { class: "answer", "aria-labelledby": "heading" },
    make(
      "div",
      { class: `card verdict ${tone}` },
      make("h1", { id: "heading", tabindex: -1 }, icon(...TONE_ICONS[tone]), headline(advice, answer)),
      diagnosed && make("p", {}, classOf(advice, answer.predicted_class_id).plain),
      isJudged(answer.verdict) && confidence(texts, answer),
      told.length > 0 && make("ul", { class: "hints" }, ...told.map((line) => make("li", {}, line))),
    ),
    !diagnosed && nextSteps(texts, answer.verdict, actions),
    picture(page, photos, isJudged(answer.verdict) ? actions.heatmap : null),
    diagnosed && whatToDo(texts, answer.predicted_class_id),
    diagnosed && nextSteps(texts, answer.verdict, actions),
    feedback,
    isJudged(answer.verdict) && possibilities(texts, answer),
    isPlant(answer) && eachPhoto(texts, answer),
    make(
      "p",
      { class: "small by" },
      make("strong", {}, by === "server" ? page.answer.by_server : page.answer.by_device),
      ` ${fill(page.answer.model, { name: answer.model.name, version: answer.model.version })}`,
    ),
    make("p", { class: "small" }, advice.disclaimer),
  );
}

function nextSteps({ page }: Texts, verdict: Verdict, { addLeaves, another }: AnswerActions): HTMLElement {
  const diagnosed = verdict === "diagnosis";
  const words = verdict === "uncertain" ? page.answer.add_leaves : page.answer.retake;
  return make(
    "div",
    { class: "buttons" },
    !diagnosed && make("button", { id: "add-leaves", type: "button", class: "main", onclick: addLeaves }, words),
    make("button", { id: "another", type: "button", class: diagnosed && "main", onclick: another }, page.answer.another),
  );
}

type Tone = "ill" | "well" | "unsure" | "unusable";

const TONE_ICONS: Record<Tone, readonly string[]> = {
  ill: ICONS.warning,
  well: ICONS.check,
  unsure: ICONS.question,
  unusable: ICONS.cross,
};

function toneOf({ verdict, predicted_class_id }: Prediction): Tone {
  if (verdict === "diagnosis") {
    return predicted_class_id === HEALTHY ? "well" : "ill";
  }
  return verdict === "uncertain" ? "unsure" : "unusable";
}

function confidence({ advice, page }: Texts, { confidence }: Prediction): HTMLElement {
  const word = advice.confidence[confidenceWord(confidence)];
  const number = fill(page.answer.of_hundred, { count: hundredths(confidence) });
  return make(
    "div",
    { class: "confidence" },
    make("p", {}, make("strong", {}, word), make("span", {}, number)),
    bar(page.answer.sure, confidence, `${word}, ${number}`),
  );
}

function whatToDo({ advice }: Texts, classId: number): HTMLElement {
  const about = classOf(advice, classId);
  const list = (title: string, lines: readonly string[], attributes: Record<string, string> = {}) => [
    make("h2", attributes, title),
    make("ul", {}, ...lines.map((line) => make("li", {}, line))),
  ];
  return make(
    "div",
    { class: "card advice" },
    ...list(advice.headings.now, about.now),
    ...list(advice.headings.signs, about.signs),
    ...list(advice.headings.next_season, about.next_season),
    about.note !== null && make("p", { class: "small" }, about.note),
    make(
      "details",
      {},
      make("summary", {}, advice.headings.sources),
      make("ul", { class: "small" }, ...about.sources.map((name) => make("li", {}, inFull(name)))),
    ),
  );
}

function inFull(name: string): string {
  const { title, publisher, year, where } = source(name);
  return `${title}. ${publisher}${year === null ? "" : ` ${year}`}. ${where}`;
}

function possibilities({ advice, page }: Texts, { probabilities }: Prediction): HTMLElement {
  const ranked = CLASS_NAMES.map((name, classId) => ({ classId, part: probabilities[name] ?? 0 })).sort(
    (one, other) => other.part - one.part,
  );
  return make(
    "details",
    {},
    make("summary", {}, page.answer.others),
    make(
      "ul",
      { class: "possibilities" },
      ...ranked.map(({ classId, part }) => {
        const { name } = classOf(advice, classId);
        const number = fill(page.answer.of_hundred, { count: hundredths(part) });
        return make("li", {}, make("p", {}, make("span", {}, name), make("span", {}, number)), bar(name, part, number));
      }),
    ),
  );
}

/** What the model says of each photo of a plant. */
function eachPhoto({ advice, page }: Texts, plant: PlantPrediction): HTMLElement {
  const leftOut = new Map(plant.left_out.map(({ index, reason }) => [index, reason]));
  const lines = plant.photos.map((photo, index) => {
    const reason = leftOut.get(index);
    return reason === undefined
      ? fill(page.answer.counted, { number: index + 1, name: classOf(advice, photo.predicted_class_id).name })
      : fill(page.answer.left_out, { number: index + 1, reason: advice.verdicts[reason] });
  });
  return make("ul", { class: "each-photo" }, ...lines.map((line) => make("li", {}, line)));
}
