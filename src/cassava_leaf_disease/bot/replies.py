"""Answers in words, as Telegram's HTML, and the buttons below them. Nothing here talks to anybody."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Final

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from cassava_leaf_disease.domain import NUM_CLASSES, PlantPrediction, Verdict
from cassava_leaf_disease.texts.advice import LANGUAGES, Advice, Language, advice, confidence_word, source
from cassava_leaf_disease.texts.bot import BotWords, bot_words

_BAR_CELLS: Final = 10
_SHOWN_CLASSES: Final = 3
_WORTH_SHOWING: Final = 0.02  # probability of another class than the first
_UNSAID: Final = frozenset({"confidence"})  # checks whose failure the verdict says already


@dataclass(frozen=True)
class _Part:
    """A paragraph; where all are too long for a message, the least `needed` go first."""

    needed: int
    text: str


def answer_text(plant: PlantPrediction, photos: int, unreadable: int, language: Language, limit: int) -> str:
    """The answer about a plant, of which the user sent so many photos, in at most `limit` characters."""
    words, about = bot_words(language), advice(language)
    parts = [_Part(9, f"<b>{in_html(about.headline(plant))}</b>{_sureness(plant, about, words)}")]
    if plant.verdict in ("diagnosis", "uncertain"):
        parts += [_Part(5, _bars(plant, about))]
    parts += [_Part(7, line) for line in _what_to_do_better(plant, about)]
    parts += _counted(plant, photos, unreadable, words)
    if plant.verdict == "diagnosis":
        known = about.classes[plant.predicted_class_id]
        parts += [
            _Part(8, f"<b>{in_html(about.headings.now)}</b>\n{_list(known.now)}"),
            _Part(4, f"{in_html(about.headings.sources)}: {in_html(_short_sources(known.sources))}"),
        ]
    if plant.verdict in ("diagnosis", "uncertain"):
        parts += [_Part(6, f"<i>{in_html(about.disclaimer)}</i>")]
    return _fitted(parts, limit)


def with_note_on_heatmap(text: str, language: Language, limit: int) -> str:
    """An answer that comes with a heatmap, and says what that is if there is room."""
    longer = f"{text}\n\n{in_html(bot_words(language).heatmap)}"
    return longer if length(longer) <= limit else text


def more_text(plant: PlantPrediction, language: Language, limit: int) -> str:
    """Signs, next planting and sources: of the diagnosis, or of the two likeliest classes of an unsure answer."""
    about = advice(language)
    ranked = sorted(range(NUM_CLASSES), key=lambda each: -list(plant.probabilities.values())[each])
    parts = []
    for place, number in enumerate(ranked[: 1 if plant.verdict == "diagnosis" else 2]):
        known, needed = about.classes[number], 9 - 4 * place
        parts += [
            _Part(needed, f"<b>{in_html(known.name)}</b>\n{in_html(known.plain)}"),
            _Part(needed - 1, f"<b>{in_html(about.headings.signs)}</b>\n{_list(known.signs)}"),
            _Part(needed - 2, f"<b>{in_html(about.headings.next_season)}</b>\n{_list(known.next_season)}"),
        ]
        if known.note is not None:
            parts += [_Part(needed - 3, f"<i>{in_html(known.note)}</i>")]
    names = dict.fromkeys(
        name for each in ranked[: 1 if plant.verdict == "diagnosis" else 2] for name in about.classes[each].sources
    )
    parts += [_Part(4, f"<b>{in_html(about.headings.sources)}</b>\n{_list([_long_source(name) for name in names])}")]
    return _fitted(parts, limit)


def _sureness(plant: PlantPrediction, about: Advice, words: BotWords) -> str:
    if plant.verdict not in ("diagnosis", "uncertain"):
        return ""
    word = about.confidence[confidence_word(plant.confidence)]
    said = words.sureness.format(word=word, percent=round(100 * plant.confidence))
    return f"\n{in_html(said[:1].upper() + said[1:])}"


def _bars(plant: PlantPrediction, about: Advice) -> str:
    ranked = sorted(enumerate(plant.probabilities.values()), key=lambda each: -each[1])
    shown = [ranked[0], *(each for each in ranked[1:_SHOWN_CLASSES] if each[1] >= _WORTH_SHOWING)]
    return "\n".join(
        f"{bar(probability)} {round(100 * probability)} % {in_html(about.classes[number].name)}"
        for number, probability in shown
    )


def bar(probability: float) -> str:
    """A probability as ten cells."""
    full = round(probability * _BAR_CELLS)
    return "▰" * full + "▱" * (_BAR_CELLS - full)


def _what_to_do_better(plant: PlantPrediction, about: Advice) -> list[str]:
    if plant.verdict == "diagnosis":
        return []
    failed = dict.fromkeys(check.name for photo in plant.photos for check in photo.checks if not check.passed)
    lines = [about.reasons[name] for name in failed if name not in _UNSAID]
    if plant.verdict == "uncertain":
        lines = [] if plant.counted else lines
        count = plant.more_leaves
        lines += [about.more_leaves_unknown if not count else about.more_leaves.format(count=count)]
    return [in_html(line) for line in lines]


def _counted(plant: PlantPrediction, photos: int, unreadable: int, words: BotWords) -> list[_Part]:
    if photos == 1:
        return []
    parts = [_Part(3, in_html(words.from_photos.format(count=photos)))]
    left_out = unreadable + len(plant.left_out)
    if left_out and plant.counted:
        parts += [_Part(3, in_html(words.left_out.format(count=left_out)))]
    return parts


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"• {in_html(line)}" for line in lines)


def _short_sources(names: Sequence[str]) -> str:
    known = [source(name) for name in names]
    return "; ".join(dict.fromkeys(f"{each.publisher} {each.year or ''}".strip() for each in known))


def _long_source(name: str) -> str:
    known = source(name)
    return f"{known.title}. {known.publisher}{f' {known.year}' if known.year else ''}. {known.where}"


def _fitted(parts: Sequence[_Part], limit: int) -> str:
    kept = list(parts)
    while length("\n\n".join(part.text for part in kept)) > limit:
        kept.remove(min(kept, key=lambda part: part.needed))
    return "\n\n".join(part.text for part in kept)


def in_html(text: str) -> str:
    """Plain text as Telegram's HTML; quotes stay as they are."""
    return escape(text, quote=False)


