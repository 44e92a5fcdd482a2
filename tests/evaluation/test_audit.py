"""An audit names the labels that out-of-fold answers contradict, and refuses answers that do not fit the photos."""

import csv
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.cleaning import read_excluded, read_soft_labels
from cassava_leaf_disease.data.divide import divide_photos
from cassava_leaf_disease.data.synthetic import write_synthetic_dataset
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.audit.confident import LabelIssues, find_label_issues
from cassava_leaf_disease.evaluation.audit.run import AuditResult, audit
from cassava_leaf_disease.evaluation.audit.tables import rows_to_leave_out, soft_targets
from cassava_leaf_disease.evaluation.predictions import write_predictions
from cassava_leaf_disease.training.crossval import crossval

SmallConfig = Callable[..., AppConfig]
WRONG = (3, 17, 30, 44, 51)


class Leaves:
    """Drawn leaves with labels, of which five are wrong, and out-of-fold answers that know better."""

    def __init__(self, folder: Path, config: SmallConfig) -> None:
        self.data_dir, self.oof = folder / "leaves", folder / "oof.csv"
        self._config = config
        write_synthetic_dataset(self.data_dir, 60, 64, 0)
        photos = read_kaggle(self.data_dir)
        self.names = [photo.image_id for photo in photos]
        truth = np.array([photo.label for photo in photos], np.int64)
        self.probabilities = np.full((60, 5), 0.05)
        self.probabilities[np.arange(60), truth] = 0.8
        self.labels = truth.copy()
        self.labels[list(WRONG)] = (truth[list(WRONG)] + 1) % 5
        self.write_table(self.labels)
        self.answer(slice(None))

    def write_table(self, labels: npt.NDArray[np.int64]) -> None:
        lines = [f"{name},{label}\n" for name, label in zip(self.names, labels.tolist(), strict=True)]
        (self.data_dir / "train.csv").write_text("image_id,label\n" + "".join(lines), encoding="utf-8")

    def answer(self, rows: slice) -> None:
        write_predictions(self.oof, self.names[rows], self.labels[rows], self.probabilities[rows])

    def config(self, *overrides: str) -> AppConfig:
        ours = ("data.synthetic.enabled=false", f"paths.data_dir={self.data_dir}", f"audit.oof_csv={self.oof}")
        return self._config(*ours, *overrides)

    def audit(self, *overrides: str) -> AuditResult:
        return audit(self.config(*overrides))

    @property
    def wrong(self) -> set[str]:
        return {self.names[row] for row in WRONG}


