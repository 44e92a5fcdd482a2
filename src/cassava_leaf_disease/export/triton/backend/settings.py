"""What every model in Python reads from its configuration, and how it says that a photo is bad."""

import json
from collections.abc import Mapping
from dataclasses import astuple
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from cassava_leaf_disease.errors import CassavaError
from cassava_leaf_disease.imaging.quality import measure_quality
from cassava_leaf_disease.inference.served import SETTINGS_KEY

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(args: Mapping[str, str], kind: type[Settings]) -> Settings:
    """The settings in the model's configuration, which Triton passes to `initialize` as JSON."""
    parameters = json.loads(args["model_config"])["parameters"]
    return kind.model_validate_json(parameters[SETTINGS_KEY]["string_value"])


def error_text(error: CassavaError) -> str:
    """`KIND: message`, from which the client makes the same error again."""
    return f"{type(error).__name__}: {error}"


def quality_row(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The quality of a photo as a row of the tensor `QUALITY`, `(6,)`."""
    return np.array(astuple(measure_quality(image)), np.float64)
