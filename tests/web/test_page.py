"""The built page in Chromium, as people in the field use it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from cassava_leaf_disease.domain import CLASS_NAMES, Prediction
from cassava_leaf_disease.texts.advice import LANGUAGES, Language, advice, confidence_word

Open = Callable[..., Page]
Choose = Callable[..., None]
Check = Callable[[Page], None]
Keep = Callable[[Page, str], None]

MOSAIC = CLASS_NAMES.index("Cassava Mosaic Disease")
HEALTHY = CLASS_NAMES.index("Healthy")
BUDGET_BYTES = 300_000
KEY = "a-key-of-the-tests-long-enough"
JPEG_HEAD = b"\xff\xd8\xff\xe0"


def page_words(language: Language) -> Any:
    folder = Path(__file__).resolve().parents[2] / "src" / "cassava_leaf_disease" / "texts"
    return json.loads((folder / f"page.{language}.json").read_text(encoding="utf-8"))


ENGLISH = page_words("en")


def diagnose(page: Page) -> None:
    page.locator("#diagnose").click()


def verdict(page: Page) -> str:
    """The heading of the answer on the screen."""
    page.locator(".answer").wait_for()
    return page.get_by_role("heading", level=1).inner_text()


@pytest.mark.parametrize("desktop", [False, True], ids=["phone", "desktop"])
def test_a_photo_becomes_a_verdict_in_plain_words(  # noqa: PLR0917  fixtures
    visit: Open,
    choose: Choose,
    served: Any,
    leaves: dict[str, bytes],
    check_access: Check,
    keep_screenshot: Keep,
    desktop: bool,
) -> None:
    device = "desktop" if desktop else "phone"
    photo = leaves["mosaic"]
    answer = Prediction.model_validate(served.ask("predict", photo))
    page = visit(desktop=desktop)
    check_access(page)
    choose(page, photo)
    expect(page.get_by_text("1 of 10 photos")).to_be_visible()
    check_access(page)
    keep_screenshot(page, f"{device}-photo")
    diagnose(page)

    assert verdict(page) == advice("en").headline(answer)
    meter = page.locator(".verdict").get_by_role("meter")
    assert meter.get_attribute("aria-valuenow") == str(round(answer.confidence * 100))
    assert advice("en").confidence[confidence_word(answer.confidence)] in page.locator(".confidence").inner_text()
    for line in (*advice("en").classes[MOSAIC].now, *advice("en").classes[MOSAIC].next_season):
        expect(page.get_by_text(line)).to_be_visible()
    expect(page.locator(".answer").get_by_text("Answered by the server.")).to_be_visible()
    expect(page.get_by_text(f"Model: {answer.model.name}, version {answer.model.version}")).to_be_visible()
    for summary in page.locator(".answer summary").all():
        summary.click()
    expect(page.get_by_text("ISBN 978-92-5-107641-5")).to_be_visible()  # the sources are named
    assert [name.split("\n")[0] for name in page.locator(".possibilities li").all_inner_texts()] == [
        advice("en").classes[each.class_id].name for each in answer.top_k
    ]
    check_access(page)
    page.evaluate("scrollTo(0, 0)")
    keep_screenshot(page, f"{device}-verdict")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways


def test_a_healthy_leaf_names_no_disease(visit: Open, choose: Choose, leaves: dict[str, bytes]) -> None:
    page = visit()
    choose(page, leaves["healthy"])
    diagnose(page)

    assert verdict(page) == advice("en").verdicts["healthy"]
    expect(page.get_by_text(advice("en").classes[HEALTHY].now[0])).to_be_visible()


def test_leaves_of_one_plant_get_one_verdict(  # noqa: PLR0917  fixtures
    visit: Open, choose: Choose, served: Any, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    mosaic, blight = leaves["mosaic"], leaves["blight"]
    plant = served.ask("predict/plant", mosaic, mosaic, leaves["black"])
    page = visit()
    choose(page, mosaic)
    choose(page, blight, mosaic, leaves["black"])
    expect(page.get_by_text("4 of 10 photos")).to_be_visible()
    page.get_by_role("button", name="Remove photo 2").click()
    expect(page.get_by_text("3 of 10 photos")).to_be_visible()
    keep_screenshot(page, "phone-plant-photos")
    diagnose(page)

    assert verdict(page) == f"This looks like {advice('en').classes[plant['predicted_class_id']].name}."
    told = page.locator(".each-photo li").all_inner_texts()
    assert told[2] == "Photo 3 does not count: This photo cannot be judged."
    assert len(told) == 3
    check_access(page)


def test_the_heatmap_comes_and_goes(
    visit: Open, choose: Choose, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    page = visit()
    choose(page, leaves["mosaic"])
    diagnose(page)
    shown = page.locator(".picture .shown")
    shown.wait_for()
    photo = shown.get_attribute("src")

    with page.expect_response("**/explain?class_id=3") as asked:
        page.get_by_role("button", name="Show where the model looked").click()
    page.get_by_role("button", name="Show the photo alone").wait_for()
    assert asked.value.ok
    assert shown.get_attribute("src") != photo
    check_access(page)
    shown.scroll_into_view_if_needed()
    keep_screenshot(page, "phone-heatmap")

    page.get_by_role("button", name="Show the photo alone").click()
    assert shown.get_attribute("src") == photo


def test_a_photo_that_cannot_be_judged_is_refused_with_a_hint(
    visit: Open, choose: Choose, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    page = visit()
    choose(page, leaves["black"])
    diagnose(page)

    assert verdict(page) == advice("en").verdicts["poor_photo"]
    assert advice("en").reasons["dark"] in page.locator(".hints li").all_inner_texts()
    expect(page.get_by_role("button", name="Show where the model looked")).to_be_hidden()
    check_access(page)
    keep_screenshot(page, "phone-refusal")

    page.get_by_role("button", name="Take another photo").click()
    expect(page.locator(".thumbnails")).to_be_hidden()  # the dark one is of no use


def test_what_is_no_leaf_is_refused(
    visit: Open, choose: Choose, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    page = visit(desktop=True)
    choose(page, leaves["no leaf"])
    diagnose(page)

    assert verdict(page) == advice("en").verdicts["not_cassava"]
    expect(page.get_by_text(advice("en").reasons["foreign"])).to_be_visible()
    check_access(page)
    keep_screenshot(page, "desktop-refusal")


def test_an_unsure_answer_asks_for_leaves_of_the_same_plant(  # noqa: PLR0917  fixtures
    visit: Open, choose: Choose, served: Any, leaves: dict[str, bytes], check_access: Check, keep_screenshot: Keep
) -> None:
    photo = leaves["unsure"]
    more = served.ask("predict/plant", photo)["more_leaves"]
    wanted = advice("en").more_leaves.format(count=more) if more else advice("en").more_leaves_unknown
    page = visit()
    choose(page, photo)
    diagnose(page)

    assert verdict(page).startswith("Not sure.")
    expect(page.get_by_text(wanted)).to_be_visible()
    check_access(page)
    keep_screenshot(page, "phone-unsure")
    page.get_by_role("button", name="Add leaves of this plant").click()
    expect(page.get_by_text("1 of 10 photos")).to_be_visible()  # the first leaf counts on


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_spoken_throughout(  # noqa: PLR0917  fixtures
    visit: Open,
    choose: Choose,
    leaves: dict[str, bytes],
    check_access: Check,
    keep_screenshot: Keep,
    language: Language,
) -> None:
    words = page_words(language)
    page = visit()
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.locator("#language").select_option(language)

    expect(page.get_by_role("heading", level=1)).to_have_text(words["heading"])
    assert page.locator("html").get_attribute("lang") == language
    texts = {found[0] for url in fetched if (found := re.search(r"(?:advice|page)\.\w\w", url))}
    assert texts <= {f"advice.{language}", f"page.{language}"}
    choose(page, leaves["mosaic"])
    diagnose(page)
    assert verdict(page) == advice(language).verdicts["diagnosis"].format(name=advice(language).classes[MOSAIC].name)
    expect(page.locator(".answer").get_by_text(words["answer"]["by_server"])).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_access(page)
    if language in ("sw", "ru"):
        keep_screenshot(page, f"phone-{language}")

    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text(words["heading"])  # remembered


@pytest.mark.parametrize(("preferred", "language"), [("sw-TZ", "sw"), ("pt-MZ", "pt"), ("de-DE", "en")])
def test_it_begins_in_the_language_of_the_browser(visit: Open, preferred: str, language: str) -> None:
    assert visit(language=preferred).locator("html").get_attribute("lang") == language


def test_what_is_no_photo_is_refused_before_it_is_sent(visit: Open, choose: Choose, check_access: Check) -> None:
    page = visit()
    choose(page, b"\0\0\0\x18ftypheic" + bytes(100), name="IMG_0001.HEIC")

    expect(page.get_by_text("IMG_0001.HEIC is not a JPEG or PNG photo")).to_be_visible()
    expect(page.locator("#diagnose")).to_be_hidden()
    check_access(page)


@pytest.mark.parametrize(
    ("photo", "kind"),
    [(JPEG_HEAD + bytes(21_000_000), "large"), (JPEG_HEAD + bytes(1000), "damaged")],
    ids=["too many bytes", "no picture in it"],
)
def test_what_the_server_refuses_is_told_in_plain_words(
    visit: Open, choose: Choose, check_access: Check, photo: bytes, kind: str
) -> None:
    page = visit(complains="Failed to load resource")
    choose(page, photo)
    diagnose(page)

    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading")).to_have_text(ENGLISH["failures"][kind])
    expect(alert).to_contain_text(ENGLISH["failures"][f"{kind}_next"])
    check_access(page)


def test_a_busy_server_is_asked_again(visit: Open, choose: Choose, leaves: dict[str, bytes]) -> None:
    page = visit(complains="503")
    busy = {"error": "a full queue", "expected": "some patience"}
    refusals = [lambda route: route.fulfill(status=503, json=busy, headers={"Retry-After": "2"})]

    def answer(route: Route) -> None:
        refusals.pop()(route) if refusals else route.continue_()

    page.route("**/predict/plant", answer)
    choose(page, leaves["mosaic"])
    diagnose(page)

    expect(page.get_by_text("The server is busy. Trying again in 2 s.")).to_be_visible()
    assert verdict(page).startswith("This looks like")


def test_waiting_can_be_cancelled(visit: Open, choose: Choose, leaves: dict[str, bytes], check_access: Check) -> None:
    page = visit()
    page.route("**/predict/plant", lambda _: None)  # no answer, ever
    choose(page, leaves["mosaic"])
    diagnose(page)
    page.get_by_role("button", name="Cancel").wait_for()
    check_access(page)
    page.get_by_role("button", name="Cancel").click()

    expect(page.get_by_text("1 of 10 photos")).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")


def test_keyboard_and_screen_reader_are_led_to_the_answer(
    visit: Open, choose: Choose, leaves: dict[str, bytes]
) -> None:
    page = visit(desktop=True)
    choose(page, leaves["mosaic"])
    expect(page.locator("#diagnose")).to_be_focused()
    page.keyboard.press("Enter")
    page.locator(".answer").wait_for()

    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.locator("#another").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(ENGLISH["heading"])


def test_a_key_is_asked_for_and_a_server_that_dies_is_told(  # noqa: PLR0917  fixtures
    visit: Open,
    choose: Choose,
    leaves: dict[str, bytes],
    serve_apart: Callable[..., Any],
    check_access: Check,
    keep_screenshot: Keep,
) -> None:
    service = serve_apart(CASSAVA_API_KEY=KEY)
    page = visit(service.url, complains="Failed to load resource")
    choose(page, leaves["mosaic"])
    diagnose(page)
    page.get_by_label("Key").fill(KEY)
    check_access(page)
    page.get_by_role("button", name="Try again").click()
    assert verdict(page).startswith("This looks like")

    service.process.kill()
    service.process.wait()
    page.get_by_role("button", name="Next plant").click()
    choose(page, leaves["mosaic"])
    diagnose(page)
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text(ENGLISH["failures"]["network"])
    check_access(page)
    keep_screenshot(page, "phone-no-server")


def test_the_page_is_small_without_what_only_offline_work_needs(built_page: Path) -> None:
    """Uncompressed: HTML, CSS, scripts and the texts of all languages."""
    files = [path for path in built_page.rglob("*") if path.suffix in {".html", ".css", ".js", ".json", ".webmanifest"}]
    sizes = {path.name: path.stat().st_size for path in files if not re.match(r"(ort|engine)[-.]", path.name)}

    assert sum(sizes.values()) < BUDGET_BYTES, sizes


def test_the_way_back_leads_from_the_answer_to_its_photos(
    visit: Open, choose: Choose, leaves: dict[str, bytes]
) -> None:
    page = visit()
    choose(page, leaves["mosaic"])
    diagnose(page)
    verdict(page)
    page.go_back()

    expect(page.get_by_text("1 of 10 photos")).to_be_visible()
