"""From the configuration to batches."""

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.sampling import EpochSampler, drops_last
from cassava_leaf_disease.data.splits import Part, read_manifest
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.workers import keep_worker_on_one_core, resolve_num_workers
from cassava_leaf_disease.errors import DataError, DeviceError
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.imaging.preprocess import to_network_size

Config = Callable[..., AppConfig]


@pytest.fixture
def photos_config(tmp_path: Path, root_in_tmp_path: None) -> Config:
    """A configuration over 100 JPEGs of 72 pixels."""
    write_synthetic_dataset(tmp_path / "data", 100, 72, seed=4)
    small = (
        f"paths.data_dir={tmp_path / 'data'}",
        "augment.image_size=48",
        "train.batch_size=10",
        "train.num_workers=0",
        "train.accelerator=cpu",
        "data.split.val_size=0.2",
    )
    return lambda *overrides: load_config([*small, *overrides])


def ready(config: AppConfig, stage: str | None = "fit") -> LeafDataModule:
    module = LeafDataModule(config)
    module.setup(stage)
    return module


def epoch(module: LeafDataModule, number: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = module.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(number)  # as Lightning does
    return [(pixels, labels) for pixels, labels in loader]


def assert_equal(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> None:
    assert len(first) == len(second)
    for (pixels, labels), (others, other_labels) in zip(first, second, strict=True):
        assert torch.equal(pixels, others)
        assert torch.equal(labels, other_labels)


def test_training_batches_are_uint8_nchw(photos_config: Config) -> None:
    module = ready(photos_config())
    batches = epoch(module)
    assert module.sizes() == {"train": 65, "val": 20, "test": 15}
    assert len(batches) == 6  # of 65 photos; the last five come in other epochs
    for pixels, labels in batches:
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (10, 3, 48, 48))
        assert labels.dtype == torch.int64


def test_evaluation_batches_hold_the_whole_part_in_order_as_preprocess_gives_it(
    photos_config: Config,
) -> None:
    module = ready(photos_config(), None)
    assert module.split is not None
    loaders: dict[Part, Any] = {"val": module.val_dataloader(), "test": module.test_dataloader()}
    for part, loader in loaders.items():
        photos = module.split.parts[part]
        pixels = torch.cat([batch for batch, _ in loader]).numpy().transpose(0, 2, 3, 1)
        labels = torch.cat([batch for _, batch in loader])
        assert labels.tolist() == module.labels(part).tolist()
        expected = [to_network_size(read_image(photo.path), module.spec) for photo in photos]
        assert np.array_equal(pixels, np.stack(expected))


@pytest.mark.parametrize("sampling", ["none", "sqrt_inverse"])
def test_the_same_seed_gives_the_same_batches_and_each_epoch_others(photos_config: Config, sampling: str) -> None:
    config = photos_config(f"data.sampling={sampling}")
    first = epoch(ready(config))
    assert_equal(epoch(ready(config)), first)
    assert not torch.equal(epoch(ready(config), 1)[0][0], first[0][0])
    other = epoch(ready(photos_config(f"data.sampling={sampling}", "train.seed=1")))
    assert not torch.equal(other[0][0], first[0][0])


def test_batches_are_the_same_without_the_cache(photos_config: Config, tmp_path: Path) -> None:
    with_cache = ready(photos_config())
    without = ready(photos_config("data.cache.enabled=false", f"paths.cache_dir={tmp_path / 'unused'}"))
    assert_equal(epoch(without), epoch(with_cache))
    assert_equal(list(without.val_dataloader()), list(with_cache.val_dataloader()))
    assert not (tmp_path / "unused").exists()
    assert (without.fingerprint, without.split_hash) == (with_cache.fingerprint, with_cache.split_hash)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")  # Python 3.12
@pytest.mark.parametrize("synthetic", ["false", "true"])
def test_batches_do_not_depend_on_the_number_of_workers(photos_config: Config, synthetic: str) -> None:
    overrides = (f"data.synthetic.enabled={synthetic}", "data.synthetic.train_size=60", "augment=strong")
    state = torch.get_rng_state()
    alone = epoch(ready(photos_config(*overrides, "augment.image_size=48")))
    shared = epoch(ready(photos_config(*overrides, "augment.image_size=48", "train.num_workers=2")))
    assert_equal(shared, alone)
    assert torch.equal(torch.get_rng_state(), state)  # loaders leave the global generator alone


@pytest.mark.skipif(sys.platform == "win32", reason="spawn is the only way there anyhow")
def test_loaders_work_with_spawned_workers(photos_config: Config) -> None:
    module = ready(photos_config("train.num_workers=1", "augment.image_size=32"))
    loader = module.train_dataloader()
    assert isinstance(loader, DataLoader)
    loader.multiprocessing_context = multiprocessing.get_context("spawn")
    pixels, _ = next(iter(loader))
    assert pixels.shape == (10, 3, 32, 32)
    assert torch.equal(pixels, epoch(ready(photos_config("augment.image_size=32")))[0][0])


def test_a_second_setup_costs_nothing(photos_config: Config) -> None:
    module = ready(photos_config())
    sources = dict(module._sources)
    module.setup("fit")
    assert all(module._sources[part] is source for part, source in sources.items())
    assert "test" not in module._sources
    module.setup("test")
    assert set(module._sources) == {"train", "val", "test"}


def test_the_test_part_is_not_decoded_for_training(photos_config: Config) -> None:
    module = LeafDataModule(photos_config())
    module.setup("fit")
    assert module.split is not None
    module.split.parts["test"][0].path.write_bytes(b"broken after the table was read")
    ready_again = LeafDataModule(photos_config())
    ready_again.setup("fit")
    with pytest.raises(DataError, match="cannot be used"):
        ready_again.setup("test")


def test_the_manifest_lists_what_the_loaders_give(photos_config: Config, tmp_path: Path) -> None:
    module = ready(photos_config("data.limits.max_train_samples=25"))
    module.write_manifest(tmp_path / "split.csv")
    manifest = read_manifest(tmp_path / "split.csv")
    trained = [image_id for image_id, (_, part) in manifest.items() if part == "train"]
    assert trained == module.image_ids("train")
    assert len(trained) == 25
    assert module.labels("train").tolist() == [manifest[image_id][0] for image_id in trained]


def test_a_part_can_be_evaluated_as_evaluation_sees_it(photos_config: Config) -> None:
    module = ready(photos_config(), "validate")
    assert module.split is not None
    for part in ("train", "val", "test"):
        dataset = module.evaluation_dataset(part)
        photo = module.split.parts[part][0]
        expected = to_network_size(read_image(photo.path), module.spec)
        assert np.array_equal(dataset[0][0].numpy().transpose(1, 2, 0), expected)


def test_a_missing_data_set_never_becomes_synthetic(photos_config: Config) -> None:
    with pytest.raises(DataError, match=r"paths\.data_dir=/nowhere.*data\.synthetic\.enabled=true"):
        ready(photos_config("paths.data_dir=/nowhere"))


def test_drawn_leaves_differ_between_the_parts_and_need_no_files(small_config: Config, tmp_path: Path) -> None:
    module = ready(small_config("data.limits.max_train_samples=30"), None)
    assert module.split is None
    assert module.sizes() == {"train": 30, "val": 20, "test": 20}
    assert module.fingerprint.startswith("synthetic-")
    assert module.split_hash.startswith("synthetic-")
    pictures = {module._sources[part].image(i).tobytes() for part in ("val", "test") for i in range(20)}
    assert len(pictures) == 40
    assert len({image_id for part in ("train", "val", "test") for image_id in module.image_ids(part)}) == 70
    assert np.bincount(module.labels("val")).tolist() == [4] * 5
    assert len(module.evaluation_dataset("train")) == 30
    module.write_manifest(tmp_path / "split.csv")
    assert len(read_manifest(tmp_path / "split.csv")) == 70
    assert ready(small_config("data.split.seed=1")).fingerprint != module.fingerprint


def test_the_ranks_of_a_distributed_run_share_an_epoch(photos_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = photos_config("train.batch_size=10")
    module = ready(config)
    whole = list(module.train_dataloader().sampler)
    keys: list[Any] = []
    for rank in range(2):  # the process group is the edge of the machine: two processes cost ten seconds here
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
        keys.append(list(module.train_dataloader().sampler))
        assert module.train_dataloader().batch_size == 5
    assert len(keys[0]) == len(keys[1]) == 30  # of 65 photos six whole batches
    for step in range(6):
        shares = keys[0][5 * step : 5 * step + 5] + keys[1][5 * step : 5 * step + 5]
        assert sorted(shares) == sorted(whole[10 * step : 10 * step + 10])


def test_more_processes_than_photos_of_a_part_are_refused(
    photos_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 16)
    with pytest.raises(DataError, match=r"16 processes share the test part's 15 photos.*type train\.devices=15"):
        ready(photos_config())


@pytest.mark.parametrize(
    ("setting", "cpus", "platform", "accelerator", "workers"),
    [
        (3, 2, "linux", "cpu", 3),
        (3, 2, "darwin", "mps", 3),
        (0, 64, "linux", "cuda", 0),
        ("auto", 8, "darwin", "mps", 0),
        ("auto", 8, "darwin", "cpu", 0),
        ("auto", 8, "win32", "cuda", 0),
        ("auto", 8, "linux", "cuda", 8),
        ("auto", 64, "linux", "cuda", 16),
        ("auto", 2, "linux", "cpu", 0),
        ("auto", 64, "linux", "cpu", 0),
    ],
)
def test_the_number_of_workers_suits_the_machine(
    setting: Any, cpus: int, platform: str, accelerator: Any, workers: int
) -> None:
    assert resolve_num_workers(setting, cpus, platform, accelerator) == workers


def test_auto_follows_the_accelerator_that_is_there(photos_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ready(photos_config("train.num_workers=auto", "train.accelerator=auto"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loader = module.val_dataloader()
    assert isinstance(loader, DataLoader)
    assert loader.num_workers == 0
    assert loader.pin_memory is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu(photos_config: Config) -> None:
    with pytest.raises(DeviceError, match=r"train\.accelerator=gpu: no such device"):
        ready(photos_config("train.accelerator=gpu"))


@pytest.mark.parametrize(
    ("samples", "batch_size", "drops"),
    [
        (100, 10, True),
        (25, 10, True),
        (15, 10, False),
        (11, 10, True),
        (10, 10, False),
        (9, 10, False),
        (1, 10, False),
    ],
)
def test_a_small_last_batch_is_dropped_where_enough_remain(samples: int, batch_size: int, drops: bool) -> None:
    assert drops_last(samples, batch_size) is drops


def test_a_worker_computes_on_one_thread() -> None:
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        keep_worker_on_one_core(0)
        assert torch.get_num_threads() == 1
        assert cv2.getNumThreads() <= 1
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)


def test_the_real_photos_load(shared_data: Path, tmp_path: Path, root_in_tmp_path: None) -> None:
    config = load_config(
        [
            f"paths.data_dir={shared_data / 'cassava'}",
            "data.limits.max_train_samples=40",
            "data.limits.max_val_samples=10",
            "train.batch_size=20",
            "train.num_workers=0",
            "train.accelerator=cpu",
        ]
    )
    batches = epoch(ready(config))
    assert [tuple(pixels.shape) for pixels, _ in batches] == [(20, 3, 224, 224)] * 2
    assert 20 < float(batches[0][0].float().mean()) < 235
