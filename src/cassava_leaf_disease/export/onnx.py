"""`cassava export`: a checkpoint as an ONNX file that describes itself and answers alike."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import ConfigDict, Field

from cassava_leaf_disease.config.schema import AppConfig, Precision
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import ConfigError, ExportError, first_line
from cassava_leaf_disease.export.comparison import (
    Comparison,
    answers_of,
    check,
    compare,
    objection,
    refused,
    tolerance_of,
)
from cassava_leaf_disease.export.half import depthwise_convolutions, to_half
from cassava_leaf_disease.export.integer.build import Quantization, logits_of, normalized_batches, to_int8
from cassava_leaf_disease.export.integer.ranges import observe
from cassava_leaf_disease.export.light import tensors_to_average, to_half_weights, to_int8_weights
from cassava_leaf_disease.export.pictures import (
    MAX_PICTURES,
    Pictures,
    calibration_and_comparison,
    comparison_pictures,
    own_split,
    part_pictures,
)
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.engines.onnx_engine import FEATURES, INPUT_NAME, LOGITS, MAPS, OnnxEngine
from cassava_leaf_disease.inference.ensemble import (
    EnsembleFile,
    EnsemblePredictor,
    MemberFile,
    load_found,
)
from cassava_leaf_disease.inference.model_files import is_ensemble, is_exported
from cassava_leaf_disease.inference.predictor import Answers, AnyPredictor, Predictor
from cassava_leaf_disease.inference.vote import softmax
from cassava_leaf_disease.modeling.gate_arrays import GATE_KEY, GateArrays, encode_arrays, join_members
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata
from cassava_leaf_disease.paths import ENSEMBLE_FILE
from cassava_leaf_disease.storage.files import replacing, write_json
from cassava_leaf_disease.storage.s3_transfer import sha256_of

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET: Final = 20
_MOST_LABELED: Final = 512  # photos that an integer model is measured on

_log = logging.getLogger(__name__)


class ExportResult(Comparison):
    """The file that was written, and how closely its answers follow the checkpoint's.

    `members` are the checkpoints of an ensemble. An ensemble whose members differ in input size is exported as a
    folder: `path` is then its `ensemble.json`, `files` tells of each member, and the figures are of all together.
    `in_float` counts convolutions of an fp16 file that stayed in float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    checkpoint: Path
    members: tuple[Path, ...] = Field(default=(), exclude_if=lambda members: not members)
    source: ModelSource
    backbone: str
    precision: Precision
    bytes: int
    bytes_before: int
    opset: int
    tolerance: float | None
    quantization: Quantization | None = Field(default=None, exclude_if=lambda quantization: quantization is None)
    in_float: int = Field(default=0, exclude_if=lambda convolutions: not convolutions)
    seconds: float
    files: "tuple[ExportResult, ...]" = Field(default=(), exclude_if=lambda files: not files)


@dataclass(frozen=True)
class _Written:
    """An exported file, and both models' answers about the same pictures, of one member each."""

    result: ExportResult
    expected: Answers
    answers: Answers
    pictures: Pictures


def export(config: AppConfig) -> ExportResult:
    """Writes a checkpoint or an ensemble as ONNX, for batches of any size, beside it or to `export.output_path`.

    The file takes its place only after its probabilities were compared with the checkpoint's.

    Raises:
        CassavaError: No checkpoint, a place that cannot be written to, a network that ONNX cannot express, or
            answers that differ by more than `export.tolerance` or the limits of `export.int8` allow.
    """
    import onnx  # noqa: F401  a missing extra is told before any work
    import onnxscript  # noqa: F401

    found = find_model(config)
    _refuse_exported(found)
    output = config.export.output_path
    several = bool(found.members) or is_ensemble(found.path)
    if output is not None:
        _check_output(output, may_be_folder=several)
    original = load_found(found, "cpu")
    if isinstance(original, EnsemblePredictor):
        _refuse_exported(found, [Path(member.identity.path) for member in original.members])
        return _export_ensemble(config, original, found)
    return _export_file(config, original, output or found.path.with_suffix(f".{_suffix(config)}")).result


