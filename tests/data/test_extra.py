"""Photos beside the labelled ones: their table, and how training mixes them in."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.class_map import NO_COUNTERPART
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.data.extra import probability_table, read_extra, read_labelled, read_probabilities
from cassava_leaf_disease.data.sampling import EpochSampler, class_weights
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.losses import loss_weights
from cassava_leaf_disease.training.fit import train

Config = Callable[..., AppConfig]


def soft_rows(count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet([0.5] * 5, count)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve unlabelled photos in two folders."""
    write_synthetic_dataset(tmp_path / "drawn", 12, 72, seed=99)
    place = tmp_path / "field photos"
    for index, photo in enumerate(read_kaggle(tmp_path / "drawn")):
        target = place / ("a", "b ü")[index % 2] / photo.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo.path, target)
    return place


@pytest.fixture
def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


@pytest.fixture
def table(names: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "pseudo_labels.csv"
    path.write_text(probability_table("path", names, soft_rows(len(names))), encoding="utf-8")
    return path


@pytest.fixture
def config_with(tmp_path: Path, folder: Path, table: Path, root_in_tmp_path: None) -> Config:
    """Sixty labelled photos of 72 pixels, and the twelve others."""
    write_synthetic_dataset(tmp_path / "data", 60, 72, seed=4)
    small = (
        f"paths.data_dir={tmp_path / 'data'}",
        *("augment.image_size=48", "train.batch_size=10", "train.num_workers=0", "train.accelerator=cpu"),
        *("data.split.val_size=0.2", f"data.extra.csv_path={table}", f"data.extra.images_dir={folder}"),
    )
    return lambda *overrides: load_config([*small, *overrides])


def ready(config: AppConfig) -> LeafDataModule:
    data = LeafDataModule(config)
    data.setup("fit")
    return data


def epoch(data: LeafDataModule, number: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(number)
    pixels, targets = zip(*loader, strict=True)
    return torch.cat(pixels), torch.cat(targets)


def test_table_is_read_as_it_was_written(table: Path, folder: Path, names: list[str]) -> None:
    extra = read_extra(table, folder)

    assert [photo.image_id for photo in extra.photos] == names
    assert extra.probabilities.dtype == np.float32
    np.testing.assert_allclose(extra.probabilities, soft_rows(12), atol=1e-6)
    np.testing.assert_allclose(extra.probabilities.sum(axis=1), 1, atol=1e-6)
    assert [photo.label for photo in extra.photos] == soft_rows(12).argmax(axis=1).tolist()
    assert all(photo.path.is_file() for photo in extra.photos)


def rows(*lines: str) -> str:
    return "\n".join(("path,label,confidence,prob_0,prob_1,prob_2,prob_3,prob_4", *lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row below its header"),
        (rows(), "no row below its header"),
        ("path,label\na.jpg,1", r"no column 'prob_0'.*or data\.extra\.label_column=COLUMN for a table of labels"),
        (rows("a.jpg,0,1,1,0,0,0"), "no table of probabilities"),
        (rows("a.jpg,0,1,much,0,0,0,0"), "no table of probabilities .*'much'"),
        (rows("a.jpg,0,1,0.5,0,0,0,0"), "the probabilities of a.jpg do not sum to 1"),
        (rows("a.jpg,0,1,1.5,-0.5,0,0,0"), "do not sum to 1"),
        (rows("a.jpg,0,1,nan,0,0,0,0"), "do not sum to 1"),
        (rows("a.jpg,0,1,1,0,0,0,0", "a.jpg,0,1,1,0,0,0,0"), "a.jpg stand there more than once"),
        (rows("../a.jpg,0,1,1,0,0,0,0"), "must stay inside the folder; these do not: ../a.jpg"),
        (rows("/etc/a.jpg,0,1,1,0,0,0,0"), "must stay inside the folder"),
        (rows(",0,1,1,0,0,0,0"), "must stay inside the folder"),
        (rows("gone.jpg,0,1,1,0,0,0,0"), r"1 of the 1 photos .* are not in .*gone\.jpg; type data\.extra\.images_dir"),
    ],
)
def test_wrong_table_is_told_in_one_line(text: str, message: str, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "wrong.csv").write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=message) as error:
        read_extra(tmp_path / "wrong.csv", folder)
    assert "\n" not in str(error.value)


def test_file_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(DataError, match=r"a\.csv: no UTF-8 text"):
        read_probabilities(tmp_path / "a.csv", "path")
    with pytest.raises(DataError, match=r"b\.csv: cannot be read"):
        read_probabilities(tmp_path / "b.csv", "path")


@pytest.mark.parametrize("pipeline", ["loader", "device"])
def test_an_epoch_has_every_photo_once_with_its_target(pipeline: str, config_with: Config, table: Path) -> None:
    data = ready(config_with(f"data.pipeline={pipeline}", "train.batch_size=13"))
    expected = {tuple(row) for row in read_probabilities(table, "path")[1].astype(np.float32).tolist()}

    pixels, targets = epoch(data)

    assert data.sizes() == {"train": 39, "val": 12, "test": 9}
    assert (len(pixels), targets.dtype) == (39, torch.float32)  # of 51, the last twelve come in other epochs
    soft = {tuple(row.tolist()) for row in targets if row.max() < 1}
    hard = [int(row.argmax()) for row in targets if row.max() == 1]
    assert soft <= expected
    assert len(soft) + len(hard) == 39
    together = torch.cat([epoch(data, number)[1] for number in range(4)])
    assert {tuple(row.tolist()) for row in together if row.max() < 1} == expected


def test_validation_and_test_hold_labelled_photos_only(config_with: Config) -> None:
    with_extra, without = (
        ready(config_with()),
        ready(config_with("data.extra.csv_path=null", "data.extra.images_dir=null")),
    )

    for part in ("train", "val", "test"):
        assert with_extra.image_ids(part) == without.image_ids(part)
        assert with_extra.labels(part).tolist() == without.labels(part).tolist()
    assert (with_extra.split_hash, with_extra.fingerprint) == (without.split_hash, without.fingerprint)
    assert len(with_extra.evaluation_dataset("train")) == 39
    for (pixels, labels), (others, other_labels) in zip(
        with_extra.val_dataloader(), without.val_dataloader(), strict=True
    ):
        assert torch.equal(pixels, others)
        assert torch.equal(labels, other_labels)


def test_class_statistics_count_extra_photos_by_their_most_probable_class(config_with: Config) -> None:
    config = config_with("loss.class_weights=inverse")
    data = ready(config)

    labels = data.training_labels()

    assert len(labels) == 51
    assert labels[39:].tolist() == soft_rows(12).argmax(axis=1).tolist()
    weights = loss_weights(config.loss, labels)
    assert weights is not None
    counts = np.bincount(labels, minlength=5)
    np.testing.assert_allclose(weights * counts, (weights * counts)[0], rtol=1e-5)


def test_photos_of_the_data_set_are_refused_as_extra_ones(
    config_with: Config, tmp_path: Path, folder: Path, names: list[str]
) -> None:
    tested = ready(config_with()).split
    assert tested is not None
    shutil.copy(tested.parts["test"][0].path, folder / names[3])  # under another name

    with pytest.raises(DataError, match=r"1 of its 12 photos are photos of the data set.*cassava pseudo-label"):
        ready(config_with())


class TestLabelled:
    """Tables of labels that people gave: ours, or those of another collection."""

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        """Five leaves of another collection, which names its classes itself."""
        write_synthetic_dataset(tmp_path / "there", 5, 72, seed=7)
        seen = ("blight", "mosaic", "brown spot", "mosaic", "well")
        lines = [f"{photo.path.name},{name}" for photo, name in zip(read_kaggle(tmp_path / "there"), seen, strict=True)]
        (tmp_path / "there" / "seen.csv").write_text("\n".join(["photo,seen", *lines]), encoding="utf-8")
        return tmp_path / "there"

    MAP = "{blight:0,mosaic:3,well:4,brown spot:null}"

    def words(self, folder: Path, class_map: str = MAP) -> tuple[str, ...]:
        return (
            *(f"data.extra.csv_path={folder / 'seen.csv'}", f"data.extra.images_dir={folder / 'train_images'}"),
            *("data.extra.image_column=photo", "data.extra.label_column=seen", f"data.extra.class_map={class_map}"),
        )

    def test_a_photo_is_sure_of_its_class_and_another_trouble_of_none(
        self, elsewhere: Path, config_with: Config
    ) -> None:
        data = ready(config_with(*self.words(elsewhere)))
        extra = data.labelled_extra()

        assert extra is not None
        assert data.training_labels()[39:].tolist() == [0, 3, NO_COUNTERPART, 3, 4]
        assert extra.probabilities[2].tolist() == pytest.approx([0.2] * 5)
        assert extra.probabilities[[0, 1, 3, 4]].tolist() == np.eye(5)[[0, 3, 3, 4]].tolist()
        assert np.asarray(data.training_targets())[39:].tolist() == extra.probabilities.tolist()
        assert data.labelled_targets()[39:].tolist() == extra.probabilities.tolist()
        assert data.labelled_targets()[:39].argmax(axis=1).tolist() == data.labels("train").tolist()

    def test_labels_of_ours_need_no_map(self, elsewhere: Path) -> None:
        extra = read_labelled(elsewhere / "train.csv", elsewhere / "train_images", ("image_id", "label"), None)

        assert extra.photos == read_kaggle(elsewhere)
        assert extra.probabilities.argmax(axis=1).tolist() == [photo.label for photo in extra.photos]

    def test_answers_of_a_model_are_nobody_s_labels(self, config_with: Config) -> None:
        data = ready(config_with())

        assert data.labelled_extra() is None
        assert len(data.labelled_targets()) == 39

    def test_a_class_that_the_map_does_not_name_is_told(self, elsewhere: Path, config_with: Config) -> None:
        with pytest.raises(DataError, match=r"1 of its 4 classes are not in data\.extra\.class_map: well \(1 photos\)"):
            ready(config_with(*self.words(elsewhere, "{blight:0,mosaic:3,brown spot:null}")))

    def test_a_run_trains_with_them_to_the_end(self, elsewhere: Path, config_with: Config) -> None:
        settings = ("model.backbone=test_resnet", "train.epochs=1", "data.sampling=sqrt_inverse")

        result = train(config_with(*self.words(elsewhere), *settings))

        assert result.photos["extra"] == 5
        assert result.checkpoint is not None
        assert load_checkpoint(result.checkpoint).metadata.extra_photos == 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.extra.images_dir=null"], r"data\.extra\.csv_path and data\.extra\.images_dir belong together"),
        (["data.extra.csv_path=null"], r"belong together"),
        (["data.synthetic.enabled=true"], r"photos beside drawn leaves"),
        (["data.extra.csv_path=null", "data.extra.images_dir=null", "data.extra.label_column=seen"], r"of no table"),
        (["data.extra.class_map={a:1}"], r"without their column; type data\.extra\.label_column=COLUMN"),
        (["data.extra.ratio=0"], r"data\.extra\.ratio=0: expected a number above 0, or null"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    overrides: list[str], message: str, config_with: Config
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_with(*overrides)


class TestSampler:
    LABELS = (0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 0, 0)  # ten labelled, three extra

    def drawn(self, extra_drawn: int, number: int = 0, weighting: str = "none", **ranks: int) -> list[int]:
        sampler = EpochSampler(self.LABELS, weighting, 5, extra=3, extra_drawn=extra_drawn, **ranks)  # type: ignore[arg-type]
        sampler.set_epoch(number)
        indices = [index for index, _ in sampler]
        assert len(indices) == len(sampler)
        return indices

    def classes_drawn(self, labels: list[int], extra: int, epochs: int) -> Counter[int]:
        sampler = EpochSampler(labels, "inverse", 0, extra=extra, extra_drawn=extra)
        drawn: Counter[int] = Counter()
        for number in range(epochs):
            sampler.set_epoch(number)
            drawn.update(labels[index] for index, _ in sampler)
        return drawn

    @pytest.mark.parametrize(("extra_drawn", "times"), [(0, (0, 0)), (2, (0, 1)), (3, (1, 1)), (7, (2, 3))])
    def test_extra_photos_come_as_often_as_asked(self, extra_drawn: int, times: tuple[int, int]) -> None:
        counts = Counter(self.drawn(extra_drawn))

        assert all(counts[index] == 1 for index in range(10))
        assert sum(counts[index] for index in (10, 11, 12)) == extra_drawn
        assert {counts[index] for index in (10, 11, 12)} <= set(range(times[0], times[1] + 1))

    def test_each_epoch_takes_others(self) -> None:
        assert {index for number in range(8) for index in self.drawn(1, number) if index >= 10} == {10, 11, 12}

    def test_ranks_share_the_epoch(self) -> None:
        whole = self.drawn(2)
        assert sorted(self.drawn(2, num_replicas=2) + self.drawn(2, num_replicas=2, rank=1)) == sorted(whole)

    def test_rare_classes_are_drawn_more_often_from_all(self) -> None:
        drawn = self.classes_drawn([0] * 40 + [1] * 2 + [1] * 18, extra=18, epochs=40)
        assert 0.9 < drawn[0] / drawn[1] < 1.1

    def test_photos_of_no_class_are_drawn_like_the_mean_and_count_for_none(self) -> None:
        labels = [0] * 30 + [1] * 10 + [NO_COUNTERPART] * 20
        drawn = self.classes_drawn(labels, extra=20, epochs=60)
        assert 0.9 < drawn[0] / drawn[1] < 1.1
        assert 0.9 < drawn[NO_COUNTERPART] / drawn[0] < 1.1
        assert class_weights(labels, "inverse").tolist() == class_weights(labels[:40], "inverse").tolist()

    def test_all_of_them_are_drawn_as_if_they_were_labelled(self) -> None:
        assert self.drawn(3) == [index for index, _ in EpochSampler(self.LABELS, "none", 5)]


@pytest.mark.parametrize("pipeline", ["loader", "device"])
def test_a_run_trains_with_soft_targets_and_mixing_to_the_end(pipeline: str, config_with: Config) -> None:
    config = config_with(
        *("model.backbone=test_resnet", "train.epochs=1", "augment.mix.p=1", "augment.mix.mixup_alpha=0.4"),
        *("data.extra.ratio=0.5", "data.sampling=sqrt_inverse", f"data.pipeline={pipeline}"),
    )

    result = train(config)

    assert result.photos == {"train": 39, "val": 12, "test": 9, "extra": 12}
    assert {"val/acc", "test/acc"} <= set(result.metrics)
