"""The page at `/`: the built one where the package has it, else a plain one that uses the API."""

import contextlib
import mimetypes
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from typing_extensions import override

NAMED_BY_CONTENT: Final = "assets"  # the folder whose files' names change when they do
KEEP_FOREVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"  # kept, but used only after the server has said that it is still the same
# ONNX Runtime's WebAssembly is 14 MB, and 2.3 MB as it travels; `npm run build` packs it. Every browser takes this on
# https and from localhost, and elsewhere none runs the page without a network.
PACKED: Final = "br"
_NEVER: Final = ("q=0", "q=0.0", "q=0.00", "q=0.000")


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
        response = await self._packed(path, scope) or await super().get_response(path, scope)
        named_by_content = Path(path).parts[:1] == (NAMED_BY_CONTENT,)
        response.headers["Cache-Control"] = KEEP_FOREVER if named_by_content else ASK_AGAIN
        return response

    async def _packed(self, path: str, scope: Scope) -> Response | None:
        """WebAssembly as it was packed by the build, where the client takes it so."""
        if path.endswith(".wasm") and PACKED in _accepted(scope):
            with contextlib.suppress(HTTPException):  # not built along
                response = await super().get_response(f"{path}.{PACKED}", scope)
                response.headers.update({"Content-Encoding": PACKED, "Content-Type": "application/wasm"})
                response.headers["Vary"] = "Accept-Encoding"
                return response
        return None


def _accepted(scope: Scope) -> set[str]:
    """The content encodings that a client takes."""
    options = [part.split(";") for part in Headers(scope=scope).get("accept-encoding", "").lower().split(",")]
    return {name.strip() for name, *quality in options if "".join(quality).replace(" ", "") not in _NEVER}


def install(app: FastAPI, routes: Iterable[BaseRoute], package: Path | None = None) -> None:
    """Serves the page's files at every path that no endpoint has; `package` is the folder that `page_dir` looks in."""
    mimetypes.add_type("application/manifest+json", ".webmanifest")
    allowed = {route.path: route.methods or set() for route in routes if isinstance(route, APIRoute)}
    app.mount("/", Page(page_dir(package), allowed), name="page")


def page_dir(package: Path | None = None) -> Path:
    """The folder of the page: `web/`, which `just page` fills, or the plain page beside this file."""
    root = package or Path(str(files("cassava_leaf_disease")))
    built = root / "web"
    return built if (built / "index.html").is_file() else Path(__file__).parent / "page"
