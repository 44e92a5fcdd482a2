"""Answers in words: nothing that matters is cut, in any language, for any answer."""

import pytest

from cassava_leaf_disease.bot.giving import gifts
from cassava_leaf_disease.bot.replies import (
    answer_keyboard,
    answer_text,
    bar,
    class_keyboard,
    consent_keyboard,
    language_keyboard,
    length,
    more_text,
    with_note_on_heatmap,
)
from cassava_leaf_disease.domain import (
    CLASS_NAMES,
    Check,
    LeftOut,
    ModelIdentity,
    PlantPrediction,
    Prediction,
    Verdict,
)
from cassava_leaf_disease.texts.advice import LANGUAGES, Language, advice

CAPTION, TEXT = 1024, 4096


def plant(
    class_id: int, verdict: Verdict = "diagnosis", confidence: float = 0.84, photos: int = 1, more: int | None = 0
) -> PlantPrediction:
    rest = (1 - confidence) / 4
    shares = {name: confidence if number == class_id else rest for number, name in enumerate(CLASS_NAMES)}
    checks = (
        Check(name="sharpness", value=1, at_least=2, passed=False),
        Check(name="confidence", value=0.1, at_least=0.5, passed=False),
        Check(name="contrast", value=1, at_least=0.5, passed=True),
    )
    one = Prediction(
        predicted_class_id=class_id,
        class_name=CLASS_NAMES[class_id],
        confidence=confidence,
        probabilities=shares,
        top_k=(),
        verdict=verdict,
        checks=checks,
        model=ModelIdentity(name="m", version="1", source="explicit", path="m.onnx"),
    )
    usable = verdict in ("diagnosis", "uncertain")
    return PlantPrediction(
        **dict(one),
        counted=tuple(range(photos)) if usable else (),
        left_out=() if usable else (LeftOut(index=0, image=None, reason="poor_photo"),),
        more_leaves=more,
        photos=(one,) * photos,
    )


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("class_id", range(5))
def test_a_diagnosis_says_everything_that_it_should(class_id: int, language: Language) -> None:
    words = advice(language)
    text = answer_text(plant(class_id, photos=4), 5, 1, language, CAPTION)

    assert length(text) <= CAPTION
    assert words.headline(plant(class_id)) in text
    assert "(84 %)" in text
    assert f"{bar(0.84)} 84 %" in text
    assert all(f"• {line}" in text for line in words.classes[class_id].now)
    assert words.headings.sources in text
    assert words.disclaimer in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("class_id", range(5))
def test_what_else_there_is_to_know_fits_a_message(class_id: int, language: Language) -> None:
    words = advice(language)
    for verdict in ("diagnosis", "uncertain"):
        text = more_text(plant(class_id, verdict), language, TEXT)
        assert length(text) <= TEXT
        for line in (*words.classes[class_id].signs, *words.classes[class_id].next_season):
            assert f"• {line}" in text
        assert f"<b>{words.headings.sources}</b>" in text
        assert text.count("IITA") >= 1
    note = words.classes[class_id].note or ""
    assert note in more_text(plant(class_id), language, TEXT)


def test_an_unsure_answer_asks_for_leaves_and_gives_no_advice() -> None:
    words = advice("en")
    text = answer_text(plant(3, "uncertain", 0.41, more=4), 1, 0, "en", CAPTION)

    assert text.startswith("<b>Not sure. The most likely is Cassava mosaic disease.</b>\nNot sure (41 %)")
    assert "More leaves of the same plant needed: 4" in text
    assert words.headings.now not in text
    assert words.more_leaves_unknown in answer_text(plant(3, "uncertain", 0.41, more=None), 1, 0, "en", CAPTION)


@pytest.mark.parametrize("verdict", ["not_cassava", "poor_photo"])
def test_a_refusal_says_how_to_do_better_and_names_no_disease(verdict: Verdict) -> None:
    text = answer_text(plant(3, verdict), 1, 0, "en", CAPTION)

    words = advice("en")
    assert text == f"<b>{words.verdicts[verdict]}</b>\n\n{words.reasons['sharpness']}"


def test_what_matters_least_goes_first_where_room_is_short() -> None:
    whole = answer_text(plant(3), 1, 0, "en", CAPTION)
    short = answer_text(plant(3), 1, 0, "en", length(whole) - 1)

    assert "Sources" not in short
    assert advice("en").disclaimer in short
    assert answer_text(plant(3), 1, 0, "en", 70).startswith("<b>This looks like")
    assert with_note_on_heatmap("x" * CAPTION, "en", CAPTION) == "x" * CAPTION


def test_length_counts_as_telegram_does() -> None:
    assert length("<b>a&amp;b</b> 👍") == len("a&b ") + 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_buttons_bring_back_what_telegram_allows(language: Language) -> None:
    number = 2**53
    keyboards = [
        answer_keyboard(number, "uncertain", language, same_plant=True, asks=True),
        class_keyboard(number, language),
        consent_keyboard(number, language),
        language_keyboard(),
    ]
    data = [str(button.callback_data) for each in keyboards if each for row in each.inline_keyboard for button in row]

    assert len(data) == len(set(data)) == 4 + 6 + 2 + 5
    assert all(1 <= len(each.encode()) <= 64 for each in data)


def test_a_refusal_has_nothing_more_to_tell() -> None:
    asked = answer_keyboard(1, "poor_photo", "en", same_plant=False, asks=True)

    assert asked is not None
    assert [button.callback_data for row in asked.inline_keyboard for button in row] == ["r:1", "w:1"]
    assert answer_keyboard(1, "poor_photo", "en", same_plant=False, asks=False) is None


def test_what_was_said_of_a_plant_holds_for_each_photo() -> None:
    whole = plant(3, photos=2)
    other = plant(1).photos[0]
    whole = whole.model_copy(update={"photos": (whole.photos[0], other)})
    photos = [(0, b"a"), (1, b"b")]

    assert [each.correct for each in gifts(whole, photos, 1, "right", "r")] == ["right", "3"]
    assert [each.correct for each in gifts(whole, photos, 1, "2", "r")] == ["2", "2"]
    assert [each.correct for each in gifts(whole, photos, 1, "none", "r")] == [None, None]
    assert [each.receipt for each in gifts(whole, photos, 1, "2", "r")] == ["r-0", "r-1"]
