"""What has been acknowledged stays until it is to be forgotten, and then nothing of it is left."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cassava_leaf_disease.domain import PlantPrediction, Prediction
from cassava_leaf_disease.errors import ConfigError, CorruptImageError, DataError, StorageError, UnsupportedImageError
from cassava_leaf_disease.feedback import store as store_module
from cassava_leaf_disease.feedback.photos import FolderPhotos
from cassava_leaf_disease.feedback.store import Feedback, FeedbackStore, open_store
from cassava_leaf_disease.imaging.decode import decode_image
from cassava_leaf_disease.storage.database import SqliteDatabase

Say = Callable[..., Feedback]
Photo = Callable[..., bytes]
RECEIPT = "a-receipt-that-the-page-drew"


def photos_of(place: Path) -> list[Path]:
    return [path for path in (place.parent / "photos").rglob("*") if path.is_file()]


def test_photo_and_correction_come_back(store: FeedbackStore, said: Say, photo: Photo) -> None:
    sent = photo(1)
    store.add(said(2, remark="spots\non all\tleaves "), sent)

    [kept] = store.all()
    assert kept.label == 2
    assert kept.remark == "spots on all leaves"
    assert kept.answer.predicted_class_id == 3
    assert np.array_equal(decode_image(store.photo(kept)), decode_image(sent))
    assert store.count() == 1


@pytest.mark.parametrize(("correct", "label"), [("right", 3), (0, 0), (None, None)])
def test_label_is_what_the_person_says(
    store: FeedbackStore, said: Say, photo: Photo, correct: object, label: int | None
) -> None:
    store.add(said(correct), photo(1))

    [kept] = store.all()
    assert kept.label == label


def test_neither_place_nor_name_nor_person_is_kept(store: FeedbackStore, said: Say, photo: Photo, place: Path) -> None:
    assert b"SomeCamera" in photo(1)
    store.add(said(contributor="telegram:42424242"), photo(1))

    [file] = photos_of(place)
    everything = file.read_bytes() + place.read_bytes()
    assert not any(word in everything for word in (b"SomeCamera", b"Exif", b"telegram:42424242", b"at_home"))
    assert [path.stat().st_mode & 0o077 for path in (place, place.parent / "photos")] == [0, 0]


def test_pseudonyms_are_of_one_store(place: Path, store: FeedbackStore, said: Say, photo: Photo) -> None:
    again, other = open_store(f"sqlite:///{place}"), open_store(f"sqlite:///{place.parent / 'other.db'}")

    assert store.pseudonym("somebody") == again.pseudonym("somebody")
    assert store.pseudonym("somebody") != other.pseudonym("somebody")
    again.close()
    other.close()


def test_the_same_receipt_twice_is_one_row(store: FeedbackStore, said: Say, photo: Photo, place: Path) -> None:
    first = store.add(said(1), photo(1), RECEIPT)
    second = store.add(said(2), photo(2), RECEIPT)

    assert first == second == RECEIPT
    assert [kept.label for kept in store.all()] == [1]
    assert len(photos_of(place)) == 1


def test_receipts_that_could_be_guessed_are_refused(store: FeedbackStore, said: Say, photo: Photo) -> None:
    with pytest.raises(ConfigError, match=r"receipt of 4 characters; expected 16 to 128"):
        store.add(said(), photo(1), "1234")


def test_what_is_no_photo_is_not_kept(store: FeedbackStore, said: Say, photo: Photo, place: Path) -> None:
    with pytest.raises(UnsupportedImageError):
        store.add(said(), b"<html>")
    with pytest.raises(CorruptImageError):
        store.add(said(), photo(1)[:500])

    assert store.count() == 0
    assert photos_of(place) == []


def test_nothing_is_kept_without_consent(said: Say) -> None:
    with pytest.raises(ValidationError, match="consent"):
        said(consent=False)


def test_answers_of_others_are_refused(said: Say, answer: Callable[..., Prediction]) -> None:
    strange = answer().model_copy(update={"class_name": "Wheat Rust"})
    with pytest.raises(ValidationError, match="classes are not ours"):
        said(answer=strange)


def test_of_a_plant_its_common_answer_alone_is_kept(said: Say, answer: Callable[..., Prediction]) -> None:
    plant = PlantPrediction(**answer().model_dump(), counted=(0,), left_out=(), more_leaves=0, photos=(answer(),))

    assert type(said(answer=plant).answer) is Prediction


def test_receipt_forgets_one_and_contributor_all(store: FeedbackStore, said: Say, photo: Photo, place: Path) -> None:
    receipt = store.add(said(contributor="ann"), photo(1))
    for seed in (2, 3):
        store.add(said(contributor="ann"), photo(seed))
    store.add(said(contributor="bob"), photo(4))

    assert store.forget(receipt=receipt) == 1
    assert store.count() == len(photos_of(place)) == 3
    assert store.forget(contributor="ann") == 2
    assert store.forget(contributor="ann") == store.forget(receipt=receipt) == store.forget(contributor="eve") == 0
    assert store.count() == len(photos_of(place)) == 1


def test_nothing_of_what_was_forgotten_stays_on_the_disk(
    store: FeedbackStore, said: Say, photo: Photo, place: Path
) -> None:
    receipt = store.add(said(remark="a-word-of-my-own"), photo(1))
    assert b"a-word-of-my-own" in place.read_bytes()
    store.forget(receipt=receipt)

    assert photos_of(place) == []
    assert b"a-word-of-my-own" not in b"".join(path.read_bytes() for path in place.parent.rglob("*") if path.is_file())


def test_a_photo_stays_while_somebody_else_gave_it_too(
    store: FeedbackStore, said: Say, photo: Photo, place: Path
) -> None:
    store.add(said(contributor="ann"), photo(1))
    store.add(said(contributor="bob"), photo(1))

    store.forget(contributor="ann")
    [kept] = store.all()
    assert store.photo(kept)
    store.forget(contributor="bob")
    assert photos_of(place) == []


def test_what_was_forgotten_does_not_come_back_with_a_late_request(
    store: FeedbackStore, said: Say, photo: Photo
) -> None:
    store.add(said(), photo(1), RECEIPT)
    store.forget(receipt=RECEIPT)

    assert store.add(said(), photo(1), RECEIPT) == RECEIPT
    assert store.count() == 0


def test_forget_needs_one_of_the_two(store: FeedbackStore) -> None:
    with pytest.raises(ConfigError, match="one of them"):
        store.forget()
    with pytest.raises(ConfigError, match="one of them"):
        store.forget(contributor="ann", receipt=RECEIPT)


def test_a_missing_or_damaged_photo_is_told(store: FeedbackStore, said: Say, photo: Photo, place: Path) -> None:
    store.add(said(), photo(1))
    [kept], [file] = list(store.all()), photos_of(place)
    file.write_bytes(photo(2))
    with pytest.raises(StorageError, match="damaged"):
        store.photo(kept)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        store.photo(kept)


class BreakingPhotos(FolderPhotos):
    """Breaks after it has written, or instead of deleting."""

    breaks_put = breaks_delete = False

    def put(self, name: str, data: bytes) -> None:
        super().put(name, data)
        if self.breaks_put:
            raise KeyboardInterrupt

    def delete(self, name: str) -> None:
        if self.breaks_delete:
            raise StorageError("the bucket is out of reach")
        super().delete(name)


@pytest.fixture
def breaking(place: Path) -> BreakingPhotos:
    return BreakingPhotos(place.parent / "photos")


def test_a_photo_that_got_no_row_is_swept_at_the_next_start(
    place: Path, breaking: BreakingPhotos, said: Say, photo: Photo
) -> None:
    store = FeedbackStore(SqliteDatabase(place), breaking)
    breaking.breaks_put = True
    with pytest.raises(KeyboardInterrupt):
        store.add(said(), photo(1))
    store.close()
    assert len(photos_of(place)) == 1

    store = open_store(f"sqlite:///{place}")
    assert photos_of(place) == []
    assert store.add(said(), photo(1))
    assert len(photos_of(place)) == store.count() == 1
    store.close()


def test_forgetting_is_finished_later_where_a_photo_could_not_be_deleted(
    place: Path, breaking: BreakingPhotos, said: Say, photo: Photo, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeedbackStore(SqliteDatabase(place), breaking)
    receipt = store.add(said(), photo(1))
    breaking.breaks_delete = True
    with pytest.raises(StorageError, match="out of reach"):
        store.forget(receipt=receipt)
    store.close()
    FeedbackStore(SqliteDatabase(place), breaking).close()
    assert "the next start tries again" in caplog.text
    assert len(photos_of(place)) == 1

    breaking.breaks_delete = False
    store = FeedbackStore(SqliteDatabase(place), breaking)
    assert store.forget(receipt=receipt) == 0
    assert photos_of(place) == []
    store.close()


def test_a_sweep_between_the_steps_of_an_addition_takes_nothing_away(
    place: Path, store: FeedbackStore, said: Say, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process starts, and sweeps, when the photo's name is noted and its row not yet written."""
    looks = iter([True, False])
    real = store_module._is_known

    def known(execute: Any, key: str) -> bool:
        answer = real(execute, key)
        if not next(looks, True):
            execute("DELETE FROM doomed")
        return answer

    monkeypatch.setattr(store_module, "_is_known", known)
    store.add(said(), photo(1))

    assert store.count() == len(photos_of(place)) == 1


