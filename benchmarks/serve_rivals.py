"""What the service is measured against, each in a process of its own.

    python benchmarks/serve_rivals.py in-process MODEL PHOTOS_DIR SECONDS THREADS    prints JSON
    python benchmarks/serve_rivals.py plain CHECKPOINT PORT                          a server (needs torch)

`plain` is what many projects have: FastAPI, Pillow, and eager PyTorch inside the endpoint.
"""

import io
import itertools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cassava_leaf_disease.data.allocator import keep_freed_memory
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.onnx_engine import OnnxEngine
from cassava_leaf_disease.inference.predictor import Predictor


def in_process(model: Path, photos_dir: Path, seconds: float, threads: int) -> dict[str, float]:
    """Photos a second and latencies of the predictor alone.

    `rate` is the best of two ways: one photo after another with all processors, and as many threads as processors
    with one each.
    """
    keep_freed_memory()
    photos = [path.read_bytes() for path in sorted(photos_dir.iterdir())]
    wide, narrow = (Predictor(OnnxEngine(model, "cpu", count), FoundModel(model, "explicit")) for count in (threads, 1))
    for photo in photos[:8]:
        wide.predict_bytes(photo, name="warm")
        narrow.predict_bytes(photo, name="warm")
    latencies = []
    end = time.perf_counter() + seconds
    for photo in itertools.cycle(photos):
        before = time.perf_counter()
        wide.predict_bytes(photo, name="leaf")
        latencies.append(time.perf_counter() - before)
        if time.perf_counter() > end:
            break
    latencies.sort()
    started = time.perf_counter()
    end = started + seconds
    turns = itertools.cycle(photos)

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            narrow.predict_bytes(next(turns), name="leaf")
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        together = sum(pool.map(work, range(threads))) / (time.perf_counter() - started)
    return {
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(0.99 * len(latencies))],
        "one_by_one": len(latencies) / sum(latencies),
        "together": together,
        "rate": max(together, len(latencies) / sum(latencies)),
    }


def plain(checkpoint: Path, port: int) -> None:
    """FastAPI and eager PyTorch, the model called in the endpoint."""
    import numpy as np
    import torch
    import uvicorn
    from fastapi import FastAPI, UploadFile
    from PIL import Image

    from cassava_leaf_disease.domain import CLASS_NAMES
    from cassava_leaf_disease.inference.engines.torch_engine import restore_network
    from cassava_leaf_disease.modeling.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    network = restore_network(loaded, checkpoint).eval()
    spec = loaded.metadata.preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    app = FastAPI()

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, float]:
        image = Image.open(io.BytesIO(await file.read())).convert("RGB").resize((spec.image_size_px,) * 2)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            probabilities = network(((tensor - mean) / std)[None]).softmax(1)[0].tolist()
        return dict(zip(CLASS_NAMES, probabilities, strict=True))

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def main() -> None:
    """One of the two."""
    match sys.argv[1:]:
        case ["in-process", model, photos_dir, seconds, threads]:
            print(json.dumps(in_process(Path(model), Path(photos_dir), float(seconds), int(threads))))
        case ["plain", checkpoint, port]:
            plain(Path(checkpoint), int(port))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
