"""The store of feedback: what has been acknowledged stays until it is to be forgotten, and then it is gone.

A row is written in one transaction with its photo. Photos that may belong to no row stand in the table `doomed`
before they are written or left behind, so that a process killed at any moment leaves none for ever: the next
`open_store` or `forget` sweeps them away.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from cassava_leaf_disease.domain import CLASS_NAMES, NUM_CLASSES, Prediction
from cassava_leaf_disease.errors import CassavaError, ConfigError
from cassava_leaf_disease.feedback.photos import Photos, open_photos, photo_name
from cassava_leaf_disease.imaging.bare import without_metadata
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.storage.database import Database, Execute, open_database, sqlite_path

logger = logging.getLogger(__name__)

Source = Literal["page", "bot", "api"]
ClassId = Annotated[int, Field(ge=0, lt=NUM_CLASSES)]

MAX_REMARK: Final = 500
RECEIPT: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")  # too many to guess one

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS feedback (receipt TEXT PRIMARY KEY, contributor TEXT, source TEXT NOT NULL, "
    "photo TEXT NOT NULL, answer TEXT NOT NULL, correct TEXT, remark TEXT, given_at TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS feedback_contributor ON feedback (contributor)",
    "CREATE INDEX IF NOT EXISTS feedback_photo ON feedback (photo)",
    "CREATE TABLE IF NOT EXISTS forgotten (receipt TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS doomed (photo TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
)


class Feedback(BaseModel):
    """What one person says of the answer about one photo, which they agree to give.

    `contributor` is the person as the door knows them; only a keyed hash of it is kept, None cannot be asked for
    later but by the receipt. `correct` is "right", the right class, or None where they do not know; `remark` is what
    they say in their own words. Of the answer the photo's file name is not kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contributor: str | None = Field(default=None, min_length=1, max_length=200)
    source: Source
    answer: Prediction
    correct: Literal["right"] | ClassId | None = None
    remark: str | None = Field(default=None, max_length=MAX_REMARK)
    consent: Literal[True]
    given_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @field_validator("answer")
    @classmethod
    def _without_names(cls, answer: Prediction) -> Prediction:
        named = set(answer.probabilities) == set(CLASS_NAMES) and 0 <= answer.predicted_class_id < NUM_CLASSES
        if not named or answer.class_name != CLASS_NAMES[answer.predicted_class_id]:
            raise ValueError("its classes are not ours")
        kept = answer.model_dump(include={*Prediction.model_fields} - {"image", "explanation"})
        return Prediction.model_validate(kept)

    @field_validator("remark")
    @classmethod
    def _in_one_line(cls, remark: str | None) -> str | None:
        return " ".join(remark.split()) or None if remark is not None else None


@dataclass(frozen=True)
class StoredFeedback:
    """What the store holds of one feedback; `photo` is the name of its photo there, `contributor` a pseudonym."""

    contributor: str | None
    source: Source
    photo: str
    answer: Prediction
    correct: Literal["right"] | int | None
    remark: str | None
    given_at: datetime

    @property
    def label(self) -> int | None:
        """The class that the person says it is; none where they say that a refusal was right."""
        if self.correct != "right":
            return self.correct
        return self.answer.predicted_class_id if self.answer.verdict in {"diagnosis", "uncertain"} else None


def open_store(url: str, photos: str | None = None, limits: DecodeLimits | None = None) -> "FeedbackStore":
    """The store in a database (`sqlite:///FILE`, `postgresql://…`), its photos in a folder or at `s3://bucket/prefix`.

    Without `photos` they lie in the folder `photos` beside SQLite's file.

    Raises:
        ConfigError: An address is wrong, or PostgreSQL was named without a place for photos.
        CassavaError: Something that they need is missing, or cannot be reached.
    """
    file = sqlite_path(url)
    if photos is None and file is None:
        raise ConfigError(
            "CASSAVA_FEEDBACK_URL names PostgreSQL, which holds no photos; set CASSAVA_FEEDBACK_PHOTOS to a folder or "
            "s3://bucket/prefix"
        )
    kept = open_photos(str(file.parent / "photos") if photos is None and file is not None else str(photos))
    return FeedbackStore(open_database(url), kept, limits)


