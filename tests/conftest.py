"""What every test may lean on: real photos if they are there, and the real configuration, shrunk."""

import base64
import hashlib
import io
import json
import os
import pickle
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.imaging.preprocess import Preprocessing, to_network_size
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.modeling.metadata import GateRecord, ModelMetadata, QualityLimits, SplitRecord
from cassava_leaf_disease.process import collect_rarely
from triton_server import NoServerError, TritonServer, make_environment

if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker for each core; threads of several would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_rarely()

REPOSITORY = Path(__file__).resolve().parents[1]

# Small enough for seconds on one core; the backbone is timm's own test network.
SMALL_RUN = (
    "data.synthetic.enabled=true",
    "data.synthetic.train_size=40",
    "data.synthetic.val_size=20",
    "data.synthetic.test_size=20",
    "model.backbone=test_resnet",
    "augment.image_size=64",
    "train.epochs=2",
    "train.batch_size=10",
    "train.accelerator=cpu",
    "train.num_workers=0",
)

EMPTY_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def root_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, outputs above all, land in the test's own folder."""
    monkeypatch.setenv("CASSAVA_ROOT", str(tmp_path))


@pytest.fixture(autouse=True)
def figures_without_ink(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are built and written, but empty: drawing three takes longer than a small training.

    Tests that are marked `draws` see them drawn, one for each kind of figure.
    """
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr("cassava_leaf_disease.evaluation.figures.draw", lambda _, file: file.write(EMPTY_PNG))


@pytest.fixture(autouse=True, scope="session")
def leaves_drawn_once() -> Iterator[None]:
    """The same leaf is not drawn again, neither for another training nor for another comparison of an export."""
    kept = lru_cache(maxsize=4096)(draw_leaf)
    with pytest.MonkeyPatch.context() as patch:
        for user in ("data.datasets", "export.pictures", "export.triton.compare"):
            if module := sys.modules.get(f"cassava_leaf_disease.{user}"):  # else no test here uses it
                patch.setattr(module, "draw_leaf", lambda *words: kept(*words).copy())
        yield


@pytest.fixture(autouse=True, scope="session")
def operators_read_once() -> Iterator[None]:
    """PyTorch reads the sources of five hundred operators anew for each export to ONNX, for 0.4 s."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(autouse=True, scope="session")
def networks_exported_once() -> Iterator[None]:
    """The same network, weights and all, is not put into ONNX again: PyTorch takes 1.5 s for the smallest one."""
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            import onnx
            import torch

            real, kept = torch.onnx.export, dict[str, bytes]()

            def export(network: "torch.nn.Module", example: object, **words: Any) -> Any:
                key = _digest((network, example, sorted(map(str, words.items()))))
                if key is None:
                    return real(network, example, **words)  # type: ignore[arg-type]
                if key not in kept:
                    kept[key] = real(network, example, **words).model_proto.SerializeToString()  # type: ignore[arg-type, union-attr]
                return SimpleNamespace(model_proto=onnx.load_from_string(kept[key]))

            patch.setattr("torch.onnx.export", export)
        yield


def _digest(wanted: object) -> str | None:
    """What tells networks apart: their classes, attributes, buffers and weights; None where a part has no name."""
    import torch

    class Pickler(pickle.Pickler):
        def reducer_override(self, part: object) -> Any:
            if isinstance(part, torch.Tensor):
                return bytes, (str((part.dtype, part.shape)).encode() + part.detach().numpy().tobytes(),)
            return NotImplemented

    buffer = io.BytesIO()
    try:
        Pickler(buffer).dump(wanted)
    except (AttributeError, TypeError, pickle.PicklingError):
        return None
    return hashlib.sha256(buffer.getvalue()).hexdigest()


@pytest.fixture
def no_packaged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this version shipped no model."""
    monkeypatch.setattr("cassava_leaf_disease.inference.discover.PACKAGED_MODEL", "none.onnx")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real photos; the test is skipped where it is missing."""
    folder = Path(os.environ.get("CASSAVA_TEST_DATA") or REPOSITORY.parent / "shared" / "data").resolve()
    if not (folder / "cassava" / "train.csv").is_file():
        pytest.skip(f"no real photos: {folder}/cassava/train.csv is missing; set CASSAVA_TEST_DATA")
    return folder


@pytest.fixture
def small_config(root_in_tmp_path: None) -> Callable[..., AppConfig]:
    """The packaged configuration, shrunk; takes further overrides."""
    return lambda *overrides: load_config([*SMALL_RUN, *overrides])


@pytest.fixture(scope="session")
def small_words() -> tuple[str, ...]:
    """The same small run as words of a command line."""
    return SMALL_RUN


@pytest.fixture(scope="session")
def metadata() -> ModelMetadata:
    """What a checkpoint of timm's smallest network says of itself; no photos belong to its split."""
    return ModelMetadata(
        name="test_resnet",
        version="0.1.0+20260101T0000",
        backbone="test_resnet",
        preprocessing=Preprocessing(image_size_px=64, crop_ratio=0.875),
        metrics={"val/acc": 0.5, "val/f1_macro": 0.4, "val/loss": 1.25},
        epoch=3,
        data_fingerprint="f" * 64,
        split=SplitRecord(
            strategy="holdout",
            val_size=0.2,
            test_size=0.2,
            folds=5,
            fold_index=0,
            seed=42,
            max_train_samples=None,
            max_val_samples=None,
            hash="0" * 64,
        ),
        git_commit="a" * 40,
        package_version="0.1.0",
        created_at="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture(scope="session")
def write_random_checkpoint() -> Callable[[Path, ModelMetadata], Path]:
    """Writes a checkpoint with random weights, the same each time, whose answers differ between photos."""

    def write(path: Path, metadata: ModelMetadata) -> Path:
        import torch

        from cassava_leaf_disease.modeling.backbone import classifier_names, rebuild_network
        from cassava_leaf_disease.modeling.checkpoint import write_checkpoint

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            network = rebuild_network(metadata.backbone, metadata.preprocessing.image_size_px, 5)
            for name in classifier_names(network):
                torch.nn.init.normal_(network.get_parameter(f"{name}.weight"), std=2.0)
        write_checkpoint(path, network, metadata)
        return path

    return write


@pytest.fixture(scope="session")
def random_checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: ModelMetadata,
    write_random_checkpoint: Callable[[Path, ModelMetadata], Path],
) -> Path:
    """A self-describing checkpoint that no training made; read only."""
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt", metadata)


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path, metadata: ModelMetadata) -> Path:
    """That checkpoint as an ONNX file; read only."""
    from cassava_leaf_disease.export.onnx import to_onnx
    from cassava_leaf_disease.inference.engines.torch_engine import restore_network
    from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

    network = restore_network(load_checkpoint(random_checkpoint), random_checkpoint)
    path = tmp_path_factory.mktemp("exported") / "best.onnx"
    path.write_bytes(to_onnx(network, metadata).SerializeToString())
    return path


