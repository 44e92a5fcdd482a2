"""From a wrong answer in the chat to the data set for training: the real store, and the counts."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease import cli
from cassava_leaf_disease.bot import keeping
from cassava_leaf_disease.bot.giving import Gift
from cassava_leaf_disease.bot.keeping import GiftStore, as_set
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.inference.predictor import Predictor
from cassava_leaf_disease.texts.bot import bot_words
from fake_telegram import FakeTelegram, answered

StartBot = Callable[..., Any]
ANN = 1001


@pytest.fixture
def addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where feedback and counts are kept."""
    named = {name: f"sqlite:///{tmp_path / name}.db" for name in ("feedback", "statistics")}
    for name, url in named.items():
        monkeypatch.setenv(f"CASSAVA_{name.upper()}_URL", url)
    return named


def test_a_correction_in_the_chat_comes_out_of_the_export_and_is_forgotten_on_request(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], addresses: dict[str, str], tmp_path: Path
) -> None:
    words = bot_words("en")
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "w:")
        telegram.wait(lambda: len(answer.buttons) == 6)
        wrong = next(each for each in answer.buttons if each.endswith(":2"))
        telegram.press(answer, wrong)
        question = answered(telegram, ANN, 2)[1]
        telegram.press(question, "k:")
        telegram.wait(lambda: question.text == words.kept)
        export = ["feedback-export", f"feedback.url={addresses['feedback']}"]
        assert cli.main([*export, f"feedback.output_dir={tmp_path / 'first'}"]) == 0
        telegram.say(ANN, text="/forget")
        forgotten = answered(telegram, ANN, 3)[2]

    assert forgotten.text == words.forgotten.format(count=1)
    assert ",2\n" in (tmp_path / "first" / "train.csv").read_text().replace("\r", "")
    assert not [path for path in (tmp_path / "photos").rglob("*") if path.is_file()]
    with sqlite3.connect(addresses["statistics"].removeprefix("sqlite:///")) as database:
        counted = database.execute("SELECT DISTINCT source FROM answer_counts").fetchall()
    database.close()
    assert counted == [("bot",)]


def test_nobody_is_asked_where_no_store_is_named() -> None:
    with as_set(load_config()) as (store, _):
        assert store is None


def test_a_store_that_cannot_be_reached_is_tried_again(
    addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("no such host")

    with monkeypatch.context() as away:
        away.setattr(keeping, "open_store", fail)
        with as_set(load_config()) as (store, _):
            away.undo()
            assert store is not None
            assert store.forget("telegram:1") == 0

    assert addresses
    assert "what users give cannot be kept now: no such host" in caplog.text


def test_a_full_store_is_told(tmp_path: Path, predictor: Predictor, leaves: list[bytes]) -> None:
    answer = predictor.predict_bytes(leaves[0], name="photo")
    store = GiftStore(f"sqlite:///{tmp_path}/f.db", None, 1)
    store.keep(Gift(1, answer, None, leaves[0], "receipt-of-sixteen-letters"))
    with pytest.raises(StorageError, match="a store of 1 feedbacks, which is full"):
        store.keep(Gift(1, answer, "right", leaves[1], "another-receipt-of-letters"))
    store.close()
