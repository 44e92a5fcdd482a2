"""What the sections share: their base, paths, bounds, and choices that several of them offer."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cassava_leaf_disease.paths import resolve


def _resolved(value: object) -> object:
    if value == "":
        raise ValueError("an empty path")  # most often a shell variable that is not set
    return resolve(value) if isinstance(value, str | Path) else value


AbsolutePath = Annotated[Path, BeforeValidator(_resolved)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weighting = Literal["none", "sqrt_inverse", "inverse"]
ClassMapSetting = Annotated[
    dict[str, int | str | None] | AbsolutePath | None,
    Field(description="a class map such as {mosaic:3,brown spot:null}, the path of a YAML or CSV file, or null"),
]
Tta = Literal["none", "flips", "rotations", "dihedral", "crops", "crops_hflip"]


class Section(BaseModel):
    """A frozen group of settings that accepts no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def changed(self, **values: object) -> Self:
        """A copy with other values, which are not checked again: for code, not for what users type."""
        return self.model_copy(update=values)
