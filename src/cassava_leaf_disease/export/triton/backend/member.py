"""A member of the ensemble in Python: ONNX Runtime on the CPU, for servers without Triton's own ONNX backend."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

from cassava_leaf_disease.export.triton.backend.settings import read_settings
from cassava_leaf_disease.inference.served import PIXELS, MemberSettings

_ERRORS_ONLY: Final = 3  # of ONNX Runtime's own log levels


class TritonPythonModel:
    """Requests that Triton hands over together are run as one batch."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, before the first request."""
        settings = read_settings(args, MemberSettings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.log_severity_level = _ERRORS_ONLY
        # Other models' processes want the cores that idle threads would spin on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"], args["model_version"], settings.file)
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        batches = [pb_utils.get_input_tensor_by_name(request, PIXELS).as_numpy() for request in requests]
        answers = self._session.run(
            self._outputs, {PIXELS: np.concatenate(batches) if len(batches) > 1 else batches[0]}
        )
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        each = zip(*(np.split(answer, ends) for answer in answers), strict=True)  # for each request its outputs
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, part) for name, part in zip(self._outputs, parts, strict=True)]
            )
            for parts in each
        ]
