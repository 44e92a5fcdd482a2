"""Makes the package's model from checkpoints of `experiment=default_model`, measures it, and writes that down.

    just ship-model --checkpoint outputs/runs/version_0/checkpoints/best.ckpt --data data/cassava --seconds 237
        --hardware "1 x NVIDIA H100" [--outside ghana/labels.csv ghana/images disease] [--foreign photos/not_cassava]
    just ship-model --checkpoint a/best.ckpt b/best.ckpt …   # or ensemble.json: two networks that answer as one

Several checkpoints become one file, whose combined answer is calibrated anew where they share a split (an
`ensemble.json` is taken as it stands).

Writes `assets/default_model.onnx` and its `.drift.json`, `docs/results/default_model.json`, and the tables between the
marks in `docs/model-card.md`. Everything is measured here, on this machine's CPU, with the commands that a user types.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

if TYPE_CHECKING:
    from cassava_leaf_disease.inference.predictor import AnyPredictor

ROOT = Path(__file__).resolve().parents[1]
ASSET = ROOT / "src" / "cassava_leaf_disease" / "assets" / "default_model.onnx"
RECORD = ROOT / "docs" / "results" / "default_model.json"
CARD = ROOT / "docs" / "model-card.md"
MAX_BYTES = 6_000_000
# Of one network, and of several: with arithmetic in int8 browsers are slower, and answer otherwise than servers.
PRECISIONS = ("fp16_weights", "int8_weights")
TIMED_PHOTOS = 32
_ABOUT: Final = ("git_commit", "backbone", "data_fingerprint", "created_at", "version", "split")


def main() -> int:
    """Returns 1 where the checkpoints cannot be shipped."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        return ship(options, Path(folder))


def ship(options: argparse.Namespace, folder: Path) -> int:
    """As `main`, with a folder for what is thrown away."""
    places = [f"paths.data_dir={options.data}"]
    checkpoint = join(options.checkpoint, folder)
    members = describe(checkpoint)
    for about in members:
        if lacking := [name for name in ("gate", "class_prior", "git_commit") if about[name] is None]:
            told = f"{about['name']} {about['version']}: without {', '.join(lacking)}"
            sys.stderr.write(f"{told}; expected calibrated, gated checkpoints\n")
            return 1
    one_split = len({about["split"]["hash"] for about in members}) == 1
    words = [f"infer.checkpoint_path={checkpoint}"]
    if len(options.checkpoint) > 1 and one_split:
        cassava("calibrate", *words, *places)
    precision = options.precision or PRECISIONS[len(members) > 1]
    made = folder / ASSET.name  # the one before it stays until this one is known to be small enough
    exported = cassava("export", *words, f"export.output_path={made}", f"export.precision={precision}", *places)
    if exported["bytes"] > MAX_BYTES:
        sys.stderr.write(f"{precision}: {exported['bytes']} bytes; expected at most {MAX_BYTES}\n")
        return 1
    shutil.copyfile(made, ASSET)
    part = "test" if all(about["split"]["photos"].get("test") for about in members) else "val"
    asked = [f"evaluate.part={part}", *places]
    record = {
        "training": {
            "members": [{name: about[name] for name in _ABOUT} for about in members],
            "command": options.command,
            "hardware": options.hardware,
            "seconds": options.seconds,
        },
        "file": {name: exported[name] for name in ("bytes", "precision", "agreement", "max_difference")},
        "part": part,
        "checkpoint": figures(cassava("evaluate", *words, *asked)),
        "shipped": figures(cassava("evaluate", f"infer.checkpoint_path={ASSET}", *asked)),
        "alone": [
            figures(cassava("evaluate", f"infer.checkpoint_path={path}", f"evaluate.output_dir={folder}", *asked))
            for path in exported.get("members", ())
        ],
        "latency": latency(options.data),
    }
    if options.outside:
        table, images, column = options.outside
        given = (f"evaluate.csv_path={table}", f"evaluate.images_dir={images}")
        named = (f"evaluate.label_column={column}", f"evaluate.class_map={table}")
        record["outside"] = figures(cassava("evaluate", f"infer.checkpoint_path={ASSET}", *given, *named))
    if options.foreign:
        record["foreign"] = dict(Counter(verdicts(options.foreign)))
    unseen = "val" if one_split else part
    cassava("drift-reference", f"infer.checkpoint_path={ASSET}", f"drift.part={unseen}", *places)
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_card(record)
    print(RECORD.read_text(encoding="utf-8"))
    return 0


