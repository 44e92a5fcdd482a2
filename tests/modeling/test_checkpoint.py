"""Checkpoints describe themselves, are written whole or not at all, and never run code."""

import io
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.modeling.checkpoint import (
    load_checkpoint,
    network_state,
    save_atomically,
    write_checkpoint,
)
from cassava_leaf_disease.modeling.checkpoint_io import AtomicCheckpointIO
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata


class Harmful:
    """What an attacker puts into a pickle: it makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def training_checkpoint(metadata: ModelMetadata, **tensors: torch.Tensor) -> dict[str, Any]:
    """What Lightning writes, as far as it matters here."""
    return {
        METADATA_KEY: metadata.model_dump_json(),
        "state_dict": {name.replace("__", "."): tensor for name, tensor in tensors.items()},
        "optimizer_states": [{"state": {}}],
        "epoch": 1,
    }


def test_checkpoint_gives_back_weights_and_self_description(
    tmp_path: Path, network: nn.Sequential, metadata: ModelMetadata
) -> None:
    path = tmp_path / "run" / "best.ckpt"
    write_checkpoint(path, network, metadata)

    loaded = load_checkpoint(path)

    assert loaded.metadata == metadata
    assert loaded.network_state.keys() == network.state_dict().keys()
    assert all(torch.equal(loaded.network_state[name], tensor) for name, tensor in network.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["best.ckpt"]
    assert set(torch.load(path, weights_only=True)) == {METADATA_KEY, "state_dict"}


def test_weights_in_another_memory_layout_are_stored_plainly() -> None:
    wide = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    assert not wide.weight.is_contiguous()
    assert all(tensor.is_contiguous() for tensor in network_state(wide).values())


def test_compiled_network_is_stored_under_its_plain_names(
    tmp_path: Path, network: nn.Sequential, metadata: ModelMetadata
) -> None:
    compiled = torch.compile(network)
    assert isinstance(compiled, nn.Module)
    assert all(name.startswith("_orig_mod.") for name in compiled.state_dict())

    write_checkpoint(tmp_path / "best.ckpt", compiled, metadata)

    assert load_checkpoint(tmp_path / "best.ckpt").network_state.keys() == network.state_dict().keys()


def test_training_checkpoint_gives_the_running_average_where_there_is_one(
    tmp_path: Path, metadata: ModelMetadata
) -> None:
    raw, average = torch.zeros(2), torch.ones(2)
    with_average = training_checkpoint(
        metadata, network__weight=raw, average__module__weight=average, mean=torch.zeros(3)
    )
    save_atomically(with_average, tmp_path / "averaged.ckpt")
    save_atomically(training_checkpoint(metadata, network___orig_mod__weight=raw), tmp_path / "plain.ckpt")

    averaged = load_checkpoint(tmp_path / "averaged.ckpt").network_state
    plain = load_checkpoint(tmp_path / "plain.ckpt").network_state

    assert list(averaged) == list(plain) == ["weight"]
    assert torch.equal(averaged["weight"], average)
    assert torch.equal(plain["weight"], raw)


def test_lightning_s_writer_replaces_files_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"epoch": 1}, path)

    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        writer.save_checkpoint({"epoch": lambda: None}, path)

    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    place: str, tmp_path: Path, network: nn.Sequential, metadata: ModelMetadata
) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "best.ckpt"
    if place == "inside":
        torch.save({METADATA_KEY: metadata.model_dump_json(), "state_dict": {}, "x": Harmful(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Harmful(trap)))

    with pytest.raises(CheckpointError, match=r"it holds code.*it was not loaded"):
        load_checkpoint(path)

    assert not trap.exists()
    torch.load(path, weights_only=False) if place == "inside" else pickle.loads(path.read_bytes())  # noqa: S301
    assert trap.is_dir()  # the trap is a real one


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"network.weight": torch.zeros(1)}, "pytorch-lightning_version": "2.6.6"},
        {METADATA_KEY: "{}"},
        {METADATA_KEY: {"format_version": 1}, "state_dict": {}},
        {METADATA_KEY: "{}", "state_dict": [1, 2]},
        [1, 2, 3],
        {},
    ],
)
def test_checkpoint_without_self_description_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "best.ckpt")

    with pytest.raises(CheckpointError, match=r"best\.ckpt: not a CassavaVision checkpoint .*use a best\.ckpt that"):
        load_checkpoint(tmp_path / "best.ckpt")


def test_checkpoint_of_a_later_format_asks_for_an_upgrade(tmp_path: Path, metadata: ModelMetadata) -> None:
    text = metadata.model_dump_json().replace('"format_version":1', '"format_version":2')
    torch.save({METADATA_KEY: text, "state_dict": {}}, tmp_path / "best.ckpt")

    with pytest.raises(CheckpointError, match=r"best\.ckpt: .*format version 2.*pip install -U"):
        load_checkpoint(tmp_path / "best.ckpt")


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; train one"):
        load_checkpoint(tmp_path / "best.ckpt")
    with pytest.raises(CheckpointError, match=r"a folder; expected a file, such as best\.ckpt"):
        load_checkpoint(tmp_path)


def test_damaged_checkpoints_are_one_line_whatever_is_damaged(tmp_path: Path, metadata: ModelMetadata) -> None:
    path = tmp_path / "best.ckpt"
    buffers = []
    for as_zip in (True, False):
        buffers.append(io.BytesIO())
        torch.save(
            training_checkpoint(metadata, network__weight=torch.zeros(4)),
            buffers[-1],
            _use_new_zipfile_serialization=as_zip,
        )
    rng = random.Random(0)  # noqa: S311
    damaged = [b"", b"PK\x03\x04", b"\0" * 100, b"hello"]
    for buffer in buffers:
        good = buffer.getvalue()
        damaged.extend(good[: rng.randrange(1, len(good))] for _ in range(40))
        damaged.extend(_flipped(good, rng) for _ in range(200))

    refusals = []
    for content in damaged:
        path.write_bytes(content)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            refusals.append(str(error))

    assert len(refusals) > 200  # the others were damaged where nothing is read
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in refusals)


def _flipped(good: bytes, rng: random.Random) -> bytes:
    content = bytearray(good)
    for _ in range(3):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)