@pytest.fixture
def leaves(tmp_path: Path, small_config: SmallConfig) -> Leaves:
    return Leaves(tmp_path, small_config)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestTables:
    def test_wrong_labels_come_first_and_are_flagged(self, leaves: Leaves) -> None:
        result = leaves.audit("audit.near_duplicates=false")

        rows = rows_of(result.output_dir / "audit.csv")
        assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 61)]
        assert {row["image_id"] for row in rows[:5]} == leaves.wrong
        assert [row["flags"] for row in rows] == ["suspicious"] * 5 + [""] * 55
        assert sum(result.suspicious.values()) == 5
        assert result.audited == 60
        assert result.label_conflicts is None

    def test_row_says_what_is_given_and_what_is_suggested(self, leaves: Leaves) -> None:
        [row] = [
            row for row in rows_of(leaves.audit().output_dir / "audit.csv") if row["image_id"] == leaves.names[WRONG[0]]
        ]

        given, suggested = int(row["label"]), int(row["suggested"])
        assert given == (suggested + 1) % 5
        assert (row["class_name"], row["suggested_name"]) == (CLASS_NAMES[given], CLASS_NAMES[suggested])
        assert float(row["self_confidence"]) == float(row[f"prob_{given}"]) == pytest.approx(0.05)
        assert float(row[f"prob_{suggested}"]) == pytest.approx(0.8)

    def test_confident_joint_counts_given_labels_by_class_of_confidence(self, leaves: Leaves) -> None:
        joint = np.array(leaves.audit("audit.near_duplicates=false").confident_joint)

        assert joint.sum() == 60
        assert joint.trace() == 55
        assert joint.sum(axis=1).tolist() == np.bincount(leaves.labels, minlength=5).tolist()
        for row in WRONG:
            assert joint[leaves.labels[row], (leaves.labels[row] - 1) % 5] > 0

    def test_summary_is_the_answer(self, leaves: Leaves) -> None:
        result = leaves.audit("audit.near_duplicates=false")

        written = json.loads((result.output_dir / "audit.json").read_text(encoding="utf-8"))
        assert written == result.model_dump(mode="json")

    def test_training_can_take_what_is_written(self, leaves: Leaves) -> None:
        result = leaves.audit("audit.near_duplicates=false", "audit.soft_weight=0.25")

        divided = divide_photos(leaves.config("data.split.test_size=0"))
        assert read_excluded(result.output_dir / "exclude.csv", divided.photos) == leaves.wrong
        targets = read_soft_labels(result.output_dir / "soft_labels.csv", divided.photos, divided.split)
        for photo, target in zip(divided.split.parts["train"], targets, strict=True):
            expected = np.eye(5)[photo.label]
            if photo.image_id in leaves.wrong:
                expected = 0.75 * expected + 0.25 * leaves.probabilities[leaves.names.index(photo.image_id)]
            np.testing.assert_allclose(target, expected, atol=1e-6)

    def test_no_class_loses_more_than_its_share(self) -> None:
        labels = np.array([0] * 10 + [1] * 10)
        quality = np.linspace(0.5, 0.1, 20)
        nobody = np.zeros(20, np.int64)
        issues = LabelIssues(quality, quality, nobody, np.arange(20) < 15, np.zeros((5, 5), np.int64))

        assert rows_to_leave_out(labels, issues, 0.2) == [8, 9, 13, 14]
        assert rows_to_leave_out(labels, issues, 0) == []
        assert rows_to_leave_out(labels, issues, 1) == list(range(15))

    def test_soft_targets_are_probabilities(self) -> None:
        rng = np.random.default_rng(0)
        labels, answers = rng.integers(0, 5, 20), rng.dirichlet(np.ones(5), 20)
        suspicious = labels == 1

        targets = soft_targets(labels, answers, suspicious, 1.0)

        np.testing.assert_allclose(targets.sum(axis=1), 1)
        assert np.array_equal(targets[~suspicious], np.eye(5)[labels[~suspicious]])
        np.testing.assert_allclose(targets[suspicious], answers[suspicious])


