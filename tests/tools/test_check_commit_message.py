"""The commit-msg hook: what it lets through, and what it says about the rest."""

from pathlib import Path

import pytest

from check_commit_message import find_mistake, main


@pytest.mark.parametrize(
    "message",
    [
        "feat: draw leaves",
        "fix(data): read tables with CRLF\n\nWindows writes them so.\n",
        "refactor(imaging/decode)!: one limit for bytes and pixels",
        "# a comment of git\nchore: pin the tree\n# another",
        'Revert "feat: draw leaves"',
        "Merge branch 'main'",
        "fixup! feat: draw leaves",
    ],
)
def test_a_conventional_commit_passes(message: str) -> None:
    assert find_mistake(message) is None


@pytest.mark.parametrize(
    ("message", "mistake"),
    [
        ("", "expected `type: subject`"),
        ("wip", "expected `type: subject`"),
        ("wip: things", "types: feat, fix"),
        ("feat : draw leaves", "expected `type: subject`"),
        ("feat:draw leaves", "expected `type: subject`"),
        ("feat(Data): draw leaves", "expected `type: subject`"),
        ("feat: draw leaves.", "no full stop"),
        (f"feat: {'leaf ' * 20}es", "108 characters, expected at most 100"),
        ("feat: draw leaves\nin five colours", "an empty second line"),
    ],
)
def test_anything_else_is_told_in_one_line(message: str, mistake: str) -> None:
    said = find_mistake(message)
    assert said is not None
    assert mistake in said
    assert "\n" not in said


def test_the_hook_reads_the_file_that_git_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "COMMIT_EDITMSG"
    monkeypatch.setattr("sys.argv", ["check_commit_message.py", str(path)])
    path.write_text("docs: über Blätter\n", encoding="utf-8")
    assert main() == 0
    path.write_text("Update\n", encoding="utf-8")
    assert main() == 1
    assert capsys.readouterr().err.startswith("commit message: 'Update': expected")
