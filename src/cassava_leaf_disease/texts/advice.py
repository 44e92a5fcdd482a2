"""Diseases, verdicts and what to do, in five languages."""

from functools import cache
from importlib.resources import files
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.domain import Prediction, Verdict

Language = Literal["en", "fr", "pt", "sw", "ru"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
ConfidenceWord = Literal["very_sure", "sure", "likely", "unsure"]
VerdictWord = Verdict | Literal["healthy", "unknown"]
HEALTHY: Final = 4


class _Words(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassAdvice(_Words):
    """One of the five classes: its name, what it is, its signs, what helps now and before the next planting."""

    name: str
    plain: str
    signs: tuple[str, ...]
    now: tuple[str, ...]
    next_season: tuple[str, ...]
    note: str | None
    sources: tuple[str, ...]


class Headings(_Words):
    """Over the lists of `ClassAdvice`."""

    signs: str
    now: str
    next_season: str
    sources: str


class Advice(_Words):
    """All of a language. `{name}` stands for a class's name, `{count}` for a number.

    `verdicts` has a line for each `Verdict`, `healthy` for the diagnosis that there is nothing, and `unknown` for an
    answer that is too unsure to name even the likeliest class. `reasons` has one for each check of an answer
    (`domain.Check.name`): what to do better.
    """

    language: str
    classes: tuple[ClassAdvice, ...]
    confidence: dict[ConfidenceWord, str]
    verdicts: dict[VerdictWord, str]
    reasons: dict[str, str]
    more_leaves: str
    more_leaves_unknown: str
    disclaimer: str
    headings: Headings

    def headline(self, answer: Prediction) -> str:
        """The verdict about a photo or a plant in one sentence."""
        words = self.verdicts[_verdict_word(answer)]
        return words.format(name=self.classes[answer.predicted_class_id].name)

    def hints(self, answer: Prediction) -> tuple[str, ...]:
        """What to do better, for each check that failed."""
        return tuple(self.reasons[check.name] for check in answer.checks if not check.passed)


class Source(_Words):
    """A publication that advice rests on."""

    title: str
    publisher: str
    year: int | None
    where: str


class _Facts(_Words):
    """What holds in every language; below the confidence `named_from` an unsure answer names no class."""

    confidence: tuple[tuple[float, ConfidenceWord], ...]
    named_from: float
    sources: dict[str, Source]


@cache
def advice(language: Language) -> Advice:
    """The words of a language."""
    return Advice.model_validate_json(_read(f"advice.{language}.json"))


def confidence_word(confidence: float) -> ConfidenceWord:
    """How sure an answer is, in words' terms; `Advice.confidence` says it."""
    return next(word for at_least, word in _facts().confidence if confidence >= at_least)


def _verdict_word(answer: Prediction) -> VerdictWord:
    if answer.verdict == "diagnosis" and answer.predicted_class_id == HEALTHY:
        return "healthy"
    if answer.verdict == "uncertain" and answer.confidence < _facts().named_from:
        return "unknown"
    return answer.verdict


def source(name: str) -> Source:
    """The publication of that name."""
    return _facts().sources[name]


def nearest_language(code: str | None) -> Language:
    """The language of a code such as `pt-BR`; English where there is none of it."""
    main = (code or "").replace("_", "-").split("-")[0].lower()
    return next((language for language in LANGUAGES if language == main), "en")


@cache
def _facts() -> _Facts:
    return _Facts.model_validate_json(_read("facts.json"))


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
