"""A real `cassava serve` of a small model, and Chromium as a person uses it."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES
from cassava_leaf_disease.imaging.preprocess import Preprocessing, to_network_size
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.modeling.metadata import GateRecord, ModelMetadata, QualityLimits

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT = Path(str(files("cassava_leaf_disease"))) / "web"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = REPOSITORY / "web" / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS: Final = os.environ.get("CASSAVA_SCREENSHOTS")
PHONE: Final = {"width": 390, "height": 844}
DESKTOP: Final = {"width": 1280, "height": 900}
START_S: Final = 60
SIDE_PX: Final = 480
BLIGHT, MOSAIC, HEALTHY = (
    CLASS_NAMES.index(name) for name in ("Cassava Bacterial Blight", "Cassava Mosaic Disease", "Healthy")
)

Floats = npt.NDArray[np.float32]

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def built_page() -> Path:
    """The folder of the built page; tests are skipped where it has not been built."""
    if not (BUILT / "index.html").is_file():
        pytest.skip("the page has not been built; type: just page")
    return BUILT


@dataclass(frozen=True)
class Served:
    """A service in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, path: str, *photos: bytes) -> Any:
        """The API's answer about photos."""
        field = "files" if path.endswith("plant") else "file"
        return httpx2.post(
            f"{self.url}/{path}", files=[(field, ("leaf.jpg", photo, "image/jpeg")) for photo in photos], timeout=60
        ).json()


