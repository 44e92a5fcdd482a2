"""Commands, languages and buttons."""

from collections.abc import Callable
from string import Formatter
from typing import Any

import pytest

from cassava_leaf_disease.texts.advice import LANGUAGES, Language, advice
from cassava_leaf_disease.texts.bot import BotWords, bot_words
from fake_telegram import FakeTelegram, Fault, SentMessage, answered

StartBot = Callable[..., Any]
ANN, BEN = 1001, 1002


def plain(message: SentMessage) -> str:
    """A text as it is shown."""
    from html import unescape

    return unescape(message.text)


def test_commands_are_answered(running_bot: StartBot, telegram: FakeTelegram) -> None:
    words = bot_words("ru")
    with running_bot():
        for command in ("/start", "/help", "/about@cassava_bot now", "/privacy"):
            telegram.say(ANN, text=command, language="ru")
        said = [plain(each) for each in answered(telegram, ANN, 4)]
        telegram.wait(lambda: len(telegram.called("setMyCommands")) == len(LANGUAGES) + 1)

    assert said[0] == words.start
    assert said[1] == words.help.format(count=10, megabytes=20)
    assert said[2].startswith(words.about[:20])
    assert "test_resnet 0.1.0+20260101T0000" in said[2]
    assert said[3] == words.privacy.format(days=7)
    menus = [call.parameters.get("language_code") for call in telegram.called("setMyCommands")]
    assert sorted(menus, key=str) == sorted([None, *LANGUAGES], key=str)


@pytest.mark.parametrize("code", ["en", "fr", "pt-br", "sw", "ru", "de"])
def test_everybody_is_answered_in_their_language(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], code: str
) -> None:
    language: Language = next((each for each in LANGUAGES if code.startswith(each)), "en")
    telegram.send_photo(ANN, leaves[0], language=code)
    with running_bot():
        [answer] = answered(telegram, ANN)

    assert advice(language).disclaimer in plain(answer)
    assert bot_words(language).heatmap in plain(answer)


def test_a_language_that_was_chosen_is_remembered(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    with running_bot():
        telegram.say(ANN, text="/language", language="en")
        [question] = answered(telegram, ANN)
        assert question.buttons == [f"l:{language}" for language in LANGUAGES]
        telegram.press(question, "l:sw")
        telegram.wait(lambda: question.text == bot_words("sw").language_chosen)
    with running_bot():
        telegram.send_photo(ANN, leaves[0], language="en")
        answer = answered(telegram, ANN, 2)[1]

    assert advice("sw").disclaimer in plain(answer)


def test_more_is_told_by_a_button(running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]) -> None:
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "m:")
        more = answered(telegram, ANN, 2)[1]

    words = advice("en").headings
    assert f"<b>{words.signs}</b>" in more.text
    assert f"<b>{words.next_season}</b>" in more.text
    assert f"<b>{words.sources}</b>" in more.text
    assert more.reply_to == answer.number


def test_a_right_answer_and_its_photo_are_given(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], store: Any, counted: Any
) -> None:
    telegram.send_photo(ANN, leaves[0])
    with running_bot(store=store, statistics=counted):
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "r:")
        question = answered(telegram, ANN, 2)[1]
        assert plain(question) == bot_words("en").ask_to_keep.format(count=1)
        assert store.kept == {}
        telegram.press(question, "k:")
        telegram.wait(lambda: plain(question) == bot_words("en").kept)
        telegram.press(answer, "m:")
        answered(telegram, ANN, 3)

    [gift] = store.kept.values()
    assert (gift.person, gift.correct, gift.photo) == (ANN, "right", leaves[0])
    assert [each.class_name for each in counted.predictions] == [gift.answer.class_name]
    assert answer.buttons[0].startswith("m:")


def test_a_wrong_answer_is_corrected(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], store: Any
) -> None:
    telegram.send_album(ANN, leaves[:2])
    with running_bot(store=store):
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "w:")
        telegram.wait(lambda: len(answer.buttons) == 6)
        telegram.press(answer, f"c:{answer.buttons[0].split(':')[1]}:2")
        question = answered(telegram, ANN, 2)[1]
        telegram.press(question, "k:")
        telegram.wait(lambda: plain(question) == bot_words("en").kept)
        telegram.press(question_before(question), "k:")  # once more, by a slow phone
        telegram.wait(telegram.nothing_pends)

    assert [gift.correct for gift in store.kept.values()] == ["2", "2"]
    assert {gift.photo for gift in store.kept.values()} == set(leaves[:2])


