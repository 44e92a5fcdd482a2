"""Photos are known by their content: a digest of the bytes, remembered while the file is unchanged."""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.data.table import LabeledPhoto, name_some
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.storage.files import write_text

DIGEST_BYTES = 16
MEMO_NAME = "digests.json"

Memo = dict[str, tuple[int, int, str]]  # path -> size in bytes, modification time in ns, digest

_log = logging.getLogger(__name__)


def digest_bytes(data: bytes) -> str:
    """BLAKE2b of a file's content, 16 bytes as hex."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def photo_digests(photos: Sequence[LabeledPhoto], memo_dir: Path | None = None) -> tuple[str, ...]:
    """The digest of every photo's file, in the order of `photos`.

    With `memo_dir` the digests are remembered there by path, size and modification time, so that the
    next start reads no photo (21,000 stats instead of 2.5 GB).

    Raises:
        DataError: Photos that cannot be read, by name and count.
    """
    memo = {} if memo_dir is None else _read_memo(memo_dir)
    with ThreadPoolExecutor(available_cpus()) as pool:  # hashing and reading release the GIL
        found = list(pool.map(lambda photo: _digest(photo.path, memo), photos))
    unreadable = [
        f"{photo.image_id} ({entry})" for photo, entry in zip(photos, found, strict=True) if isinstance(entry, str)
    ]
    if unreadable:
        raise DataError(f"{len(unreadable)} of {len(photos)} photos cannot be read: {name_some(unreadable)}")
    entries = {str(photo.path): entry for photo, entry in zip(photos, found, strict=True) if not isinstance(entry, str)}
    if memo_dir is not None and any(memo.get(path) != entry for path, entry in entries.items()):
        _write_memo(memo_dir, entries)
    return tuple(entries[str(photo.path)][2] for photo in photos)


def data_fingerprint(photos: Sequence[LabeledPhoto], digests: Sequence[str] | None = None) -> str:
    """SHA-256 over names, labels and contents: the same files give the same text on every machine.

    `digests` are those of `photo_digests`, where they are known already.
    """
    known = photo_digests(photos) if digests is None else digests
    lines = sorted(f"{photo.image_id},{photo.label},{digest}\n" for photo, digest in zip(photos, known, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(path: Path, memo: Memo) -> tuple[int, int, str] | str:
    """Size, modification time and digest; or, as text, why the file cannot be read."""
    try:
        stat = path.stat()
        remembered = memo.get(str(path))
        if remembered is not None and remembered[:2] == (stat.st_size, stat.st_mtime_ns):
            return remembered
        return stat.st_size, stat.st_mtime_ns, digest_bytes(path.read_bytes())
    except OSError as error:
        return error.strerror or type(error).__name__


def _read_memo(memo_dir: Path) -> Memo:
    try:
        text = (memo_dir / MEMO_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s cannot be read (%s): all photos are hashed again", memo_dir / MEMO_NAME, error)
        return {}
    try:
        return {
            path: (int(size), int(mtime_ns), str(digest)) for path, (size, mtime_ns, digest) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError):
        _log.warning("%s is damaged: all photos are hashed again", memo_dir / MEMO_NAME)
        return {}


def _write_memo(memo_dir: Path, entries: Memo) -> None:
    """Adds to what is remembered; of two runs that write together one wins, which costs only time."""
    remembered = _read_memo(memo_dir) | entries
    try:
        write_text(memo_dir / MEMO_NAME, json.dumps(remembered, separators=(",", ":")))
    except OSError as error:
        raise DataError(
            f"{memo_dir} cannot be written ({error.strerror}); type paths.cache_dir=FOLDER or data.cache.enabled=false"
        ) from None
