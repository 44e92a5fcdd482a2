"""The files of this package that a model in Python needs, found by following its imports."""

import ast
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

PACKAGE: Final = "cassava_leaf_disease"


def needed_files(module: str) -> dict[str, str]:
    """Path below a `lib` folder to content: the module, all of ours that it imports, and the packages they lie in.

    Imports inside functions and under `if TYPE_CHECKING` do not count: no model in Python gets there.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        path, source = _read(waiting.pop())
        if path in found:
            continue
        found[path] = source
        parents = [PACKAGE, *_prefixes(path)]
        waiting += [*_imported(ast.parse(source)), *parents]
    return dict(sorted(found.items()))


def libraries(sources: dict[str, str]) -> set[str]:
    """The top names of everything else that those files import."""
    names = {name.partition(".")[0] for source in sources.values() for name in _all_imported(ast.parse(source))}
    return names - {PACKAGE}


def _read(module: str) -> tuple[str, str]:
    """A module's path and source; of `package.module.name` those of the module."""
    root = Path(str(files(PACKAGE))).parent
    place = Path(*module.split("."))
    for candidate in (place.with_suffix(".py"), place / "__init__.py"):
        if (root / candidate).is_file():
            return candidate.as_posix(), (root / candidate).read_text(encoding="utf-8")
    raise ModuleNotFoundError(f"no module {module} in this package", name=module)


def _prefixes(path: str) -> list[str]:
    """The packages that a file lies in: `a.b` of `a/b/c.py`."""
    parts = Path(path).parent.parts
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _imported(tree: ast.Module) -> list[str]:
    return [name for name in _all_imported(tree) if name.partition(".")[0] == PACKAGE]


def _all_imported(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Try):
            yield from _all_imported(ast.Module(node.body, []))
