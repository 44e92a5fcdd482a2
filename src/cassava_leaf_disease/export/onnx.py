"""`cassava export`: a checkpoint as an ONNX file that describes itself and answers alike."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import ConfigError, ExportError, first_line
from cassava_leaf_disease.export.pictures import ComparisonPictures, comparison_pictures
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.engines.onnx_engine import FEATURES, INPUT_NAME, LOGITS, MAPS, OnnxEngine
from cassava_leaf_disease.inference.predictor import Predictor, is_ensemble, is_exported
from cassava_leaf_disease.modeling.gate_arrays import GATE_KEY, GateArrays, encode_arrays
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata
from cassava_leaf_disease.storage.files import replacing

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET: Final = 20
_BATCH: Final = 16

_log = logging.getLogger(__name__)


class ExportResult(BaseModel):
    """The file that was written, and how closely its answers follow the checkpoint's.

    `max_difference` is the largest of any probability on the `pictures` compared, which `compared_on` names;
    `agreement` is the fraction of them whose most probable class is the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    checkpoint: Path
    source: ModelSource
    backbone: str
    bytes: int
    opset: int
    pictures: int
    compared_on: str
    max_difference: float
    tolerance: float
    agreement: float
    seconds: float


def export(config: AppConfig) -> ExportResult:
    """Writes a checkpoint as ONNX, for batches of any size, beside it or to `export.output_path`.

    The file takes its place only after its probabilities were compared with the checkpoint's.

    Raises:
        CassavaError: No checkpoint, a place that cannot be written to, a network that ONNX cannot express, or
            probabilities that differ by more than `export.tolerance`.
    """
    import onnx  # noqa: F401  a missing extra is told before any work
    import onnxscript  # noqa: F401

    from cassava_leaf_disease.inference.engines.torch_engine import TorchEngine, restore_network
    from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

    started = time.perf_counter()
    found = find_model(config)
    target = _target(found, config.export.output_path)
    loaded = load_checkpoint(found.path)
    pictures = comparison_pictures(config.paths.data_dir, loaded.metadata.preprocessing)
    model = to_onnx(restore_network(loaded, found.path), loaded.metadata, loaded.gate_arrays)
    expected = _probabilities(Predictor(TorchEngine(found.path, "cpu"), found), pictures.images)
    with replacing(target) as file:
        file.write(model.SerializeToString())
        file.flush()
        written = Predictor(OnnxEngine(Path(file.name), "cpu"), FoundModel(target, "explicit"))
        answers = _probabilities(written, pictures.images)
        difference = float(np.abs(answers - expected).max())
        agreement = float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean())
        _check(difference, agreement, config.export.tolerance, target, pictures)
    _log.info("%s answers as %s: largest difference %.1e on %s", target, found.path, difference, pictures.origin)
    return ExportResult(
        path=target,
        checkpoint=found.path,
        source=found.source,
        backbone=loaded.metadata.backbone,
        bytes=target.stat().st_size,
        opset=OPSET,
        pictures=len(pictures.images),
        compared_on=pictures.origin,
        max_difference=difference,
        tolerance=config.export.tolerance,
        agreement=agreement,
        seconds=round(time.perf_counter() - started, 1),
    )


def to_onnx(network: "nn.Module", metadata: ModelMetadata, gate_arrays: GateArrays | None = None) -> "onnx.ModelProto":
    """The network as an ONNX graph with its self-description, its gate and its weights inside.

    Takes float32 `(N, 3, S, S)`, normalised, and gives logits `(N, C)`, features `(N, D)` and maps `(N, C, h, w)`
    for any N from 1; logits alone where the network has no more to show.

    Raises:
        ExportError: ONNX has no words for something in it.
    """
    import torch

    from cassava_leaf_disease.modeling.outputs import DiagnosticNetwork, shows_its_work

    size_px = metadata.preprocessing.image_size_px
    example = torch.zeros(2, 3, size_px, size_px)  # of 1 the exporter would believe that it is always 1
    outputs = [LOGITS]
    if shows_its_work(network, size_px):
        network, outputs = DiagnosticNetwork(network), [LOGITS, FEATURES, MAPS]
    try:
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT_NAME],
            output_names=outputs,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"{metadata.backbone} at {size_px} px cannot be exported to ONNX ({first_line(error)}); "
            "train another backbone, or answer with the checkpoint itself"
        ) from error
    assert program is not None  # noqa: S101  for the type checker: only dynamo=False gives None
    model: onnx.ModelProto = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # where in the source, on this machine, each operation came from
    model.metadata_props.add(key=METADATA_KEY, value=metadata.model_dump_json())
    if gate_arrays is not None:
        model.metadata_props.add(key=GATE_KEY, value=encode_arrays(gate_arrays))
    return model


def _target(found: FoundModel, output_path: Path | None) -> Path:
    if is_exported(found.path):
        raise ConfigError(
            f"{found.path}: an exported model already; type infer.checkpoint_path=… of the checkpoint that it came from"
        )
    if found.members or is_ensemble(found.path):
        raise ConfigError(
            f"{found.path}: several models as one, and a file holds one; type infer.checkpoint_path=… of each in turn"
        )
    target = output_path or found.path.with_suffix(".onnx")
    if not is_exported(target) or target.is_dir():
        seen = "a folder" if target.is_dir() else "another kind of file"
        raise ConfigError(f"export.output_path={target}: {seen}; expected a path that ends in .onnx")
    return target


def _probabilities(predictor: Predictor, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """`(N, C)`; the first picture goes alone, so that batches of different sizes are tried."""
    batches = [images[:1], *(images[start : start + _BATCH] for start in range(1, len(images), _BATCH))]
    return np.concatenate([predictor.probabilities(batch) for batch in batches])


def _check(difference: float, agreement: float, tolerance: float, target: Path, pictures: ComparisonPictures) -> None:
    if difference > tolerance:
        raise ExportError(
            f"{target} was not written: its probabilities differ from the checkpoint's by up to {difference:.1e} on "
            f"{pictures.origin}, where {agreement:.0%} of the answers agree; expected at most "
            f"export.tolerance={tolerance:g}"
        )