def test_threads_and_stores_may_add_at_once(place: Path, store: FeedbackStore, said: Say, photo: Photo) -> None:
    other = open_store(f"sqlite:///{place}")
    photos = [photo(seed) for seed in range(4)]

    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda n: (store, other)[n % 2].add(said(), photos[n % 4]), range(24)))
        forgotten = list(pool.map(lambda r: (store, other)[len(r) % 2].forget(receipt=r), receipts[::2]))

    assert sum(forgotten) == 12
    assert store.count() == other.count() == 12
    assert len(photos_of(place)) == len({kept.photo for kept in store.all()})
    assert all(store.photo(kept) for kept in store.all())
    other.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on Windows")
def test_what_was_acknowledged_survives_a_kill(place: Path, said: Say, photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo(1))
    (tmp_path / "said.json").write_text(said(2).model_dump_json(), encoding="utf-8")
    script = """
        import os, signal
        from pathlib import Path
        from cassava_leaf_disease.feedback.store import Feedback, open_store
        store = open_store(os.environ["PLACE"])
        store.add(Feedback.model_validate_json(Path("said.json").read_text()), Path("photo.jpg").read_bytes())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "PLACE": f"sqlite:///{place}"},
        check=False,
    )

    assert ended.returncode == -signal.SIGKILL
    store = open_store(f"sqlite:///{place}")
    [kept] = store.all()
    assert kept.label == 2
    assert store.photo(kept)
    store.close()


def test_a_database_needs_a_place_for_its_photos() -> None:
    with pytest.raises(ConfigError, match="CASSAVA_FEEDBACK_PHOTOS"):
        open_store("postgresql://nobody@127.0.0.1/none")


def test_photos_may_lie_elsewhere(tmp_path: Path, said: Say, photo: Photo) -> None:
    store = open_store("sqlite:///rows.db", "photos of leaves")
    store.add(said(), photo(1))
    store.close()

    assert (tmp_path / "rows.db").is_file()
    assert len(list((tmp_path / "photos of leaves").rglob("*.jpg"))) == 1


def test_store_in_postgresql(postgres_url: str, tmp_path: Path, said: Say, photo: Photo) -> None:
    store = open_store(postgres_url, str(tmp_path / "photos"))
    other = open_store(postgres_url, str(tmp_path / "photos"))
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda n: (store, other)[n % 2].add(said(n % 5), photo(n % 3)), range(12)))
    assert store.add(said(1), photo(1), receipts[0]) == receipts[0]

    assert sorted(kept.label for kept in other.all() if kept.label is not None) == sorted(n % 5 for n in range(12))
    assert sum(store.forget(receipt=receipt) for receipt in [*receipts, *receipts]) == 12
    assert store.count() == 0
    assert list((tmp_path / "photos").rglob("*.jpg")) == []
    store.close()
    other.close()


@pytest.mark.usefixtures("no_aws")
@pytest.mark.parametrize("versions", [False, True])
def test_photos_in_s3(
    moto_s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, said: Say, photo: Photo, *, versions: bool
) -> None:
    url, client = moto_s3
    bucket = f"given-{versions}".lower()
    client.create_bucket(Bucket=bucket)
    if versions:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for name, value in {
        "S3_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    store = open_store("sqlite:///rows.db", f"s3://{bucket}/leaves/")
    receipt = store.add(said(contributor="ann"), photo(1))
    store.add(said(contributor="bob"), photo(1))

    [kept, _] = store.all()
    assert np.array_equal(decode_image(store.photo(kept)), decode_image(photo(1)))
    assert store.forget(receipt=receipt) == store.forget(contributor="bob") == 1
    assert client.list_object_versions(Bucket=bucket).get("Versions", []) == []
    with pytest.raises(StorageError, match="no such key"):
        store.photo(kept)
    store.close()