def length(text: str) -> int:
    """Characters of an HTML text as Telegram counts them: without tags, in units of UTF-16."""
    return len(unescape(re.sub(r"<[^>]*>", "", text)).encode("utf-16-le")) // 2


# Buttons. What they bring back is a letter, the number of the answer, and what was chosen: at most 64 bytes.


def answer_keyboard(
    number: int, verdict: Verdict, language: Language, *, same_plant: bool, asks: bool
) -> InlineKeyboardMarkup | None:
    """Below an answer: was it right (if `asks`), more about it, and whether it was the same plant at all."""
    words = bot_words(language)
    rows = [[_button(words.button_right, "r", number), _button(words.button_wrong, "w", number)]] if asks else []
    rows += [[_button(words.button_more, "m", number)]] if verdict in ("diagnosis", "uncertain") else []
    rows += [[_button(words.button_other_plant, "o", number)]] if same_plant else []
    return InlineKeyboardMarkup(rows) if rows else None


def class_keyboard(number: int, language: Language) -> InlineKeyboardMarkup:
    """The classes, and something else."""
    words, about = bot_words(language), advice(language)
    names = [each.name for each in about.classes]
    rows = [[_button(name, "c", number, str(class_id))] for class_id, name in enumerate(names)]
    return InlineKeyboardMarkup([*rows, [_button(words.button_none, "c", number, "none")]])


def consent_keyboard(number: int, language: Language) -> InlineKeyboardMarkup:
    """May the photos be kept?"""
    words = bot_words(language)
    return InlineKeyboardMarkup([[_button(words.button_keep, "k", number), _button(words.button_drop, "d", number)]])


def language_keyboard() -> InlineKeyboardMarkup:
    """Each language by its own name."""
    return InlineKeyboardMarkup(
        [[InlineKeyboardButton(advice(each).language, callback_data=f"l:{each}")] for each in LANGUAGES]
    )


def _button(label: str, verb: str, number: int, chosen: str = "") -> InlineKeyboardButton:
    return InlineKeyboardButton(label, callback_data=f"{verb}:{number}{f':{chosen}' if chosen else ''}")
