"""`cassava score`: a row for each of very many photos, on this machine or over a cluster; killed runs go on."""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Verdict
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.inference.discover import find_model
from cassava_leaf_disease.inference.model_files import check_device, is_exported
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.scale.cluster import score_parts_on_ray
from cassava_leaf_disease.scale.inputs import Part, Source, find_source, is_remote, read_parts, write_listing
from cassava_leaf_disease.scale.journal import MAX_EXAMPLES, PartRecord, Plan, refuse_changes
from cassava_leaf_disease.scale.local import Advance
from cassava_leaf_disease.scale.progress import photo_bar
from cassava_leaf_disease.scale.rows import Row, TableFormat, join_tables, write_rows
from cassava_leaf_disease.scale.shipped import ShippedModel, ship
from cassava_leaf_disease.scale.target import Target, find_target
from cassava_leaf_disease.scale.work_order import WorkOrder, order_work
from cassava_leaf_disease.storage.files import write_json
from cassava_leaf_disease.storage.s3_transfer import sha256_of

logger = logging.getLogger(__name__)


class ScoreResult(BaseModel):
    """What was scored, and where the rows lie: in one file, or in a folder of parts.

    `predicted` and `errors` sum to `photos`; `verdicts` and `classes` count what was predicted. Of the photos
    `resumed_photos` were scored by earlier starts; `seconds` and `photos_per_second` are of this one, without the
    time it takes to list photos and to load the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path
    format: TableFormat
    input: str
    engine: Literal["local", "ray"]
    model: ModelIdentity
    views: tuple[str, ...]
    photos: int
    predicted: int
    errors: int
    verdicts: dict[str, int]
    classes: dict[str, int]
    error_examples: tuple[str, ...]
    resumed_photos: int
    seconds: float
    photos_per_second: float | None


@dataclass(frozen=True)
class Job:
    """What is scored, with which model, and where to."""

    config: AppConfig
    source: Source
    target: Target
    model: ShippedModel
    predictor: AnyPredictor

    @property
    def row_settings(self) -> dict[str, str | int | float | None]:
        """All that rows depend on. The device is not among it: it moves probabilities by rounding only."""
        settings, infer = self.config.score, self.config.infer
        return {
            "score.input": self.source.where,
            "the table's SHA-256": self.source.digest,
            "score.path_column": settings.path_column,
            "score.root": str(self.source.base),
            "score.format": self.target.table,
            "score.part_rows": settings.part_rows,
            "score.batch_size": settings.batch_size,
            "infer.tta": infer.tta,
            "infer.max_image_bytes": infer.max_image_bytes,
            "infer.max_image_pixels": infer.max_image_pixels,
            "the model": f"{self.predictor.identity.name} {self.predictor.identity.version}",
            "the model's SHA-256": self.model.digest,
            "cassava's version": __version__,
        }


def score(config: AppConfig) -> ScoreResult:
    """Scores the photos of `score.input` into `score.output`.

    Raises:
        CassavaError: No photos, no model, no place for the rows; or another model or other settings than those that
            an unfinished run was begun with.
    """
    if config.infer.engine == "triton":
        raise ConfigError("infer.engine=triton: `cassava score` loads the model itself; type infer.engine=auto")
    source = find_source(config.score)
    here = order_work(config, source.base, remote=False)
    if config.score.engine == "ray":  # the actors answer, perhaps on GPUs that this machine has not
        here = replace(here, device="cpu")
    check_device(here.device, config.infer.checkpoint_path)
    found = find_model(config)
    target = find_target(config)
    predictor = here.load(found)
    if not all(is_exported(Path(path)) for path in predictor.identity.members or (predictor.identity.path,)):
        logger.info("a CPU answers faster by an exported model: cassava export infer.checkpoint_path=%s", found.path)
    job = Job(config, source, target, ship(found), predictor)
    plan = _plan(job)
    if target.folder.summary_path.is_file():
        logger.info("%s: finished already, by an earlier start", target.output)
        return ScoreResult.model_validate_json(target.folder.summary_path.read_bytes())
    return _run(job, plan)


def _plan(job: Job) -> Plan:
    """The plan of the run: the one that it was begun with, or a new one."""
    folder = job.target.folder
    if folder.is_begun:
        plan = folder.read_plan()
        refuse_changes(plan.settings, job.row_settings, job.target.output)
        if not folder.summary_path.is_file() and sha256_of(folder.listing_path) != plan.listing_sha256:
            raise DataError(f"{folder.listing_path}: damaged; type another score.output to score everything anew")
        return plan
    listing = write_listing(job.source, folder.listing_path)
    plan = Plan(
        photos=listing.count,
        listing_sha256=listing.sha256,
        part_rows=job.config.score.part_rows,
        table=job.target.table,
        settings=job.row_settings,
    )
    folder.write_plan(plan)
    return plan


def _run(job: Job, plan: Plan) -> ScoreResult:
    """Scores the parts that do not stand yet, then sums up all of them."""
    folder, output = job.target.folder, job.target.output
    folder.clear_leftovers()
    records = folder.read_journal(plan)
    resumed = sum(record.rows for record in records.values())
    logger.info("%s photos, %s of them scored before; rows go to %s", f"{plan.photos:,}", f"{resumed:,}", output)
    order = order_work(job.config, job.source.base, remote=is_remote(folder.listing_path))
    parts = read_parts(folder.listing_path, plan.part_rows, frozenset(records))
    started = time.perf_counter()
    with photo_bar(plan.photos, resumed) as advance, folder.journal() as journal:
        for number, rows in _scored(job, parts, order, advance):
            write_rows(folder.part_path(number, plan.table), rows, plan.table)
            records[number] = PartRecord.of(number, rows)
            journal.enter(records[number])
    result = _sum_up(job, plan, records.values(), resumed, time.perf_counter() - started)
    _finish(job.target, plan, result)
    return result


def _scored(job: Job, parts: Iterable[Part], order: WorkOrder, advance: Advance) -> Iterator[tuple[int, list[Row]]]:
    if job.config.score.engine == "ray":
        yield from score_parts_on_ray(parts, job.model, order, job.config.score.ray, advance)
        return
    yield from order.score(parts, job.predictor, advance)


def _sum_up(job: Job, plan: Plan, records: Collection[PartRecord], resumed: int, seconds: float) -> ScoreResult:
    errors = sum(record.errors for record in records)
    verdicts = sum((Counter(record.verdicts) for record in records), Counter[str]())
    classes = sum((Counter(record.classes) for record in records), Counter[str]())
    examples = [example for record in sorted(records, key=lambda each: each.part) for example in record.examples]
    fresh = plan.photos - resumed
    return ScoreResult(
        output=job.target.output,
        format=plan.table,
        input=job.source.where,
        engine=job.config.score.engine,
        model=job.predictor.identity,
        views=job.predictor.views,
        photos=plan.photos,
        predicted=plan.photos - errors,
        errors=errors,
        verdicts={name: verdicts[name] for name in get_args(Verdict)},
        classes={name: classes[name] for name in CLASS_NAMES},
        error_examples=tuple(examples[:MAX_EXAMPLES]),
        resumed_photos=resumed,
        seconds=seconds,
        photos_per_second=fresh / seconds if fresh else None,
    )


def _finish(target: Target, plan: Plan, result: ScoreResult) -> None:
    """Joins the parts where one file was asked for; the summary, which says that all is done, is written last."""
    folder, parts = target.folder, target.folder.part_paths(plan)
    if target.file is not None:
        join_tables(parts, target.file, plan.table)
    write_json(folder.summary_path, result.model_dump(mode="json"))
    if target.file is not None:
        for path in (*parts, folder.listing_path):
            path.unlink(missing_ok=True)