class FeedbackStore:
    """Rows in a database and photos beside it; any thread may call, several processes may share both."""

    def __init__(self, database: Database, photos: Photos, limits: DecodeLimits | None = None) -> None:
        self._database = database
        self._photos = photos
        self._limits = limits
        with database.transaction() as execute:
            for statement in _TABLES:
                execute(statement)
            fresh = secrets.token_hex(32)
            execute("INSERT INTO secret VALUES ('salt', ?) ON CONFLICT DO NOTHING", (fresh,))
            [(salt,)] = execute("SELECT content FROM secret WHERE name = 'salt'")
        self._salt = bytes.fromhex(salt)
        try:
            self.sweep()
        except CassavaError as error:
            logger.warning("photos that are to be deleted are still there, the next start tries again: %s", error)

    def add(self, feedback: Feedback, photo: bytes, receipt: str | None = None) -> str:
        """Keeps a feedback and its photo without metadata; on the disk when it returns the receipt.

        The receipt is drawn where none is given. One that is known already changes nothing, nor does one whose
        feedback has been forgotten: a sender may repeat itself.

        Raises:
            ImageError: The photo cannot be used.
            ConfigError: A receipt that could be guessed.
            CassavaError: It could not be kept.
        """
        receipt = receipt or secrets.token_urlsafe(24)
        if not RECEIPT.fullmatch(receipt):
            raise ConfigError(
                f"a receipt of {len(receipt)} characters; expected 16 to 128 of A-Z a-z 0-9 _ - at random"
            )
        bare = without_metadata(photo, self._limits, name="photo")
        name, key = photo_name(bare.data, bare.suffix), _hash(receipt)
        while True:
            with self._database.transaction() as execute:
                if _is_known(execute, key):
                    return receipt
                execute("INSERT INTO doomed VALUES (?) ON CONFLICT DO NOTHING", (name,))
            with self._database.transaction() as execute:
                if _is_known(execute, key):
                    return receipt
                if not execute("SELECT 1 FROM doomed WHERE photo = ?", (name,)):
                    continue  # swept in between: another sweep would not find the photo of a process killed here
                self._photos.put(name, bare.data)
                execute("DELETE FROM doomed WHERE photo = ?", (name,))
                execute("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (key, *self._row(feedback, name)))
                return receipt

    def forget(self, *, contributor: str | None = None, receipt: str | None = None) -> int:
        """Deletes what a contributor gave, or what a receipt is for, and says how many rows that were.

        Photos that no other row holds are deleted when it returns; 0 where there was nothing (any more).

        Raises:
            CassavaError: Something could not be deleted; the rows may be gone already, call it again for the photos.
        """
        if (contributor is None) == (receipt is None):
            raise ConfigError("expected a contributor or a receipt, one of them")
        column, value = (
            ("receipt", _hash(receipt)) if receipt is not None else ("contributor", self.pseudonym(contributor))
        )
        with self._database.transaction() as execute:
            rows = execute(f"SELECT receipt, photo FROM feedback WHERE {column} = ?", (value,))  # noqa: S608
            for key, name in rows:
                execute("INSERT INTO forgotten VALUES (?) ON CONFLICT DO NOTHING", (key,))
                execute("INSERT INTO doomed VALUES (?) ON CONFLICT DO NOTHING", (name,))
                execute("DELETE FROM feedback WHERE receipt = ?", (key,))
        self.sweep()
        return len(rows)

    def all(self) -> Iterator[StoredFeedback]:
        """Everything that is there now, the oldest first."""
        with self._database.transaction() as execute:
            rows = execute(
                "SELECT contributor, source, photo, answer, correct, remark, given_at FROM feedback "
                "ORDER BY given_at, receipt"
            )
        for contributor, source, photo, answer, correct, remark, given_at in rows:
            yield StoredFeedback(
                contributor=contributor,
                source=source,
                photo=photo,
                answer=Prediction.model_validate_json(answer),
                correct=int(correct) if correct is not None and correct.isdecimal() else correct,
                remark=remark,
                given_at=datetime.fromisoformat(given_at),
            )

    def count(self) -> int:
        """How many feedbacks are there."""
        with self._database.transaction() as execute:
            [(count,)] = execute("SELECT COUNT(*) FROM feedback")
        return int(count)

    def photo(self, stored: StoredFeedback) -> bytes:
        """The photo of a feedback, a JPEG or PNG file.

        Raises:
            CassavaError: It is not there (any more), or damaged.
        """
        return self._photos.get(stored.photo)

    def sweep(self) -> None:
        """Deletes photos that belong to no row.

        Raises:
            CassavaError: One of them could not be deleted.
        """
        with self._database.transaction() as execute:
            names = [name for (name,) in execute("SELECT photo FROM doomed")]
        for name in names:
            with self._database.transaction() as execute:
                if not execute("SELECT 1 FROM feedback WHERE photo = ?", (name,)):
                    self._photos.delete(name)
                execute("DELETE FROM doomed WHERE photo = ?", (name,))

    def pseudonym(self, contributor: str | None) -> str | None:
        """What stands for a contributor: a hash with a secret of this store."""
        if contributor is None:
            return None
        return hmac.new(self._salt, contributor.encode(), hashlib.sha256).hexdigest()

    def close(self) -> None:
        """Ends the connection to the database."""
        self._database.close()

    def _row(self, feedback: Feedback, photo: str) -> tuple[str | None, ...]:
        return (
            self.pseudonym(feedback.contributor),
            feedback.source,
            photo,
            feedback.answer.model_dump_json(),
            None if feedback.correct is None else str(feedback.correct),
            feedback.remark,
            feedback.given_at.astimezone(UTC).isoformat(timespec="microseconds"),
        )


def _is_known(execute: Execute, key: str) -> bool:
    return bool(
        execute("SELECT 1 FROM feedback WHERE receipt = ?", (key,))
        or execute("SELECT 1 FROM forgotten WHERE receipt = ?", (key,))
    )


def _hash(receipt: str) -> str:
    """Receipts let their holders delete: who reads the table learns none."""
    return hashlib.sha256(receipt.encode()).hexdigest()
