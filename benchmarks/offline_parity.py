"""The page's own engine against the server: the same photos, answered in Chromium without a network and over HTTP.

python benchmarks/offline_parity.py --model best.onnx --photos data/cassava-leaf-disease-classification/train_images
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from playwright.sync_api import Page, sync_playwright

from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import load_predictor

CHROMIUM: Final = os.environ.get("CASSAVA_CHROMIUM", "/usr/bin/chromium")
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
LAST_RESULT: Final = """() => new Promise((resolve) => {
  const open = indexedDB.open("cassava");
  open.onsuccess = () => {
    const all = open.result.transaction("results").objectStore("results").getAll();
    all.onsuccess = () => {
      open.result.close();
      const last = all.result.at(-1);
      resolve({ count: all.result.length, answer: last && { ...last.answer, by: last.by } });
    };
  };
})"""
_START_S: Final = 60


@dataclass
class Differences:
    """What differed, over all photos."""

    verdicts: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    probability: float = 0
    checks: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, device: dict[str, Any], server: dict[str, Any]) -> None:
        """Compares two answers about a photo."""
        if device["verdict"] != server["verdict"]:
            self.verdicts.append(f"{name}: {device['verdict']} for {server['verdict']}")
        if device["predicted_class_id"] != server["predicted_class_id"]:
            self.classes.append(f"{name}: {device['class_name']} for {server['class_name']}")
        for class_name, share in server["probabilities"].items():
            self.probability = max(self.probability, abs(device["probabilities"][class_name] - share))
        values = {check["name"]: check["value"] for check in device["checks"]}
        for check in server["checks"]:
            difference = abs(values.get(check["name"], float("inf")) - check["value"])
            self.checks[check["name"]] = max(self.checks.get(check["name"], 0), difference)


@contextlib.contextmanager
def serving(model: Path, offline_model: Path) -> Iterator[str]:
    """`cassava serve`; its address."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("cassava")), "serve", "serve.port=0", f"infer.checkpoint_path={model}"],
            stderr=log,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "CASSAVA_OFFLINE_MODEL_PATH": str(offline_model)},
        )
        try:
            yield _address(Path(folder) / "log")
        finally:
            process.kill()
            process.wait()


def _address(log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{found[0]}/ready").status_code == 200:
                    return found[0]
        time.sleep(0.1)
    raise SystemExit(f"error: no service after {_START_S} s\n{log.read_text()}")


def ask_device(page: Page, photo: Path) -> tuple[Any, float]:
    """The page's answer, and the milliseconds from the photo's bytes to it."""
    before = page.evaluate(LAST_RESULT)["count"]
    page.evaluate("performance.clearMeasures()")
    page.locator("#choose").set_input_files(photo)
    page.locator("#diagnose").click()
    page.locator(".answer").wait_for(timeout=60_000)
    while page.evaluate(LAST_RESULT)["count"] == before:  # written after the answer is on the screen
        time.sleep(0.05)
    page.locator("#another").click()
    [took_ms] = page.evaluate("performance.getEntriesByName('cassava-photo').map(({ duration }) => duration)")
    answer = page.evaluate(LAST_RESULT)["answer"]
    if answer["by"] != "device":
        raise SystemExit(f"error: {photo}: the server answered; expected the device")
    return answer, took_ms


def compare(model: Path, offline_model: Path, photos: list[Path]) -> None:
    """Prints what differs, and how long a photo takes."""
    predictor = load_predictor(FoundModel(offline_model, "explicit"), "cpu", threads=1)
    differences, device_ms, native_ms = Differences(), [], []
    with serving(model, offline_model) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        page.goto(url)
        page.locator("#offline summary").click()
        started = time.perf_counter()
        page.locator("#download").click()
        page.locator("#offline .ready").wait_for(timeout=120_000)
        print(f"download: {time.perf_counter() - started:.1f} s on loopback")
        context.set_offline(True)
        for photo in photos:
            data = photo.read_bytes()
            started = time.perf_counter()
            native = predictor.predict_bytes(data, name=photo.name)
            native_ms.append(1000 * (time.perf_counter() - started))
            server = (
                native.model_dump()
                if model == offline_model
                else httpx2.post(f"{url}/predict", files={"file": (photo.name, data)}).json()
            )
            device, took_ms = ask_device(page, photo)
            device_ms.append(took_ms)
            differences.note(photo.name, device, server)
        browser.close()
    print(f"{len(photos)} photos, {offline_model.name} in the browser against {model.name} on the server")
    print(f"other verdicts: {len(differences.verdicts)} {differences.verdicts}")
    print(f"other classes: {len(differences.classes)} {differences.classes}")
    print(f"largest difference of a probability: {differences.probability:.2g}")
    print("of checks:", ", ".join(f"{name} {value:.2g}" for name, value in differences.checks.items()))
    browser_ms, own_ms = statistics.median(device_ms[1:]), statistics.median(native_ms[1:])
    print(f"a photo: {browser_ms:.0f} ms in the browser, {own_ms:.0f} ms natively, one thread each")
    print(f"that is {browser_ms / own_ms:.1f} times as long")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="what the server answers with")
    parser.add_argument("--offline-model", type=Path, help="what the page answers with; the same if left out")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--count", type=int, default=64)
    arguments = parser.parse_args()
    model = arguments.model.resolve()
    photos = sorted(arguments.photos.resolve().glob("*.jpg"))[: arguments.count]
    if not photos:
        raise SystemExit(f"error: {arguments.photos}: no JPEG photos; expected a folder of them")
    compare(model, (arguments.offline_model or model).resolve(), photos)


if __name__ == "__main__":
    main()
