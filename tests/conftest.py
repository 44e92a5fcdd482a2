"""What every test may lean on: real photos if they are there, and the real configuration, shrunk."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.predictor import Predictor, load_predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata, SplitRecord

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


@pytest.fixture(autouse=True)
def root_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, outputs above all, land in the test's own folder."""
    monkeypatch.setenv("CASSAVA_ROOT", str(tmp_path))


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
def predictor(random_checkpoint: Path) -> Predictor:
    """That checkpoint, loaded."""
    return load_predictor(FoundModel(random_checkpoint, "explicit"), "cpu")


@pytest.fixture(scope="session")
def photo_bytes() -> bytes:
    """A drawn leaf as a JPEG file, wider than high."""
    buffer = io.BytesIO()
    Image.fromarray(draw_leaf(11, 3, 200)).resize((240, 180)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def moto_s3() -> Iterator[tuple[str, Any]]:
    """A real S3 server of this module's own: its address, and a client that may do everything there."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    yield url, boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    running.stop()