def _export_ensemble(config: AppConfig, original: EnsemblePredictor, found: FoundModel) -> ExportResult:
    """One file where all members take the same input, else a folder."""
    path = Path(ENSEMBLE_FILE) if found.members else Path(original.identity.path)
    beside = Path(original.identity.path).parent
    output = config.export.output_path
    alike = len({member.metadata.preprocessing for member in original.members}) == 1
    if alike and (output is None or is_exported(output)):
        return _export_file(config, original, output or beside / f"{path.stem}.{_suffix(config)}").result
    if output is not None and is_exported(output):
        raise ConfigError(
            f"export.output_path={output}: one file cannot hold members that take different input; type "
            "export.output_path=FOLDER, for a file for each, or leave it out"
        )
    return _export_members(config, original, output or beside / f"{path.stem}-{config.export.precision}")


def _export_members(config: AppConfig, original: EnsemblePredictor, folder: Path) -> ExportResult:
    """A folder with a file for each member, and an `ensemble.json` that names them."""
    started = time.perf_counter()
    written: list[_Written] = []
    for index, member in enumerate(original.members):
        written.append(_export_file(config, member, folder / f"{index}-{member.metadata.name}.onnx"))
    files = [each.result for each in written]
    description = EnsembleFile(
        combine=original.combination,
        weights="equal" if len(set(original.weights)) == 1 else "val_f1_macro",
        members=tuple(
            MemberFile(path=file.path.name, sha256=sha256_of(file.path), weight=weight)
            for file, weight in zip(files, original.weights, strict=True)
        ),
        calibration=original.calibration,
    )
    write_json(folder / ENSEMBLE_FILE, description.model_dump(mode="json"))
    before, after = (
        Answers(
            np.concatenate([getattr(each, which).probabilities for each in written]),
            np.concatenate([getattr(each, which).foreign for each in written]),
        )
        for which in ("expected", "answers")
    )
    pair = original.combine(before.probabilities), original.combine(after.probabilities)
    gated = {"refused_before": refused(before), "refused": refused(after)}
    together = compare(*pair, written[0].pictures).model_copy(update=gated)
    return _result(config, original, folder / ENSEMBLE_FILE, together, started, files)


def _export_file(config: AppConfig, original: AnyPredictor, target: Path) -> _Written:
    started = time.perf_counter()
    settings = config.export
    network, metadata, gate_arrays = _network_of(original)
    metadata = metadata.model_copy(update={"precision": settings.precision})
    calibration, pictures = _pictures(config, original.described[0])
    model = to_onnx(network, metadata, gate_arrays)
    del network  # its memory is needed for the comparison
    spec = metadata.preprocessing
    expected = answers_of(original, pictures, spec)
    wanted = original.combine(expected.probabilities)
    quantization = None
    in_float: frozenset[str] = frozenset()

    def accepts(made: "onnx.ModelProto") -> bool:
        logits = logits_of(made, pictures.images, spec).astype(np.float64)
        return objection(compare(wanted, softmax(logits / metadata.temperature), pictures), settings) is None

    if settings.precision == "fp16":
        half = to_half(model)
        if not accepts(half) and (in_float := depthwise_convolutions(model)):
            _log.info("depthwise convolutions stay in float32 (%d): float16 moves the answers too far", len(in_float))
            half = to_half(model, in_float)
        model = half
    elif settings.precision == "fp16_weights":
        model = to_half_weights(model)
    elif settings.precision == "int8_weights":
        assert calibration is not None  # noqa: S101  see `_pictures`
        batches = normalized_batches(calibration.images, spec)
        seen = observe(model, tensors_to_average(model), batches, available_cpus())
        model = to_int8_weights(model, {name: each.channel_means for name, each in seen.items()})
    elif calibration is not None:
        model, quantization = to_int8(model, calibration, spec, settings.int8.max_noise, accepts)
    with replacing(target) as file:
        file.write(model.SerializeToString())
        file.flush()
        written = Predictor(OnnxEngine(Path(file.name), "cpu"), FoundModel(target, "explicit"))
        answers = answers_of(written, pictures, spec)
        compared = compare(wanted, answers.probabilities[0], pictures)
        check(compared, settings, target)
    _log.info(
        "%s answers as %s: largest difference %.1e on %s",
        *(target, original.identity.path, compared.max_difference, pictures.origin),
    )
    gated = {"refused_before": refused(expected), "refused": refused(answers)}
    result = _result(config, original, target, compared.model_copy(update=gated), started)
    kept = {"quantization": quantization, "in_float": len(in_float)}
    return _Written(result.model_copy(update=kept), expected, answers, pictures)


