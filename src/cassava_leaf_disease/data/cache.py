"""Decode once: photos at the size that training needs, as raw uint8 in a memory-mapped file.

There is one store (see `store.py`) for each size in `paths.cache_dir`. Photos are found by their content, so
a renamed or copied photo is not decoded again and a changed one is. One writer at a time, held by a lock
file; a second run waits and then finds everything. Readers need no lock. The folder may be deleted whenever
no run uses it.
"""

import itertools
import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.digests import digest_bytes, photo_digests
from cassava_leaf_disease.data.store import DamagedStoreError, Extent, PixelStore, StoreContents, StoreWriter
from cassava_leaf_disease.data.table import LabeledPhoto, name_some
from cassava_leaf_disease.errors import DataError, ImageError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.imaging.preprocess import resize_shorter_side
from cassava_leaf_disease.log import progress_bar

PIXELS_VERSION = 1  # raise it when decoding or resizing gives other pixels than before
COMMIT_EVERY = 64  # photos; what a killed run loses at most
RESERVE_BYTES = 64 * 2**20  # left free on the disk

_log = logging.getLogger(__name__)

_Image = npt.NDArray[np.uint8]
_Wanted = tuple[LabeledPhoto, str]  # a photo and the digest of its file


@dataclass
class CachedPhotos:
    """Decoded photos in a memory-mapped file: read-only views, no decoding and no copy.

    It pickles as names and offsets, whatever the number of photos; each process maps the file itself.
    """

    pixels_path: Path
    extents: tuple[Extent, ...]
    _pixels: _Image | None = field(default=None, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.extents)

    def image(self, index: int) -> _Image:
        """Photo `index`, (H, W, 3), read-only."""
        if self._pixels is None:
            end = max(extent.end for extent in self.extents)
            self._pixels = np.memmap(self.pixels_path, np.uint8, mode="r", shape=(end,)).view(np.ndarray)
        extent = self.extents[index]
        return self._pixels[extent.offset : extent.end].reshape(extent.height, extent.width, 3)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}


class PhotoCache:
    """The store of photos whose shorter side is `side_px` (with `enlarge=False`: at most)."""

    def __init__(self, cache_dir: Path, side_px: int, *, enlarge: bool) -> None:
        self._dir = cache_dir
        self._side_px = side_px
        self._enlarge = enlarge
        fit = "exact" if enlarge else "atmost"
        self._store = PixelStore(cache_dir, f"photos-v{PIXELS_VERSION}-{fit}-{side_px}px")

    def images(self, photos: Sequence[LabeledPhoto], limits: DecodeLimits | None = None) -> CachedPhotos:
        """All `photos`, in their order; those that the store lacks are decoded first.

        Raises:
            DataError: Photos that cannot be decoded (by name and count), a full disk, a folder that
                cannot be written.
        """
        wanted = list(zip(photos, photo_digests(photos, self._dir), strict=True))
        try:
            contents = self._load()
            if contents is None or _missing(wanted, contents):
                contents = self._fill(wanted, limits or DecodeLimits())
        except OSError as error:
            raise DataError(f"the photo cache in {self._dir} failed: {error.strerror or error}; {_MENDS}") from error
        return CachedPhotos(contents.pixels_path, tuple(contents.extents[digest] for _, digest in wanted))

    def _load(self) -> StoreContents | None:
        try:
            return self._store.load()
        except DamagedStoreError as error:
            _log.warning("the photo cache in %s is damaged (%s): it is built anew", self._dir, error)
            return None

    def _fill(self, wanted: Sequence[_Wanted], limits: DecodeLimits) -> StoreContents:
        with self._lock():
            contents = self._load() or self._store.create()
            missing = _missing(wanted, contents)  # another run may have decoded them while this one waited
            if missing:
                bad = self._decode(missing, contents, limits)
                contents = self._store.load() or contents
                if bad:
                    raise DataError(
                        f"{len(bad)} of {len(wanted)} photos cannot be used: {name_some(bad)}; "
                        "mend them or remove their rows from the table"
                    )
        return contents

    @contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self._dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._store.lock_path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("another run is filling the photo cache in %s: waiting for it", self._dir)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _decode(self, missing: Sequence[_Wanted], contents: StoreContents, limits: DecodeLimits) -> list[str]:
        """Decodes and stores; returns what is wrong with the photos that could not be."""

        def prepare(wanted: _Wanted) -> _Image | str:
            return self._prepare(wanted, limits)

        bad: list[str] = []
        done = 0
        workers = available_cpus()
        with (
            ThreadPoolExecutor(workers) as pool,  # Pillow releases the GIL while it decodes and resizes
            StoreWriter(self._store, contents) as writer,
            progress_bar(f"decoding photos ({self._side_px} px)", len(missing)) as advance,
        ):
            results = _ahead(pool, prepare, missing, window=COMMIT_EVERY + 2 * workers)
            for batch in _batched(zip(missing, results, strict=True), COMMIT_EVERY):
                good = [(digest, image) for (_, digest), image in batch if not isinstance(image, str)]
                bad.extend(error for _, error in batch if isinstance(error, str))
                self._check_space(good, len(missing) - done)
                writer.append(good)
                done += len(batch)
                advance(len(batch))
        return bad

    def _prepare(self, wanted: _Wanted, limits: DecodeLimits) -> _Image | str:
        photo, digest = wanted
        try:
            data = photo.path.read_bytes()
            if digest_bytes(data) != digest:
                return f"{photo.image_id}: changed while it was read; run again"
            return resize_shorter_side(
                decode_image(data, limits, name=photo.image_id), self._side_px, enlarge=self._enlarge
            )
        except ImageError as error:
            text = str(error)
            return text if text.startswith(photo.image_id) else f"{photo.image_id}: {text}"

    def _check_space(self, batch: Sequence[tuple[str, _Image]], remaining: int) -> None:
        """Judges by this batch how much the `remaining` photos need, itself included."""
        if not batch:
            return
        needed = int(sum(image.nbytes for _, image in batch) / len(batch) * remaining) + RESERVE_BYTES
        free = shutil.disk_usage(self._dir).free
        if free < needed:
            raise DataError(
                f"the photo cache needs {needed / 1e9:.1f} GB for {remaining} photos and {self._dir} has "
                f"{free / 1e9:.1f} GB free; {_MENDS}"
            )


_MENDS = "type paths.cache_dir=FOLDER on a larger disk, or data.cache.enabled=false to decode in every epoch"


def _missing(wanted: Sequence[_Wanted], contents: StoreContents) -> list[_Wanted]:
    """One photo for each content that the store lacks."""
    lacking = {digest: (photo, digest) for photo, digest in reversed(wanted) if digest not in contents.extents}
    return list(reversed(lacking.values()))


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[_Wanted], _Image | str],
    items: Sequence[_Wanted],
    window: int,
) -> Iterator[_Image | str]:
    """The results in order; at most `window` of them are under way or waiting, which bounds the memory."""
    futures: deque[Future[_Image | str]] = deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) >= window:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def _batched(
    results: Iterator[tuple[_Wanted, _Image | str]], size: int
) -> Iterator[list[tuple[_Wanted, _Image | str]]]:
    while batch := list(itertools.islice(results, size)):
        yield batch
