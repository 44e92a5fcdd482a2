"""Drift of real photos against a model's reference, and what counting costs: the figures of docs/drift.md.

    python benchmarks/measure_drift.py --data-dir data/cassava --elsewhere ghana/images [--model best.onnx]

Photos of the test part, the same at three tenths of their brightness (each second one), and a folder from elsewhere.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.drift.compare import Thresholds, compare
from cassava_leaf_disease.drift.features import count
from cassava_leaf_disease.drift.recorder import Recorder
from cassava_leaf_disease.drift.reference import load_reference, reference_path
from cassava_leaf_disease.evaluation.selection import select_photos
from cassava_leaf_disease.imaging.decode import read_image
from cassava_leaf_disease.inference.ensemble import load_model

DARKER = 0.3
_FEW = Thresholds(min_photos=50)


def main() -> None:
    """Prints a line of JSON a collection, and one about the cost."""
    options = parse()
    model = "null" if options.model is None else str(options.model)
    config = load_config([f"paths.data_dir={options.data_dir}", f"infer.checkpoint_path={model}"])
    predictor = load_model(config)
    reference = load_reference(reference_path(Path(predictor.identity.path)))
    photos = select_photos(config, predictor).source
    test = [photos.image(index) for index in range(len(photos))]
    dark = [(image * DARKER).astype(np.uint8) for image in test[::2]]
    elsewhere: Iterator[np.ndarray] = map(read_image, sorted(options.elsewhere.iterdir()))
    for name, images in {"test": test, "dark": dark, "elsewhere": elsewhere}.items():
        answers = [predictor.predict_image(image) for image in images]
        features = compare(reference.counts, count(answers), _FEW)
        figures = {feature.feature: [round(feature.psi or 0, 3), feature.level] for feature in features}
        print(json.dumps({"photos": name, "number": len(answers), **figures}), flush=True)
    print(json.dumps(cost_of_counting(answers)))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="the model's training data")
    parser.add_argument("--elsewhere", type=Path, required=True, help="a folder of other photos")
    parser.add_argument("--model", type=Path, help="default: the newest run, else the package's model")
    return parser.parse_args()


def cost_of_counting(answers: Sequence[Prediction], rounds: int = 20) -> dict[str, float]:
    """Processor time of one answer counted, and of one flush."""
    recorder = Recorder("service", "sqlite:///outputs/bench-drift/counts.db")
    started = time.process_time()
    for _ in range(rounds):
        for answer in answers:
            recorder.record(answer)
    counted = time.process_time()
    recorder.flush()
    flushed = time.process_time()
    recorder.close()
    number = rounds * len(answers)
    return {"record_us": round((counted - started) / number * 1e6, 1), "flush_ms": round((flushed - counted) * 1e3, 1)}


if __name__ == "__main__":
    main()
