"""The stages from a photo's bytes to its verdict, by name, for who wants to know how long each of them takes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal

# Preprocessing is resizing, cropping and normalising; the gate is the photo's quality and how foreign it is.
Stage = Literal["decode", "preprocess", "gate", "network"]
Watch = Callable[[Stage], AbstractContextManager[None]]  # around a stage, each time that it is gone through

_NOTHING: Final = nullcontext()


def unwatched(_stage: Stage) -> AbstractContextManager[None]:
    """Nobody wants to know; a tenth of a microsecond."""
    return _NOTHING
