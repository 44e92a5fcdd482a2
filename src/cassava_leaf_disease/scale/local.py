"""Photos through threads of this process, in their order, with a bounded number of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from cassava_leaf_disease.scale.inputs import Part
from cassava_leaf_disease.scale.rows import Row
from cassava_leaf_disease.scale.scorer import Chunk, Scorer

Advance = Callable[[int, int], None]  # photos, and how many of them are errors


def score_parts(
    parts: Iterable[Part], scorer: Scorer, *, threads: int, batch_size: int, advance: Advance
) -> Iterator[tuple[int, list[Row]]]:
    """The number and the rows of each part, part after part.

    While the caller writes them, the threads are at work on the next one. ONNX Runtime and Pillow work without
    Python's lock, so threads are enough (see `serving/answerers.py`).

    Raises:
        CassavaError: As `Scorer.score`.
    """
    window = 4 * threads  # chunks in flight: a slow photo holds up none of the others for long
    waiting: deque[tuple[Part, Future[list[Row]]]] = deque()
    done: list[Row] = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cassava-score")
    try:
        for part, chunk in _chunks(parts, batch_size):
            waiting.append((part, pool.submit(scorer.score, chunk)))
            if len(waiting) >= window:
                yield from _take(waiting, done, advance)
        while waiting:
            yield from _take(waiting, done, advance)
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(parts: Iterable[Part], batch_size: int) -> Iterator[tuple[Part, Chunk]]:
    """No chunk reaches over the end of its part, so that a resumed run cuts them alike."""
    for part in parts:
        for start in range(0, len(part.paths), batch_size):
            yield part, Chunk(part.first_row + start, part.paths[start : start + batch_size])


def _take(
    waiting: deque[tuple[Part, Future[list[Row]]]], done: list[Row], advance: Advance
) -> Iterator[tuple[int, list[Row]]]:
    """The oldest chunk's rows join those of their part, which is given when it is complete."""
    part, future = waiting.popleft()
    rows = future.result()
    done.extend(rows)
    advance(len(rows), sum(row.error is not None for row in rows))
    if len(done) == len(part.paths):
        yield part.number, done[:]
        done.clear()
