"""`check`: what stands before a `preprocess` of DALI. It refuses what `decode_image` refuses, without decoding.

Plain JPEGs pass with nothing but their coded picture; where a gate wants the photo's quality, they are decoded here
for that, too. What decoders read differently (turned by EXIF, CMYK, PNG with
transparency) is decoded here and passes as a PNG, which every decoder reads alike.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, JpegImagePlugin

from cassava_leaf_disease.errors import ImageError
from cassava_leaf_disease.export.triton.backend.settings import error_text, quality_row, read_settings
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image, plain_jpeg
from cassava_leaf_disease.imaging.preprocess import check_aspect
from cassava_leaf_disease.inference.served import ENCODED, IMAGE, QUALITY, PreprocessSettings


class TritonPythonModel:
    """One photo a request: files of other lengths do not stack."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Called once, before the first request."""
        settings = read_settings(args, PreprocessSettings)
        self._limits = DecodeLimits(settings.max_bytes, settings.max_pixels)
        self._quality = settings.quality

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:  # noqa: ANN401  Triton's own types have no stubs
        [data] = pb_utils.get_input_tensor_by_name(request, IMAGE).as_numpy().reshape(-1)
        try:
            coded = self._checked(data)
            image = decode_image(data, self._limits, name="photo") if self._quality else None
        except ImageError as error:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(error_text(error), pb_utils.TritonError.INVALID_ARG)
            )
        tensors = [pb_utils.Tensor(ENCODED, np.frombuffer(coded, np.uint8)[None])]
        if image is not None:
            tensors.append(pb_utils.Tensor(QUALITY, quality_row(image)[None]))
        return pb_utils.InferenceResponse(tensors)

    def _checked(self, data: bytes) -> bytes:
        plain = plain_jpeg(data, self._limits, name="photo")
        if plain is not None:
            with JpegImagePlugin.JpegImageFile(io.BytesIO(plain.coded)) as unread:
                check_aspect(unread.height, unread.width)
            return plain.coded
        image = decode_image(data, self._limits, name="photo")
        check_aspect(*image.shape[:2])
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
