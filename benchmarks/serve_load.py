"""A load of photos on a server of this machine, with little work of its own: the processors are the server's."""

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOUNDARY = b"cassava-load"


@dataclass
class Load:
    """What a load found: seconds of each answer, how many of each status, connections that broke."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0

    @property
    def rate(self) -> float:
        """Answers with a diagnosis a second."""
        return self.statuses[200] / self.seconds

    @property
    def failures(self) -> int:
        """Whatever was neither an answer nor an honest 503."""
        return self.broken + sum(count for status, count in self.statuses.items() if status not in (200, 503))

    def quantile_ms(self, share: float) -> float:
        """The latency below which that share of the answers stayed, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def request_of(photo: bytes, *, path: str = "/predict", field_name: str = "file") -> bytes:
    """A photo as a whole HTTP request."""
    disposition = b'Content-Disposition: form-data; name="%b"; filename="leaf.jpg"' % field_name.encode()
    body = b"--%b\r\n%b\r\nContent-Type: image/jpeg\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY, disposition, photo, BOUNDARY)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}\r\n\r\n"
    )
    return head.encode() + body


async def load(port: int, requests: Sequence[bytes], concurrency: int, seconds: float, most: int = 10**9) -> Load:
    """Keeps so many connections busy for so long, or until so many requests were sent; waits for the last answers."""
    found = Load()
    started = time.perf_counter()
    end = started + seconds
    sent = 0

    async def client(number: int) -> None:
        nonlocal sent
        turn, connection = number, None
        while time.perf_counter() < end and sent < most:
            sent += 1
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                before = time.perf_counter()
                status, stays, retry_s = await exchange(*connection, requests[turn % len(requests)])
            except (OSError, asyncio.IncompleteReadError, ValueError):
                found.broken += 1
                connection = None
                continue
            if status == 200:
                found.latencies_s.append(time.perf_counter() - before)
            found.statuses[status] += 1
            turn += concurrency
            if not stays:
                connection[1].close()
                connection = None
            if status == 503:  # as a client does that was told to come later, but sooner
                await asyncio.sleep(min(retry_s, 0.25))
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(client(number) for number in range(concurrency)))
    found.seconds = time.perf_counter() - started
    return found


def run(coroutine: Coroutine[Any, Any, Load]) -> Load:
    """Runs a load on the event loop that costs the machine least."""
    if sys.platform == "win32":
        return asyncio.run(coroutine)
    import uvloop

    return uvloop.run(coroutine)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bool, float]:
    """Sends a request and reads its answer: status, whether the connection stays, seconds of Retry-After."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(_header(head, b"content-length") or 0)
    await reader.readexactly(length)
    return int(head[9:12]), b"\r\nconnection: close" not in head, float(_header(head, b"retry-after") or 0)


def _header(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n%b:" % name)[2].partition(b"\r\n")[0].strip()


def resident_mb(pid: int) -> float:
    """Memory of a process that leads a session, and of all others in it, in megabytes."""
    pages = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == pid:
                pages += int((process / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
