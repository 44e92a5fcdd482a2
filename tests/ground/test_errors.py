"""Every failure that a user can meet has an exit code and an HTTP status."""

import http

import pytest

from cassava_leaf_disease import errors
from cassava_leaf_disease.errors import CassavaError, ImageError, MissingDependencyError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CassavaError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_codes_that_doors_can_use(kind: type[CassavaError]) -> None:
    assert kind.exit_code in (1, 2)
    assert 400 <= http.HTTPStatus(kind.http_status) < 600


def test_each_kind_of_bad_photo_has_its_own_status() -> None:
    statuses = {kind.__name__: kind.http_status for kind in KINDS if issubclass(kind, ImageError)}

    assert statuses == {
        "ImageError": 422,
        "UnsupportedImageError": 415,
        "ImageTooLargeError": 413,
        "TooManyPixelsError": 422,
        "CorruptImageError": 422,
    }


def test_missing_library_names_the_command_that_installs_it() -> None:
    error = MissingDependencyError("PyTorch", "train")

    assert (
        str(error) == "PyTorch is not installed; type: pip install 'cassava-leaf-disease[train]', in a clone: uv sync"
    )
    assert error.exit_code == 2
