"""Device, precision and provenance of a run."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.accelerator import resolve_accelerator
from cassava_leaf_disease.errors import DeviceError
from cassava_leaf_disease.training import provenance
from cassava_leaf_disease.training.devices import memory_in_one_line, resolve_precision


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("asked", "given"), [("auto", "cuda"), ("gpu", "cuda"), ("cpu", "cpu")])
def test_a_gpu_is_used_where_there_is_one(asked: str, given: str) -> None:
    assert resolve_accelerator(load_config([f"train.accelerator={asked}"]).train) == given


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("asked", "accelerator", "given"),
    [
        ("auto", "cuda", "bf16-mixed"),
        ("auto", "cpu", "32-true"),
        ("32", "cuda", "32-true"),
        ("16-mixed", "cuda", "16-mixed"),
    ],
)
def test_auto_precision_is_bf16_on_a_gpu_that_has_it(asked: str, accelerator: str, given: str) -> None:
    assert resolve_precision(load_config([f"train.precision={asked}"]).train, accelerator) == given


@pytest.mark.usefixtures("gpu")
def test_hardware_is_told_in_words() -> None:
    assert provenance.hardware("cuda", processes=2).startswith("2 x Some GPU, ")
    assert provenance.hardware("cuda").startswith("1 x Some GPU, ")
    assert provenance.hardware("cpu").startswith("cpu, ")


class TestCommit:
    def test_the_environment_speaks_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CASSAVA_GIT_COMMIT", "abc")
        assert provenance.git_commit() == "abc"

    def test_a_package_outside_any_repository_has_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("CASSAVA_GIT_COMMIT", raising=False)
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / "package" / "training" / "provenance.py"))
        (tmp_path / "package").mkdir()
        assert provenance.git_commit() is None

    def test_a_package_installed_below_a_strangers_repository_has_none(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        commit(tmp_path, "README.md")
        (tmp_path / "package").mkdir()
        monkeypatch.delenv("CASSAVA_GIT_COMMIT", raising=False)
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / "package" / "training" / "provenance.py"))
        assert provenance.git_commit() is None

    def test_changed_sources_are_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        package = tmp_path / "package"
        package.mkdir()
        made = commit(tmp_path, "package/domain.py")
        monkeypatch.delenv("CASSAVA_GIT_COMMIT", raising=False)
        monkeypatch.setattr(provenance, "__file__", str(package / "training" / "provenance.py"))
        assert provenance.git_commit() == made
        (package / "domain.py").write_text("changed")
        assert provenance.git_commit() == f"{made}+dirty"


def commit(repository: Path, name: str) -> str:
    """A repository with one commit that holds one file."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        done = subprocess.run(["git", *who, *arguments], cwd=repository, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (repository / name).write_text("content")
    git("add", name)
    git("commit", "--quiet", "--message", "first")
    return git("rev-parse", "HEAD")


def test_a_full_gpu_is_told_with_what_to_do(small_config: Callable[..., AppConfig]) -> None:
    config = small_config("train.batch_size=10")
    with (
        pytest.raises(DeviceError, match=r"memory is full with train.batch_size=10; type a smaller"),
        memory_in_one_line(config.train),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
