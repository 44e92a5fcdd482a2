"""The page at `/`: the built one where the package has it, else a plain one that uses the API."""

import mimetypes
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from typing_extensions import override


class Page(StaticFiles):
    """The page's files. A path that has an endpoint got here by a method that the endpoint does not have."""

    def __init__(self, directory: Path, allowed: dict[str, set[str]]) -> None:
        super().__init__(directory=directory, html=True)
        self._allowed = allowed

    @override
    async def get_response(self, path: str, scope: Scope) -> Response:
        methods = self._allowed.get(scope["path"])
        if methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        return await super().get_response(path, scope)


def install(app: FastAPI, routes: Iterable[BaseRoute]) -> None:
    """Serves the page's files at every path that no endpoint has."""
    mimetypes.add_type("application/manifest+json", ".webmanifest")
    allowed = {route.path: route.methods or set() for route in routes if isinstance(route, APIRoute)}
    app.mount("/", Page(page_dir(), allowed), name="page")


def page_dir(package: Path | None = None) -> Path:
    """The folder of the page: `web/`, which `npm run build` fills, or the plain page beside this file."""
    root = package or Path(str(files("cassava_leaf_disease")))
    built = root / "web"
    return built if (built / "index.html").is_file() else Path(__file__).parent / "page"
