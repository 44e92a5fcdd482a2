"""How far a download is: a bar in a terminal, a line now and then elsewhere."""

import io
import logging
import sys

import pytest

from cassava_leaf_disease import log
from cassava_leaf_disease.log import byte_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "line"), [(5_000_000, "set.zip: 1.5 of 5.0 MB"), (None, "set.zip: 1.5 MB")])
def test_without_a_terminal_a_line_is_logged_now_and_then(
    total: int | None, line: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    with byte_bar("set.zip", total, done_bytes=1_000_000) as advance:
        advance(400_000)
        assert caplog.messages == []
        monkeypatch.setattr(log, "HEARTBEAT_S", 0.0)
        advance(100_000)
    assert caplog.messages == [line]


@pytest.mark.parametrize("total", [5_000_000, None])
def test_in_a_terminal_a_bar_counts_the_megabytes(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with byte_bar("set.zip", total, done_bytes=1_000_000) as advance:
        advance(500_000)
    shown = terminal.getvalue()
    assert "set.zip" in shown
    assert "1.5" in shown
