"""The answer from what the members of a served repository say; in `vote` on the server, and when it is exported."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.gate import AnyGate
from cassava_leaf_disease.inference.served import VoteSettings
from cassava_leaf_disease.inference.vote import combine_answers, combine_foreign, mean_over_views

Float64Array = npt.NDArray[np.float64]


def vote(
    settings: VoteSettings, gates: Sequence[AnyGate | None], outputs: Sequence[EngineOutputs]
) -> tuple[Float64Array, Float64Array | None]:
    """Class probabilities `(N, C)` of N photos, and how foreign they are `(N,)`, None where no member has a gate.

    `outputs` are each member's: logits `(N, C)` or `(N, V, C)` of V views, features likewise.

    Raises:
        CheckpointError: A network gives NaN or infinity.
    """
    if not all(np.isfinite(each.logits).all() for each in outputs):
        raise CheckpointError(
            "the served model: a network gives no finite answer, so its training has diverged; serve another one"
        )
    photos = len(outputs[0].logits)
    members = [
        mean_over_views(each.logits.reshape(photos, settings.views, -1), voter.metadata.temperature)
        for voter, each in zip(settings.voters, outputs, strict=True)
    ]
    weights = [voter.weight for voter in settings.voters]
    probabilities = combine_answers(np.stack(members), weights, settings.combine, settings.temperature)
    if not any(gates):
        return probabilities, None
    foreign = [_foreign(gate, each, settings.views) for gate, each in zip(gates, outputs, strict=True)]
    return probabilities, np.array(combine_foreign(np.stack(foreign)), np.float64)


def _foreign(gate: AnyGate | None, outputs: EngineOutputs, views: int) -> Float64Array:
    """`(N,)`: the mean over the views; NaN without a gate."""
    photos = len(outputs.logits)
    if gate is None:
        return np.full(photos, np.nan)
    flat = EngineOutputs(
        outputs.logits.reshape(photos * views, -1),
        None if outputs.features is None else outputs.features.reshape(photos * views, -1),
    )
    mean: Float64Array = gate.foreign(flat).reshape(photos, views).mean(axis=1)
    return mean
