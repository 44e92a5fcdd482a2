"""From class probabilities to the answer that people get."""

from collections.abc import Sequence

from cassava_leaf_disease.domain import CLASS_NAMES, ModelIdentity, Prediction, probabilities_by_name, rank_classes
from cassava_leaf_disease.imaging.quality import PhotoQuality
from cassava_leaf_disease.inference.gate import judge
from cassava_leaf_disease.modeling.metadata import QualityLimits, Thresholds


def to_prediction(  # noqa: PLR0913  # what an answer is made of
    probabilities: Sequence[float],
    identity: ModelIdentity,
    thresholds: Thresholds,
    quality_limits: QualityLimits | None,
    views: Sequence[str],
    *,
    top_k: int,
    name: str | None = None,
    quality: PhotoQuality | None = None,
    foreign: float | None = None,
) -> Prediction:
    """The `Prediction` for class probabilities `(C,)` that sum to 1, wherever they were computed.

    What is None was not looked at.
    """
    ranking = rank_classes(probabilities, CLASS_NAMES, top_k)
    best = ranking[0]
    judged = judge(best.prob, thresholds, quality, quality_limits, foreign)
    return Prediction(
        predicted_class_id=best.class_id,
        class_name=best.class_name,
        confidence=best.prob,
        probabilities=dict(probabilities_by_name(probabilities, CLASS_NAMES)),
        top_k=ranking,
        verdict=judged.verdict,
        reasons=judged.reasons,
        checks=judged.checks,
        model=identity,
        image=name,
        views=tuple(views) if len(views) > 1 else (),
    )
