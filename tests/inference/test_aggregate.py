"""Several photos of one plant: how their answers become one, what is left out, and how many more would help."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from cassava_leaf_disease.domain import (
    CLASS_NAMES,
    ModelIdentity,
    PlantPrediction,
    Prediction,
    probabilities_by_name,
    rank_classes,
)
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.inference.aggregate import (
    DEFAULT_POOLING,
    DEFAULT_PRIOR,
    Pooling,
    combine_photos,
    more_leaves,
    pool,
    pooling_for,
)
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.ensemble import EnsemblePredictor
from cassava_leaf_disease.inference.predictor import Predictor
from cassava_leaf_disease.modeling.metadata import ModelMetadata

if TYPE_CHECKING:
    from cassava_leaf_disease.modeling.gate_arrays import GateArrays

SURE = (0.02, 0.02, 0.02, 0.92, 0.02)
LIKELY = (0.02, 0.05, 0.15, 0.6, 0.18)
OTHER = (0.02, 0.02, 0.92, 0.02, 0.02)
FOUND = FoundModel(Path("best.ckpt"), "explicit")
MODEL = ModelIdentity(name="m", version="1", source="explicit", path="best.ckpt")


class Silent:
    """An engine that is never asked."""

    def __init__(self, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.gate_arrays: GateArrays | None = None
        self.runtime = "nothing/nowhere"

    def run(self, batch: npt.NDArray[np.float32]) -> EngineOutputs:
        raise AssertionError(batch.shape)


def photo(probabilities: Sequence[float], verdict: str = "diagnosis", **changes: Any) -> Prediction:
    ranking = rank_classes(probabilities, CLASS_NAMES, 3)
    return Prediction.model_validate(
        {
            "predicted_class_id": ranking[0].class_id,
            "class_name": ranking[0].class_name,
            "confidence": ranking[0].prob,
            "probabilities": probabilities_by_name(probabilities, CLASS_NAMES),
            "top_k": ranking,
            "verdict": verdict,
            "model": MODEL,
        }
        | changes
    )


def plant(*photos: Prediction, min_confidence: float = 0.6) -> PlantPrediction:
    return combine_photos(photos, min_confidence)


def test_agreeing_photos_are_surer_than_one_and_never_certain() -> None:
    confidences = [plant(*[photo(LIKELY)] * count).confidence for count in range(1, 11)]

    assert all(one < other for one, other in pairwise(confidences))
    assert plant(*[photo(SURE)] * 6).confidence < 1 - 0.7 * DEFAULT_POOLING.doubt
    assert plant(*[photo((0, 0, 0, 1, 0))] * 10).confidence < 1 - 0.7 * DEFAULT_POOLING.doubt


def test_one_photo_alone_keeps_its_answer_but_for_the_doubt() -> None:
    answer = plant(photo(LIKELY))

    expected = (1 - DEFAULT_POOLING.doubt) * np.array(LIKELY) + DEFAULT_POOLING.doubt / 5
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist())


def test_the_plants_answer_has_all_that_a_photos_has() -> None:
    answer = plant(photo(SURE, image="a.jpg"), photo(LIKELY, image="b.jpg"))

    assert Prediction.model_validate(answer.model_dump(include=set(Prediction.model_fields)))
    assert PlantPrediction.model_validate_json(answer.model_dump_json()) == answer
    assert answer.class_name == "Cassava Mosaic Disease"
    assert answer.verdict == "diagnosis"
    assert answer.reasons == ()
    assert answer.confidence == answer.top_k[0].prob == max(answer.probabilities.values())
    assert len(answer.top_k) == 3
    assert answer.counted == (0, 1)
    assert answer.left_out == ()
    assert answer.more_leaves == 0
    assert [each.image for each in answer.photos] == ["a.jpg", "b.jpg"]


def test_order_does_not_matter() -> None:
    photos = [photo(SURE), photo(OTHER), photo(LIKELY)]

    assert plant(*photos).probabilities == pytest.approx(plant(*reversed(photos)).probabilities)


def test_photos_that_show_nothing_are_left_out_with_the_reason() -> None:
    answer = plant(photo(OTHER, "not_cassava", image="cat.jpg"), photo(SURE, "uncertain"), photo(OTHER, "poor_photo"))

    assert answer.counted == (1,)
    assert [(each.index, each.image, each.reason) for each in answer.left_out] == [
        (0, "cat.jpg", "not_cassava"),
        (2, None, "poor_photo"),
    ]
    assert answer.probabilities == plant(photo(SURE)).probabilities
    assert answer.verdict == "diagnosis"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("not_cassava",), "not_cassava"),
        (("poor_photo", "not_cassava"), "poor_photo"),
        (("not_cassava", "poor_photo", "not_cassava"), "not_cassava"),
    ],
)
def test_a_plant_without_a_usable_photo_gets_no_diagnosis(verdicts: tuple[str, ...], expected: str) -> None:
    answer = plant(*(photo(SURE, verdict, reasons=(f"because {verdict}",)) for verdict in verdicts))

    assert answer.reasons == tuple(dict.fromkeys(f"because {verdict}" for verdict in verdicts))
    assert answer.verdict == expected
    assert answer.counted == ()
    assert len(answer.left_out) == len(verdicts)
    assert answer.more_leaves == 1


def test_photos_that_contradict_each_other_are_uncertain_and_another_leaf_helps() -> None:
    answer = plant(photo(SURE), photo(OTHER))

    assert answer.verdict == "uncertain"
    assert answer.reasons == ("not sure enough: confidence 52%, expected at least 60%; take photos of 2 more leaves",)
    assert answer.more_leaves == 2
    assert plant(photo(SURE), photo(OTHER), photo(SURE)).verdict == "diagnosis"


def test_photos_that_say_nothing_are_uncertain_and_more_of_them_do_not_help() -> None:
    answer = plant(photo(DEFAULT_PRIOR), photo(DEFAULT_PRIOR))

    assert answer.verdict == "uncertain"
    assert answer.more_leaves is None
    assert "more photos like these would not change that" in answer.reasons[0]


def test_as_many_more_leaves_as_are_told_make_it_a_diagnosis_and_no_fewer() -> None:
    answer = plant(photo(LIKELY), min_confidence=0.8)

    assert answer.verdict == "uncertain"
    assert answer.more_leaves is not None
    assert answer.more_leaves > 1
    assert plant(*[photo(LIKELY)] * (1 + answer.more_leaves), min_confidence=0.8).verdict == "diagnosis"
    assert plant(*[photo(LIKELY)] * answer.more_leaves, min_confidence=0.8).verdict == "uncertain"


@pytest.mark.parametrize("kind", ["probabilities", "majority"])
def test_a_mean_is_not_expected_to_grow(kind: Any) -> None:
    pooling = Pooling(kind=kind, doubt=0)

    assert more_leaves(np.array([SURE, SURE]), 0.9, pooling) == 0
    assert more_leaves(np.array([SURE, OTHER, LIKELY]), 0.9, pooling) is None


def test_pooling_by_hand() -> None:
    photos = np.array([LIKELY, SURE])
    prior = np.array([0.1, 0.1, 0.2, 0.4, 0.2])
    product = np.array(LIKELY) * np.array(SURE) / prior
    geometric = np.sqrt(np.array(LIKELY) * np.array(SURE))

    def pooled(**settings: Any) -> np.ndarray:
        return pool(photos, Pooling(doubt=0, prior=tuple(prior.tolist()), **settings))

    assert pooled(kind="probabilities") == pytest.approx((np.array(LIKELY) + np.array(SURE)) / 2)
    assert pooled(correlation=0) == pytest.approx(product / product.sum())
    assert pooled(correlation=1) == pytest.approx(geometric / geometric.sum())
    assert Pooling(correlation=0.5).effective_photos(3) == pytest.approx(1.5)


def test_majority_counts_first_classes_and_breaks_ties_by_the_mean() -> None:
    majority = Pooling(kind="majority", doubt=0)

    three = pool(np.array([LIKELY, LIKELY, OTHER]), majority)
    tie = pool(np.array([LIKELY, OTHER]), majority)

    assert three.argmax() == 3
    assert three.sum() == pytest.approx(1)
    assert tie.argmax() == 2


def test_many_plants_at_once_are_pooled_as_one_by_one() -> None:
    photos = np.random.default_rng(0).dirichlet(np.ones(5), size=(4, 3))

    assert pool(photos) == pytest.approx(np.stack([pool(each) for each in photos]))


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        ([], "a plant without a photo"),
        ([photo(SURE), photo(SURE, model=MODEL.model_copy(update={"version": "2"}))], r"several models \(m 1, m 2\)"),
    ],
)
def test_what_is_no_plant_is_refused(photos: list[Prediction], message: str) -> None:
    with pytest.raises(DataError, match=message):
        plant(*photos)


def test_a_rare_class_that_every_photo_speaks_for_is_not_lost_to_a_frequent_one() -> None:
    prior = (0.04, 0.09, 0.22, 0.4, 0.25)
    hint = np.array([(0.3, 0.05, 0.05, 0.2, 0.4)] * 6)  # seven times the prior of class 0, less than twice that of 4

    assert pool(hint, Pooling(prior=prior)).argmax() == 0
    assert pool(hint, Pooling(prior=(0.2,) * 5)).argmax() == 4


def test_the_prior_is_the_members_mean_answer_as_far_as_their_files_tell(
    predictor: Predictor, metadata: ModelMetadata
) -> None:
    told = Predictor(Silent(metadata.model_copy(update={"class_prior": (0.5, 0.2, 0.1, 0.1, 0.1)})), FOUND)
    both = EnsemblePredictor([predictor, told], [3.0, 1.0], "probabilities", MODEL)

    assert pooling_for(predictor) == DEFAULT_POOLING
    assert pooling_for(told).prior == pytest.approx((0.5, 0.2, 0.1, 0.1, 0.1))
    expected = 0.75 * np.array(DEFAULT_PRIOR) + 0.25 * np.array((0.5, 0.2, 0.1, 0.1, 0.1))
    assert pooling_for(both).prior == pytest.approx(expected.tolist())
