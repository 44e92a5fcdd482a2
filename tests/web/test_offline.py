"""The built page without a network: the same verdicts as the server's, results that are kept, and sent later."""

import base64
import contextlib
import io
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Page, expect

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.serving.page import install
from cassava_leaf_disease.serving.serve import address_of, bound_socket
from cassava_leaf_disease.texts.advice import advice

Open = Callable[..., Page]
Choose = Callable[..., None]
Check = Callable[[Page], None]
Keep = Callable[[Page, str], None]
Serve = Callable[..., Any]

MOSAIC: Final = CLASS_NAMES.index("Cassava Mosaic Disease")
# 7e-7 on 64 JPEG photos (docs/offline.md): Chromium decodes them as Pillow does.
TOLERANCE: Final = 1e-3
RESULTS: Final = """() => new Promise((resolve, reject) => {
  const open = indexedDB.open("cassava");
  open.onerror = () => reject(open.error);
  open.onsuccess = () => {
    const all = open.result.transaction("results").objectStore("results").getAll();
    all.onsuccess = () => {
      open.result.close();
      resolve(all.result.map(({ photos, thumbnail, ...kept }) => ({ ...kept, photos: photos.length })));
    };
  };
})"""

SHELLS: Final = "() => caches.keys().then((names) => names.filter((name) => name.startsWith('cassava-shell-')))"
DESCRIPTION: Final = "Photos of cassava leaves in, a diagnosis in plain words out."


def eventually(page: Page, question: str) -> None:
    """Waits for a yes from an asynchronous function; Playwright takes a promise itself for one."""
    deadline = time.monotonic() + 60
    while not page.evaluate(question):
        assert time.monotonic() < deadline, question
        time.sleep(0.1)


def download(page: Page) -> None:
    page.locator("#offline summary").click()
    page.locator("#download").click()
    page.locator("#offline .ready").wait_for(timeout=60_000)


def cut_network(page: Page, *, back: bool = False) -> None:
    page.context.set_offline(not back)


def answer_to(page: Page, choose: Choose, *photos: bytes) -> Any:
    """What the page says of a plant, as it is kept on the device; the heading on the screen beside it."""
    before = len(page.evaluate(RESULTS))
    choose(page, *photos)
    page.locator("#diagnose").click()
    page.locator(".answer").wait_for(timeout=60_000)
    heading = page.get_by_role("heading", level=1).inner_text()
    eventually(page, f"async () => (await ({RESULTS})()).length > {before}")
    page.locator("#another").click()
    return page.evaluate(RESULTS)[-1] | {"heading": heading}


def post(served: Any, path: str, photo: bytes) -> httpx2.Response:
    return httpx2.post(f"{served.url}/{path}", files={"file": ("leaf.jpg", photo, "image/jpeg")}, timeout=60)


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn_photos() -> dict[str, bytes]:
    """Leaves in each class, and what phones and people do to photos."""
    leaf = Image.fromarray(draw_leaf(5, MOSAIC, 480)).resize((640, 480))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        **{f"class {label}": saved(Image.fromarray(draw_leaf(label, label, 480)), quality=90) for label in range(5)},
        "turned": saved(leaf.transpose(Image.Transpose.ROTATE_90), exif=turned, quality=92),
        "large": saved(leaf.resize((3000, 2250), Image.Resampling.BICUBIC), quality=85),
        "progressive": saved(leaf, progressive=True),
        "grey": saved(leaf.convert("L")),
        "png": saved(leaf, "PNG"),
        "transparent": saved(leaf.convert("RGBA").rotate(20), "PNG"),
        "small": saved(leaf.resize((90, 70))),
        "dark": saved(leaf.point(lambda value: value // 20)),
        "blurred": saved(leaf.resize((8, 6)).resize((640, 480))),
    }


def assert_alike(device: Any, server: Any, name: str) -> None:
    """The same verdict and class, and numbers within the tolerances."""
    told = {key: (device[key], server[key]) for key in ("verdict", "predicted_class_id", "class_name")}
    assert all(ours == theirs for ours, theirs in told.values()), (name, told, device["checks"], server["checks"])
    assert device["probabilities"] == pytest.approx(server["probabilities"], abs=TOLERANCE), name
    assert [check["name"] for check in device["checks"]] == [check["name"] for check in server["checks"]], name
    for ours, theirs in zip(device["checks"], server["checks"], strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], rel=TOLERANCE, abs=TOLERANCE), (name, ours, theirs)
        assert (ours["at_least"], ours["at_most"]) == (theirs["at_least"], theirs["at_most"]), (name, ours, theirs)


