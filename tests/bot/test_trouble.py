"""Telegram asks to wait, connections break, models fail: answers come later, once."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from cassava_leaf_disease.bot import receive, telegram_api, work
from cassava_leaf_disease.bot.run import BotResult, run_until
from cassava_leaf_disease.bot.settings import settings_for
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.texts.bot import bot_words
from fake_telegram import FakeTelegram, Fault, SentMessage, answered

StartBot = Callable[..., Any]
ANN, BEN = 1001, 1002


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (receive, telegram_api):
        monkeypatch.setattr(room, "_FIRST_PAUSE_S", 0.05)


@pytest.mark.parametrize("method", ["sendMessage", "editMessageMedia", "getFile", "getUpdates"])
def test_too_many_requests_are_waited_out(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], method: str
) -> None:
    telegram.faults.append(Fault(method, retry_after=1))
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)

    first, second = [call.at for call in telegram.called(method)][:2]
    assert second - first >= 1
    assert answer.picture


def test_a_long_wait_of_one_chat_is_no_wait_for_another(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telegram_api, "_PATIENCE_S", 0.5)
    monkeypatch.setenv("CASSAVA_BOT_PARALLEL", "1")  # who waits gives its place away
    telegram.faults.append(Fault("sendMessage", retry_after=2, chat=ANN))
    telegram.send_photo(ANN, leaves[0])
    telegram.send_photo(BEN, leaves[1])
    with running_bot():
        answered(telegram, BEN)
        ben_at = time.monotonic()
        answered(telegram, ANN)

    first, second = [call.at for call in telegram.called("sendMessage") if call.parameters["chat_id"] == str(ANN)]
    assert second - first >= 2
    assert ben_at < second


@pytest.mark.parametrize(
    ("method", "when", "strays"),
    [
        ("getUpdates", "before", 0),
        ("getUpdates", "after", 0),
        ("sendMessage", "before", 0),
        ("sendMessage", "after", 1),
        ("getFile", "after", 0),
        ("download", "before", 0),
        ("editMessageMedia", "before", 0),
        ("editMessageMedia", "after", 0),
    ],
)
def test_a_connection_that_breaks_is_no_answer_lost_or_given_twice(  # noqa: PLR0917
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], method: str, when: str, strays: int
) -> None:
    telegram.faults += [Fault(method, when, cut=True) for _ in range(1 if when == "after" else 3)]
    telegram.send_photo(ANN, leaves[0])
    with running_bot() as bot:
        telegram.wait(lambda: any(each.picture for each in telegram.in_chat(ANN)))
        telegram.wait(telegram.nothing_pends)

    assert bot.result.answers == 1
    messages = telegram.in_chat(ANN)
    assert len([each for each in messages if each.picture]) == 1
    assert len(messages) == 1 + strays


def test_a_server_that_fails_for_a_while_is_asked_until_it_answers(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.faults += [Fault("sendMessage", status=502) for _ in range(7)]  # more than one round of tries
    telegram.faults += [Fault("getMe", status=500), Fault("deleteWebhook", cut=True), Fault("sendChatAction", cut=True)]
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert answer.picture


def answered_anew(telegram: FakeTelegram) -> list[SentMessage]:
    """The messages when there is another one beside the placeholder."""
    telegram.wait(lambda: len(telegram.in_chat(ANN)) == 2)
    return telegram.in_chat(ANN)


def test_a_placeholder_that_is_gone_is_replaced(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.faults += [
        Fault("editMessageMedia", error="message to edit not found"),
        Fault("editMessageText", error="message to edit not found"),
    ]
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        messages = answered_anew(telegram)

    assert messages[1].picture


def test_a_server_without_edits_gets_new_messages(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.unknown |= {"editMessageMedia", "editMessageText"}
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        messages = answered_anew(telegram)

    assert messages[1].picture


def test_a_picture_that_telegram_refuses_is_left_out(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.faults.append(Fault("editMessageMedia", error="PHOTO_INVALID_DIMENSIONS"))
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert answer.picture is None
    assert "▰" in answer.text


def test_a_user_who_has_blocked_the_bot_holds_up_nobody(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.faults.append(Fault("sendMessage", status=403, chat=ANN))
    telegram.send_photo(ANN, leaves[0])
    telegram.send_photo(BEN, leaves[0])
    with running_bot() as bot:
        answered(telegram, BEN)

    assert telegram.in_chat(ANN) == []
    assert bot.result.open_tasks == 0


def test_a_task_that_fails_each_time_ends_with_an_apology(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = itertools.count()

    async def fail(*_: object) -> None:
        next(failures)
        raise ZeroDivisionError

    monkeypatch.setattr("cassava_leaf_disease.bot.photo_answers.diagnose_readable", fail)
    monkeypatch.setattr(work, "_MAX_ATTEMPTS", 2)
    monkeypatch.setattr(work, "_LONGEST_PAUSE_S", 0.1)
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert answer.text == bot_words("en").sorry
    assert next(failures) == 2


def test_a_message_that_telegram_refuses_again_and_again_is_dropped_in_the_end(
    running_bot: StartBot,
    telegram: FakeTelegram,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(work, "_MAX_ATTEMPTS", 2)
    monkeypatch.setattr(work, "_LONGEST_PAUSE_S", 0.1)
    telegram.faults += [Fault("sendMessage", error="something odd", chat=ANN) for _ in range(10)]
    telegram.say(ANN, text="/help")
    telegram.say(BEN, text="/help")
    with running_bot() as bot:
        answered(telegram, BEN)
        telegram.wait(lambda: "is dropped" in caplog.text)

    assert bot.result.open_tasks == 0
    assert telegram.in_chat(ANN) == []


def test_a_long_time_without_telegram_is_no_reason_to_give_up(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_BOT_GIVE_UP_S", "0.1")
    monkeypatch.setattr(work, "_LONGEST_PAUSE_S", 0.1)
    telegram.faults += [Fault("editMessageMedia", status=502) for _ in range(6)]
    telegram.faults += [Fault("sendMessage", status=401)]
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert answer.picture


def test_an_answer_that_stands_there_already_is_not_given_again(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    """The reply to the edit was lost, and when it is made again Telegram does not take the picture."""
    telegram.faults += [
        Fault("editMessageMedia", "after", cut=True),
        Fault("editMessageMedia", error="wrong file identifier/HTTP URL specified"),
    ]
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)
        telegram.wait(lambda: telegram.called("editMessageCaption"))
        telegram.say(ANN, text="/start")
        answered(telegram, ANN, 2)

    assert answer.picture
    assert len(telegram.in_chat(ANN)) == 2


def test_a_file_that_grows_or_fails_on_the_way_is_told_or_fetched_again(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.faults.append(Fault("download", status=500))
    telegram.send_photo(ANN, bytes(20_000_001))
    telegram.sizes |= dict.fromkeys(telegram.files, 1000)
    telegram.send_photo(BEN, leaves[0])
    with running_bot():
        [ann], [ben] = answered(telegram, ANN), answered(telegram, BEN)

    assert ann.text == bot_words("en").too_large.format(megabytes=20)
    assert ben.picture


def test_a_bot_that_is_told_to_end_leaves_what_it_cannot_finish(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASSAVA_BOT_SHUTDOWN_TIMEOUT_S", "0.1")
    go_on = threading.Event()
    stuck = Fault("editMessageMedia", hold=go_on)
    telegram.faults.append(stuck)
    telegram.send_photo(ANN, leaves[0])
    with running_bot() as bot:
        assert stuck.reached.wait(40)
    go_on.set()
    assert bot.result.open_tasks == 1

    with running_bot():
        [answer] = answered(telegram, ANN)
    assert answer.picture


def test_a_bot_without_telegram_ends_when_it_is_told(of_the_bot: None, telegram: FakeTelegram) -> None:
    telegram.faults += [Fault("getMe", status=500) for _ in range(100)]

    async def begin_and_end() -> BotResult:
        ending, config = asyncio.Event(), load_config()
        asyncio.get_running_loop().call_later(0.5, ending.set)
        return await run_until(ending, config, settings_for(config))

    assert asyncio.run(begin_and_end()).name == ""


def test_a_token_that_telegram_does_not_know_is_one_line(
    of_the_bot: None, telegram: FakeTelegram, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from cassava_leaf_disease import cli

    monkeypatch.setenv("CASSAVA_BOT_TOKEN", "999:of-nobody")

    assert cli.main(["bot"]) == ConfigError.exit_code
    said = capfd.readouterr().err
    assert "error: CASSAVA_BOT_TOKEN: Telegram does not know this token" in said
    assert "of-nobody" not in said


def test_a_misspelled_variable_is_told_when_the_bot_starts(
    of_the_bot: None, telegram: FakeTelegram, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from cassava_leaf_disease import cli

    monkeypatch.setenv("CASSAVA_BOT_TOKEN", "999:of-nobody")
    monkeypatch.setenv("CASSAVA_BOT_MAX_WAITNG", "2")

    assert cli.main(["bot"]) == ConfigError.exit_code
    assert "CASSAVA_BOT_MAX_WAITNG: no such setting, it is passed over; did you mean" in capfd.readouterr().err


def test_two_bots_do_not_share_a_state(
    running_bot: StartBot, telegram: FakeTelegram, capfd: pytest.CaptureFixture[str]
) -> None:
    from cassava_leaf_disease import cli

    with running_bot():
        telegram.wait(lambda: telegram.called("getUpdates"))
        assert cli.main(["bot"]) == ConfigError.exit_code

    assert "another bot works with that file" in capfd.readouterr().err
