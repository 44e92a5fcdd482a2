"""`vote`: the members' logits to one answer, as the local predictor makes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.export.triton.backend.settings import error_text, read_settings
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.gate import AnyGate, open_gate
from cassava_leaf_disease.inference.served import FOREIGN, MODEL, PROBABILITIES, Voter, VoteSettings
from cassava_leaf_disease.inference.served_vote import vote
from cassava_leaf_disease.modeling.gate_arrays import decode_arrays


class TritonPythonModel:
    """Temperature and softmax of each view, the mean over a member's views, the weighted mean over members; gates."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, before the first request."""
        self._settings = read_settings(args, VoteSettings)
        folder = Path(args["model_repository"], args["model_version"])
        self._gates = [_read_gate(voter, folder) for voter in self._settings.voters]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:  # noqa: ANN401  Triton's own types have no stubs
        outputs = [
            EngineOutputs(_read(request, voter.logits), _read(request, voter.features) if voter.features else None)
            for voter in self._settings.voters
        ]
        try:
            probabilities, foreign = vote(self._settings, self._gates, outputs)
        except CheckpointError as error:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(error_text(error), pb_utils.TritonError.INTERNAL)
            )
        digests = np.full((len(probabilities), 1), self._settings.digest.encode(), np.object_)
        tensors = [pb_utils.Tensor(PROBABILITIES, probabilities), pb_utils.Tensor(MODEL, digests)]
        if foreign is not None:
            tensors.append(pb_utils.Tensor(FOREIGN, foreign[:, None]))
        return pb_utils.InferenceResponse(tensors)


def _read(request: Any, name: str) -> npt.NDArray[np.float32]:  # noqa: ANN401
    values: npt.NDArray[np.float32] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return values


def _read_gate(voter: Voter, folder: Path) -> AnyGate | None:
    if voter.gate_file is None:
        return None
    arrays = decode_arrays((folder / voter.gate_file).read_text(encoding="utf-8"), voter.gate_file)
    return open_gate(voter.metadata, arrays, voter.gate_file)
