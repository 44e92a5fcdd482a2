"""What every test may lean on: real photos if they are there, and the real configuration, shrunk."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig

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
