"""The site builds without a warning, and a page of it asks no other host for anything."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from config_reference import PAGE, reference
from doc_commands import DOCS, REPOSITORY
from site_hooks import as_page

PACKAGE = REPOSITORY / "src" / "cassava_leaf_disease"
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\s\">]+)")
FETCHED_BY_STYLES = re.compile(r"url\([\"']?((?:https?:)?//[^)\"']+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    fetched = {found for page in pages for found in FETCHED.findall(page.read_text(encoding="utf-8"))}
    fetched |= {found for style in site.rglob("*.css") for found in FETCHED_BY_STYLES.findall(style.read_text("utf-8"))}
    assert fetched == set()


def test_documents_of_the_root_are_pages(site: Path) -> None:
    for page in ("changelog.html", "contributing.html", "security.html"):
        assert (site / page).is_file()
    assert as_page("[a](docs/train.md), [b](SECURITY.md#x)") == "[a](train.md), [b](security.md#x)"


def test_every_room_is_in_the_picture_of_the_house() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert [room for room in sorted(rooms) if f"`{room}/`" not in (DOCS / "architecture.md").read_text("utf-8")] == []


def test_the_configuration_reference_is_of_today() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "type `uv run just config-reference`"
