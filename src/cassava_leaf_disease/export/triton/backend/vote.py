"""`vote`: the members' logits to one answer, as the local predictor makes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.export.triton.backend.settings import error_text, read_settings
from cassava_leaf_disease.inference.served import MODEL, PROBABILITIES, VoteSettings
from cassava_leaf_disease.inference.vote import combine_answers, mean_over_views


class TritonPythonModel:
    """Temperature and softmax of each view, the mean over a member's views, the weighted mean over members."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, before the first request."""
        self._settings = read_settings(args, VoteSettings)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:  # noqa: ANN401  Triton's own types have no stubs
        settings = self._settings
        logits = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in settings.logits]
        if not all(np.isfinite(each).all() for each in logits):
            error = CheckpointError(
                "the served model: a network gives no finite answer, so its training has diverged; serve another one"
            )
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(error_text(error), pb_utils.TritonError.INTERNAL)
            )
        members = [
            mean_over_views(self._with_views(each), temperature)
            for each, temperature in zip(logits, settings.temperatures, strict=True)
        ]
        probabilities = combine_answers(np.stack(members), settings.weights, settings.combine)
        digests = np.full((len(probabilities), 1), settings.digest.encode(), np.object_)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(PROBABILITIES, probabilities), pb_utils.Tensor(MODEL, digests)]
        )

    def _with_views(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, V, C)."""
        return logits.reshape(len(logits), self._settings.views, -1)
