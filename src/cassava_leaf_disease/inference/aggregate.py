"""Several photos of one plant, one answer: how their probabilities become one, and how many more leaves would help."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.domain import (
    CLASS_NAMES,
    LeftOut,
    PlantPrediction,
    Prediction,
    Unusable,
    Verdict,
    probabilities_by_name,
    rank_classes,
)
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.inference.vote import softmax
from cassava_leaf_disease.modeling.metadata import ModelMetadata

FloatArray = npt.NDArray[np.float64]

# The mean answer of five folds about 2,085 photos of the Kaggle data set that they had not learned.
DEFAULT_PRIOR: Final = (0.04, 0.09, 0.22, 0.40, 0.25)
MAX_MORE_LEAVES: Final = 10
_SMALLEST: Final = 1e-6  # probability of a photo whose logarithm is taken: none can rule a class out alone


@dataclass(frozen=True)
class Pooling:
    """How the probabilities of a plant's photos become one answer.

    `probabilities` takes their mean, `majority` counts the photos' first classes. `logarithms` is Bayes' rule: each
    photo adds ln(probability / prior), the evidence that it holds, and the `prior`, what the model answers on
    average, counts once. (With the plain product of answers it would count as often as there are photos, and rare
    diseases would vanish.) The mean evidence counts n / (1 + (n - 1) * correlation) times: n photos that err alike
    to that degree tell as much as so many independent ones (the design effect of Kish, Survey Sampling, 1965).
    `doubt` is mixed in at the end, in equal parts for each class: labels are noisy, and however many photos agree,
    this much stays open.
    """

    kind: Literal["probabilities", "logarithms", "majority"] = "logarithms"
    correlation: float = 0.2
    doubt: float = 0.02
    prior: tuple[float, ...] = DEFAULT_PRIOR

    def effective_photos(self, photos: int) -> float:
        """How many independent photos `photos` are worth; at most 1 / correlation."""
        return photos / (1 + (photos - 1) * self.correlation)


DEFAULT_POOLING: Final = Pooling()


def pool(probabilities: FloatArray, pooling: Pooling = DEFAULT_POOLING) -> FloatArray:
    """The answers `(..., C)` of plants from those of their photos `(..., n, C)`."""
    photos, classes = probabilities.shape[-2:]
    if pooling.kind == "probabilities":
        pooled = probabilities.mean(axis=-2)
    elif pooling.kind == "majority":
        votes = (probabilities.argmax(axis=-1)[..., None] == np.arange(classes)).mean(axis=-2)
        # Equal votes go to the class with the larger mean; no probability of a class can turn a vote.
        pooled = (votes + probabilities.mean(axis=-2) / (2 * photos)) / (1 + 1 / (2 * photos))
    else:
        prior = np.log(pooling.prior)
        evidence = (np.log(np.maximum(probabilities, _SMALLEST)) - prior).mean(axis=-2)
        pooled = softmax(prior + pooling.effective_photos(photos) * evidence, axis=-1)
    mixed: FloatArray = (1 - pooling.doubt) * pooled + pooling.doubt / classes
    return mixed


def pooling_for(predictor: AnyPredictor) -> Pooling:
    """The pooling whose prior is what the model answers on average, as far as its files say."""
    return pooling_of([member.metadata for member in predictor.members], predictor.shares, predictor.class_prior)


def pooling_of(
    members: Sequence[ModelMetadata], shares: Sequence[float], prior: Sequence[float] | None = None
) -> Pooling:
    """As `pooling_for`, of the members' self-descriptions and how much each counts; `prior` is that of all together."""
    if prior is not None:
        return replace(DEFAULT_POOLING, prior=tuple(prior))
    priors = [member.class_prior or DEFAULT_PRIOR for member in members]
    mean = np.average(priors, axis=0, weights=shares)
    return replace(DEFAULT_POOLING, prior=tuple(mean.tolist()))


