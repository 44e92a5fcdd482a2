"""MkDocs reads this: documents that lie in the repository's root, as pages of the site beside those of docs/."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {name: f"{name.removesuffix('.md').lower()}.md" for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them; what they link to in docs/ lies beside them here."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=as_page((ROOT / name).read_text(encoding="utf-8"))))
    return files


def as_page(text: str) -> str:
    """A document of the root with links as pages of the site have them."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text.replace("](docs/", "](")
