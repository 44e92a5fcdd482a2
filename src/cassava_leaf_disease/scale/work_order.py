"""What an engine is told: how photos are read and asked about, on this machine or on others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cassava_leaf_disease.config.schema import AppConfig, Tta
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.imaging.decode import DecodeLimits
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import Device
from cassava_leaf_disease.inference.ensemble import load_found
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.scale.inputs import Part, PhotoReader
from cassava_leaf_disease.scale.local import Advance, score_parts
from cassava_leaf_disease.scale.rows import Row
from cassava_leaf_disease.scale.scorer import Scorer

_READERS_OF_FILES, _READERS_OF_S3 = 2, 16  # S3 takes tens of milliseconds to answer, whatever the size


@dataclass(frozen=True)
class WorkOrder:
    """`workers` threads decode photos and ask about them, `readers` more fetch their files ahead."""

    base: Path
    limits: DecodeLimits
    device: Device
    tta: Tta
    batch_size: int
    workers: int
    readers: int

    def load(self, found: FoundModel) -> AnyPredictor:
        """The model, with one thread for each photo.

        Raises:
            CassavaError: As `load_found`.
        """
        return load_found(found, self.device, self.limits, self.tta, threads=1)

    def score(
        self, parts: Iterable[Part], predictor: AnyPredictor, advance: Advance
    ) -> Iterator[tuple[int, list[Row]]]:
        """The number and the rows of each part, in this process.

        Raises:
            CassavaError: As `score_parts`.
        """
        with PhotoReader(self.base, self.limits) as reader:
            scorer = Scorer(predictor, reader, self.limits)
            yield from score_parts(
                parts,
                scorer,
                workers=self.workers,
                readers=self.readers,
                batch_size=self.batch_size,
                advance=advance,
            )


def order_work(config: AppConfig, base: Path, *, remote: bool) -> WorkOrder:
    """What the settings say; of Ray's actors each works on one photo at a time, unless they say otherwise."""
    settings, infer = config.score, config.infer
    most = 1 if settings.engine == "ray" else available_cpus()
    usual = _READERS_OF_S3 if remote else _READERS_OF_FILES
    return WorkOrder(
        base=base,
        limits=DecodeLimits(infer.max_image_bytes, infer.max_image_pixels),
        device=infer.device,
        tta=infer.tta,
        batch_size=settings.batch_size,
        workers=most if settings.workers == "auto" else settings.workers,
        readers=usual if settings.readers == "auto" else settings.readers,
    )
