"""`cassava export-triton`: a model or an ensemble as a model repository that NVIDIA Triton serves as it stands."""

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.schema import AppConfig, TritonConfig
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.domain import ModelSource
from cassava_leaf_disease.errors import ConfigError, ExportError
from cassava_leaf_disease.export.triton.compare import Comparison, compare
from cassava_leaf_disease.export.triton.folder import write_folder
from cassava_leaf_disease.export.triton.graph import take_pixels
from cassava_leaf_disease.export.triton.model_configs import Plan
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.discover import find_model
from cassava_leaf_disease.inference.ensemble import EnsemblePredictor, load_found
from cassava_leaf_disease.inference.model_files import is_exported
from cassava_leaf_disease.inference.ood import NEEDS_FEATURES
from cassava_leaf_disease.inference.predictor import AnyPredictor, Predictor
from cassava_leaf_disease.inference.served import ServedMember, ServedModel
from cassava_leaf_disease.storage.s3_transfer import sha256_of

if TYPE_CHECKING:
    import onnx

TOLERANCE: Final = 1e-4  # largest difference of a probability from the local predictor, unless export.tolerance says
FOREIGN_TOLERANCE: Final = 1e-3  # on a scale where the leaves of the training end at 1
DESCRIPTION_FILE: Final = "cassava.json"  # by which a folder is known as one of ours

_log = logging.getLogger(__name__)


class ExportedMember(BaseModel):
    """A member: its model's name in the repository, the file that it came from, its weight in the vote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    path: Path
    backbone: str
    image_size_px: int
    weight: float


class TritonResult(BaseModel):
    """The repository that was written, and how closely its answers follow the local predictor's.

    `serve` is what to type where Triton is installed; with TensorRT `build` comes before it, on the serving machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    source: ModelSource
    target: Literal["cpu", "gpu", "multi_gpu"]
    backend: Literal["python", "onnxruntime", "tensorrt"]
    preprocess: Literal["python", "dali"]
    preprocess_instances: int
    views: tuple[str, ...]
    members: tuple[ExportedMember, ...]
    compared_on: str
    pictures: int
    max_difference: float
    max_foreign_difference: float
    tolerance: float
    build: str | None
    serve: str
    seconds: float


def export_triton(config: AppConfig) -> TritonResult:
    """Writes the repository, which takes its place only after its answers were compared with the local ones.

    Raises:
        CassavaError: No model, a folder that is in the way, a network that ONNX cannot express, or probabilities
            that differ by more than `export.tolerance`.
    """
    import onnx  # noqa: F401  a missing extra is told before any work

    started = time.perf_counter()
    settings = config.export.triton
    target = settings.output_dir or config.paths.outputs_dir / "triton"
    tolerance = config.export.tolerance or TOLERANCE
    _check_place(target)
    limits = DecodeLimits(config.infer.max_image_bytes, config.infer.max_image_pixels)
    predictor = load_found(find_model(config), "cpu", limits, config.infer.tta)
    graphs = [_graph(member) for member in predictor.members]
    plan = _plan(config, settings, predictor, [features for _, features in graphs])
    with replacing_folder(target) as folder:
        by_name = {member.model: graph for member, (graph, _) in zip(plan.description.members, graphs, strict=True)}
        write_folder(folder, plan, by_name, [member.gate_arrays for member in predictor.members])
        (folder / DESCRIPTION_FILE).write_text(plan.description.model_dump_json(indent=2) + "\n", encoding="utf-8")
        comparison = compare(predictor, plan, list(by_name.values()), config.paths.data_dir)
        _check(comparison, tolerance, target)
    return _result(target, predictor, plan, comparison, tolerance, time.perf_counter() - started)


