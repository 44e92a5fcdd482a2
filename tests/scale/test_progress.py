"""How far a run is: a bar in a terminal, a line now and then elsewhere."""

import io
import logging
import sys

import pytest

from cassava_leaf_disease.scale import progress
from cassava_leaf_disease.scale.progress import photo_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_line_is_logged_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    with photo_bar(5000, 1000) as advance:
        advance(500, 2)
        assert caplog.messages == []
        monkeypatch.setattr(progress, "HEARTBEAT_S", 0.0)
        advance(500, 1)
    [line] = caplog.messages
    assert line.startswith("2,000 of 5,000 photos, ")
    assert line.endswith(" photos/s, 3 errors")


def test_in_a_terminal_a_bar_tells_photos_rate_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with photo_bar(5000, 1000) as advance:
        advance(500, 2)
    shown = terminal.getvalue()
    assert "1500/5000" in shown
    assert "2 errors" in shown
    assert "photos/s" in shown
