"""Photos of one plant that come one after another, and limits of a user."""

from collections.abc import Callable
from typing import Any

import pytest

from cassava_leaf_disease.bot import diagnosis
from cassava_leaf_disease.domain import PlantPrediction
from cassava_leaf_disease.errors import BusyError
from cassava_leaf_disease.inference import aggregate
from cassava_leaf_disease.serving.answerers import LocalAnswerer
from cassava_leaf_disease.texts.bot import bot_words
from fake_telegram import FakeTelegram, answered

StartBot = Callable[..., Any]
ANN = 1001


@pytest.fixture
def unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is sure of nothing, and asks for more leaves."""
    real = aggregate.combine_photos

    def combine(*asked: Any) -> PlantPrediction:
        return real(*asked).model_copy(update={"verdict": "uncertain", "more_leaves": 3})

    monkeypatch.setattr(diagnosis, "combine_photos", combine)


def test_photos_that_were_asked_for_are_of_the_same_plant(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], unsure: None
) -> None:
    words = bot_words("en")
    with running_bot():
        telegram.send_photo(ANN, leaves[0])
        [first] = answered(telegram, ANN)
        telegram.send_album(ANN, leaves[1:3])
        second = answered(telegram, ANN, 2)[1]
        together = second.text
        telegram.press(second, "o:")  # it is another plant
        telegram.wait(lambda: second.text != together)

    assert "More leaves of the same plant needed: 3" in first.text
    assert words.from_photos.format(count=3) in together
    assert words.from_photos.format(count=2) in second.text
    assert [each[0] for each in second.buttons] == ["r", "w", "m"]


def test_a_photo_that_replies_to_an_answer_is_of_its_plant(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_BOT_SAME_PLANT_S", "0")
    with running_bot():
        telegram.send_photo(ANN, leaves[0])
        [first] = answered(telegram, ANN)
        telegram.send_photo(ANN, leaves[1])
        second = answered(telegram, ANN, 2)[1]
        telegram.send_photo(ANN, leaves[2], reply_to_message=telegram.shown(first))
        third = answered(telegram, ANN, 3)[2]

    said = bot_words("en").from_photos
    assert said.format(count=2) not in second.text
    assert said.format(count=2) in third.text


def test_an_answer_comes_without_a_heatmap_where_there_is_none(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise BusyError("no more today")

    monkeypatch.setattr(LocalAnswerer, "explain", fail)
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert answer.picture is None
    assert bot_words("en").heatmap not in answer.text


def test_a_user_has_a_limit_and_is_told_once(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    for leaf in leaves[:4]:
        telegram.send_photo(ANN, leaf)
    telegram.say(ANN, text="/help")
    with running_bot("bot.photos_per_hour=1") as bot:
        answered(telegram, ANN, 3)

    limit = next(each.text for each in telegram.in_chat(ANN) if not each.picture)
    assert limit == bot_words("en").slow_down.format(minutes=60)
    assert len(telegram.in_chat(ANN)) == 3
    assert (bot.result.answers, bot.result.open_tasks) == (1, 0)


def test_photos_that_may_not_wait_are_told_so(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    for leaf in leaves[:4]:
        telegram.send_photo(ANN, leaf)
    with running_bot("bot.max_waiting=2") as bot:
        telegram.wait(lambda: len([each for each in answered(telegram, ANN, 3) if each.picture]) == 2)

    assert telegram.in_chat(ANN)[0].text == bot_words("en").too_many.format(count=2)
    assert bot.result.answers == 2


def test_words_without_end_are_not_answered_without_end(running_bot: StartBot, telegram: FakeTelegram) -> None:
    for number in range(30):
        telegram.say(ANN, text=f"hello {number}")
    with running_bot():
        answered(telegram, ANN, 20)
        telegram.wait(telegram.nothing_pends)

    assert len(telegram.in_chat(ANN)) == 20
