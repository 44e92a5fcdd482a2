"""The service as a process: both ways to start it, curl, its log, and how it ends."""

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cassava_leaf_disease import cli

FACTORY = ("uvicorn", "--factory", "cassava_leaf_disease.serving.app:create_app", "--port", "0")
SERVE = ("cassava", "serve", "serve.port=0")
StartServer = Callable[..., Any]


def test_the_factory_answers_and_curl_gets_the_right_words(
    start_server: StartServer,
    eventually: Callable[[Callable[[], object]], None],
    tmp_path: Path,
    photo_bytes: bytes,
) -> None:
    server = start_server(FACTORY)
    files = {"leaf.jpg": photo_bytes, "text.jpg": b"no photo", "empty.jpg": b"", "zeros.jpg": bytes(30_000_000)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    said = {name: curl(f"{server.client.base_url}/predict", tmp_path / name) for name in files}

    assert {name: status for name, (status, _) in said.items()} == {
        "leaf.jpg": 200,
        "text.jpg": 415,
        "empty.jpg": 422,
        "zeros.jpg": 413,
    }
    assert said["leaf.jpg"][1]["image"] == "leaf.jpg"
    assert all(set(body) == {"error", "expected"} for name, (_, body) in said.items() if name != "leaf.jpg")
    eventually(lambda: len(requests_of(server)) == len(files))  # a line is written after its answer
    requests = requests_of(server)
    assert [record["status"] for record in requests] == [200, 415, 422, 413]
    assert all(record["request_id"] and record["ms"] > 0 for record in requests)
    assert "leaf.jpg" not in "".join(server.lines)  # what people call their photos is nobody's business
    server.stop()


def curl(url: str, photo: Path) -> tuple[int, Any]:
    words = ("curl", "-s", "-w", "\n%{http_code}", "-F", f"file=@{photo}", url)
    body, _, status = subprocess.run(words, check=True, capture_output=True, text=True).stdout.rpartition("\n")
    return int(status), json.loads(body)


def log_of(server: Any) -> list[dict[str, Any]]:
    """What was logged as JSON; uvicorn speaks before the factory is called."""
    return [json.loads(line) for line in server.lines if line.startswith("{")]


def requests_of(server: Any) -> list[dict[str, Any]]:
    """What the log says of requests about photos."""
    return [record for record in log_of(server) if record.get("path") == "/predict"]


def test_serve_ends_cleanly_and_its_one_document_is_on_stdout(start_server: StartServer, photo_bytes: bytes) -> None:
    server = start_server(SERVE)
    assert server.client.post("/predict", files={"file": ("a.jpg", photo_bytes)}).status_code == 200

    code, out = server.stop()

    assert code == 0
    summary = json.loads(out)
    assert summary["url"] == str(server.client.base_url)
    assert summary["requests"] >= 2


def test_what_has_begun_is_finished_when_the_service_ends(start_server: StartServer, large_photo: bytes) -> None:
    server = start_server((*SERVE, "serve.workers=1", "serve.log_format=text"))
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(server.client.post, "/predict", files={"file": ("a.png", large_photo)}) for _ in range(6)]
        while "cassava_pending_photos 6.0" not in server.client.get("/metrics").text and not asked[0].done():
            time.sleep(0.01)
        code, _ = server.stop()
        statuses = [reply.result().status_code for reply in asked]

    assert code == 0
    assert statuses == [200] * 6


def test_ctrl_c_is_an_interrupt(start_server: StartServer) -> None:
    server = start_server(SERVE)

    assert server.stop(signal.SIGINT) == (130, "")
    assert "interrupted" in server.lines[-1]


def test_a_wrong_model_or_port_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.onnx").write_text("no model")
    assert cli.main(["serve", "serve.port=0", "infer.checkpoint_path=bad.onnx"]) == 2
    assert "bad.onnx: cannot be read as an ONNX model" in capfd.readouterr().err
    assert cli.main(["serve", "serve.host=192.0.2.1"]) == 2
    assert "serve.host=192.0.2.1 serve.port=8000: " in capfd.readouterr().err
    assert cli.main(["serve", "serve.host=no.such.host.invalid"]) == 2
    assert "serve.host=no.such.host.invalid: " in capfd.readouterr().err


def test_photos_never_touch_the_disk(start_server: StartServer, large_photo: bytes, tmp_path: Path) -> None:
    """With a temporary folder where nothing can be written; and no file of the photo's size is ever open."""
    server = start_server(SERVE, TMPDIR=str(tmp_path / "nowhere"))
    largest = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal largest
        files = Path(f"/proc/{server.process.pid}/fd")
        while not done.is_set():
            for link in files.iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    if "(deleted)" in str(link.readlink()):
                        largest = max(largest, link.stat().st_size)
            time.sleep(0.001)

    watching = threading.Thread(target=watch)
    if Path("/proc/self/fd").is_dir():
        watching.start()
    replies = [server.client.post("/predict", files={"file": ("a.png", large_photo)}) for _ in range(3)]
    done.set()
    if watching.ident:
        watching.join()

    assert [reply.status_code for reply in replies] == [200] * 3
    assert largest == 0
