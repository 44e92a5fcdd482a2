"""What both doors share: the table, stdout kept for the result, exit codes."""

import errno
import importlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cassava_leaf_disease import commands, door
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, MissingDependencyError, StorageError

Config = Callable[..., AppConfig]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[AppConfig], object]], commands.Command]:
    """Makes a command of a function."""

    def make(workflow: Callable[[AppConfig], object]) -> commands.Command:
        module = ModuleType("of_a_test")
        module.__dict__["run"] = workflow
        monkeypatch.setitem(sys.modules, f"{door.PACKAGE}.of_a_test", module)
        return commands.Command("a test's own", "of_a_test:run", (), ())

    return make


MakeCommand = Callable[[Callable[[AppConfig], object]], commands.Command]


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_every_command_of_the_table_leads_to_a_function(name: str) -> None:
    module, _, function = commands.COMMANDS[name].workflow.partition(":")
    assert callable(getattr(importlib.import_module(f"{door.PACKAGE}.{module}"), function))


def test_dash_and_underscore_are_alike() -> None:
    assert commands.find_command("pseudo_label") == commands.find_command("pseudo-label")
    assert commands.find_command("pseudo_label")[0] == "pseudo-label"


def test_what_libraries_print_goes_to_stderr(
    command: MakeCommand, small_config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    def chatty(_: AppConfig) -> str:
        sys.stdout.write("from python\n")
        os.write(1, b"from C\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        return "answer"

    assert door.run_workflow(command(chatty), small_config()) == "answer"
    sys.stdout.write("after\n")

    out, err = capfd.readouterr()
    assert out == "after\n"
    assert sorted(err.splitlines()) == ["from C", "from a child", "from python"]


def test_stdout_comes_back_after_a_failure(
    command: MakeCommand, small_config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(_: AppConfig) -> None:
        raise StorageError("gone")

    with pytest.raises(StorageError):
        door.run_workflow(command(failing), small_config())
    os.write(1, b"back\n")

    assert capfd.readouterr().out == "back\n"


def test_workflow_runs_where_there_is_no_stdout(
    command: MakeCommand, small_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: int) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)

    assert door.run_workflow(command(lambda config: config.train.epochs), small_config()) == 2


def test_library_of_an_extra_that_is_missing_names_the_extra(command: MakeCommand, small_config: Config) -> None:
    def needs_mlflow(_: AppConfig) -> None:
        raise ModuleNotFoundError("No module named 'mlflow.pytorch'", name="mlflow.pytorch")

    with pytest.raises(MissingDependencyError, match=r"pip install 'cassava-leaf-disease\[track\]'"):
        door.run_workflow(command(needs_mlflow), small_config())


def test_module_that_is_missing_by_mistake_is_a_bug(
    command: MakeCommand, small_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    def slip(_: AppConfig) -> None:
        raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")

    def action() -> int:
        door.run_workflow(command(slip), small_config())
        return 0

    assert door.guarded(action) == 1
    assert "No module named 'nowhere'\nthis is a bug in cassava" in capsys.readouterr().err


def test_interrupt_that_lightning_turned_into_an_exit_is_an_interrupt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def shut_down() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(1)
        return 0

    assert door.guarded(shut_down) == door.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


def test_other_exits_pass_through() -> None:
    with pytest.raises(SystemExit, match="3"):
        door.guarded(lambda: sys.exit(3))


def test_full_disk_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/outputs/last.ckpt")

    assert door.guarded(full) == 1
    assert capsys.readouterr().err == "error: No space left on device: /outputs/last.ckpt\n"


def test_full_disk_without_a_file_name_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert door.guarded(full) == 1
    assert capsys.readouterr().err == "error: No space left on device\n"


def test_other_system_errors_are_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    def slip() -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "half.csv")

    assert door.guarded(slip) == 1
    assert "this is a bug in cassava" in capsys.readouterr().err


def test_several_lines_of_an_error_are_all_marked(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> int:
        raise ConfigError("a=1: no\nb=2: no")

    assert door.guarded(wrong) == 2
    assert capsys.readouterr().err == "error: a=1: no\nerror: b=2: no\n"


def test_json_holds_neither_nan_nor_escaped_letters(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"acc": [0.5, float("nan"), float("-inf")], "photo": Path("манго.jpg"), "n": 3, "none": None}

    assert door.write_result(result) == 0
    assert capsys.readouterr().out == (
        '{\n  "acc": [\n    0.5,\n    null,\n    null\n  ],\n  "photo": "манго.jpg",\n  "n": 3,\n  "none": null\n}\n'
    )


def test_file_name_that_is_no_text_is_still_written(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert door.write_result({"photo": os.fsdecode(b"\xff.jpg")}) == 0
    assert capfdbinary.readouterr().out == b'{\n  "photo": "\\udcff.jpg"\n}\n'


def test_stdout_without_bytes_takes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)

    assert door.write_stdout("ä\n") == 0
    assert stream.getvalue() == "ä\n"


def test_reader_that_goes_away_is_met_without_a_traceback() -> None:
    code = (
        "import sys\nfrom cassava_leaf_disease import cli, door\n"
        "sys.stdin.read()\nsys.exit(door.write_stdout('x' * 1_000_000))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == door.EXIT_BROKEN_PIPE


def test_broken_pipe_points_stdout_at_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert door.write_stdout("x" * 100_000) == door.EXIT_BROKEN_PIPE
        monkeypatch.undo()
        stream.write("the interpreter's last flush")