def _plan(config: AppConfig, settings: TritonConfig, predictor: AnyPredictor, features: Sequence[int | None]) -> Plan:
    members = predictor.members
    backend = settings.backend
    if backend == "auto":
        backend = "python" if settings.target == "cpu" else "onnxruntime"
    together = predictor if isinstance(predictor, EnsemblePredictor) else None
    weights = together.weights if together else (1.0,)
    description = ServedModel(
        name=predictor.identity.name,
        version=predictor.identity.version,
        members=tuple(
            ServedMember(
                model=f"member_{index}",
                sha256=sha256_of(Path(member.identity.path)),
                weight=weight,
                metadata=member.metadata,
            )
            for index, (member, weight) in enumerate(zip(members, weights, strict=True))
        ),
        combine=together.combination if together else "probabilities",
        temperature=together.temperature if together else 1.0,  # a single network has its own inside
        class_prior=predictor.class_prior,
        tta=config.infer.tta,
        views=predictor.views,
        thresholds=predictor.thresholds,
        quality_limits=predictor.quality_limits,
        max_image_bytes=config.infer.max_image_bytes,
        max_image_pixels=config.infer.max_image_pixels,
        package_version=__version__,
    )
    specs = dict.fromkeys(member.metadata.preprocessing for member in members)
    pixels = {spec: f"pixels_{index}" for index, spec in enumerate(specs)}
    counts = {
        member.model: count for member, count in zip(description.members, features, strict=True) if count is not None
    }
    return Plan(settings, backend, available_cpus(), description, pixels, counts)


def _graph(member: Predictor) -> tuple["onnx.ModelProto", int | None]:
    """A member's network as a graph that takes pixels, and how many features it gives, where its gate wants them."""
    import onnx

    path = Path(member.identity.path)
    if is_exported(path):
        model = onnx.load(path)
    else:
        from cassava_leaf_disease.export.onnx import to_onnx
        from cassava_leaf_disease.inference.engines.torch_engine import restore_network
        from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

        model = to_onnx(restore_network(load_checkpoint(path), path), member.metadata)
    gates = [each.gate for each in member.metadata.members or (member.metadata,)]
    wants_features = any(gate is not None and gate.score in NEEDS_FEATURES for gate in gates)
    return model, take_pixels(model, member.metadata.preprocessing, len(member.views), features=wants_features)


def _check_place(target: Path) -> None:
    ours = (target / DESCRIPTION_FILE).is_file()
    if target.exists() and not ours and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            f"export.triton.output_dir={target}: something else stands there; expected a new or an empty folder, or "
            "a repository that this command wrote; type another folder"
        )


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends well it takes the place of `target`, and what stood there goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    new.chmod(0o755)  # the server may run as another user
    old = new.with_suffix(".old")
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check(comparison: Comparison, tolerance: float, target: Path) -> None:
    if comparison.max_difference > tolerance:
        raise ExportError(
            f"{target} was not written: its probabilities differ from the local predictor's by up to "
            f"{comparison.max_difference:.1e} on {comparison.origin}; expected at most export.tolerance={tolerance:g}"
        )
    if comparison.max_foreign_difference > FOREIGN_TOLERANCE:
        raise ExportError(
            f"{target} was not written: how foreign photos are to it differs from the local predictor's by up to "
            f"{comparison.max_foreign_difference:.1e} on {comparison.origin}; expected at most {FOREIGN_TOLERANCE:g}"
        )


def _result(  # noqa: PLR0913, PLR0917
    target: Path, predictor: AnyPredictor, plan: Plan, comparison: Comparison, tolerance: float, seconds: float
) -> TritonResult:
    described = zip(predictor.members, plan.description.members, strict=True)
    instances = plan.settings.preprocess_instances
    return TritonResult(
        path=target,
        source=predictor.identity.source,
        target=plan.settings.target,
        backend=plan.backend,
        preprocess=plan.settings.preprocess,
        preprocess_instances=plan.cpus if instances == "auto" else instances,
        views=plan.description.views,
        members=tuple(
            ExportedMember(
                model=served.model,
                path=Path(member.identity.path),
                backbone=member.metadata.backbone,
                image_size_px=member.metadata.preprocessing.image_size_px,
                weight=served.weight,
            )
            for member, served in described
        ),
        compared_on=comparison.origin,
        pictures=comparison.pictures,
        max_difference=comparison.max_difference,
        max_foreign_difference=comparison.max_foreign_difference,
        tolerance=tolerance,
        build=f"sh {target / 'build_engines.sh'}" if plan.backend == "tensorrt" else None,
        serve=f"tritonserver --model-repository={target / 'models'}",
        seconds=round(seconds, 1),
    )
