"""Files stand whole or not at all."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cassava_leaf_disease.storage.files import replacing, write_json, write_text

HALF_WRITE = """
import sys, time
from pathlib import Path
from cassava_leaf_disease.storage.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def test_file_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "a.bin"

    with replacing(target) as file:
        file.write(b"\x00\r\n")
        assert not target.exists()

    assert target.read_bytes() == b"\x00\r\n"
    assert list(target.parent.iterdir()) == [target]


def test_block_that_raises_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with replacing(target) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killed_writer_leaves_the_old_file_and_one_hidden_piece(tmp_path: Path) -> None:
    target = tmp_path / "best.ckpt"
    target.write_text("old")
    with subprocess.Popen([sys.executable, "-c", HALF_WRITE, str(target)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)

    assert target.read_text() == "old"
    (piece,) = set(tmp_path.iterdir()) - {target}
    assert piece.name.startswith(".best.ckpt.")
    assert piece.suffix == ".tmp"


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    texts = [str(number) * 50_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(target, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert target.read_text() in texts
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="no file modes on Windows")
def test_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_link_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    (tmp_path / "original").write_text("old")
    try:
        (tmp_path / "link").symlink_to(tmp_path / "original")
    except OSError:
        pytest.skip("this machine makes no symbolic links")

    write_text(tmp_path / "link", "new")

    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "original").read_text() == "old"


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ñ\r\nb\n")

    assert (tmp_path / "a.txt").read_bytes() == "ñ\r\nb\n".encode()


def test_text_that_cannot_be_encoded_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "new \ud800")

    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_one_readable_document(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "ñ", "values": [1, 0.5, None]})

    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "ñ", "values": [1, 0.5, None]}
    assert "ñ" in text
    assert text.endswith("}\n")


def test_json_without_words_for_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})

    assert list(tmp_path.iterdir()) == []
