"""The commands of README and docs are run, page by page, in a folder of drawn leaves and on a small network.

What a page cannot show in a test says why in a comment before its block; `tools/doc_commands.py` has the rules.
"""

import csv
import io
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from cassava_leaf_disease import cli, fire_cli
from cassava_leaf_disease.config.load import load_config, parse_config
from cassava_leaf_disease.data.synthetic import draw_leaf, write_synthetic_dataset
from cassava_leaf_disease.evaluation.evaluate import evaluate
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.inference.make_ensemble import ensemble
from cassava_leaf_disease.training.crossval import crossval
from cassava_leaf_disease.training.fit import train
from doc_commands import DOCS, DOORS, REPOSITORY, Block, all_blocks

MAINS: dict[str, Callable[[list[str]], int]] = {"cassava": cli.main, "cassava-fire": fire_cli.main}
BLOCKS = list(all_blocks())
SHELL = [block for block in BLOCKS if block.language == "bash"]
RUN = [block for block in SHELL if not block.not_run]
OTHER_PROGRAMS = {"just", "python", "uv", "uvx"}

SMALL_TRAINING = (
    *("model.pretrained=false", "model.weights_path=null", "model.backbone=test_resnet"),
    *("augment.image_size=64", "augment.eval_size=null"),
    *("train.epochs=1", "train.batch_size=16", "train.accelerator=cpu", "train.num_workers=0"),
    *("data.synthetic.train_size=40", "data.synthetic.val_size=20", "data.synthetic.test_size=20"),
)
FOLDS = ("data.split.folds=2", "crossval.parallel=1")
SMALL: dict[str, tuple[str, ...]] = {
    "train": SMALL_TRAINING,
    "crossval": (*SMALL_TRAINING, *FOLDS),
    "demo": ("demo.train_size=50", "demo.epochs=1", "train.accelerator=cpu", "train.num_workers=0"),
    "evaluate": ("evaluate.bootstrap_samples=100",),
    "plants": ("plants.groups=100", "plants.bootstrap_samples=20"),
    # an untrained network is never sure
    "pseudo-label": ("pseudo_label.min_confidence=0", "pseudo_label.members_agree=false"),
    "fit-gate": ("gate.score=energy",),
    "export": ("export.int8.calibration_photos=12",),
    "audit": ("audit.near_duplicates=false",),
    "benchmark": ("benchmark.photos=2", "benchmark.rounds=1"),
}
CHANGES_NOTHING = {"--help", "--cfg"}


@pytest.fixture(scope="session")
def drawn_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader of the documents would have it after a while: photos, a run, folds; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