def question_before(question: SentMessage) -> SentMessage:
    """The question as it stood, with its buttons."""
    number = 1
    keyboard = {"inline_keyboard": [[{"text": "yes", "callback_data": f"k:{number}"}]]}
    return SentMessage(question.chat, question.number, question.text, keyboard)


@pytest.mark.parametrize("refuses", [True, False])
def test_nothing_is_kept_without_consent_or_when_it_fails(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], store: Any, refuses: bool
) -> None:
    store.fails = True
    words = bot_words("en")
    telegram.send_photo(ANN, leaves[0])
    with running_bot(store=store):
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "r:")
        question = answered(telegram, ANN, 2)[1]
        telegram.press(question, "d:" if refuses else "k:")
        telegram.wait(lambda: plain(question) == (words.not_kept if refuses else words.not_kept_failed))

    assert store.kept == {}


def test_without_a_store_nobody_is_asked(running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]) -> None:
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "r:")
        telegram.wait(lambda: [each[0] for each in answer.buttons] == ["m"])

    assert telegram.in_chat(ANN) == [answer]
    thanks = [call.parameters.get("text") for call in telegram.called("answerCallbackQuery")]
    assert thanks == [bot_words("en").thanks]


def test_forget_deletes_what_was_given_and_what_is_remembered(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], store: Any
) -> None:
    words = bot_words("en")
    telegram.send_photo(ANN, leaves[0])
    with running_bot(store=store):
        [answer] = answered(telegram, ANN)
        right = next(each for each in answer.buttons if each.startswith("r:"))
        telegram.press(answer, "r:")
        question = answered(telegram, ANN, 2)[1]
        telegram.press(question, "k:")
        telegram.wait(lambda: store.kept)
        telegram.say(ANN, text="/forget")
        said = answered(telegram, ANN, 3)[2]
        answer.keyboard = {"inline_keyboard": [[{"text": "right", "callback_data": right}]]}
        telegram.press(answer, "r:")
        telegram.wait(lambda: len(telegram.called("answerCallbackQuery")) == 3)

    assert plain(said) == words.forgotten.format(count=1)
    assert store.kept == {}
    assert telegram.called("answerCallbackQuery")[-1].parameters["text"] == words.too_old


def test_buttons_of_others_and_of_nobody_do_nothing(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes], store: Any
) -> None:
    telegram.send_photo(-5, leaves[0], person=ANN)  # in a group
    with running_bot(store=store):
        [answer] = answered(telegram, -5)
        telegram.press(answer, "r:", person=BEN)
        telegram.wait(lambda: telegram.called("answerCallbackQuery"))
        answer.keyboard = {"inline_keyboard": [[{"text": "x", "callback_data": "x:nonsense:9"}]]}
        telegram.press(answer, "x:", person=ANN)
        telegram.wait(lambda: len(telegram.called("answerCallbackQuery")) == 2)
        telegram.say(-5, text="just talking", person=ANN)
        telegram.wait(telegram.nothing_pends)

    assert telegram.in_chat(-5) == [answer]
    assert {call.parameters["text"] for call in telegram.called("answerCallbackQuery")} == {bot_words("en").too_old}


def test_old_presses_that_telegram_has_forgotten_do_no_harm(
    running_bot: StartBot, telegram: FakeTelegram, leaves: list[bytes]
) -> None:
    telegram.faults.append(Fault("answerCallbackQuery", error="query is too old and response timeout expired"))
    telegram.send_photo(ANN, leaves[0])
    with running_bot():
        [answer] = answered(telegram, ANN)
        telegram.press(answer, "m:")
        assert answered(telegram, ANN, 2)


def placeholders(words: BotWords) -> dict[str, list[str]]:
    return {
        name: sorted(field for _, field, _, _ in Formatter().parse(text) if field)
        for name, text in words.model_dump(exclude={"commands"}).items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_says_the_same_things(language: Language) -> None:
    words, english = bot_words(language), bot_words("en")

    assert placeholders(words) == placeholders(english)
    assert all(0 < len(each) <= 256 for each in words.commands.model_dump().values())  # Telegram's limit
    assert len(words.ask_to_keep) <= 4096
    for name in ("thanks", "what_is_it", "too_old"):  # what a press is answered with
        assert len(getattr(words, name)) <= 200
    if language != "en":
        own, others = words.model_dump(exclude={"commands", "sureness"}), english.model_dump()
        assert [name for name, text in own.items() if text == others[name]] == []
