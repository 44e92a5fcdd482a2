"""The model that phones download: which file it is, all that a browser needs to know to run it, and its bytes."""

import hashlib
import json
import logging
import threading
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import BusyError, CheckpointError, ConfigError
from cassava_leaf_disease.inference.aggregate import pooling_of
from cassava_leaf_disease.inference.discover import FoundModel, packaged_model
from cassava_leaf_disease.inference.engines.onnx_engine import INPUT_NAME, OnnxEngine
from cassava_leaf_disease.inference.gate import open_gate
from cassava_leaf_disease.inference.model_files import is_exported
from cassava_leaf_disease.modeling.gate_arrays import GateArrays, arrays_of_member, encode_arrays
from cassava_leaf_disease.modeling.metadata import GateRecord, ModelMetadata
from cassava_leaf_disease.serving.answerers import Answerer, LocalAnswerer
from cassava_leaf_disease.serving.keeper import Stamp, stamp_of
from cassava_leaf_disease.serving.replies import RequestError
from cassava_leaf_disease.serving.schemas import Offered, OfflineGate, OfflineLimits, OfflineModel, OfflinePooling
from cassava_leaf_disease.serving.settings import ServingSettings

_log = logging.getLogger(__name__)

MAX_SERVED_BYTES: Final = 6_000_000  # of a served model that phones are offered without being told to
_MEND: Final = "type CASSAVA_OFFLINE_MODEL_PATH=… of an .onnx that `cassava export export.precision=fp16_weights` wrote"


@dataclass(frozen=True)
class OfferedModel:
    """The bytes of a model file, and its description as the JSON that is sent; `digest` is that JSON's.

    Kept in memory, so that what is sent always fits its digest, whatever happens to the file meanwhile.
    """

    name: str
    version: str
    content: bytes
    sha256: str
    description: bytes
    digest: str


class OfflineOffer:
    """What phones are offered now; read once, and again when the file has changed."""

    def __init__(self, settings: ServingSettings, answerer: Answerer) -> None:
        path = settings.offline_model_path
        if path is not None and not (is_exported(path) and path.is_file()):
            raise ConfigError(f"CASSAVA_OFFLINE_MODEL_PATH={path}: expected a file that ends with .onnx; {_MEND}")
        self._settings = settings
        self._answerer = answerer
        self._lock = threading.Lock()
        self._seen: Stamp = ()
        self._offered: OfferedModel | None = None

    def current(self) -> OfferedModel:
        """The model to download; takes a while at first, so that it is to be called in a thread.

        Raises:
            RequestError: There is none to offer.
            BusyError: The served model is not loaded yet.
            CheckpointError: The first file is damaged or gone; a later such one is told in the log, and the one
                before it stays.
        """
        found = self._find()
        if found is None:
            raise RequestError(404, "no model for use without a network is offered here", _MEND)
        with self._lock:
            stamp = stamp_of(found)
            if self._offered is None:
                self._offered = _read(found, stamp, self._settings)
            elif stamp and stamp != self._seen:
                try:
                    self._offered = _read(found, stamp, self._settings)
                except CheckpointError as error:
                    _log.error("%s is not offered to phones, the model before it still is: %s", found.path, error)
            self._seen = stamp
            return self._offered

    def in_short(self) -> Offered | None:
        """The same for a card; None where there is none, or where it is damaged."""
        try:
            offered = self.current()
        except (RequestError, BusyError):
            return None
        except CheckpointError as error:
            _log.error("nothing is offered to phones: %s", error)
            return None
        return Offered(name=offered.name, version=offered.version, bytes=len(offered.content), sha256=offered.sha256)

    def _find(self) -> FoundModel | None:
        path = self._settings.offline_model_path
        if path is not None:
            return FoundModel(path, "explicit")
        if isinstance(self._answerer, LocalAnswerer):
            served = self._answerer.keeper.require().found
            if not served.members and is_exported(served.path) and _size(served) <= MAX_SERVED_BYTES:
                return served
        return packaged_model()


def _size(found: FoundModel) -> int:
    return sum(size for _, _, size, _ in stamp_of(found))


def _read(found: FoundModel, stamp: Stamp, settings: ServingSettings) -> OfferedModel:
    engine = OnnxEngine(found.path, "cpu", threads=1)
    try:
        content = found.path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{found.path}: cannot be read ({error.strerror}); check its permissions") from None
    if not stamp or stamp_of(found) != stamp:
        raise CheckpointError(f"{found.path}: changed while it was read; expected a file that is moved into place")
    limits = OfflineLimits(**settings.model_dump(include={*OfflineLimits.model_fields}))
    sha256 = _digest(content)
    described = describe(engine, len(content), sha256, found.source, limits)
    description = described.model_dump_json().encode()
    return OfferedModel(described.name, described.version, content, sha256, description, _digest(description))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def describe(
    engine: OnnxEngine, size_bytes: int, sha256: str, source: ModelSource, limits: OfflineLimits
) -> OfflineModel:
    """All that a browser needs to answer with a model file as this package does."""
    metadata = engine.metadata
    gate = open_gate(metadata, engine.gate_arrays, metadata.name)
    pooling = pooling_of([metadata], [1.0])
    return OfflineModel(
        name=metadata.name,
        version=metadata.version,
        source=source,
        bytes=size_bytes,
        sha256=sha256,
        url=f"offline/model.onnx?sha256={sha256}",
        input_name=INPUT_NAME,
        output_names=engine.output_names,
        class_names=metadata.class_names,
        preprocessing=metadata.preprocessing,
        resize_side_px=metadata.preprocessing.resize_side_px,
        temperature=metadata.temperature,
        min_confidence=metadata.thresholds.min_confidence,
        other_trouble=metadata.thresholds.other_trouble,
        quality=None if gate is None else gate.quality,
        gates=_gates(metadata, engine.gate_arrays or {}),
        pooling=OfflinePooling(
            correlation=pooling.correlation,
            doubt=pooling.doubt,
            prior=pooling.prior,
        ),
        limits=limits,
    )


def _gates(metadata: ModelMetadata, arrays: GateArrays) -> tuple[OfflineGate, ...]:
    """As `open_gate`, which has checked them: each with the place of its network's features among all of them."""
    if not metadata.members:
        return () if metadata.gate is None else (_gate(metadata.gate, arrays, (0, None)),)
    ends = list(accumulate(metadata.feature_sizes, initial=0))
    return tuple(
        _gate(member.gate, arrays_of_member(arrays, index), (ends[index], ends[index + 1]))
        for index, member in enumerate(metadata.members)
        if member.gate is not None
    )


def _gate(record: GateRecord, arrays: GateArrays, features: tuple[int, int | None]) -> OfflineGate:
    return OfflineGate(
        **record.model_dump(include={"score", "typical", "limit", "neighbors"}),
        features=features,
        arrays=json.loads(encode_arrays(arrays))["arrays"],
    )
