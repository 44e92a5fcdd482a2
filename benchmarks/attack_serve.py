"""Hostile photos against a running service: no failure but honest refusals, and its memory stays.

    python benchmarks/attack_serve.py [--mutations 10000] [--seed 1] [--model best.onnx]

Starts `cassava serve` on 127.0.0.1, sends the hand-made attacks of tools/hostile_photos.py and so many mutations of
small pictures and, where $CASSAVA_TEST_DATA has them, of real photos; then says how often each status came, and how
the service's memory went. The exit code is 1 where an answer was no honest one.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from bench_serve import photos_dir, running, stand_in
from serve_load import exchange, request_of, resident_mb

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from hostile_photos import hand_made, mutations, sample_photos

HONEST = {200, 413, 415, 422, 503}
PATHS = ("/predict", "/predict", "/predict", "/explain")


def main() -> int:
    """Attacks; 1 where the service has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--concurrency", type=int, default=4)
    options = parser.parse_args()
    os.environ["CASSAVA_LOG_LEVEL"] = "ERROR"
    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or stand_in(Path(scratch))
        real = [path.read_bytes() for path in sorted(photos_dir(Path(scratch), 8).iterdir())]
        photos = sample_photos()
        attacks = [*(data for _, data in hand_made(photos)), *photos]
        fuzzed = mutations([*photos * 2, *real], options.mutations, options.seed)
        with running("service", model) as (process, port):
            statuses = asyncio.run(attack(port, attacks, options.concurrency))
            memory = []
            for _ in range(10):
                statuses += asyncio.run(attack(port, islice(fuzzed, options.mutations // 10), options.concurrency))
                memory.append(resident_mb(process.pid))
    print(f"{sum(statuses.values())} hostile photos: {dict(sorted(statuses.items()))}")
    print(f"memory after each tenth, MB: {', '.join(f'{each:.0f}' for each in memory)}")
    dishonest = {status: count for status, count in statuses.items() if status not in HONEST}
    print(f"not honest: {dishonest or 'none'}")
    return 1 if dishonest else 0


async def attack(port: int, photos: Iterable[bytes], concurrency: int) -> Counter[int]:
    """How often each status came; 0 counts connections that broke."""
    statuses: Counter[int] = Counter()
    turns = iter(enumerate(photos))

    async def client() -> None:
        connection = None
        for number, photo in turns:
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                status, stays, _ = await exchange(*connection, request_of(photo, path=PATHS[number % len(PATHS)]))
            except (OSError, asyncio.IncompleteReadError, ValueError):
                status, stays = 0, False
            statuses[status] += 1
            if not stays and connection is not None:
                connection[1].close()
                connection = None

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return statuses


if __name__ == "__main__":
    sys.exit(main())
