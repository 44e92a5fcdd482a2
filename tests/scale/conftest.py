"""Folders of photos to score, and the words of a command that scores them."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf


@pytest.fixture(scope="session")
def leaves() -> list[bytes]:
    """Seven drawn leaves as JPEG files."""
    files = []
    for seed in range(7):
        buffer = io.BytesIO()
        Image.fromarray(draw_leaf(seed, seed % 5, 120)).resize((120, 90)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


@pytest.fixture
def field(tmp_path: Path, leaves: Sequence[bytes]) -> Path:
    """A folder as people have it: seven leaves in two folders, three files that are no photos, and notes."""
    folder = tmp_path / "field"
    (folder / "Kläranlage süd").mkdir(parents=True)
    for number, leaf in enumerate(leaves):
        place = folder / ("Kläranlage süd" if number % 2 else ".") / f"leaf {number}.jpg"
        place.write_bytes(leaf)
    (folder / "broken.JPG").write_bytes(leaves[0][:500])
    (folder / "empty.png").touch()
    (folder / "web.jpeg").write_bytes(b"<html>")
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def scoring(root_in_tmp_path: None, exported_model: Path) -> Callable[..., AppConfig]:
    """The configuration of `cassava score` with the small network, parts of four photos; takes further overrides."""
    words = (f"infer.checkpoint_path={exported_model}", "score.part_rows=4", "score.workers=2")
    return lambda *more: load_config([*words, *more])


@pytest.fixture(scope="session")
def read_csv() -> Callable[[Path], list[dict[str, str]]]:
    """Reads the rows of a table, or of the parts in a folder, as text."""

    def read(path: Path) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = []
        for part in sorted(path.glob("part-*.csv")) if path.is_dir() else [path]:
            with part.open(encoding="utf-8", newline="") as file:
                rows.extend(csv.DictReader(file))
        return rows

    return read
