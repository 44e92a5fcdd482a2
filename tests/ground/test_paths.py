"""Where things lie, the same for every command."""

import os
import threading
from pathlib import Path

import pytest

from cassava_leaf_disease.paths import (
    checkpoints_dir,
    create_version_dir,
    newest_best_checkpoint,
    resolve,
    root,
    runs_dir,
    version_dirs,
)


def touch(path: Path, at: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (at, at))
    return path


def test_relative_paths_start_at_cassava_root(tmp_path: Path) -> None:
    assert resolve("data/../outputs") == tmp_path / "outputs"
    assert resolve(Path("a")) == tmp_path / "a"
    assert resolve(tmp_path / "b") == tmp_path / "b"


@pytest.mark.parametrize("setting", ["", None])
def test_relative_paths_start_at_the_current_directory_without_it(
    setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CASSAVA_ROOT")
    if setting is not None:
        monkeypatch.setenv("CASSAVA_ROOT", setting)
    monkeypatch.chdir(tmp_path)

    assert resolve("a") == Path.cwd() / "a"


def test_relative_root_starts_at_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASSAVA_ROOT", "below")
    monkeypatch.chdir(tmp_path)

    assert root() == Path.cwd() / "below"


def test_home_is_expanded_and_unknown_users_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))

    assert resolve("~/models") == tmp_path / "home" / "models"
    assert resolve("~nobody-here/a") == tmp_path / "~nobody-here" / "a"


def test_run_folders_are_numbered_by_value(tmp_path: Path) -> None:
    for name in ("version_10", "version_9", "version_x", "version_", "7", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "version_11").touch()

    assert [path.name for path in version_dirs(tmp_path)] == ["version_9", "version_10"]
    assert version_dirs(tmp_path / "nowhere") == []
    assert create_version_dir(tmp_path).name == "version_12"  # 11 is taken by a file


def test_first_run_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert create_version_dir(runs_dir(tmp_path)) == tmp_path / "runs" / "version_0"


def test_runs_that_start_together_get_a_folder_each(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(create_version_dir(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(path.name for path in made) == [f"version_{number}" for number in range(8)]


def test_newest_best_checkpoint_is_found_by_modification_time(tmp_path: Path) -> None:
    runs = runs_dir(tmp_path)
    newest = touch(checkpoints_dir(runs / "version_0") / "best.ckpt", at=2_000)
    touch(checkpoints_dir(runs / "version_1") / "best.ckpt", at=1_000)
    touch(checkpoints_dir(runs / "version_2") / "last.ckpt", at=3_000)

    assert newest_best_checkpoint(tmp_path) == newest


def test_half_written_checkpoints_and_folders_are_never_found(tmp_path: Path) -> None:
    folder = checkpoints_dir(runs_dir(tmp_path) / "version_0")
    touch(folder / ".best.ckpt.0a1b2c3d.tmp", at=3_000)
    (folder / "nested" / "best.ckpt").mkdir(parents=True)

    assert newest_best_checkpoint(tmp_path) is None
    assert newest_best_checkpoint(tmp_path / "nowhere") is None


def test_checkpoints_of_one_moment_are_told_apart_by_name(tmp_path: Path) -> None:
    for name in ("a", "c", "b"):
        touch(tmp_path / name / "best.ckpt", at=1_000)

    assert newest_best_checkpoint(tmp_path) == tmp_path / "c" / "best.ckpt"
