"""kill -9 of a real `cassava bot` at each point between an update and its answer: one right answer, always.

The points are calls of Telegram's API: `before` the process dies when the call has left it and nothing has been done,
`after` when Telegram has done it and the process never learns. Between two calls only the ledger changes, in
transactions.
"""

import functools
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cassava_leaf_disease.texts.bot import bot_words
from fake_telegram import FakeTelegram, Fault, answered, is_waiting

StartProcess = Callable[..., Any]
Point = tuple[str, str]
ANN, BEN = 1001, 1002


def killed_at(points: Sequence[Point], start: StartProcess, telegram: FakeTelegram, chat: int | None) -> Any:
    """Starts a bot for each point and kills it there; gives another one that is left alone."""
    for method, when in points:
        about_a_chat = method.startswith(("send", "edit"))
        fault = Fault(method, when, cut=True, hold=threading.Event(), chat=chat if about_a_chat else None)
        telegram.faults.append(fault)
        bot = start()
        assert fault.reached.wait(60)
        bot.kill()
        assert fault.hold is not None
        fault.hold.set()
    return start()


def has_been_greeted(telegram: FakeTelegram, chat: int) -> bool:
    return bot_words("en").start in (each.text for each in telegram.in_chat(chat))


@pytest.mark.parametrize(
    "points",
    [
        [("getUpdates", "after"), ("sendMessage", "before"), ("getFile", "before"), ("download", "after")],
        [("sendMessage", "after"), ("editMessageMedia", "before"), ("editMessageMedia", "after")],
    ],
    ids=["while it is fetched", "while it is answered"],
)
@pytest.mark.slow
def test_a_photo_gets_exactly_one_answer(
    points: list[Point], start_process: StartProcess, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.send_photo(ANN, leaves[0])
    telegram.send_photo(BEN, leaves[1])

    bot = killed_at(points, start_process, telegram, ANN)

    for chat in (ANN, BEN):
        telegram.say(chat, text="/start")  # is answered when all before it has been
    for chat in (ANN, BEN):
        telegram.wait(functools.partial(has_been_greeted, telegram, chat))
    telegram.wait(telegram.nothing_pends)
    code, out = bot.stop()
    assert code == 0, bot.lines
    assert json.loads(out)["open_tasks"] == 0
    # Of Ann's: what she was sent when the process died there, or at a fetch, which may be that of Ben's photo.
    could_be_lost = sum(point == ("sendMessage", "after") or point[0] in {"getFile", "download"} for point in points)
    for chat in (ANN, BEN):
        *messages, _ = telegram.in_chat(chat)
        assert len([each for each in messages if each.picture]) == 1
        strays = [each for each in messages if not each.picture]
        assert all(map(is_waiting, strays))  # what Telegram sent and the process never learned of
        assert len(strays) <= (len(points) if chat == BEN else could_be_lost)


@pytest.mark.slow
def test_an_album_whose_photos_come_before_and_after_a_kill_gets_one_answer(
    start_process: StartProcess, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_BOT_ALBUM_QUIET_S", "20")
    for leaf in leaves[:2]:
        telegram.send_photo(ANN, leaf, media_group_id="an album")
    bot = start_process()
    telegram.wait(telegram.nothing_pends)
    bot.kill()
    telegram.send_photo(ANN, leaves[2], media_group_id="an album")
    monkeypatch.setenv("CASSAVA_BOT_ALBUM_QUIET_S", "0.3")
    start_process()

    [answer] = answered(telegram, ANN)

    assert bot_words("en").from_photos.format(count=3) in answer.text


@pytest.mark.slow
def test_words_survive_a_kill_too(start_process: StartProcess, telegram: FakeTelegram) -> None:
    telegram.say(ANN, text="/start")

    bot = killed_at([("sendMessage", "before")], start_process, telegram, ANN)

    [answer] = answered(telegram, ANN)
    code, out = bot.stop()
    assert (code, json.loads(out)["open_tasks"]) == (0, 0)
    assert telegram.in_chat(ANN) == [answer]
