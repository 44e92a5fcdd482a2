"""What users get for what they send: answers in their chats, by a bot that talks with a server over real HTTP."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cassava_leaf_disease.texts.advice import advice
from cassava_leaf_disease.texts.bot import bot_words
from fake_telegram import FakeTelegram, Fault, answered

StartBot = Callable[..., Any]
ANN, BEN = 1001, 1002


def test_a_photo_gets_one_answer_with_everything(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    with running_bot():
        sent = telegram.send_photo(ANN, leaves[0])
        [answer] = answered(telegram, ANN)
        telegram.wait(telegram.nothing_pends)

    words, own = advice("en"), bot_words("en")
    assert answer.picture is not None
    assert answer.picture.startswith(b"\x89PNG")
    assert answer.text.startswith(("<b>This looks like ", "<b>No disease seen", "<b>Not sure. The most likely"))
    assert re.search(r"\n(Very sure|Fairly sure|Probable, not sure|Not sure) \(\d+ %\)", answer.text)
    assert re.search(r"[▰▱]{10} \d+ % ", answer.text)
    assert words.disclaimer in answer.text
    assert own.heatmap in answer.text
    assert [each.partition(":")[0] for each in answer.buttons] == ["r", "w", "m"]
    assert sent not in telegram.updates
    [placed] = telegram.called("sendMessage")
    assert placed.parameters["text"] == own.looking
    assert telegram.called("sendChatAction")


def test_an_image_sent_as_a_file_is_a_photo(running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]) -> None:
    with running_bot():
        telegram.send_document(ANN, leaves[0], "image/jpeg", file_name="leaf.jpg")
        telegram.send_document(BEN, leaves[0], None, file_name="LEAF.JPG")
        [ann], [ben] = answered(telegram, ANN), answered(telegram, BEN)

    assert ann.picture
    assert ann.picture == ben.picture


def test_an_album_is_one_plant_and_gets_one_answer(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    with running_bot() as bot:
        telegram.send_album(ANN, leaves[:4])
        [answer] = answered(telegram, ANN)
        telegram.send_photo(BEN, leaves[0])
        answered(telegram, BEN)

    assert bot.result.answers == 2
    assert telegram.in_chat(ANN) == [answer]
    assert bot_words("en").from_photos.format(count=4) in answer.text


def test_a_broken_photo_of_an_album_is_left_out_and_told(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    with running_bot():
        telegram.send_album(ANN, [leaves[0], leaves[1][:500], leaves[2]])
        [answer] = answered(telegram, ANN)

    assert answer.picture
    assert bot_words("en").left_out.format(count=1) in answer.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"sticker": {"file_id": "s", "file_unique_id": "s", "width": 1, "height": 1, "is_animated": False,
                      "is_video": False, "type": "regular"}}, "sticker"),
        ({"text": "hello"}, "text"),
        ({"text": "/nothing_of_ours"}, "text"),
        ({"voice": {"file_id": "v", "file_unique_id": "v", "duration": 3}}, "voice"),
        ({"video": {"file_id": "v", "file_unique_id": "v", "width": 1, "height": 1, "duration": 3}}, "video"),
        ({"location": {"latitude": 1.0, "longitude": 2.0}}, "other"),
        ({"document": {"file_id": "d", "file_unique_id": "d", "mime_type": "application/pdf", "file_name": "a.pdf"}},
         "not_an_image"),
        ({"document": {"file_id": "d", "file_unique_id": "d", "mime_type": "image/png", "file_size": 30_000_000}},
         "too_large"),
    ],
    ids=["sticker", "text", "command", "voice", "video", "location", "pdf", "huge"],
)  # fmt: skip
def test_what_is_no_photo_gets_a_helpful_word(
    running_bot: StartBot, telegram: FakeTelegram, content: dict[str, Any], said: str
) -> None:
    with running_bot():
        telegram.say(ANN, language="fr", **content)
        [answer] = answered(telegram, ANN)

    assert answer.text == getattr(bot_words("fr"), said).format(megabytes=20)
    assert not telegram.called("getFile")


def test_files_that_cannot_be_used_are_told_in_the_place_of_the_answer(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    words = bot_words("en")
    telegram.send_photo(1, leaves[0][:500])  # cut off
    telegram.send_document(2, b"GIF89a" + bytes(50), "image/gif")
    telegram.send_photo(3, b"")
    telegram.send_photo(4, leaves[0])
    telegram.sizes[file_of(telegram, 4)] = 25_000_000
    telegram.send_photo(5, leaves[0])
    del telegram.files[file_of(telegram, 5)]
    with running_bot():
        said = {chat: [each.text for each in answered(telegram, chat)] for chat in range(1, 6)}

    assert said == {
        1: [words.broken],
        2: [words.wrong_format],
        3: [words.broken],
        4: [words.too_large.format(megabytes=20)],
        5: [words.gone],
    }


def file_of(telegram: FakeTelegram, chat: int) -> str:
    """The largest size of the photo that a user sent last."""
    messages = [each["message"] for each in telegram.updates.values() if each["message"]["chat"]["id"] == chat]
    return str(messages[-1]["photo"][-1]["file_id"])


def test_a_dark_photo_is_refused_with_a_hint(
    running_bot: StartBot,
    telegram: FakeTelegram,
    dark_photo: bytes,
    served_models: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CASSAVA_CHECKPOINT_PATH", str(served_models[1]))  # it has a gate
    with running_bot():
        telegram.send_photo(ANN, dark_photo, language="sw")
        [answer] = answered(telegram, ANN)

    words = advice("sw")
    assert words.verdicts["poor_photo"] in answer.text
    assert words.reasons["brightness"] in answer.text
    assert answer.picture is None
    assert words.headings.now not in answer.text


def test_two_users_do_not_wait_for_each_other(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    go_on = threading.Event()
    telegram.faults.append(Fault("editMessageMedia", hold=go_on, chat=ANN))
    with running_bot():
        telegram.send_photo(ANN, leaves[0])
        telegram.send_photo(BEN, leaves[1])
        [ben] = answered(telegram, BEN)
        assert telegram.in_chat(ANN)[0].text == bot_words("en").looking
        go_on.set()
        [ann] = answered(telegram, ANN)

    assert ann.picture
    assert ben.picture


def test_a_chat_gets_its_answers_in_order(running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]) -> None:
    for leaf in leaves[:3]:
        telegram.send_photo(ANN, leaf)
    telegram.say(ANN, text="/about")
    with running_bot():
        messages = answered(telegram, ANN, 4)

    assert [bool(each.picture) for each in messages] == [True, True, True, False]
    assert "test_resnet" in messages[3].text
