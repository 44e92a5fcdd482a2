"""People say on the page whether an answer was right, give their photo, and take it back."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Page, Route, expect

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.feedback.store import FeedbackStore, StoredFeedback, open_store
from cassava_leaf_disease.imaging.decode import decode_image
from cassava_leaf_disease.texts.advice import LANGUAGES, Language, advice

Open = Callable[..., Page]
Choose = Callable[..., None]
Check = Callable[[Page], None]
Keep = Callable[[Page, str], None]
Ask = Callable[..., Page]

BLIGHT, MOSAIC = (CLASS_NAMES.index(name) for name in ("Cassava Bacterial Blight", "Cassava Mosaic Disease"))
NARROW: Final = {"width": 360, "height": 740}
OFFLINE: Final = "Failed to load resource"


def words_of(language: Language) -> Any:
    text = Path(__file__).resolve().parents[2] / "src" / "cassava_leaf_disease" / "texts" / f"page.{language}.json"
    return json.loads(text.read_text(encoding="utf-8"))


WORDS: Final = words_of("en")["feedback"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("given") / "feedback.db"


@pytest.fixture(scope="module")
def listening(serve_for_all: Callable[..., Any], place: Path) -> Any:
    """The service, with a store of feedback."""
    return serve_for_all(CASSAVA_FEEDBACK_URL=f"sqlite:///{place}")


@pytest.fixture
def store(listening: Any, place: Path) -> Iterator[FeedbackStore]:
    """The store behind it, empty at first."""
    opened = open_store(f"sqlite:///{place}")
    with opened._database.transaction() as execute:
        execute("DELETE FROM feedback")
    yield opened
    opened.close()


@pytest.fixture
def ask(visit: Open, choose: Choose, listening: Any, store: FeedbackStore) -> Ask:
    """Opens the page and has photos diagnosed."""

    def answered(*photos: bytes, page: Page | None = None, **options: Any) -> Page:
        page = page or visit(listening.url, **options)
        choose(page, *photos)
        page.locator("#diagnose").click()
        page.locator(".answer").wait_for()
        return page

    return answered


def card(page: Page) -> Any:
    return page.locator(".feedback")


def kept(store: FeedbackStore) -> list[StoredFeedback]:
    return list(store.all())


def give(page: Page) -> None:
    page.locator("#consent").check()
    page.locator("#give").click()


def test_a_right_answer_is_said_and_taken_back(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes], check_access: Check
) -> None:
    page = ask(leaves["mosaic"])
    expect(card(page).get_by_role("heading")).to_have_text(WORDS["question"])
    page.get_by_role("button", name="Right", exact=True).click()
    expect(card(page).get_by_role("heading")).to_be_focused()
    expect(page.get_by_role("checkbox", name=WORDS["consent"])).not_to_be_checked()
    for line in ("kept", "purpose", "deletion"):
        expect(card(page)).to_contain_text(WORDS[line])
    check_access(page)
    give(page)

    expect(card(page).get_by_role("status")).to_have_text(WORDS["done"])
    check_access(page)
    [row] = kept(store)
    assert (row.correct, row.label, row.source, row.remark) == ("right", MOSAIC, "page", None)
    assert row.answer.verdict == "diagnosis"
    assert decode_image(store.photo(row)).shape == decode_image(leaves["mosaic"]).shape
    expect(page.locator("#gifts")).to_be_visible()

    page.get_by_role("button", name=WORDS["delete"]).click()
    expect(card(page).get_by_role("status")).to_have_text(WORDS["deleted"])
    expect(page.locator("#gifts")).to_be_hidden()
    assert kept(store) == []


def test_a_wrong_answer_is_corrected_and_later_deleted(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    page = ask(leaves["mosaic"])
    page.get_by_role("button", name=WORDS["wrong"]).click()
    choices = page.get_by_role("radio")
    expect(choices).to_have_count(6)  # not what it said; no leaf at all, unknown
    page.get_by_role("button", name=WORDS["send"]).click()
    assert page.locator("fieldset").evaluate("each => each.matches(':invalid')")  # nothing chosen: the browser says so
    page.get_by_role("radio", name=advice("en").classes[BLIGHT].name).check()
    page.locator("#consent").check()
    check_access(page)
    card(page).evaluate("each => each.scrollIntoView()")
    keep_screenshot(page, "phone-feedback-wrong")
    page.locator("#give").click()
    expect(card(page).get_by_role("heading")).to_have_text(WORDS["thanks"])
    card(page).evaluate("each => each.scrollIntoView()")
    keep_screenshot(page, "phone-feedback-thanks")
    [row] = kept(store)
    assert (row.correct, row.label) == (BLIGHT, BLIGHT)

    page.reload()  # the device remembers
    page.locator("#gifts summary").click()
    expect(page.locator("#gifts li")).to_contain_text(f"You said: {advice('en').classes[BLIGHT].name}")
    expect(page.locator("#gifts li")).to_contain_text(WORDS["state_kept"])
    check_access(page)
    page.locator("#gifts").scroll_into_view_if_needed()
    keep_screenshot(page, "phone-feedback-given")
    page.get_by_role("button", name=WORDS["remove"]).click()
    expect(page.locator("#gifts")).to_be_hidden()
    assert kept(store) == []


def test_without_consent_nothing_is_sent(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes], check_access: Check
) -> None:
    page = ask(leaves["mosaic"])
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.get_by_role("button", name="Right", exact=True).click()
    page.locator("#give").click()

    expect(card(page).get_by_role("status")).to_have_text(WORDS["declined"])
    check_access(page)
    assert [url for url in sent if url.endswith(("/feedback", "/forget"))] == []
    expect(page.locator("#gifts")).to_be_hidden()
    page.get_by_role("button", name=WORDS["back"]).click()  # it was an oversight
    give(page)
    expect(card(page).get_by_role("status")).to_have_text(WORDS["done"])
    assert len(kept(store)) == 1


def test_each_photo_of_a_plant_that_counted_is_given(ask: Ask, store: FeedbackStore, leaves: dict[str, bytes]) -> None:
    page = ask(leaves["mosaic"], leaves["blight"], leaves["mosaic"], leaves["black"])
    page.get_by_role("button", name=WORDS["wrong"]).click()
    page.get_by_role("radio", name=WORDS["not_cassava"]).check()
    expect(page.get_by_label(WORDS["consent_several"].format(count=3))).to_be_visible()
    give(page)

    expect(card(page).get_by_role("status")).to_have_text(WORDS["done"])
    assert [(row.label, row.remark) for row in kept(store)] == [(None, "not a cassava leaf")] * 3
    page.get_by_role("button", name=WORDS["delete"]).click()
    expect(card(page).get_by_role("status")).to_have_text(WORDS["deleted"])
    assert kept(store) == []


def test_a_refused_photo_is_given_only_where_the_refusal_was_wrong(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes], check_access: Check
) -> None:
    page = ask(leaves["no leaf"])
    page.get_by_role("button", name="Right", exact=True).click()
    expect(card(page).get_by_role("heading")).to_have_text(WORDS["thanks"])
    check_access(page)
    page.locator("#another").click()

    ask(leaves["no leaf"], page=page)
    page.get_by_role("button", name=WORDS["wrong"]).click()
    page.get_by_role("radio", name=advice("en").classes[MOSAIC].name).check()
    give(page)
    expect(card(page).get_by_role("status")).to_have_text(WORDS["done"])
    [row] = kept(store)
    assert (row.answer.verdict, row.label) == ("not_cassava", MOSAIC)
    page.locator("#another").click()

    with page.expect_response("**/predict/plant"):
        ask(leaves["black"], page=page)
    expect(card(page)).to_be_hidden()  # who could say that it was no poor photo?


def test_a_service_that_keeps_nothing_does_not_ask(visit: Open, choose: Choose, leaves: dict[str, bytes]) -> None:
    page = visit()
    choose(page, leaves["mosaic"])
    with page.expect_response(lambda reply: reply.url.endswith("/model")) as asked:
        page.locator("#diagnose").click()
        page.locator(".answer").wait_for()

    assert asked.value.json()["feedback"] is False
    expect(card(page)).to_be_hidden()
    expect(page.locator("#gifts")).to_be_hidden()


def test_what_could_not_be_sent_is_kept_until_it_is(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    page = ask(leaves["mosaic"], complains=OFFLINE)
    page.route("**/feedback", lambda route: route.abort())
    page.get_by_role("button", name="Right", exact=True).click()
    give(page)
    expect(card(page).get_by_role("status")).to_have_text(f"No connection to the server. {WORDS['waiting']}")
    check_access(page)
    card(page).evaluate("each => each.scrollIntoView()")
    keep_screenshot(page, "phone-feedback-waiting")
    with page.expect_event("requestfailed"):
        card(page).get_by_role("button", name="Try again").click()
    expect(card(page).get_by_role("status")).to_have_text(f"No connection to the server. {WORDS['waiting']}")
    assert kept(store) == []

    page.unroute("**/feedback")
    card(page).get_by_role("button", name="Try again").click()
    expect(card(page).get_by_role("status")).to_have_text(WORDS["done"])
    assert len(kept(store)) == 1


def test_an_answer_that_was_lost_is_asked_for_again_and_kept_once(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes]
) -> None:
    page = ask(leaves["mosaic"], complains=OFFLINE)

    def lose(route: Route) -> None:
        route.fetch()  # the service has it
        route.abort()  # the page does not know

    page.route("**/feedback", lose)
    page.get_by_role("button", name="Right", exact=True).click()
    give(page)
    expect(card(page).get_by_role("status")).to_contain_text(WORDS["waiting"])
    assert len(kept(store)) == 1
    page.unroute("**/feedback")
    with page.expect_response("**/feedback") as again:
        page.reload()  # by itself when the page is opened

    assert again.value.ok
    page.locator("#gifts summary").click()
    expect(page.locator("#gifts li")).to_contain_text(WORDS["state_kept"])
    assert len(kept(store)) == 1


def test_a_deletion_waits_for_the_service(
    ask: Ask, store: FeedbackStore, leaves: dict[str, bytes], check_access: Check
) -> None:
    page = ask(leaves["mosaic"], complains=OFFLINE)
    page.get_by_role("button", name="Right", exact=True).click()
    give(page)
    page.route("**/forget", lambda route: route.fulfill(status=503, json={"error": "busy", "expected": "patience"}))
    page.get_by_role("button", name=WORDS["delete"]).click()
    expect(card(page).get_by_role("status")).to_contain_text(WORDS["deletion_waits"])
    expect(card(page).get_by_role("status")).to_contain_text("The server has too much to do")
    check_access(page)
    assert len(kept(store)) == 1

    page.unroute("**/forget")
    card(page).get_by_role("button", name="Try again").click()
    expect(card(page).get_by_role("status")).to_have_text(WORDS["deleted"])
    assert kept(store) == []


def test_what_the_service_does_not_take_is_told(
    ask: Ask, leaves: dict[str, bytes], check_access: Check, store: FeedbackStore
) -> None:
    page = ask(leaves["mosaic"], complains=OFFLINE)
    refusal = {"error": "answer: its classes are not ours", "expected": "ours"}
    page.route("**/feedback", lambda route: route.fulfill(status=422, json=refusal))
    page.get_by_role("button", name="Right", exact=True).click()
    give(page)

    expect(card(page).get_by_role("status")).to_have_text(WORDS["refused"].format(detail=refusal["error"]))
    check_access(page)
    page.get_by_role("button", name=WORDS["delete"]).click()
    expect(card(page).get_by_role("status")).to_have_text(WORDS["deleted"])


def test_feedback_without_a_network_is_sent_when_it_is_back(
    ask: Ask, visit: Open, listening: Any, leaves: dict[str, bytes], store: FeedbackStore
) -> None:
    page = visit(listening.url, complains=OFFLINE)
    page.locator("#offline summary").click()
    page.locator("#download").click()
    page.locator("#offline .ready").wait_for(timeout=60_000)
    page.context.set_offline(True)
    ask(leaves["mosaic"], page=page)
    expect(page.locator(".answer").get_by_text("Answered by this device")).to_be_visible()
    page.get_by_role("button", name="Right", exact=True).click()
    give(page)
    expect(card(page).get_by_role("status")).to_contain_text(WORDS["waiting"])

    page.context.set_offline(False)
    expect(card(page).get_by_role("status")).to_have_text(WORDS["done"])
    [row] = kept(store)
    assert (row.label, row.answer.model.path) == (MOSAIC, "offline/model.onnx")


def test_a_keyboard_does_it_all(
    ask: Ask, leaves: dict[str, bytes], store: FeedbackStore, keep_screenshot: Keep
) -> None:
    page = ask(leaves["mosaic"], desktop=True)
    page.locator("#wrong").focus()
    for keys in ("Enter", "Tab", "Space", "ArrowDown", "Tab", "Space", "Tab", "Enter"):
        page.keyboard.press(keys)

    expect(card(page).get_by_role("heading")).to_have_text(WORDS["thanks"])
    expect(card(page).get_by_role("heading")).to_be_focused()
    assert [row.label for row in kept(store)] == [1]  # the second of the list


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_asks_on_a_narrow_phone(
    ask: Ask,
    leaves: dict[str, bytes],
    store: FeedbackStore,
    check_access: Check,
    language: Language,
) -> None:
    words = words_of(language)["feedback"]
    page = ask(leaves["mosaic"], language=language)
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.get_by_role("button", name=words["wrong"]).click()
    page.get_by_role("radio", name=words["unknown"]).check()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_access(page)
    give(page)
    expect(card(page).get_by_role("status")).to_have_text(words["done"])
    assert [row.correct for row in kept(store)] == [None]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.locator("#language").select_option("fr" if language == "en" else "en")  # what was given stays given
    expect(card(page).get_by_role("status")).not_to_have_text(words["done"])
    expect(card(page).get_by_role("button", name=re.compile("Delete it again|Le supprimer"))).to_be_visible()