def _network_of(original: AnyPredictor) -> "tuple[nn.Module, ModelMetadata, GateArrays | None]":
    from cassava_leaf_disease.export.network import merge
    from cassava_leaf_disease.inference.engines.torch_engine import restore_network
    from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

    paths = [Path(member.identity.path) for member in original.members]
    loaded = [load_checkpoint(path) for path in paths]
    networks = [restore_network(*pair) for pair in zip(loaded, paths, strict=True)]
    if isinstance(original, EnsemblePredictor):
        network, metadata = merge(original, networks)
        return network, metadata, join_members([each.gate_arrays for each in loaded]) or None
    return networks[0], loaded[0].metadata, loaded[0].gate_arrays


def _pictures(config: AppConfig, metadata: ModelMetadata) -> tuple[Pictures | None, Pictures]:
    """What to calibrate with, if anything, and what to compare on: photos of the model's own split if there are any."""
    if config.export.precision in {"int8_weights", "int8"}:
        return calibration_and_comparison(config, metadata, config.export.int8.calibration_photos, _MOST_LABELED)
    data, spec = own_split(config, metadata), metadata.preprocessing
    own = None if data is None else part_pictures(data, "val", spec, MAX_PICTURES)
    return None, own or comparison_pictures(config.paths.data_dir, spec)


def _result(  # noqa: PLR0913, PLR0917  # all that it tells
    config: AppConfig,
    original: AnyPredictor,
    target: Path,
    compared: Comparison,
    started: float,
    files: Sequence[ExportResult] = (),
) -> ExportResult:
    checkpoints = [Path(member.identity.path) for member in original.members]
    return ExportResult(
        path=target,
        checkpoint=Path(original.identity.path),
        members=tuple(checkpoints) if len(checkpoints) > 1 else (),
        source=original.identity.source,
        backbone=", ".join(dict.fromkeys(metadata.backbone for metadata in original.described)),
        precision=config.export.precision,
        bytes=sum(file.bytes for file in files) or target.stat().st_size,
        bytes_before=sum(checkpoint.stat().st_size for checkpoint in checkpoints),
        opset=OPSET,
        tolerance=tolerance_of(config.export),
        seconds=round(time.perf_counter() - started, 1),
        files=tuple(files),
        **compared.model_dump(),
    )


def to_onnx(network: "nn.Module", metadata: ModelMetadata, gate_arrays: GateArrays | None = None) -> "onnx.ModelProto":
    """The network as an ONNX graph with its self-description, its gate and its weights inside.

    Takes float32 `(N, 3, S, S)`, normalised, and gives logits `(N, C)`, features `(N, D)` and maps `(N, C, h, w)`
    for any N from 1; the first of them alone where the network has no more to show.

    Raises:
        ExportError: ONNX has no words for something in it.
    """
    import torch

    from cassava_leaf_disease.export.network import EnsembleNetwork, showing

    size_px = metadata.preprocessing.image_size_px
    example = torch.zeros(2, 3, size_px, size_px)  # of 1 the exporter would believe that it is always 1
    network = network.eval() if isinstance(network, EnsembleNetwork) else showing(network, size_px).eval()
    with torch.no_grad():
        answer = network(example)
    try:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT_NAME],
            output_names=[LOGITS, FEATURES, MAPS][: len(answer) if isinstance(answer, tuple) else 1],
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


def _suffix(config: AppConfig) -> str:
    """`onnx`, `fp16.onnx` …, by which the files of one checkpoint are told apart."""
    precision = config.export.precision
    return "onnx" if precision == "fp32" else f"{precision}.onnx"


def _check_output(path: Path, *, may_be_folder: bool) -> None:
    expected = "a path that ends in .onnx" + (", or a folder" if may_be_folder else "")
    if is_exported(path) and path.is_dir():
        seen = "a folder"
    elif is_exported(path) or (may_be_folder and not path.suffix and not path.is_file()):
        return
    else:
        seen = "another kind of file"
    raise ConfigError(f"export.output_path={path}: {seen}; expected {expected}")


def _refuse_exported(found: FoundModel, members: Sequence[Path] = ()) -> None:
    for path in (found.path, *found.members, *members):
        if is_exported(path):
            raise ConfigError(
                f"{path}: an exported model already; type infer.checkpoint_path=… of the checkpoint that it came from"
            )
