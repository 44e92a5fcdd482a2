"""Photos over the machines of a Ray cluster: each actor is a process that works as this one would.

Parts travel there as lists of paths, and come back as rows; only this process writes. The model's files travel along,
photos do not: every machine must find them under the same paths, or in S3.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.schema import ScoreRayConfig
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import CassavaError, ProcessError, first_line
from cassava_leaf_disease.scale.inputs import Part
from cassava_leaf_disease.scale.local import Advance
from cassava_leaf_disease.scale.rows import Row, rows_as_json, rows_from_json
from cassava_leaf_disease.scale.shipped import ShippedModel
from cassava_leaf_disease.scale.work_order import WorkOrder

if TYPE_CHECKING:
    import ray

Batch = Mapping[str, npt.NDArray[Any]]

_OBJECT_STORE_BYTES: Final = 200_000_000  # of a cluster that is started for this: paths, rows and the model are small
_STARTS: Final = 3
_QUIET: Final[Mapping[str, Any]] = {"logging_level": logging.ERROR, "log_to_driver": False}


class PartScorer:
    """Works in an actor: the model is loaded once, and answers about one part after another."""

    def __init__(self, model: "ShippedModel | ray.ObjectRef[ShippedModel]", order: WorkOrder, version: str) -> None:
        if version != __version__:
            raise ProcessError(f"a machine of the cluster has cassava {__version__}, this one {version}; install one")
        if not isinstance(model, ShippedModel):
            import ray

            model = ray.get(model)
        self._order = order
        with tempfile.TemporaryDirectory(prefix="cassava-score-") as folder:
            self._predictor = order.load(model.unpack(Path(folder)))

    def __call__(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """The rows of parts, as text."""
        parts = [
            Part(int(number), int(first_row), tuple(json.loads(paths)))
            for number, first_row, paths in zip(batch["part"], batch["first_row"], batch["paths"], strict=True)
        ]
        scored = self._order.score(parts, self._predictor, lambda *_: None)
        rows = [rows_as_json(rows) for _, rows in scored]
        return {"part": batch["part"], "rows": np.array(rows, np.object_)}


def score_parts_on_ray(
    parts: Iterable[Part], model: ShippedModel, order: WorkOrder, settings: ScoreRayConfig, advance: Advance
) -> Iterator[tuple[int, list[Row]]]:
    """The number and the rows of each part, as they come.

    Raises:
        CassavaError: As `score_parts`; or the cluster cannot be reached, or gave up.
    """
    items = [{"part": part.number, "first_row": part.first_row, "paths": json.dumps(part.paths)} for part in parts]
    if not items:
        return
    with _connected(settings, order) as actors, _told_in_one_line():
        import ray

        shipped = ray.put(model)  # kept here: an actor that is started again asks for it again
        strategy = ray.data.ActorPoolStrategy(size=min(actors, len(items)))
        scored = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            PartScorer,
            fn_constructor_args=(shipped, order, __version__),
            batch_size=1,
            compute=strategy,
            num_cpus=order.workers,
            num_gpus=settings.gpus or None,
        )
        for batch in scored.iter_batches(batch_size=1, prefetch_batches=0):
            rows = rows_from_json(str(batch["rows"][0]))
            advance(len(rows), sum(row.error is not None for row in rows))
            yield int(batch["part"][0]), rows


@contextmanager
def _connected(settings: ScoreRayConfig, order: WorkOrder) -> Iterator[int]:
    """A cluster, with how many actors it has room for; one is started on this machine where none is named."""
    with _environment({"RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0")}):
        import ray

        try:
            # Started by `uv run`, Ray would copy the whole current folder, photos and all, to each machine.
            with _constants(RAY_ENABLE_UV_RUN_RUNTIME_ENV=False):
                if settings.address is None:
                    _start(settings, order)
                else:
                    _join(settings.address)
            ray.data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            yield _actors(settings, order, ray.cluster_resources())  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()


def _start(settings: ScoreRayConfig, order: WorkOrder) -> None:
    """A cluster of this machine alone: Ray would listen on all its addresses, whatever address it is given.

    Only where it takes clusters to be impossible, as on Windows and macOS, it keeps to 127.0.0.1.
    """
    import ray
    from ray._private import ray_constants

    cpus = available_cpus() if settings.actors == "auto" else settings.actors * order.workers
    with _constants(ENABLE_RAY_CLUSTER=False), _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
        _start_patiently(max(cpus, order.workers))
    address = ray.nodes()[0]["NodeManagerAddress"]  # type: ignore[no-untyped-call]
    if address != "127.0.0.1":
        raise ProcessError(
            f"Ray {ray.__version__} listens at {address}, expected 127.0.0.1; install the pinned version"
        )


def _start_patiently(cpus: int) -> None:
    """Tries several times: Ray itself waits half a minute for its processes, which a busy machine may need longer."""
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **_QUIET)
        except Exception as error:  # it raises nothing more special
            if attempt == _STARTS:
                raise ProcessError(
                    f"Ray does not start on this machine ({first_line(error)[:200]}); type score.resume=true to try "
                    "again when it has less to do, or score.engine=local"
                ) from error
        else:
            return


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address, **_QUIET)
    except (ConnectionError, ValueError) as error:
        raise ProcessError(
            f"score.ray.address={address}: no Ray cluster answers ({first_line(error)}); start one with "
            "`ray start --head`, or type score.ray.address=null for one on this machine"
        ) from None


@contextmanager
def _constants(**values: bool) -> Iterator[None]:
    """What Ray read from the environment when it was imported, which may be long ago, while the block runs."""
    from ray._private import ray_constants

    before = {name: getattr(ray_constants, name) for name in values}
    for name, value in values.items():
        setattr(ray_constants, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(ray_constants, name, value)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that hold while the block runs, for child processes too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _actors(settings: ScoreRayConfig, order: WorkOrder, resources: Mapping[str, float]) -> int:
    """How many are wanted; no more than there is room for, or Ray would wait for ever."""
    room = int(resources.get("CPU", 0) // order.workers)
    if settings.gpus:
        room = min(room, int(resources.get("GPU", 0) / settings.gpus))
    wanted = room if settings.actors == "auto" else settings.actors
    if not 0 < wanted <= room:
        raise ProcessError(
            f"score.ray.actors={settings.actors} score.workers={order.workers} score.ray.gpus={settings.gpus:g}: the "
            f"cluster has room for {room} such actors; type a number from 1 to that, or smaller ones"
        )
    return wanted


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    """What an actor raised, as if it had been raised here.

    Raises:
        CassavaError: An actor's own, or that Ray gave up.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        own = next((each for each in _chain(error) if isinstance(each, CassavaError)), None)
        if own is not None:
            raise own from None
        raise ProcessError(f"Ray gave up: {first_line(error)}; type score.resume=true to go on") from error


def _chain(error: BaseException) -> Sequence[BaseException]:
    """An exception and all that caused it, Ray's own attribute for that included."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in found:
            found.append(each)
            waiting += [each.__cause__, getattr(each, "cause", None)]
    return found
