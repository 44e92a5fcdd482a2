"""Writes the files of the repository: a folder for each model, and beside them what an operator needs."""

import io
import struct
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.export.triton import model_configs, operator_files
from cassava_leaf_disease.export.triton.model_configs import WARM_UP_FILE, Plan
from cassava_leaf_disease.export.triton.pbtxt import Message, to_pbtxt
from cassava_leaf_disease.export.triton.vendor import PACKAGE, needed_files
from cassava_leaf_disease.inference import served
from cassava_leaf_disease.inference.served import MemberSettings
from cassava_leaf_disease.modeling.gate_arrays import GateArrays, encode_arrays

if TYPE_CHECKING:
    import onnx

GRAPH_FILE: Final = "model.onnx"

_BOOTSTRAP: Final = '''"""Written by `cassava export-triton`: runs the copy of its package beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from {module} import TritonPythonModel  # noqa: E402, F401
'''


def write_folder(
    folder: Path, plan: Plan, graphs: Mapping[str, "onnx.ModelProto"], gates: Sequence[GateArrays | None]
) -> None:
    """Fills an empty folder; `graphs` maps the members' names to their graphs, `gates` are theirs in their order."""
    models = folder / "models"
    if plan.settings.preprocess == "dali":
        _write_python(models, model_configs.check_config(plan), "check")
        _write_warm_up(models / served.CHECK)
        version_folder = _write_config(models, model_configs.dali_config(plan))
        _write(version_folder / "dali.py", operator_files.dali_pipeline(plan))
    else:
        _write_python(models, model_configs.preprocess_config(plan), "preprocess")
        _write_warm_up(models / served.PREPROCESS)
    for member in plan.description.members:
        told = MemberSettings(file=GRAPH_FILE, threads=plan.cpus)
        _write_member(folder, plan, member.model, model_configs.member_config(plan, member, told), graphs[member.model])
    vote = _write_python(models, model_configs.vote_config(plan), "vote")
    for voter, arrays in zip(plan.vote_settings().voters, gates, strict=True):
        if voter.gate_file is not None:
            _write(vote / voter.gate_file, encode_arrays(arrays or {}))
    ensemble = _write_config(models, model_configs.ensemble_config(plan))
    _write(ensemble / "README.md", "An ensemble has no file; its version folder only has to be there.\n")
    _write(folder / "requirements.txt", _requirements(plan))
    _write(folder / "README.md", operator_files.readme(plan))
    if plan.backend == "tensorrt":
        _write(folder / "build_engines.sh", operator_files.build_script(plan))


def _write_member(folder: Path, plan: Plan, name: str, config: Message, graph: "onnx.ModelProto") -> None:
    """Of TensorRT the graph lies outside the models: its engine is built where it will run."""
    models = folder / "models"
    place = _write_python(models, config, "member") if plan.backend == "python" else _write_config(models, config)
    path = folder / "onnx" / f"{name}.onnx" if plan.backend == "tensorrt" else place / GRAPH_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph.SerializeToString())


def _write_python(models: Path, config: Message, kind: str) -> Path:
    """A model in Python: its code, and a copy of all of this package that it imports."""
    module = f"{PACKAGE}.export.triton.backend.{kind}"
    place = _write_config(models, config)
    _write(place / "model.py", _BOOTSTRAP.format(module=module))
    for path, source in needed_files(module).items():
        _write(place / "lib" / path, source)
    return place


def _write_config(models: Path, config: Message) -> Path:
    """The folder of the only version, made."""
    folder = models / str(config["name"])
    _write(folder / "config.pbtxt", to_pbtxt(config))
    (folder / "1").mkdir()
    return folder / "1"


def _write_warm_up(model: Path) -> None:
    """A drawn leaf as Triton reads bytes from a file: their number, then they."""
    buffer = io.BytesIO()
    Image.fromarray(draw_leaf(0, 3, 400)).resize((800, 600)).save(buffer, "JPEG")
    photo = buffer.getvalue()
    (model / "warmup").mkdir()
    (model / "warmup" / WARM_UP_FILE).write_bytes(struct.pack("<I", len(photo)) + photo)


def _requirements(plan: Plan) -> str:
    """What the models in Python import besides this package; the same decoder as here gives the same pixels."""
    names = ["pillow", "pydantic", *(["onnxruntime"] if plan.backend == "python" else [])]
    return "numpy>=1.26\n" + "".join(f"{name}=={version(name)}\n" for name in names)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
