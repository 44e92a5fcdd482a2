"""The page at `/`: the built one where the package has it, else a plain one that uses the API."""

import mimetypes
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles


def install(app: FastAPI) -> None:
    """Serves the page's files at every path that no endpoint has."""
    mimetypes.add_type("application/manifest+json", ".webmanifest")
    app.mount("/", StaticFiles(directory=page_dir(), html=True), name="page")


def page_dir(package: Path | None = None) -> Path:
    """The folder of the page: `web/`, which `npm run build` fills, or the plain page beside this file."""
    root = package or Path(str(files("cassava_leaf_disease")))
    built = root / "web"
    return built if (built / "index.html").is_file() else Path(__file__).parent / "page"
