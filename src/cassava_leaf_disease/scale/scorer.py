"""A few photos in, their rows out: read, decode, ask the model; what is wrong with a photo becomes its row."""

from collections.abc import Sequence
from dataclasses import dataclass

from cassava_leaf_disease.errors import CassavaError, CorruptImageError, DataError, ImageError, StorageError, first_line
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.inference.predictor import AnyPredictor, Prepared
from cassava_leaf_disease.scale.inputs import PhotoReader
from cassava_leaf_disease.scale.rows import PhotoFacts, Row
from cassava_leaf_disease.storage.s3_errors import UnreachableError

Files = Sequence[bytes | CassavaError]


@dataclass(frozen=True)
class Chunk:
    """Photos that the network sees at once; `first_row` is the place of the first in the list."""

    first_row: int
    paths: Sequence[str]


class Scorer:
    """What the threads of an engine share; all of them may ask at the same time."""

    def __init__(self, predictor: AnyPredictor, reader: PhotoReader, limits: DecodeLimits) -> None:
        self._predictor = predictor
        self._reader = reader
        self._limits = limits

    def read(self, chunk: Chunk) -> Files:
        """The content of each photo, or why there is none.

        Raises:
            UnreachableError: S3 cannot be reached: that says nothing about the photos.
        """
        return [self._read(path) for path in chunk.paths]

    def answer(self, chunk: Chunk, files: Files) -> list[Row]:
        """A row for each photo, in their order.

        Raises:
            CheckpointError: The model does not answer.
        """
        facts = [PhotoFacts() if isinstance(file, CassavaError) else PhotoFacts(len(file)) for file in files]
        photos: list[Prepared | CassavaError] = []
        for place, (path, file) in enumerate(zip(chunk.paths, files, strict=True)):
            if isinstance(file, CassavaError):
                photos.append(file)
            else:
                facts[place], photo = self._prepare(file, path)
                photos.append(photo)
        good = [photo for photo in photos if isinstance(photo, Prepared)]
        answers = iter(self._predictor.predict_all(good, top_k=1) if good else [])
        return [
            Row.answered(row, path, fact, next(answers))
            if isinstance(photo, Prepared)
            else Row.failed(row, path, fact, photo)
            for row, (path, photo, fact) in enumerate(zip(chunk.paths, photos, facts, strict=True), chunk.first_row)
        ]

    def _read(self, path: str) -> bytes | CassavaError:
        try:
            return self._reader.read(path)
        except UnreachableError:
            raise
        except (ImageError, DataError, StorageError) as error:
            return error

    def _prepare(self, data: bytes, path: str) -> tuple[PhotoFacts, Prepared | CassavaError]:
        facts = PhotoFacts(len(data))
        try:
            image = decode_image(data, self._limits, name=path)
            facts = PhotoFacts(len(data), image.shape[1], image.shape[0])
            return facts, self._predictor.prepare(image)
        except ImageError as error:
            return facts, error
        except Exception as error:  # noqa: BLE001  one file among a million must not stop the others, nor every resume
            why = f"{type(error).__name__}: {first_line(error)}"
            return facts, CorruptImageError(f"{path}: cannot be decoded ({why}); expected a photo; send it again")