@pytest.fixture
def device_page(visit: Open, served: Any) -> Page:
    """The page with the model on the device and no network."""
    page = visit(complains="Failed to load resource")
    download(page)
    cut_network(page)
    return page


def test_the_device_answers_as_the_server_does(device_page: Page, choose: Choose, served: Any) -> None:
    for name, photo in drawn_photos().items():
        server = served.ask("predict", photo)
        device = answer_to(device_page, choose, photo)

        assert device["by"] == "device"
        assert_alike(device["answer"], server, name)


def test_real_photos_too(device_page: Page, choose: Choose, served: Any, shared_data: Path) -> None:
    photos = sorted((shared_data / "cassava" / "train_images").glob("*.jpg"))[:6]
    for path in photos:
        assert_alike(
            answer_to(device_page, choose, path.read_bytes())["answer"],
            served.ask("predict", path.read_bytes()),
            path.name,
        )


def test_a_plant_gets_the_servers_verdict(
    device_page: Page, choose: Choose, served: Any, leaves: dict[str, bytes]
) -> None:
    photos = (leaves["mosaic"], leaves["black"], leaves["unsure"])
    server, device = served.ask("predict/plant", *photos), answer_to(device_page, choose, *photos)["answer"]

    assert_alike(device, server, "plant")
    assert (device["counted"], device["more_leaves"]) == (server["counted"], server["more_leaves"])
    assert [each["reason"] for each in device["left_out"]] == [each["reason"] for each in server["left_out"]]


def test_the_heatmap_is_the_servers(
    device_page: Page, choose: Choose, served: Any, leaves: dict[str, bytes], keep_screenshot: Keep
) -> None:
    photo = leaves["mosaic"]
    choose(device_page, photo)
    device_page.locator("#diagnose").click()
    device_page.locator(".answer").wait_for()
    keep_screenshot(device_page, "phone-offline-verdict")
    device_page.get_by_role("button", name="Show where the model looked").click()
    device_page.get_by_role("button", name="Show the photo alone").wait_for()
    drawn = device_page.locator(".picture .shown").evaluate("""async (shown) => {
      await shown.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [shown.naturalWidth, shown.naturalHeight];
      canvas.getContext("2d").drawImage(shown, 0, 0);
      return canvas.toDataURL("image/png").split(",")[1];
    }""")

    ours = Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB")
    theirs = Image.open(io.BytesIO(post(served, f"explain?class_id={MOSAIC}", photo).content)).convert("RGB")
    assert ours.size == theirs.size
    difference = max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes(), strict=True))
    assert difference <= 6


@pytest.mark.parametrize(
    ("photo", "status", "seen"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(1000), 422, "a truncated or damaged JPEG"),
        (saved(Image.new("L", (10_000, 5_000)), "PNG"), 422, "10000x5000 = 50,000,000 pixels"),
        (saved(Image.new("RGB", (3000, 20))), 422, "image: a strip of 3000x20 pixels"),
    ],
    ids=["damaged", "bomb", "strip"],
)
def test_what_the_server_refuses_the_device_does_too(  # noqa: PLR0917  fixtures
    device_page: Page, choose: Choose, served: Any, photo: bytes, status: int, seen: str
) -> None:
    choose(device_page, photo)
    device_page.locator("#diagnose").click()

    detail = device_page.get_by_role("alert").locator("p.small")
    expect(detail).to_contain_text(seen)
    refused = post(served, "predict", photo)
    assert (refused.status_code, seen in refused.json()["error"]) == (status, True)


