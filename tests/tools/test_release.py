"""A release: the version follows from the commits, and a tag is compared with its tree."""

import shutil
import subprocess
from pathlib import Path

import pytest

import release
from release import ReleaseError, check, main, prepare, with_version

REPOSITORY = Path(__file__).resolve().parents[2]
PYPROJECT = '[project]\nname = "leaf"\nversion = "0.1.0"\n\n[tool.other]\ntarget-version = "py311"\n'


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path, message: str) -> None:
    git(root, "commit", "--quiet", "--allow-empty", "--message", message)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if shutil.which("git-cliff") is None:
        pytest.skip("git-cliff is not installed; type uv sync")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.name", "a")
    git(tmp_path, "config", "user.email", "a@localhost")
    shutil.copy(REPOSITORY / "cliff.toml", tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text("")
    overlay = tmp_path / "deploy" / "k8s" / "overlays" / "cpu" / "kustomization.yaml"
    overlay.parent.mkdir(parents=True)
    overlay.write_text("images: [{ name: leaf, newTag: v0.0.1 }]\n")
    git(tmp_path, "add", "--all")
    commit(tmp_path, "feat: draw leaves")
    return tmp_path


def test_versions_follow_from_the_commits(root: Path) -> None:
    assert prepare(root) == "v0.1.0"
    commit(root, "fix(data): read tables with CRLF")
    assert prepare(root) == "v0.1.1"
    commit(root, "feat: a page")
    commit(root, "fix: its colours")
    assert prepare(root) == "v0.2.0"
    commit(root, "feat!: another page")
    assert prepare(root) == "v0.3.0"  # before 1.0

    assert 'version = "0.3.0"' in (root / "pyproject.toml").read_text(encoding="utf-8")
    assert 'target-version = "py311"' in (root / "pyproject.toml").read_text(encoding="utf-8")
    assert "newTag: v0.3.0 }" in (root / "deploy/k8s/overlays/cpu/kustomization.yaml").read_text(encoding="utf-8")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## 0.3.0 (" in changelog
    assert "**breaking** Another page" in changelog
    assert "elease v0" not in changelog
    assert git(root, "log", "-1", "--format=%s") == "chore: release v0.3.0"
    assert git(root, "describe") == "v0.3.0"
    check(root, "v0.3.0")


def test_nothing_to_release_is_an_error(root: Path) -> None:
    prepare(root)
    with pytest.raises(ReleaseError, match=r"nothing to release: no commit since v0\.1\.0"):
        prepare(root)


def test_what_is_not_committed_comes_first(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("mine")
    with pytest.raises(ReleaseError, match="uncommitted changes"):
        prepare(root)
    assert git(root, "tag") == ""


def test_a_tag_that_does_not_fit_its_tree_is_told(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    with pytest.raises(ReleaseError, match=r"tag v0\.2\.0, but pyproject\.toml says 0\.1\.0"):
        check(tmp_path, "v0.2.0")
    with pytest.raises(ReleaseError, match=r"no section 0\.1\.0"):
        check(tmp_path, "v0.1.0")


def test_a_file_without_a_version_is_told() -> None:
    with pytest.raises(ReleaseError, match="found 0"):
        with_version("[project]\n", "1.0.0")


def test_the_command_line_tells_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text("\n## 0.1.0 (2026-01-01)\n")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    assert main(["--check", "v0.1.0"]) == 0
    assert main(["--check", "v9.0.0"]) == 1
    assert capsys.readouterr().err.startswith("error: tag v9.0.0")
