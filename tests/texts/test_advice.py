"""All languages say the same things; every verdict and every check has words."""

from string import Formatter
from typing import Any, get_args

import pytest

from cassava_leaf_disease.domain import CLASS_NAMES, Check, ModelIdentity, Prediction, Verdict
from cassava_leaf_disease.texts.advice import (
    LANGUAGES,
    Language,
    advice,
    confidence_word,
    nearest_language,
    source,
)


def shape(value: Any) -> Any:
    """Keys, lengths and placeholders of a text, without its words."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [shape(each) for each in value]
    return sorted(name for _, name, _, _ in Formatter().parse(value) if name) if isinstance(value, str) else value


@pytest.mark.parametrize("language", LANGUAGES)
class TestEachLanguage:
    def test_says_as_much_as_english(self, language: Language) -> None:
        assert shape(advice(language).model_dump()) == shape(advice("en").model_dump())

    def test_has_words_for_every_class_verdict_and_check(self, language: Language) -> None:
        words = advice(language)
        assert len(words.classes) == len(CLASS_NAMES)
        assert {*words.verdicts} == {*get_args(Verdict), "healthy", "unknown"}
        assert {*words.reasons} == {*get_args(Check.model_fields["name"].annotation)}

    def test_names_sources_for_every_class(self, language: Language) -> None:
        for each in advice(language).classes:
            assert each.sources
            assert all(source(name).title for name in each.sources)

    def test_leaves_nothing_in_another_language(self, language: Language) -> None:
        own = {each.plain for each in advice(language).classes}
        others = {each.plain for other in LANGUAGES if other != language for each in advice(other).classes}
        assert not own & others


def answer(class_id: int, verdict: Verdict, *failed: Check) -> Prediction:
    probabilities = {name: float(number == class_id) for number, name in enumerate(CLASS_NAMES)}
    return Prediction(
        predicted_class_id=class_id,
        class_name=CLASS_NAMES[class_id],
        confidence=1.0,
        probabilities=probabilities,
        top_k=(),
        verdict=verdict,
        checks=failed,
        model=ModelIdentity(name="m", version="1", source="explicit", path="m.onnx"),
    )


def test_an_answer_is_told_in_a_sentence() -> None:
    assert advice("en").headline(answer(3, "diagnosis")) == "This looks like Cassava mosaic disease."
    assert advice("en").headline(answer(4, "diagnosis")) == "No disease seen on this leaf."
    assert advice("fr").headline(answer(3, "uncertain")) == "Pas sûr. Le plus probable : Mosaïque du manioc."
    assert "лист маниока" in advice("ru").headline(answer(0, "not_cassava"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_answer_hardly_surer_than_chance_names_no_class(language: Language) -> None:
    words, unsure = advice(language), answer(3, "uncertain")
    name = words.classes[3].name
    assert name not in words.headline(unsure.model_copy(update={"confidence": 0.34}))
    assert name in words.headline(unsure.model_copy(update={"confidence": 0.35}))


def test_a_check_that_failed_becomes_a_hint() -> None:
    dark = Check(name="dark", value=0.9, at_most=0.3, passed=False)
    sharp = Check(name="sharpness", value=9, at_least=1, passed=True)
    assert advice("en").hints(answer(0, "poor_photo", dark, sharp)) == (advice("en").reasons["dark"],)


@pytest.mark.parametrize(
    ("confidence", "word"), [(1.0, "very_sure"), (0.9, "very_sure"), (0.8, "sure"), (0.5, "likely"), (0.0, "unsure")]
)
def test_confidence_has_words(confidence: float, word: str) -> None:
    assert confidence_word(confidence) == word


@pytest.mark.parametrize(
    ("code", "language"), [("pt-BR", "pt"), ("ru", "ru"), ("sw_TZ", "sw"), ("de", "en"), (None, "en"), ("", "en")]
)
def test_a_code_finds_its_language(code: str | None, language: Language) -> None:
    assert nearest_language(code) == language
