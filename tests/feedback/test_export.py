"""What people said comes out as a data set: for an expert, for an audit, for training."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.extra import read_extra
from cassava_leaf_disease.data.table import read_kaggle
from cassava_leaf_disease.domain import CLASS_NAMES, Prediction
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.evaluation.audit.run import audit
from cassava_leaf_disease.feedback.export import FeedbackExport, export_feedback, image_id_of
from cassava_leaf_disease.feedback.store import Feedback, FeedbackStore

Say = Callable[..., Feedback]
Photo = Callable[..., bytes]
Answer = Callable[..., Prediction]
Export = Callable[..., FeedbackExport]


@pytest.fixture
def export(small_config: Callable[..., AppConfig], place: Path) -> Export:
    return lambda *words: export_feedback(small_config(f"feedback.url=sqlite:///{place}", *words))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def filled(store: FeedbackStore, said: Say, photo: Photo, answer: Answer) -> FeedbackStore:
    """Right (3), wrong (it is 1), surely wrong (it is 0), unknown, and two who contradict each other."""
    store.add(said("right", contributor="ann"), photo(1))
    store.add(said(1, contributor="bob", remark="=HYPERLINK(1)"), photo(2))
    store.add(said(0, answer=answer(4, 0.99)), photo(3))
    store.add(said(None, remark="never seen before"), photo(4))
    store.add(said(1), photo(5))
    store.add(said(2), photo(5))
    return store


def test_labelled_photos_are_a_data_set(filled: FeedbackStore, export: Export) -> None:
    result = export()

    photos = read_kaggle(result.output_dir)
    assert sorted(photo.label for photo in photos) == [0, 1, 3]
    assert {name: n for name, n in result.labelled.items() if n} == {CLASS_NAMES[n]: 1 for n in (0, 1, 3)}
    assert (result.feedbacks, result.photos, result.corrected, result.unlabelled, result.conflicting) == (6, 5, 2, 1, 1)
    assert len(list((result.output_dir / "unlabelled_images").iterdir())) == 2


@pytest.mark.parametrize("verdict", ["not_cassava", "poor_photo"])
def test_a_refusal_that_was_right_is_no_label(  # noqa: PLR0917  fixtures
    store: FeedbackStore, said: Say, photo: Photo, answer: Answer, export: Export, verdict: str
) -> None:
    store.add(said("right", answer=answer(4, 0.99).model_copy(update={"verdict": verdict})), photo(1))
    result = export()

    assert (sum(result.labelled.values()), result.unlabelled) == (0, 1)


def test_extra_table_trains_with_the_labels(filled: FeedbackStore, export: Export) -> None:
    result = export()

    extra = read_extra(result.extra_csv, result.images_dir)
    assert [photo.label for photo in extra.photos] == [photo.label for photo in read_kaggle(result.output_dir)]
    assert np.array_equal(extra.probabilities, np.eye(5)[[photo.label for photo in extra.photos]])


def test_an_expert_sees_the_doubtful_first_and_no_person(filled: FeedbackStore, export: Export) -> None:
    result = export()

    review = table(result.output_dir / "review.csv")
    assert [row["status"] for row in review[:2]] == ["conflict", "unknown"] or [
        row["status"] for row in review[:2]
    ] == ["unknown", "conflict"]
    assert [row["label"] for row in review[2:]] == ["0", "1", "3"]
    provenance = table(result.output_dir / "provenance.csv")
    assert len(provenance) == 6
    assert {row["remark"] for row in provenance} == {"", "'=HYPERLINK(1)", "never seen before"}
    assert all(row["given_at"].endswith("+00:00") and row["source"] == "bot" for row in provenance)
    everything = "".join(path.read_text(encoding="utf-8") for path in result.output_dir.glob("*.csv"))
    assert not any(str(filled.pseudonym(name)) in everything for name in ("ann", "bob"))


def test_an_experts_labels_come_first(filled: FeedbackStore, export: Export, tmp_path: Path) -> None:
    review = table(export().output_dir / "review.csv")
    by_status = {row["status"]: row["image_id"] for row in review}
    right = next(row["image_id"] for row in review if row["label"] == "3")
    decided = tmp_path / "decided.csv"
    decided.write_text(f"image_id,label\n{by_status['conflict']},2\n{right},\n", encoding="utf-8")

    result = export(f"feedback.reviewed_csv={decided}")
    assert sorted(photo.label for photo in read_kaggle(result.output_dir)) == [0, 1, 2]
    assert result.rejected == 1
    assert {row["status"] for row in table(result.output_dir / "provenance.csv")} >= {"reviewed", "rejected"}

    only = export(f"feedback.reviewed_csv={decided}", "feedback.only_reviewed=true")
    assert [photo.label for photo in read_kaggle(only.output_dir)] == [2]


def test_decisions_of_an_audits_gallery_are_labels(filled: FeedbackStore, export: Export, tmp_path: Path) -> None:
    names = {row["label"]: row["image_id"] for row in table(export().output_dir / "review.csv")}
    rows = [f"{names['0']},0,relabel,4", f"{names['1']},1,keep,1", f"{names['3']},3,unsure,"]
    (tmp_path / "decisions.csv").write_text("\n".join(["image_id,label,decision,right_label", *rows, ""]), "utf-8")

    result = export("feedback.reviewed_csv=decisions.csv", "feedback.only_reviewed=true")
    assert sorted(photo.label for photo in read_kaggle(result.output_dir)) == [1, 4]


def test_wrong_labels_of_an_expert_are_told(filled: FeedbackStore, export: Export, tmp_path: Path) -> None:
    (tmp_path / "decided.csv").write_text("image_id,label\na.jpg,healthy\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2: healthy; expected class ids from 0 to 4"):
        export("feedback.reviewed_csv=decided.csv")


def test_what_was_forgotten_is_in_no_later_export(filled: FeedbackStore, export: Export, tmp_path: Path) -> None:
    words = f"feedback.output_dir={tmp_path / 'set'}"
    assert export(words).photos == 5
    filled.forget(contributor="ann")

    assert export(words).photos == 4
    assert len(list((tmp_path / "set").rglob("*.jpg"))) == 4


def test_a_folder_of_something_else_is_left_alone(filled: FeedbackStore, export: Export, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(ConfigError, match="holds something else"):
        export(f"feedback.output_dir={tmp_path / 'set'}")
    assert (tmp_path / "set" / "thesis.txt").is_file()


def test_missing_photos_are_left_out_and_told(
    filled: FeedbackStore, export: Export, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    next(place.parent.rglob("*.jpg")).unlink()

    result = export()
    assert (result.photos, result.missing) == (4, 1)
    assert "left out" in caplog.text


def test_an_empty_store_and_none_are_told(
    store: FeedbackStore, export: Export, small_config: Callable[..., AppConfig]
) -> None:
    with pytest.raises(DataError, match="no feedback to export"):
        export()
    with pytest.raises(ConfigError, match="CASSAVA_FEEDBACK_URL"):
        export_feedback(small_config())
    with pytest.raises(ConfigError, match=r"feedback\.only_reviewed=true: expected feedback\.reviewed_csv"):
        export("feedback.only_reviewed=true")


def test_two_words_and_the_environment(
    filled: FeedbackStore,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.move(place.parent / "photos", tmp_path / "elsewhere")
    monkeypatch.setenv("CASSAVA_FEEDBACK_URL", f"sqlite:///{place}")
    monkeypatch.setenv("CASSAVA_FEEDBACK_PHOTOS", str(tmp_path / "elsewhere"))

    assert cli.main(["feedback", "export"]) == 0
    assert '"photos": 5' in capsys.readouterr().out


@pytest.fixture(params=[5, 2])
def doubtful(request: pytest.FixtureRequest, store: FeedbackStore, said: Say, photo: Photo, answer: Answer) -> set[str]:
    """Sure answers of some classes that are right, and two that somebody contradicts: the photos of these."""
    for number in range(30):
        class_id = number % request.param
        store.add(said("right", answer=answer(class_id, 0.9)), photo(number, class_id))
    before = {kept.photo for kept in store.all()}
    for number in (100, 101):
        store.add(said(0, answer=answer(1, 0.95)), photo(number, 1))
    return {kept.photo for kept in store.all()} - before


def test_an_audit_ranks_the_feedback(
    doubtful: set[str], export: Export, small_config: Callable[..., AppConfig]
) -> None:
    """The answers that people got are of a model that has not learned their photos: as good as out-of-fold."""
    result = export()

    audited = audit(
        small_config(
            "data.synthetic.enabled=false",
            f"paths.data_dir={result.output_dir}",
            f"audit.oof_csv={result.output_dir / 'answers.csv'}",
            "audit.near_duplicates=false",
        )
    )

    ranked = table(audited.output_dir / "audit.csv")
    assert {row["image_id"] for row in ranked[:2]} == set(map(image_id_of, doubtful))
    assert audited.gallery.is_file()