@contextlib.contextmanager
def serving(model: Path, folder: Path, port: int = 0, **settings: str) -> Iterator[Served]:
    """`cassava serve` of a model, until the test is done; port 0: any that is free."""
    log = folder / "serve.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("cassava")),
                "serve",
                f"serve.port={port}",
                f"infer.checkpoint_path={model}",
            ],
            cwd=folder,
            env={**os.environ, "CASSAVA_ROOT": str(folder), **settings},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        yield Served(wait_until_ready(process, log), process)
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{found[0]}/ready").status_code == 200:
                    return found[0]
        time.sleep(0.05)
    pytest.fail(f"no service after {START_S} s:\n{log.read_text()}")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, metadata: ModelMetadata, loose_limits: QualityLimits) -> Path:
    """A model that knows some drawn leaves by heart, with a gate that refuses what is unlike them.

    Its network has random weights; its last layer is solved for (ridge regression).
    """
    import torch

    from cassava_leaf_disease.export.onnx import to_onnx
    from cassava_leaf_disease.inference.ood import fit_arrays, score_outputs
    from cassava_leaf_disease.modeling.backbone import rebuild_network

    spec = Preprocessing(image_size_px=96)
    labels = np.arange(20) % NUM_CLASSES
    pictures = [
        to_network_size(draw_leaf(index // NUM_CLASSES, label, SIDE_PX), spec)
        for index, label in enumerate(labels.tolist())
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = rebuild_network(metadata.backbone, spec.image_size_px, NUM_CLASSES).eval()
    features = features_of(network, np.stack(pictures), spec)
    weights, bias = solve(features, labels)
    network.load_state_dict({"fc.weight": torch.from_numpy(weights), "fc.bias": torch.from_numpy(bias)}, strict=False)
    outputs = EngineOutputs(features @ weights.T + bias, features)
    arrays = fit_arrays("knn", outputs, labels, 10)
    scores = score_outputs("knn", arrays, outputs, 2)
    gate = GateRecord(
        score="knn",
        typical=float(np.median(scores)),
        limit=1.1 * float(scores.max()),
        neighbors=2,
        max_refused=0.1,
        quality=loose_limits,
        photos={"train": 20, "val": 20},
    )
    described = metadata.model_copy(update={"name": "drawn-leaves", "preprocessing": spec, "gate": gate})
    path = tmp_path_factory.mktemp("model") / "best.onnx"
    path.write_bytes(to_onnx(network, described, arrays).SerializeToString())
    return path


def features_of(network: Any, pictures: npt.NDArray[np.uint8], spec: Preprocessing) -> npt.NDArray[np.float32]:
    """What a network makes of pictures `(N, S, S, 3)` before its last layer, `(N, D)`."""
    import torch

    scaled = (pictures.astype(np.float32) / 255 - spec.mean) / spec.std
    with torch.no_grad():
        maps = network.forward_features(torch.from_numpy(scaled.astype(np.float32).transpose(0, 3, 1, 2)))
        features: npt.NDArray[np.float32] = network.forward_head(maps, pre_logits=True).numpy()
    return features


def solve(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Weights `(C, D)` and bias `(C,)` of a last layer whose logit is 10 for a photo's class and 0 for others."""
    mean, spread = features.mean(axis=0), features.std()
    plain = (features - mean) / spread
    wanted = 10 * np.eye(NUM_CLASSES)[labels]
    alike = plain @ plain.T  # (N, N)
    damped = alike + 1e-3 * np.trace(alike) / len(alike) * np.eye(len(alike))
    weights = plain.T @ np.linalg.solve(damped, wanted - wanted.mean(axis=0)) / spread  # (D, C)
    return weights.T.astype(np.float32), (wanted.mean(axis=0) - mean @ weights).astype(np.float32)


@pytest.fixture(scope="session")
def served(built_page: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """That model, served; it lasts for all tests, which leave it as it is."""
    with serving(model, tmp_path_factory.mktemp("served")) as service:
        yield service


@pytest.fixture
def serve_apart(built_page: Path, model: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts a service with settings of its own, which a test may kill."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(model, tmp_path, **settings))


@pytest.fixture(scope="module")
def serve_for_all(
    built_page: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Served]]:
    """Starts a service with settings of its own, which lasts for the tests of a module."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(model, tmp_path_factory.mktemp("served"), **settings))


@pytest.fixture(scope="session")
def leaves() -> dict[str, bytes]:
    """Drawn leaves that the model knows by heart, by what it says of them; and photos that it refuses."""
    mosaic, blight = draw_leaf(0, MOSAIC, SIDE_PX), draw_leaf(0, BLIGHT, SIDE_PX)
    return {
        "mosaic": as_jpeg(mosaic),
        "blight": as_jpeg(blight),
        "healthy": as_jpeg(draw_leaf(0, HEALTHY, SIDE_PX)),
        "unsure": as_jpeg((mosaic.astype(np.uint16) + blight) // 2),
        "no leaf": as_jpeg(draw_sunset()),
        "black": as_jpeg(np.zeros_like(mosaic)),
    }


def draw_sunset() -> npt.NDArray[np.float64]:
    """A sky, a sun and the ground, `(S, S, 3)` of 0 to 255."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] / SIDE_PX
    sky = np.stack([0.9 - 0.5 * y, 0.4 + 0.3 * x - 0.3 * y, 0.3 + 0.5 * y], axis=2)
    sky[np.hypot(x - 0.5, y - 0.6) < 0.07] = (0.95, 0.6, 0.4)
    sky[y > 0.9] *= 0.7
    return 255 * sky


def as_jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")  # Playwright's event loop runs until its end: no other module's asyncio.run would work
def browser() -> Iterator[Browser]:
    """Chromium of the system; tests are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no browser; install Chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Open]:
    """Opens the page as a person with a phone does; what the browser complains of fails the test at its end."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    asked: list[str] = []
    expected: list[str] = []

    def open_page(
        url: str | None = None, *, desktop: bool = False, language: str = "en-GB", complains: str = ""
    ) -> Page:
        context = browser.new_context(
            viewport=DESKTOP if desktop else PHONE,  # type: ignore[arg-type]
            device_scale_factor=1 if desktop else 1.5,
            is_mobile=not desktop,
            has_touch=not desktop,
            locale=language,
        )
        contexts.append(context)
        expected.append(complains)
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url or served.url)
        page.locator("#app header").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    elsewhere = [url for url in asked if not url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:"))]
    assert elsewhere == []
    assert [said for said in complaints if not any(part and part in said for part in expected)] == []


@pytest.fixture(scope="session")
def check_access() -> Callable[[Page], None]:
    """Fails with what axe finds wrong in what is on the screen."""
    if not AXE.is_file():
        pytest.skip("no axe; type: npm --prefix web ci")
    source = AXE.read_text(encoding="utf-8")

    def check(page: Page) -> None:
        page.evaluate(source)
        found = page.evaluate("async () => (await axe.run()).violations")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

    return check


@pytest.fixture(scope="session")
def keep_screenshot() -> Callable[[Page, str], None]:
    """Writes what is on the screen to `CASSAVA_SCREENSHOTS`, where that is set: `just screenshots`."""

    def keep(page: Page, name: str) -> None:
        if SCREENSHOTS is None:
            return
        folder = REPOSITORY / SCREENSHOTS
        folder.mkdir(parents=True, exist_ok=True)
        shown = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
        shown.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)

    return keep


@pytest.fixture
def choose(tmp_path: Path) -> Callable[..., None]:
    """Chooses photos as the button does."""

    def put(page: Page, *photos: bytes, name: str = "leaf.jpg") -> None:
        paths = [tmp_path / f"{number}-{name}" if len(photos) > 1 else tmp_path / name for number in range(len(photos))]
        for path, photo in zip(paths, photos, strict=True):
            path.write_bytes(photo)
        page.locator("#choose").set_input_files(paths)

    return put
