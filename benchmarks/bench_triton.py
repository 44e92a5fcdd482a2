"""Photos a second, bytes to verdict, of a served ensemble against the same ensemble in this process.

    just bench-triton --photos data/cassava/train_images --members a.onnx,b.onnx
    just bench-triton --photos data/cassava/train_images --instances 1,2,4 --seconds 20

For each number of `preprocess` instances: exports the repository, starts a real tritonserver on the CPU, asks it with
16 requests under way at a time by the client that `infer` uses, and asks the local predictor before and after, in 2
threads with one processor each, which is its fastest way. Tells failures, p50 and p99, the ratio of throughputs, and
where the server spent its time (its own statistics, for each model: milliseconds for a photo in the queue and in the
work). The last number of instances is asked for `--seconds`, the others for a third of that. Ratios hold better than
seconds. Without `--members` two networks with random weights are made (resnet18 and mobilenetv2, 224 px).
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.export.triton.repository import export_triton
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.triton import TritonClient
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.predictor import AnyPredictor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from triton_server import TritonServer, make_environment

CONCURRENCY = 16
PHOTOS = 64


def main() -> int:
    """Prints a table; JSON last. Returns 1 if any request failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--members", help="exported models, with commas between")
    parser.add_argument("--instances", default="2", help="numbers of `preprocess` instances, with commas between")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    paths = sorted(options.photos.glob("*.jpg"))
    photos = [path.read_bytes() for path in paths[:: max(1, len(paths) // PHOTOS)][:PHOTOS]]
    numbers = [int(number) for number in options.instances.split(",")]
    with tempfile.TemporaryDirectory(prefix="cassava-bench-") as folder:
        members = (
            [Path(name) for name in options.members.split(",")] if options.members else random_members(Path(folder))
        )
        local = load_found(FoundModel(members[0], "explicit", tuple(members)), "cpu", threads=1)
        rows = []
        for number in numbers:
            seconds = options.seconds if number == numbers[-1] else options.seconds / 3
            rows.append(measure(Path(folder), members, number, local, photos, seconds))
            print_row(rows[-1])
    print(json.dumps(rows))
    return int(any(row["failures"] for row in rows))


def measure(  # noqa: PLR0913, PLR0917
    folder: Path, members: Sequence[Path], instances: int, local: AnyPredictor, photos: Sequence[bytes], seconds: float
) -> dict[str, Any]:
    """One number of instances: the local predictor, the server, the local predictor again."""
    repository = folder / "served"
    named = ",".join(f"'{path}'" for path in members)
    export_triton(
        load_config(
            [
                f"infer.checkpoint_path=[{named}]",
                f"export.triton.output_dir={repository}",
                f"export.triton.preprocess_instances={instances}",
                f"paths.data_dir={folder / 'none'}",
            ]
        )
    )
    server = TritonServer(
        repository / "models", make_environment(repository / "requirements.txt"), folder / "triton.log"
    )
    server.start()
    try:
        before = local_rate(local, photos, seconds / 4)
        latencies, failures, spent = asyncio.run(load(server.grpc_address, photos, seconds))
        statistics = where_time_goes(server.http_address)
    finally:
        server.stop()
    after = local_rate(local, photos, seconds / 4)
    rate, here = len(latencies) / spent, (before + after) / 2
    return {
        "instances": instances,
        "answers": len(latencies),
        "failures": failures,
        "seconds": round(spent, 1),
        "photos_per_s": round(rate, 1),
        "local_photos_per_s": [round(before, 1), round(after, 1)],
        "ratio": round(rate / here, 2),
        "p50_ms": round(float(np.percentile(latencies, 50)) * 1000, 1),
        "p99_ms": round(float(np.percentile(latencies, 99)) * 1000, 1),
        "models": statistics,
    }


async def load(address: str, photos: Sequence[bytes], seconds: float) -> tuple[list[float], int, float]:
    """Latencies of the answers, how many requests failed, and how long it took."""
    client = TritonClient(address, timeout_s=60)
    await client.predict_bytes(photos[0], name="first")
    started = time.monotonic()
    latencies: list[float] = []
    failures = 0
    waiting = cycle(photos)

    async def ask() -> None:
        nonlocal failures
        while time.monotonic() - started < seconds:
            begun = time.monotonic()
            try:
                await client.predict_bytes(next(waiting), name="photo")
                latencies.append(time.monotonic() - begun)
            except CassavaError as error:
                failures += 1
                print(error, file=sys.stderr)

    await asyncio.gather(*(ask() for _ in range(CONCURRENCY)))
    spent = time.monotonic() - started
    await client.close()
    return latencies, failures, spent


def local_rate(local: AnyPredictor, photos: Sequence[bytes], seconds: float) -> float:
    """Photos a second of this process, in two threads."""
    numbers = count()
    started = time.monotonic()

    def work() -> int:
        done = 0
        while time.monotonic() - started < seconds:
            local.predict_bytes(photos[next(numbers) % len(photos)], name="photo")
            done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        done = sum(pool.map(lambda _: work(), range(2)))
    return done / (time.monotonic() - started)


def where_time_goes(address: str) -> dict[str, dict[str, float]]:
    """Of each model milliseconds for a photo in the queue and in the work, and photos for each run."""
    import tritonclient.http

    client = tritonclient.http.InferenceServerClient(address)
    each = client.get_inference_statistics()["model_stats"]
    client.close()
    return {
        str(model["name"]): {
            "queue_ms": per_photo(model, "queue"),
            "work_ms": per_photo(model, "compute_infer"),
            "photos_per_run": round(int(model["inference_count"]) / max(int(model["execution_count"]), 1), 2),
        }
        for model in each
    }


def per_photo(model: Mapping[str, Any], part: str) -> float:
    """Milliseconds."""
    numbers = model["inference_stats"][part]
    return round(int(numbers["ns"]) / max(int(numbers["count"]), 1) / 1e6, 2)


def random_members(folder: Path) -> list[Path]:
    """Two exported networks whose weights nobody trained."""
    from cassava_leaf_disease.export.onnx import to_onnx
    from cassava_leaf_disease.imaging.preprocess import Preprocessing
    from cassava_leaf_disease.modeling.backbone import rebuild_network
    from untrained import describe_untrained

    paths = []
    for name in ("resnet18", "mobilenetv2_100"):
        metadata = describe_untrained(name, Preprocessing(image_size_px=224))
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(to_onnx(rebuild_network(name, 224, 5), metadata).SerializeToString())
    return paths


def print_row(row: Mapping[str, Any]) -> None:
    """For the eye."""
    print(
        f"preprocess x {row['instances']}: {row['answers']} answers, {row['failures']} failures in {row['seconds']} s; "
        f"{row['photos_per_s']} photos/s, {row['ratio']} x the local predictor ({row['local_photos_per_s']}); "
        f"p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms"
    )
    for name, model in row["models"].items():
        print(f"    {name:<12}" + "  ".join(f"{key} {value}" for key, value in model.items()))


if __name__ == "__main__":
    sys.exit(main())