def test_a_day_in_the_field(  # noqa: PLR0917  fixtures
    visit: Open,
    choose: Choose,
    serve_apart: Serve,
    leaves: dict[str, bytes],
    check_access: Check,
    keep_screenshot: Keep,
) -> None:
    service = serve_apart()
    photo = leaves["mosaic"]
    said = service.ask("predict", photo)
    page = visit(service.url, complains="Failed to load resource")
    page.locator("#offline summary").click()
    check_access(page)
    keep_screenshot(page, "phone-offline-offer")
    page.locator("#download").click()
    page.locator("#offline .ready").wait_for(timeout=60_000)
    page.wait_for_function("navigator.serviceWorker.controller !== null")

    service.process.kill()
    service.process.wait()
    cut_network(page)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.locator("#language").select_option("sw")  # a language that was not on the screen before
    expect(page.locator("html")).to_have_attribute("lang", "sw")
    page.locator("#language").select_option("en")
    device = answer_to(page, choose, photo)

    assert (device["by"], device["sent"], device["photos"]) == ("device", False, 1)
    assert_alike(device["answer"], said, "in the field")
    assert device["heading"] == advice("en").verdicts["diagnosis"].format(name=advice("en").classes[MOSAIC].name)
    page.reload()
    page.locator("#history summary").click()
    expect(page.locator(".past li")).to_have_count(1)
    check_access(page)
    keep_screenshot(page, "phone-offline-history")
    with page.expect_download() as file:
        page.locator("#history-save").click()
    with zipfile.ZipFile(file.value.path()) as packed:
        assert packed.testzip() is None
        [kept] = json.loads(packed.read("results.json"))["results"]
        assert packed.read(kept["photos"][0]) == photo
    page.locator("#history-send").click()
    expect(page.locator("#history p[role=status]")).to_contain_text("could not be sent")

    serve_apart(port=urlsplit(service.url).port)
    cut_network(page, back=True)
    page.locator("#history-send").click()
    expect(page.locator("#history p[role=status]")).to_have_text("Sent: 1")
    [result] = page.evaluate(RESULTS)
    assert result["sent"]
    assert_alike(result["answer"], result["serverAnswer"], "sent")
    expect(page.locator("#history-send")).to_be_hidden()


def test_a_download_that_breaks_goes_on(visit: Open, serve_apart: Serve) -> None:
    service = serve_apart()
    page = visit(service.url, complains="Failed to load resource")
    asked: list[str | None] = []
    page.on(
        "request",
        lambda request: asked.append(request.headers.get("range")) if "model.onnx" in request.url else None,
    )
    page.evaluate("""async () => {
      const model = await (await fetch("offline/model.json")).json();
      const address = new URL(model.url, document.baseURI).href;
      const whole = await (await fetch(address)).arrayBuffer();
      await (await caches.open("cassava-model")).put(`${address}&partly`, new Response(whole.slice(0, 1000)));
    }""")
    asked.clear()
    download(page)

    assert asked == ["bytes=1000-"]


def test_the_model_can_be_taken_off_the_device(visit: Open, serve_apart: Serve) -> None:
    page = visit(serve_apart().url, complains="Failed to load resource")
    download(page)
    page.locator("#remove-model").click()

    expect(page.locator("#download")).to_be_visible()
    assert page.evaluate("caches.has('cassava-model')") is False


@contextlib.contextmanager
def page_alone(package: Path) -> Iterator[str]:
    """The page of a package in that folder over HTTP, without an API; its address."""
    app = FastAPI()
    install(app, (), package)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with bound_socket("127.0.0.1", 0) as listener:
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def test_a_newer_page_takes_over_whole_when_it_is_opened_again(visit: Open, built_page: Path, tmp_path: Path) -> None:
    files = Path(shutil.copytree(built_page, tmp_path / "web"))
    with page_alone(tmp_path) as url:
        page = visit(url, complains="Failed to load resource")
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        page.evaluate("""async () => {
          const models = await caches.open("cassava-model");
          await models.put(new URL("offline/model.json", document.baseURI).href, new Response("{}"));
          await models.put(new URL("assets/engine-old.js", document.baseURI).href, new Response(""));
        }""")
        [before] = page.evaluate(SHELLS)

        replace(files / "index.html", "Photos of cassava leaves", "Newer photos of cassava leaves")
        replace(files / "sw.js", '["index.html","', '["index.html","0')
        page.reload()
        eventually(page, "async () => (await navigator.serviceWorker.getRegistration()).waiting !== null")
        assert page.locator("meta[name=description]").get_attribute("content", timeout=1000) == DESCRIPTION
        context = page.context
        page.close()
        page = context.new_page()
        page.goto(url)
        page.locator("meta[content^=Newer]").wait_for(state="attached")
        eventually(page, f"async () => (await ({SHELLS})()).length === 1")

        [after] = page.evaluate(SHELLS)
        assert after != before
        kept = page.evaluate(
            "caches.open('cassava-model').then((cache) => cache.keys()).then((all) => all.map(({ url }) => url))"
        )
    names = {address.rpartition("/")[2].partition("-")[0] for address in kept}
    assert names == {"model.json", "engine", "ort"}  # what runs the model came along, and the old one went
    assert not any(address.endswith("engine-old.js") for address in kept)


def replace(file: Path, old: str, new: str) -> None:
    content = file.read_text(encoding="utf-8")
    assert old in content
    file.write_text(content.replace(old, new), encoding="utf-8")