@pytest.fixture(scope="session")
def predictor(random_checkpoint: Path) -> Predictor:
    """That checkpoint, loaded."""
    return load_predictor(FoundModel(random_checkpoint, "explicit"), "cpu")


@pytest.fixture(scope="session")
def photo_bytes() -> bytes:
    """A drawn leaf as a JPEG file, wider than high."""
    buffer = io.BytesIO()
    Image.fromarray(draw_leaf(11, 3, 200)).resize((240, 180)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the user's own AWS settings and credentials; what a test's `.env` adds goes again."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_"))]:
        del os.environ[name]


@pytest.fixture
def run_dvc(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs DVC's command line in a folder, without the user's own settings and caches of DVC; what it prints."""
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("dvc")))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")

    def run(folder: Path, *words: str) -> str:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "dvc", *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, f"dvc {' '.join(words)}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    return run


@pytest.fixture(scope="module")
def moto_s3() -> Iterator[tuple[str, Any]]:
    """A real S3 server of this module's own: its address, and a client that may do everything there."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()  # noqa: S310  all servers of a process share one store
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    yield url, boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    running.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL of these tests' own; tests are skipped where none is installed."""
    programs = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)), *Path("/usr/lib/postgresql").glob("*/bin")]
    found = next((folder for folder in programs if (folder / "initdb").is_file()), None)
    if found is None:
        pytest.skip("no PostgreSQL: initdb is not on the PATH")
    folder = Path(tempfile.mkdtemp(prefix="cassava-postgres-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = {"user": "nobody"} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}  # it refuses to run as root
    if user:
        shutil.chown(folder, "nobody")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    subprocess.run([found / "initdb", "-D", folder / "data", "-U", "cassava", "-A", "trust"], check=True, **quiet)
    server = subprocess.Popen(
        [found / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder], **quiet
    )
    try:
        url = f"postgresql://cassava@127.0.0.1:{port}"
        wait_for_postgres(f"{url}/postgres")
        yield url
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_postgres(url: str) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The address of an empty database in it."""
    import psycopg

    name = f"of_a_test_{secrets.token_hex(4)}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    return f"{postgres_server}/{name}"


class FileServer(ThreadingHTTPServer):
    """Files over HTTP with ranges and ETags; plays Yandex Disk's public API; can break connections.

    `files` maps paths to contents, `headers` paths to what is said of them besides, `links` public keys to paths;
    `folders` are the links that lead to folders. `cut_after` breaks as many of the next transfers after so many
    bytes; `statuses` are answered before anything else.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _FileHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.links: dict[str, str] = {}
        self.folders: set[str] = set()
        self.cut_after: list[int] = []
        self.statuses: list[tuple[int, dict[str, str]]] = []
        self.serves_ranges = True
        self.minds_if_range = True
        self.requests: list[tuple[str, str | None]] = []  # path and Range
        self.sent_bytes = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the tests."""


class _FileHandler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        self.server.requests.append((address.path, self.headers.get("Range")))
        if self.server.statuses:
            status, headers = self.server.statuses.pop(0)
            self.answer(status, b"busy", **headers)
        elif address.path.startswith("/v1/disk/public/resources"):
            asked = parse_qs(address.query)
            self.answer_as_yandex(address.path, asked["public_key"][0] + asked.get("path", [""])[0])
        elif address.path in self.server.files:
            self.send_file(address.path)
        else:
            self.answer(404, b"no such file")

    def answer_as_yandex(self, path: str, key: str) -> None:
        target = self.server.links.get(key)
        if target is None:
            self.answer(404, json.dumps({"message": "not found"}).encode())
        elif path.endswith("/download"):
            self.answer(200, json.dumps({"href": self.server.url + target}).encode())
        else:
            content = self.server.files[target]
            sums = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}  # noqa: S324
            about = {"name": target[1:], "type": "file", "size": len(content), **sums}
            folder = {"name": "cassava", "type": "dir"}
            self.answer(200, json.dumps(folder if key in self.server.folders else about).encode())

    def send_file(self, path: str) -> None:
        content = self.server.files[path]
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        wanted = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, etag) or not self.server.minds_if_range
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and same and self.server.serves_ranges else 0
        if start >= len(content) > 0:
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        told = {"ETag": etag, "Content-Length": str(len(body)), "Content-Type": "application/octet-stream"}
        if start:
            told["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for name, value in (told | self.server.headers.get(path, {})).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        cut = self.server.cut_after.pop(0) if self.server.cut_after else len(body)
        self.server.sent_bytes += len(body[:cut])  # before it is sent: the client may be quicker than this thread
        self.wfile.write(body[:cut])
        self.wfile.flush()
        if cut < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Tests read `requests` instead."""


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A server of this test's own."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def loose_limits() -> QualityLimits:
    """What drawn leaves keep to, and black or plain pictures do not."""
    return QualityLimits(
        min_sharpness=1,
        min_brightness=0.1,
        max_brightness=0.9,
        min_contrast=0.02,
        max_dark=0.8,
        max_bright=0.8,
        min_colors=100,
    )


@pytest.fixture(scope="session")
def served_models(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: ModelMetadata,
    loose_limits: QualityLimits,
    exported_model: Path,
    write_random_checkpoint: Callable[[Path, ModelMetadata], Path],
) -> tuple[Path, Path]:
    """The exported model, and another of a larger input that has its own temperature and a gate; read only."""
    from cassava_leaf_disease.export.onnx import to_onnx
    from cassava_leaf_disease.inference.engines.torch_engine import restore_network
    from cassava_leaf_disease.inference.ood import fit_arrays, score_outputs
    from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

    spec = Preprocessing(image_size_px=96)
    larger = metadata.model_copy(update={"name": "larger", "preprocessing": spec, "temperature": 2.0})
    folder = tmp_path_factory.mktemp("served")
    checkpoint = write_random_checkpoint(folder / "larger.ckpt", larger)
    leaves = np.stack([to_network_size(draw_leaf(seed, seed % 5, 100), spec) for seed in range(10)])
    outputs = load_predictor(FoundModel(checkpoint, "explicit"), "cpu").outputs(leaves)
    arrays = fit_arrays("knn", outputs, np.arange(10) % 5, 4)
    scores = score_outputs("knn", arrays, outputs, 2)
    gate = GateRecord(
        score="knn",
        typical=float(np.median(scores)),
        limit=float(scores.max()),
        neighbors=2,
        max_refused=0.1,
        quality=loose_limits,
        photos={"train": 10, "val": 10},
    )
    network = restore_network(load_checkpoint(checkpoint), checkpoint)
    model = to_onnx(network, larger.model_copy(update={"gate": gate}), arrays)
    (folder / "larger.onnx").write_bytes(model.SerializeToString())
    return exported_model, folder / "larger.onnx"


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory: pytest.TempPathFactory, photo_bytes: bytes) -> Path:
    """A data folder of two photos and a file that is none; read only."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "train_images").mkdir()
    for name, content in {"a.jpg": photo_bytes, "b.jpg": photo_bytes, "c.jpg": b"no photo"}.items():
        (folder / "train_images" / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def triton_repository(
    tmp_path_factory: pytest.TempPathFactory, served_models: tuple[Path, Path], few_photos: Path
) -> Path:
    """Both as an ensemble that Triton serves; read only."""
    from cassava_leaf_disease.export.triton.repository import export_triton

    target = tmp_path_factory.mktemp("triton") / "repository"
    members = ",".join(f"'{path}'" for path in served_models)
    export_triton(
        load_config(
            [
                f"infer.checkpoint_path=[{members}]",
                f"export.triton.output_dir={target}",
                "export.triton.preprocess_instances=2",
                f"paths.data_dir={few_photos}",
            ]
        )
    )
    return target


@pytest.fixture(scope="session")
def triton_server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, triton_repository: Path
) -> Iterator[TritonServer]:
    """A real tritonserver that serves it; tests are skipped where it cannot be installed."""
    cache = Path(os.environ.get("CASSAVA_TRITON_CACHE") or pytestconfig.cache.mkdir("tritonserver"))
    try:
        environment = make_environment(triton_repository / "requirements.txt", cache)
    except NoServerError as error:
        pytest.skip(str(error))
    server = TritonServer(triton_repository / "models", environment, tmp_path_factory.mktemp("log") / "triton.log")
    server.start()
    yield server
    server.stop()
