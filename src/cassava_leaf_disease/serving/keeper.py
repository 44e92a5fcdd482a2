"""The model in memory: loaded, checked and warmed before it answers; another one when its file changes."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import BusyError, CassavaError, CheckpointError
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.paths import ENSEMBLE_FILE, newest_best_checkpoint
from cassava_leaf_disease.serving.background import meanwhile
from cassava_leaf_disease.serving.metrics import Metrics

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0
_WARM_RUNS: Final = 2  # the first one allocates, the second one shows that all is there

_log = logging.getLogger(__name__)

Stamp = tuple[tuple[str, int, int, int], ...]  # of each file: path, modification in ns, bytes, inode


@dataclass(frozen=True)
class LoadedModel:
    """A model that has answered once; `wide` is the same with a thread on each processor, where that is of use."""

    found: FoundModel
    stamp: Stamp
    predictor: AnyPredictor
    wide: AnyPredictor | None = None


class ModelKeeper:
    """Holds the model that answers. Another one takes its place whole, when it has been loaded and has answered."""

    def __init__(self, config: AppConfig, processors: int, metrics: Metrics) -> None:
        self.metrics = metrics
        self._config = config
        self._processors = processors
        self._refused: Stamp | None = None
        self.current: LoadedModel | None = None
        self.failure: str | None = None

    def require(self) -> LoadedModel:
        """The model that answers now.

        Raises:
            BusyError: None is loaded yet.
        """
        if self.current is None:
            raise BusyError("no model is loaded yet; expected /ready to say so first; try again", retry_after_s=5)
        return self.current

    def load(self) -> None:
        """Loads the model that the settings lead to; for the first one.

        Raises:
            CassavaError: There is none, or it is damaged.
        """
        self._take(find_model(self._config))

    def refresh(self) -> None:
        """Takes another model if the file is another one than the one in memory; a broken one is told and left."""
        if self.current is None:
            return
        found = self._newest(self.current.found)
        stamp = stamp_of(found)
        if not stamp or stamp in (self.current.stamp, self._refused):
            return
        try:
            self._take(found)
        except CassavaError as error:
            self._refused = stamp
            self.metrics.reload("failed")
            old = self.current.predictor.identity.version
            _log.error("%s was not taken, %s still answers: %s", found.path, old, error)
        else:
            self.metrics.reload("ok")

    @contextlib.asynccontextmanager
    async def kept(self, reload_s: float) -> AsyncIterator[None]:
        """Meanwhile the model is loaded if it is not yet, and looked after every `reload_s` seconds (0: not)."""
        async with meanwhile(self._keep(reload_s)):
            yield

    async def _keep(self, reload_s: float) -> None:
        pause_s = FIRST_RETRY_S
        while self.current is None:
            try:
                await asyncio.to_thread(self.load)
            except CassavaError as error:
                self.failure = str(error)
                _log.error("not ready, next try in %g s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
        while reload_s > 0:
            await asyncio.sleep(reload_s)
            await asyncio.to_thread(self.refresh)

    def _newest(self, found: FoundModel) -> FoundModel:
        """Where the same search would lead now: only another run can come before the one that answers."""
        if found.source != "outputs":
            return found
        newest = newest_best_checkpoint(self._config.paths.outputs_dir)
        return found if newest is None else FoundModel(newest, "outputs")

    def _take(self, found: FoundModel) -> None:
        started = time.perf_counter()
        stamp = stamp_of(found)
        predictor = self._load(found, 1)
        wide = self._load(found, self._processors) if self._processors > 1 and _shares_no_threads(found) else None
        if stamp_of(found) != stamp:
            raise CheckpointError(f"{found.path}: changed while it was read; expected a file that is moved into place")
        self.current, self.failure = LoadedModel(found, stamp, predictor, wide), None
        self.metrics.model(predictor.identity)
        _log.info(
            "%s %s answers, loaded and warmed in %.1f s from %s",
            *(predictor.identity.name, predictor.identity.version, time.perf_counter() - started, found.path),
        )

    def _load(self, found: FoundModel, threads: int) -> AnyPredictor:
        infer = self._config.infer
        limits = DecodeLimits(infer.max_image_bytes, infer.max_image_pixels)
        predictor = load_found(found, infer.device, limits, infer.tta, threads=threads)
        warm_up(predictor)
        return predictor


def warm_up(predictor: AnyPredictor) -> None:
    """Lets a model answer about a picture of nothing.

    Raises:
        CheckpointError: It does not, or not with probabilities.
    """
    grey = np.full((300, 400, 3), 127, np.uint8)
    for _ in range(_WARM_RUNS):
        confidence = predictor.predict_image(grey).confidence
    if not math.isfinite(confidence):
        raise CheckpointError(f"{predictor.identity.path}: answers with {confidence}; expected a probability")


def stamp_of(found: FoundModel) -> Stamp:
    """What tells a changed model file; () while one of its files is not there."""
    stamps = []
    for path in found.members or (found.path,):
        file = path / ENSEMBLE_FILE if path.is_dir() else path
        try:
            status = file.stat()
        except OSError:
            return ()
        stamps.append((str(file), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(stamps)


def _shares_no_threads(found: FoundModel) -> bool:
    """ONNX Runtime has threads for each session, PyTorch one number of them for the whole process."""
    return all(Path(path).suffix.lower() == ".onnx" for path in found.members or (found.path,))
