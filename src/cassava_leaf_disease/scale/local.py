"""Photos through threads of this process, in their order, with a bounded number of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from cassava_leaf_disease.scale.inputs import Part
from cassava_leaf_disease.scale.rows import Row
from cassava_leaf_disease.scale.scorer import Chunk, Files, Scorer

Advance = Callable[[int, int], None]  # photos, and how many of them are errors


def score_parts(  # noqa: PLR0913  # what is scored, with what, and by how many threads
    parts: Iterable[Part], scorer: Scorer, *, workers: int, readers: int, batch_size: int, advance: Advance
) -> Iterator[tuple[int, list[Row]]]:
    """The number and the rows of each part, part after part.

    Readers fetch files ahead; a worker takes what has been read, decodes it and asks the network, without waiting for
    anything while there is something to do. ONNX Runtime and Pillow work without Python's lock, so threads are enough
    (see `serving/answerers.py`).

    Raises:
        CassavaError: As `Scorer.read` and `Scorer.answer`.
    """
    window = 4 * workers + 2 * readers  # chunks in flight: a slow photo holds up none of the others for long
    waiting: deque[tuple[Part, Future[list[Row]]]] = deque()
    done: list[Row] = []
    working, reading = (ThreadPoolExecutor(max(1, count), "cassava-score") for count in (workers, readers))

    def work(chunk: Chunk, files: Future[Files] | None) -> list[Row]:
        return scorer.answer(chunk, scorer.read(chunk) if files is None else files.result())

    try:
        for part, chunk in _chunks(parts, batch_size):
            files = reading.submit(scorer.read, chunk) if readers else None
            waiting.append((part, working.submit(work, chunk, files)))
            if len(waiting) >= window:
                yield from _take(waiting, done, advance)
        while waiting:
            yield from _take(waiting, done, advance)
    finally:
        reading.shutdown(cancel_futures=True)
        working.shutdown(cancel_futures=True)


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
