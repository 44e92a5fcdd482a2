"""`preprocess`: encoded photos to what each network is shown of them, as `imaging/preprocess.py` defines it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

from cassava_leaf_disease.errors import ImageError
from cassava_leaf_disease.export.triton.backend.settings import error_text, quality_row, read_settings
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.inference.served import IMAGE, QUALITY, PreprocessSettings
from cassava_leaf_disease.inference.views import views_of


class TritonPythonModel:
    """Photos of one request stand or fall together; those of other requests never notice."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, before the first request."""
        self._settings = read_settings(args, PreprocessSettings)
        self._limits = DecodeLimits(self._settings.max_bytes, self._settings.max_pixels)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:  # noqa: ANN401  Triton's own types have no stubs
        files = pb_utils.get_input_tensor_by_name(request, IMAGE).as_numpy().reshape(-1)
        try:
            photos = [self._prepare(data, _name(index, len(files))) for index, data in enumerate(files)]
        except ImageError as error:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(error_text(error), pb_utils.TritonError.INVALID_ARG)
            )
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.stack([photo[name] for photo in photos])) for name in photos[0]]
        )

    def _prepare(self, data: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
        """The views of one photo for each tensor: (V, S, S, 3), of one view (S, S, 3); and its quality."""
        image = decode_image(data, self._limits, name=name)
        views = {
            tensor: views_of(image, spec, cast("Any", self._settings.tta))
            for tensor, spec in self._settings.pixels.items()
        }
        quality = {QUALITY: quality_row(image)} if self._settings.quality else {}
        return {tensor: shown[0] if len(shown) == 1 else shown for tensor, shown in views.items()} | quality


def _name(index: int, count: int) -> str:
    """What an error calls a photo; the client puts the file's name in its place."""
    return "photo" if count == 1 else f"photo {index + 1} of {count}"