class TestSettings:
    @pytest.mark.parametrize(
        "find_by", ["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
    )
    def test_every_way_to_find_finds_what_is_clear(self, find_by: str, leaves: Leaves) -> None:
        result = leaves.audit("audit.near_duplicates=false", f"audit.find_by={find_by}")

        assert {row["image_id"] for row in rows_of(result.output_dir / "exclude.csv")} == leaves.wrong

    @pytest.mark.parametrize("rank_by", ["self_confidence", "normalized_margin", "confidence_weighted_entropy"])
    def test_every_ranking_is_between_nought_and_one(self, rank_by: str, leaves: Leaves) -> None:
        result = leaves.audit("audit.near_duplicates=false", f"audit.rank_by={rank_by}")

        quality = [float(row["quality"]) for row in rows_of(result.output_dir / "audit.csv")]
        assert quality == sorted(quality)
        assert 0 <= quality[0] < quality[-1] <= 1

    def test_second_audit_has_a_folder_of_its_own(self, leaves: Leaves) -> None:
        first, second = (leaves.audit("audit.near_duplicates=false").output_dir for _ in range(2))

        assert [first.name, second.name] == ["version_0", "version_1"]


class TestGallery:
    def page(self, result: AuditResult) -> str:
        return result.gallery.read_text(encoding="utf-8")

    def test_shows_each_suspicious_photo_and_needs_no_network(self, leaves: Leaves) -> None:
        page = self.page(leaves.audit("audit.near_duplicates=false"))

        sources, images = _outside_and_images(page)
        assert sources == []
        assert images == leaves.wrong
        assert page.count("<fieldset") == 5
        assert "<!--" not in page

    def test_shows_only_the_worst(self, leaves: Leaves) -> None:
        page = self.page(leaves.audit("audit.near_duplicates=false", "audit.max_shown=2"))

        assert page.count("<fieldset") == 2
        assert "The 2 most suspicious are shown" in page

    def test_numbers_of_the_matrix_lead_to_groups(self, leaves: Leaves) -> None:
        page = self.page(leaves.audit("audit.near_duplicates=false"))

        for row in WRONG:
            anchor = f"kind-{leaves.labels[row]}-{(leaves.labels[row] - 1) % 5}"
            assert f'href="#{anchor}"' in page
            assert f'id="{anchor}"' in page

    def test_shows_one_picture_under_two_labels(self, leaves: Leaves) -> None:
        first, second = leaves.names[0], leaves.names[10]
        shutil.copy(leaves.data_dir / "train_images" / first, leaves.data_dir / "train_images" / second)
        leaves.labels[10] = (leaves.labels[0] + 1) % 5
        leaves.write_table(leaves.labels)
        leaves.answer(slice(None))

        result = leaves.audit()

        assert result.label_conflicts is not None
        [conflict] = [found for found in result.label_conflicts if first in found.image_ids]
        assert set(conflict.image_ids) == {first, second}
        assert conflict.exact
        assert "One picture, two labels" in self.page(result)
        flagged = {
            row["image_id"] for row in rows_of(result.output_dir / "audit.csv") if "same_picture" in row["flags"]
        }
        assert flagged >= {first, second}

    def test_recognises_a_picture_that_was_saved_again(self, leaves: Leaves) -> None:
        images = leaves.data_dir / "train_images"
        Image.open(images / leaves.names[0]).resize((90, 90)).save(images / leaves.names[10], quality=80)
        leaves.labels[10] = (leaves.labels[0] + 1) % 5
        leaves.write_table(leaves.labels)
        leaves.answer(slice(None))

        result = leaves.audit()

        assert result.label_conflicts is not None
        pairs = {frozenset(found.image_ids): found.exact for found in result.label_conflicts}
        assert pairs[frozenset({leaves.names[0], leaves.names[10]})] is False
        assert "the same picture, different labels" in self.page(result)

    def test_name_of_a_photo_is_text_and_no_markup(self, leaves: Leaves) -> None:
        images, old = leaves.data_dir / "train_images", leaves.names[WRONG[0]]
        leaves.names[WRONG[0]] = "a&b' onload='x.jpg"
        (images / old).rename(images / leaves.names[WRONG[0]])
        leaves.write_table(leaves.labels)
        leaves.answer(slice(None))

        page = self.page(leaves.audit("audit.near_duplicates=false"))

        assert "a&amp;b&#x27; onload=&#x27;x.jpg" in page
        assert "a&b'" not in page


class TestAnswers:
    def refusal(self, leaves: Leaves, *overrides: str) -> str:
        with pytest.raises(DataError) as caught:
            leaves.audit("audit.near_duplicates=false", *overrides)
        return str(caught.value)

    def test_photos_of_the_test_part_need_none(self, leaves: Leaves) -> None:
        testing = {photo.image_id for photo in divide_photos(leaves.config()).split.parts["test"]}
        keep = [row for row, name in enumerate(leaves.names) if name not in testing]
        write_predictions(
            leaves.oof, [leaves.names[row] for row in keep], leaves.labels[keep], leaves.probabilities[keep]
        )

        result = leaves.audit("audit.near_duplicates=false")

        assert result.not_audited == len(testing) > 0
        assert result.audited + result.not_audited == 60
        assert f"{len(testing)} photos of the test part were not audited" in result.gallery.read_text(encoding="utf-8")

    def test_other_photos_without_one_are_refused(self, leaves: Leaves) -> None:
        leaves.answer(slice(0, 30))

        text = self.refusal(leaves)

        assert "no answer about" in text
        assert "data.split.test_size" in text

    def test_answers_about_other_photos_are_refused(self, leaves: Leaves) -> None:
        leaves.names[0] = "stranger.jpg"
        leaves.answer(slice(None))

        assert "1 of its 60 photos are not in the table of paths.data_dir: stranger.jpg" in self.refusal(leaves)

    def test_labels_that_have_changed_since_are_refused(self, leaves: Leaves) -> None:
        leaves.labels[3] = (leaves.labels[3] + 2) % 5
        leaves.write_table(leaves.labels)

        text = self.refusal(leaves)

        assert "1 of its 60 photos had another label when its models learned" in text
        assert leaves.names[3] in text

    def test_table_without_a_class_is_refused(self, leaves: Leaves) -> None:
        keep = np.flatnonzero(leaves.labels != 2).tolist()
        write_predictions(
            leaves.oof, [leaves.names[row] for row in keep], leaves.labels[keep], leaves.probabilities[keep]
        )

        assert "no photo of Cassava Green Mottle" in self.refusal(leaves)

    @pytest.mark.parametrize(
        ("text", "seen"),
        [
            ("image_id,label,prob_0,prob_1,prob_2,prob_3,prob_4\n", "no row below its header"),
            (
                "image_id,label\na.jpg,1\n",
                "no table of probabilities (no column 'prob_0'); expected the oof.csv of `cassava crossval`",
            ),
        ],
    )
    def test_other_tables_are_refused(self, text: str, seen: str, leaves: Leaves) -> None:
        leaves.oof.write_text(text, encoding="utf-8")

        assert seen in self.refusal(leaves)

    def test_missing_table_is_refused(self, leaves: Leaves) -> None:
        leaves.oof.unlink()

        assert "expected the oof.csv of `cassava crossval`" in self.refusal(leaves)


class TestCrossvalFolder:
    @pytest.fixture
    def folder(self, leaves: Leaves, tmp_path: Path) -> Path:
        """What a finished cross-validation leaves, as far as an audit reads it."""
        config = leaves.config()
        divided = divide_photos(config)
        parts = divided.split.parts
        folder = tmp_path / "outputs" / "crossval" / "version_3"
        (folder / "fold_0").mkdir(parents=True)
        (folder / "fold_0" / "metrics.json").write_text(json.dumps({"data_fingerprint": divided.fingerprint}))
        lines = [f"{photo.image_id},{photo.label},{part}\n" for part, members in parts.items() for photo in members]
        (folder / "fold_0" / "split.csv").write_text("image_id,label,part\n" + "".join(lines))
        testing = {photo.image_id for photo in parts["test"]}
        keep = [row for row, name in enumerate(leaves.names) if name not in testing]
        write_predictions(
            folder / "oof.csv", [leaves.names[row] for row in keep], leaves.labels[keep], leaves.probabilities[keep]
        )
        (folder.parent / "version_2").mkdir()
        (folder.parent / "version_4").mkdir()  # not finished
        return folder

    def test_newest_finished_one_is_taken(self, folder: Path, leaves: Leaves) -> None:
        result = leaves.audit("audit.oof_csv=null", "audit.near_duplicates=false", "data.split.seed=7")

        assert result.oof_csv == folder / "oof.csv"
        assert result.not_audited == 9

    def test_photos_that_have_changed_since_are_refused(self, folder: Path, leaves: Leaves) -> None:
        name = leaves.names[0]
        shutil.copy(leaves.data_dir / "train_images" / leaves.names[1], leaves.data_dir / "train_images" / name)

        with pytest.raises(DataError, match="their fingerprint is"):
            leaves.audit("audit.oof_csv=null")

    def test_cross_validation_leaves_what_an_audit_reads(self, leaves: Leaves) -> None:
        config = leaves.config("audit.oof_csv=null", "data.split.folds=2", "data.split.test_size=0.2", "train.epochs=1")
        crossed = crossval(config)

        result = audit(config)

        assert result.oof_csv.parent == crossed.crossval_dir
        assert (result.audited, result.not_audited) == (48, 12)
        assert result.out_of_fold_accuracy == pytest.approx(crossed.out_of_fold.accuracy)

    def test_none_is_an_error_that_says_what_to_type(self, leaves: Leaves) -> None:
        with pytest.raises(ConfigError, match=r"run `cassava crossval`, or type audit\.oof_csv=FOLDER/oof\.csv"):
            leaves.audit("audit.oof_csv=null")


def test_rankings_are_those_of_the_given_label_s_probability() -> None:
    rng = np.random.default_rng(3)
    answers = rng.dirichlet(np.ones(5), 300)
    labels = np.array([rng.choice(5, p=row) for row in answers], np.int64)

    issues = find_label_issues(labels, answers, "both", "self_confidence")

    np.testing.assert_allclose(issues.self_confidence, answers[np.arange(300), labels])
    assert np.array_equal(issues.order, np.argsort(issues.self_confidence, kind="stable"))
    assert not (issues.suspicious & (issues.suggested == labels)).any()


def _outside_and_images(page: str) -> tuple[list[str], set[str]]:
    """Addresses that lead out of the page, and the names of the photos in it."""
    outside: list[str] = []
    images: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            outside.extend(
                value
                for name, value in attrs
                if name in {"src", "href"} and value and not value.startswith(("data:image/jpeg;base64,", "#"))
            )
            if tag == "img":
                images.add(values["alt"] or "")

    Reader().feed(page)
    return outside, images
