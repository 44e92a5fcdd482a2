"""`evaluate.report=true`: `report.html`, `report.json` and `figures/` beside the tables of an evaluation."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datasets import Image
from cassava_leaf_disease.domain import Verdict
from cassava_leaf_disease.evaluation.figures import (
    class_scores_figure,
    confusion_figure,
    reliability_figure,
    risk_coverage_figure,
    write_figure,
)
from cassava_leaf_disease.evaluation.outside import OutsideScores
from cassava_leaf_disease.evaluation.report.charts import (
    comparison_figure,
    outside_figure,
    precision_recall_figure,
    slices_figure,
)
from cassava_leaf_disease.evaluation.report.comparison import Answers, Comparison, compare
from cassava_leaf_disease.evaluation.report.curves import precision_recall
from cassava_leaf_disease.evaluation.report.gallery import (
    Heat,
    Shown,
    show,
    surest_answers,
    surest_mistakes,
    worst_of_each_class,
)
from cassava_leaf_disease.evaluation.report.numbers import Answered, Report, build_report, without_temperature
from cassava_leaf_disease.evaluation.report.page import Gallery, render_page
from cassava_leaf_disease.evaluation.report.rivals import ask_rival, is_table, read_answers
from cassava_leaf_disease.evaluation.report.slices import (
    Groups,
    Slicing,
    facts_of,
    groups_of_facts,
    groups_of_table,
    score_slices,
)
from cassava_leaf_disease.evaluation.scores import Scores
from cassava_leaf_disease.evaluation.selection import SelectedPhotos
from cassava_leaf_disease.imaging.preprocess import resize_shorter_side
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.storage.files import write_json, write_text

logger = logging.getLogger(__name__)

PAGE = "report.html"
HEAT_SIDE_PX = 1024  # shorter side to which a larger photo is brought before its heatmap is made


@dataclass(frozen=True)
class Measured:
    """A model, the photos it was asked about, and what it said: probabilities `(N, C)` and a verdict each."""

    predictor: AnyPredictor
    photos: SelectedPhotos
    probabilities: npt.NDArray[np.float64]
    verdicts: Sequence[Verdict]
    scores: Scores
    outside: OutsideScores | None

    @property
    def answered(self) -> Answered:
        """Those whose label is one of ours."""
        known = self.photos.known
        verdicts = [verdict for verdict, ours in zip(self.verdicts, known, strict=True) if ours]
        return Answered(self.photos.labels[known], self.probabilities[known], verdicts)


@dataclass(frozen=True)
class Preparations:
    """What is looked for before a model is asked, so that a mistake is told at once."""

    groups: tuple[Groups, ...]
    answers: tuple[Answers, ...]


def prepare_report(config: AppConfig, photos: SelectedPhotos) -> Preparations:
    """Reads the tables that the settings name.

    Raises:
        CassavaError: One is missing, damaged, or about other photos.
    """
    settings = config.evaluate
    tables = [path for path in settings.compare if is_table(path)]
    answers = tuple(read_answers(path, photos) for path in tables)
    groups: list[Groups] = []
    if settings.slices_csv is not None:
        groups = groups_of_table(settings.slices_csv, photos.image_ids, (settings.image_column, "image_id"))
    return Preparations(tuple(groups), answers)


def write_report(config: AppConfig, measured: Measured, prepared: Preparations, output_dir: Path) -> Path:
    """Writes the page, its numbers and its figures; the page's path.

    Raises:
        CassavaError: A model to compare with cannot be loaded or has not seen the same photos.
    """
    settings = config.evaluate
    photos, answered = measured.photos, measured.answered
    comparisons = _comparisons(config, measured, prepared)
    report = build_report(
        predictor=measured.predictor,
        data=photos.description,
        answered=answered,
        scores=measured.scores,
        verdicts=measured.verdicts,
        slices=_slices(measured, prepared.groups),
        comparisons=comparisons,
        outside=measured.outside,
        bootstrap_samples=settings.bootstrap_samples,
    )
    figures = write_figures(report, measured, output_dir / "figures")
    write_json(output_dir / "report.json", report.model_dump(mode="json"))
    write_text(output_dir / PAGE, render_page(report, figures, galleries(measured, settings.report_photos)))
    return output_dir / PAGE


def write_figures(report: Report, measured: Measured, folder: Path) -> dict[str, Path]:
    """The figures as PNG files, by name."""
    answered, predictor = measured.answered, measured.predictor
    labels, probabilities = answered.labels, answered.probabilities
    matrix = report.scores.confusion_matrix
    title = f"{report.model.identity.name}, {len(labels)} photos"
    before = without_temperature(predictor, probabilities)
    panels = {} if before is None else {"without temperature": (before, labels)}
    panels["as answered"] = (probabilities, labels)
    figures = {
        "confusion_matrix": confusion_figure(matrix, title),
        "class_scores": class_scores_figure(matrix, title),
        "precision_recall": precision_recall_figure(precision_recall(labels, probabilities)),
        "reliability": reliability_figure(panels, title),
        "risk_coverage": risk_coverage_figure(
            {"answers kept, surest first": (probabilities, labels)}, predictor.min_confidence, title
        ),
    }
    if report.slices:
        figures["slices"] = slices_figure(report.slices, report.scores.accuracy)
    if report.comparisons:
        letters = [f"{chr(ord('B') + index)}: {one.name}" for index, one in enumerate(report.comparisons)]
        figures["comparison"] = comparison_figure(report.comparisons, letters)
    if report.outside is not None:
        figures["outside"] = outside_figure(report.outside)
    return {name: write_figure(figure, folder / f"{name}.png") for name, figure in figures.items()}


def galleries(measured: Measured, count: int) -> tuple[Gallery, ...]:
    """The photos to show, at most `count` of a kind; none with 0."""
    photos, probabilities = measured.photos, measured.probabilities
    if not count:
        return ()
    heat = _heat_of(measured.predictor, photos)
    known, answered = np.flatnonzero(photos.known).tolist(), measured.answered
    surest = surest_mistakes(answered.labels, answered.probabilities, count)
    worst = worst_of_each_class(answered.labels, answered.probabilities, count, surest)
    foreign = surest_answers(probabilities, ~photos.known, count)

    def shown(chosen: Sequence[int]) -> tuple[Shown, ...]:
        return show(photos, probabilities, chosen, heat)

    found = (
        Gallery("surest", shown([known[index] for index in surest])),
        Gallery("worst", shown([known[index] for index in worst])),
        Gallery("foreign", shown(foreign)),
    )
    return tuple(gallery for gallery in found if gallery.photos)


def _heat_of(predictor: AnyPredictor, photos: SelectedPhotos) -> Heat:
    """What lays a heatmap over a photo; over none where a model file has no class maps."""
    from cassava_leaf_disease.inference.explain import class_map, overlay, seen_part

    first = predictor.prepare(photos.originals.image(0))
    outputs = [member.outputs(first[member.metadata.preprocessing][:1]) for member in predictor.members]
    if any(output.maps is None for output in outputs):
        logger.warning("%s gives no class maps: the report shows photos without heatmaps", predictor.identity.path)
        return lambda _image, _class_id: None

    def heat(image: Image, class_id: int) -> Image:
        small = resize_shorter_side(image, HEAT_SIDE_PX, enlarge=False)
        return overlay(small, class_map(predictor, small, class_id), seen_part(predictor, small.shape[:2]))

    return heat


def _slices(measured: Measured, more: Sequence[Groups]) -> tuple[Slicing, ...]:
    photos, answered = measured.photos, measured.answered
    known = np.flatnonzero(photos.known).tolist()
    slicings = []
    for groups in [*groups_of_facts(facts_of(photos.originals)), *more]:
        of_known = [groups.of_photo[index] for index in known]
        there = [group for group in groups.order if group in set(of_known)]
        if len(there) > 1:
            of_these = Groups(groups.name, of_known, there)
            slicings.append(score_slices(of_these, answered.labels, answered.probabilities))
    return tuple(slicings)


def _comparisons(config: AppConfig, measured: Measured, prepared: Preparations) -> tuple[Comparison, ...]:
    photos, known = measured.photos, measured.photos.known
    told = {answers.path: answers for answers in prepared.answers}
    others = [told.get(str(path)) or ask_rival(config, path, photos) for path in config.evaluate.compare]
    of_known = [Answers(other.name, other.path, other.predicted[known]) for other in others]
    predicted = measured.answered.probabilities.argmax(axis=1)
    return compare(measured.answered.labels, predicted, of_known, config.evaluate.bootstrap_samples)