def combine_photos(
    photos: Sequence[Prediction], min_confidence: float, pooling: Pooling = DEFAULT_POOLING
) -> PlantPrediction:
    """The answer about a plant from those about its photos, at least one, all of one model.

    Photos with the verdict `poor_photo` or `not_cassava` do not count. Where none is left, that is the plant's
    verdict too (the more frequent of the two), and the probabilities are those of the photos left out: as with a
    single photo, what the model would say, not to be taken for a diagnosis. Else the verdict is `diagnosis` from
    `min_confidence` up.

    Raises:
        DataError: No photo, or photos of several models.
    """
    _check(photos)
    left_out = tuple(
        LeftOut(index=index, image=photo.image, reason=photo.verdict)
        for index, photo in enumerate(photos)
        if photo.verdict in ("poor_photo", "not_cassava")
    )
    gone = {each.index for each in left_out}
    counted = tuple(index for index in range(len(photos)) if index not in gone)
    used = np.array([list(photos[index].probabilities.values()) for index in counted or sorted(gone)])
    probabilities = pool(used, pooling)
    ranking = rank_classes(probabilities.tolist(), CLASS_NAMES, len(photos[0].top_k))
    verdict: Verdict = "diagnosis" if ranking[0].prob >= min_confidence else "uncertain"
    more = more_leaves(used, min_confidence, pooling) if counted else 1
    return PlantPrediction(
        predicted_class_id=ranking[0].class_id,
        class_name=ranking[0].class_name,
        confidence=ranking[0].prob,
        probabilities=dict(probabilities_by_name(probabilities.tolist(), CLASS_NAMES)),
        top_k=ranking,
        verdict=verdict if counted else _most_frequent([each.reason for each in left_out]),
        reasons=_reasons(ranking[0].prob, min_confidence, more) if counted else _reasons_of(photos),
        model=photos[0].model,
        views=photos[0].views,
        counted=counted,
        left_out=left_out,
        more_leaves=more,
        photos=tuple(photos),
    )


def more_leaves(probabilities: FloatArray, min_confidence: float, pooling: Pooling = DEFAULT_POOLING) -> int | None:
    """How many more photos are expected to make the answer from photos `(n, C)` a diagnosis; 0 where it is one.

    Further photos are expected to be like those at hand: the smallest number is told for which the answer would
    reach `min_confidence` if each of them added their mean evidence. None: not even ten more would, as where photos
    say nothing.
    """
    photos = len(probabilities)
    if pooling.kind != "logarithms":  # their mean does not grow with more photos of the same kind
        return 0 if pool(probabilities, pooling).max() >= min_confidence else None
    typical = softmax(np.log(np.maximum(probabilities, _SMALLEST)).mean(axis=0), axis=-1)  # its evidence is the mean
    for more in range(MAX_MORE_LEAVES + 1):
        if pool(np.broadcast_to(typical, (photos + more, len(typical))), pooling).max() >= min_confidence:
            return more
    return None


def _reasons(confidence: float, min_confidence: float, more: int | None) -> tuple[str, ...]:
    """Why the answer is no diagnosis, in plain words; none where it is one."""
    if confidence >= min_confidence:
        return ()
    leaves = "1 more leaf" if more == 1 else f"{more} more leaves"
    advice = "more photos like these would not change that" if more is None else f"take photos of {leaves}"
    return (f"not sure enough: confidence {confidence:.0%}, expected at least {min_confidence:.0%}; {advice}",)


def _reasons_of(photos: Sequence[Prediction]) -> tuple[str, ...]:
    """The reasons of all photos, each once."""
    return tuple(dict.fromkeys(reason for photo in photos for reason in photo.reasons))


def _check(photos: Sequence[Prediction]) -> None:
    if not photos:
        raise DataError("a plant without a photo; expected the answers about one photo or more")
    models = {(photo.model.name, photo.model.version): None for photo in photos}
    if len(models) > 1:
        seen = ", ".join(" ".join(model) for model in models)
        raise DataError(f"the photos of one plant were answered by several models ({seen}); ask one model about all")


def _most_frequent(reasons: Sequence[Unusable]) -> Unusable:
    """Of equally frequent ones `poor_photo`: a better photo may yet help."""
    return max(("poor_photo", "not_cassava"), key=reasons.count)