def build_world(root: Path) -> None:
    """Draws, trains, exports and measures, once for all pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASSAVA_ROOT", str(root))
        draw_photos(root)
        train(load_config(SMALL_TRAINING))
        crossval(load_config([*SMALL_TRAINING, *FOLDS]))
        checkpoints = root / "outputs" / "runs" / "version_0" / "checkpoints"
        trained = load_config([f"infer.checkpoint_path={checkpoints / 'best.ckpt'}", "evaluate.bootstrap_samples=100"])
        export(trained)
        evaluate(trained)
    folds = sorted(root.glob("outputs/crossval/version_0/fold_*/checkpoints/best.ckpt"))
    copies = {
        "a.ckpt": folds[0],
        "b.ckpt": folds[1],
        "a.onnx": checkpoints / "best.onnx",
        "b.onnx": checkpoints / "best.onnx",
        "best.onnx": checkpoints / "best.onnx",
        "other/best.ckpt": checkpoints / "best.ckpt",
        "outputs/other/evaluation/test/predictions.csv": checkpoints.parent / "evaluation" / "test" / "predictions.csv",
    }
    for name, source in copies.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / name)
    members = f"[{root / 'a.ckpt'},{root / 'b.ckpt'}]"
    ensemble(load_config([f"ensemble.members={members}", f"ensemble.output_path={root / 'ensemble.json'}"]))


def draw_photos(root: Path) -> None:
    """Data sets in every place that the documents name, single photos, and files that are none."""
    data = root / "data" / "cassava-leaf-disease-classification"
    write_synthetic_dataset(data, 150, 96, 0)
    shutil.copytree(data, root / "photos" / "cassava")
    write_synthetic_dataset(root / "other", 50, 96, 1)
    write_synthetic_dataset(root / "ghana", 25, 96, 2)
    (root / "ghana" / "train_images").rename(root / "ghana" / "images")
    write_synthetic_dataset(root / "drawn", 10, 96, 3)
    (root / "drawn" / "train_images").rename(root / "field")
    shutil.copytree(root / "field", root / "photos" / "not_cassava")
    shutil.make_archive(str(root / "photos"), "zip", root / "photos" / "cassava")
    with (data / "train.csv").open(newline="") as file:
        labels = [(row["image_id"], row["label"]) for row in csv.DictReader(file)]
    phones = [(name, "old" if index % 3 else "new") for index, (name, _) in enumerate(labels)]
    write_table(root / "photos" / "cassava" / "provenance.csv", phones)
    decided = [(*labels[0], "keep"), (*labels[1], "drop")]
    write_table(root / "decisions.csv", decided, "image_id,label,decision")
    theirs = ["bacterial blight", "brown spot", "green mite", "mosaic", "healthy"]
    with (root / "ghana" / "train.csv").open(newline="") as file:
        rows = [(row["image_id"], theirs[int(row["label"])], row["label"]) for row in csv.DictReader(file)]
    ours = [(name, word, "" if word in ("brown spot", "green mite") else label) for name, word, label in rows]
    write_table(root / "ghana" / "labels.csv", ours, "image_id,disease,label")
    buffer = io.BytesIO()
    Image.fromarray(draw_leaf(11, 3, 200)).resize((240, 180)).save(buffer, "JPEG", quality=92)
    for name in ("photo.jpg", "leaf.jpg", "a.jpg", "b.jpg", "outputs/demo/leaf.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(buffer.getvalue())
    (root / "broken.jpg").write_bytes(buffer.getvalue()[:2000])
    (root / "notes.txt").write_text("no photo\n")


def write_table(path: Path, rows: list[Any], header: str = "image_id,phone") -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}))
def test_the_commands_of_a_page_run(
    page: str,
    drawn_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(drawn_world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for block in [block for block in RUN if block.page == page]:
        for words in block.commands:
            code, said = run(words, capfd, () if block.fails else SMALL.get(words[1], ()))
            where = f"{block.page}:{block.line}: {shlex.join(words)}\n{said}"
            if block.fails:
                assert code == 2, where
                assert re.search(told_after(block), said), f"{where}\nexpected {told_after(block)}"
            else:
                assert code == 0, where
                assert "no such file" not in said, f"another model than the one that is named has answered\n{where}"


def run(words: list[str], capfd: pytest.CaptureFixture[str], small: tuple[str, ...]) -> tuple[int, str]:
    """Runs a command by its door, in this process, made `small`; its exit code and what stands on stderr."""
    code = MAINS[words[0]]([*words[1:], *(() if CHANGES_NOTHING & {*words} else small)])
    return code, capfd.readouterr().err


def told_after(block: Block) -> str:
    """A pattern of the line that the block's mistake leads to; `…` stands for any text."""
    following = BLOCKS[BLOCKS.index(block) + 1]
    assert following.language == "text", f"{block.page}:{block.line}: no text after a command that fails"
    return ".*".join(re.escape(part) for part in following.text.strip().split("…"))


@pytest.mark.parametrize("block", [block for block in SHELL if block.not_run], ids=lambda b: f"{b.page}:{b.line}")
def test_commands_that_are_not_run_are_accepted(block: Block, capfd: pytest.CaptureFixture[str]) -> None:
    for words in block.commands:
        if words[0] == "cassava" and not CHANGES_NOTHING & {*words}:
            assert cli.main([*words[1:], "--cfg", "job"]) == 0, shlex.join(words)
            settings: dict[str, Any] = yaml.safe_load(capfd.readouterr().out)
            parse_config(OmegaConf.create(settings))


def test_what_is_not_run_is_typed_elsewhere_or_of_another_program() -> None:
    assert {words[0] for block in RUN for words in block.commands} <= {*DOORS}
    programs = {words[0] for block in SHELL for words in block.commands}
    assert programs <= {*DOORS, *OTHER_PROGRAMS}


def test_everything_that_is_typed_is_run_or_says_why_not() -> None:
    typed = [block for block in BLOCKS if block.language in ("sh", "powershell", "python")]
    assert [f"{block.page}:{block.line}" for block in typed if not block.not_run] == []


def test_tests_that_a_reason_names_are_there() -> None:
    named = {name for block in BLOCKS for name in re.findall(r"(?:tests|benchmarks)/[\w/]+\.py", block.not_run)}
    assert named
    assert [name for name in sorted(named) if not (REPOSITORY / name).is_file()] == []


def test_every_verb_stands_in_the_justfile() -> None:
    just = shutil.which("just", path=str(Path(sys.executable).parent)) or "just"
    told = subprocess.run([just, "--summary"], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    texts = [path.read_text(encoding="utf-8") for path in [*DOCS.glob("*.md"), *REPOSITORY.glob("*.md")]]
    typed = {words[1] for block in SHELL for words in block.commands if words[0] == "just"}
    quoted = {verb for text in texts for verb in re.findall(r"`uv run just ([a-z][a-z-]*)", text)}
    assert sorted((typed | quoted) - {*told.split()}) == []


def test_the_archive_of_the_documents_is_one(drawn_world: Path) -> None:
    with zipfile.ZipFile(drawn_world / "photos.zip") as archive:
        assert "train.csv" in archive.namelist()
