"""The page's files over HTTP: the plain page, and the built one where there is one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.serving.page import install, page_dir

Serve = Callable[[Path], TestClient]


@pytest.fixture
def serve() -> Serve:
    """A client of the page alone, as a package in that folder has it."""

    def build(package: Path) -> TestClient:
        app = FastAPI()
        install(app, (), package)
        return TestClient(app)

    return build


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A package with a page that has been built."""
    (tmp_path / "web" / "assets").mkdir(parents=True)
    (tmp_path / "web" / "index.html").write_text("built")
    (tmp_path / "web" / "manifest.webmanifest").write_text("{}")
    (tmp_path / "web" / "assets" / "index-1f2e.js").write_text("")
    return tmp_path


def test_the_plain_page_says_in_words_what_to_do_and_how_to_build_the_other(serve: Serve, tmp_path: Path) -> None:
    client = serve(tmp_path)
    page = client.get("/")

    assert page.headers["Content-Type"].startswith("text/html")
    assert '<html lang="en">' in page.text
    assert '<label for="photos">' in page.text
    assert 'type="file" accept="image/jpeg,image/png"' in page.text
    assert "just page" in page.text
    assert "http" not in page.text  # nothing from other hosts
    assert client.get("/page.js").status_code == client.get("/page.css").status_code == 200
    script = client.get("/page.js").text
    assert all(name in script for name in (*CLASS_NAMES, "uncertain", "not_cassava", "poor_photo"))


def test_a_built_page_takes_its_place(serve: Serve, built: Path, tmp_path: Path) -> None:
    assert serve(built).get("/").text == "built"
    (tmp_path / "web" / "index.html").unlink()  # a build that failed half-way
    assert page_dir(tmp_path).name == "page"


def test_files_named_by_their_content_are_kept_and_all_others_asked_for_again(serve: Serve, built: Path) -> None:
    client = serve(built)

    assert client.get("/assets/index-1f2e.js").headers["Cache-Control"] == "public, max-age=31536000, immutable"
    again = client.get("/")
    assert again.headers["Cache-Control"] == "no-cache"
    assert client.get("/", headers={"If-None-Match": again.headers["ETag"]}).status_code == 304
    assert client.get("/manifest.webmanifest").headers["Content-Type"] == "application/manifest+json"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("BR;q=0.9", "br"),
        ("gzip;q=1.0, br;q=0", None),
        ("identity", None),
    ],
)
def test_webassembly_comes_packed_as_the_browser_takes_it(
    serve: Serve, built: Path, accepted: str, encoding: str | None
) -> None:
    module = built / "web" / "assets" / "ort-1f2e.wasm"
    module.write_bytes(b"\0asm plain")
    module.with_name("ort-1f2e.wasm.br").write_bytes(b"packed by br")

    with serve(built).stream("GET", "/assets/ort-1f2e.wasm", headers={"Accept-Encoding": accepted}) as reply:
        body = b"".join(reply.iter_raw())

    assert reply.headers.get("Content-Encoding") == encoding
    assert reply.headers["Content-Type"] == "application/wasm"
    assert reply.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert body == (b"\0asm plain" if encoding is None else f"packed by {encoding}".encode())


def test_webassembly_that_was_not_packed_comes_as_it_is(serve: Serve, built: Path) -> None:
    (built / "web" / "assets" / "ort-1f2e.wasm").write_bytes(b"\0asm plain")

    assert serve(built).get("/assets/ort-1f2e.wasm").content == b"\0asm plain"
    assert serve(built).get("/assets/none.wasm").status_code == 404