def join(checkpoints: Sequence[Path], folder: Path) -> Path:
    """The one checkpoint, or an ensemble's file of several."""
    if len(checkpoints) == 1:
        return checkpoints[0]
    named = ",".join(str(path.resolve()) for path in checkpoints)
    path = folder / "ensemble.json"
    cassava("ensemble", f"ensemble.members=[{named}]", f"ensemble.output_path={path}")
    return path


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, nargs="+", help="one, several, or an ensemble.json")
    parser.add_argument("--data", type=Path, required=True, help="the photos that it was trained on")
    parser.add_argument("--precision", help=f"instead of {PRECISIONS[0]} for one network, {PRECISIONS[1]} for several")
    parser.add_argument("--command", default="cassava train experiment=default_model model.pretrained=true")
    parser.add_argument("--hardware", required=True, help="that it was trained on")
    parser.add_argument("--seconds", type=float, required=True, help="that the training took")
    parser.add_argument("--outside", nargs=3, metavar=("TABLE", "IMAGES", "COLUMN"), help="photos from elsewhere")
    parser.add_argument("--foreign", type=Path, help="a folder of photos without cassava")
    return parser.parse_args()


def cassava(*words: str) -> dict[str, Any]:
    """The answer of a command."""
    program = str(Path(sys.executable).with_name("cassava"))
    run = subprocess.run([program, *words], check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def describe(checkpoint: Path) -> list[dict[str, Any]]:
    """The self-descriptions of the networks in a checkpoint or an ensemble."""
    from cassava_leaf_disease.inference.discover import FoundModel
    from cassava_leaf_disease.inference.ensemble import load_found

    described = load_found(FoundModel(checkpoint, "explicit"), "cpu").described
    return [metadata.model_dump(mode="json") for metadata in described]


def figures(evaluated: dict[str, Any]) -> dict[str, Any]:
    """What the card tells of an evaluation."""
    return {name: evaluated[name] for name in ("scores", "outside", "verdicts") if name in evaluated}


def predictor() -> "AnyPredictor":
    """The shipped file on the CPU."""
    from cassava_leaf_disease.inference.discover import FoundModel
    from cassava_leaf_disease.inference.ensemble import load_found

    return load_found(FoundModel(ASSET, "package"), "cpu")


def verdicts(folder: Path) -> list[str]:
    """Of all photos in a folder."""
    answerer = predictor()
    return [answerer.predict_bytes(path.read_bytes(), name=path.name).verdict for path in sorted(folder.rglob("*.jpg"))]


def latency(data: Path) -> dict[str, Any]:
    """Milliseconds from the bytes of a photo to its verdict, on one processor."""
    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from ship_model import time_photos; "
        "print(json.dumps(time_photos(sys.argv[2])))"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent), str(data)]
    run = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def time_photos(data: str) -> dict[str, Any]:
    """As `latency`, in a process that may use one processor."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    answerer = predictor()
    photos = [path.read_bytes() for path in sorted((Path(data) / "train_images").glob("*.jpg"))[:TIMED_PHOTOS]]
    answerer.predict_bytes(photos[0], name="warm-up")
    took, used = [], []
    for photo in photos:
        started, busy = time.perf_counter(), time.process_time()
        answerer.predict_bytes(photo, name="photo")
        took.append(1000 * (time.perf_counter() - started))
        used.append(1000 * (time.process_time() - busy))
    return {
        "photos": len(photos),
        "median_ms": round(statistics.median(took), 1),
        "median_processor_ms": round(statistics.median(used), 1),
        "processors": 1,
        "machine": platform.machine(),
    }


def write_card(record: dict[str, Any]) -> None:
    """Puts the tables between the marks of the model card."""
    before, _, rest = CARD.read_text(encoding="utf-8").partition("<!-- figures -->\n")
    _, _, after = rest.partition("<!-- /figures -->")
    CARD.write_text(f"{before}<!-- figures -->\n{tables(record)}<!-- /figures -->{after}", encoding="utf-8")


def tables(record: dict[str, Any]) -> str:
    """The figures of the model card, in Markdown."""
    networks = record["training"]["members"]
    made_of = "its checkpoint" if len(networks) == 1 else "its checkpoints together"
    rows = ["| | photos | accuracy | macro-F1 | calibration error |", "| --- | --- | --- | --- | --- |"]
    for name, key in (("this file", "shipped"), (made_of, "checkpoint")):
        rows.append(summary(f"{record['part']} part, {name}", record[key]["scores"]))
    for number, alone in enumerate(record["alone"], 1):
        rows.append(summary(f"{record['part']} part, network {number} alone", alone["scores"]))
    if "outside" in record:
        rows.append(summary("photos from elsewhere", record["outside"]["scores"], classes=False))
    rows += ["", "| class | precision | recall | F1 | photos |", "| --- | --- | --- | --- | --- |"]
    for name, each in record["shipped"]["scores"]["per_class"].items():
        rows.append(
            f"| {name} | {each['precision']:.2f} | {each['recall']:.2f} | {each['f1']:.2f} | {each['support']} |"
        )
    if "outside" in record:
        rows += ["", *elsewhere(record["outside"]["outside"]["classes"])]
    if len(networks) > 1:
        rows += ["", "| network | backbone | version | commit |", "| --- | --- | --- | --- |"]
        for number, each in enumerate(networks, 1):
            rows.append(f"| {number} | {each['backbone']} | {each['version']} | {each['git_commit'][:7]} |")
    timing, file = record["latency"], record["file"]
    rows += [
        "",
        f"One photo on one processor ({timing['machine']}), bytes to verdict: {timing['median_processor_ms']} ms of "
        f"processor time (median of {timing['photos']}). The file has {file['bytes']:,} bytes "
        f"(`{file['precision']}`); {file['agreement']:.1%} of its answers about validation photos are "
        f"{'its checkpoint' if len(networks) == 1 else 'the checkpoints'}'{'s' if len(networks) == 1 else ''}.",
    ]
    if "foreign" in record:
        counts = ", ".join(f"{count} `{verdict}`" for verdict, count in sorted(record["foreign"].items()))
        rows.append(f"Of {sum(record['foreign'].values())} photos without cassava: {counts}.")
    return "\n".join(rows) + "\n"


def elsewhere(classes: Sequence[dict[str, Any]]) -> list[str]:
    """A table of what becomes of the photos of another collection, class by class."""
    from cassava_leaf_disease.domain import Verdict

    kinds = get_args(Verdict)
    rows = [
        f"| class elsewhere | ours | photos | named so | {' | '.join(f'`{kind}`' for kind in kinds)} |",
        "| --- " * (4 + len(kinds)) + "|",
    ]
    for each in classes:
        recall = (
            "" if each["recall"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(each["recall"], *each["recall_interval"])
        )
        counts = " | ".join(str(each["verdicts"].get(kind, 0)) for kind in kinds)
        rows.append(f"| {each['name']} | {each['counterpart'] or 'none'} | {each['photos']} | {recall} | {counts} |")
    return rows


def summary(name: str, scores: dict[str, Any], *, classes: bool = True) -> str:
    """A row of the first table."""
    spans = {key: "[{:.3f}, {:.3f}]".format(*scores["intervals"][key]) for key in ("accuracy", "f1_macro")}
    f1 = f"{scores['f1_macro']:.3f} {spans['f1_macro']}" if classes else ""
    accuracy = f"{scores['accuracy']:.3f} {spans['accuracy']}"
    return f"| {name} | {scores['photos']} | {accuracy} | {f1} | {scores['calibration_error']:.3f} |"


if __name__ == "__main__":
    sys.exit(main())
