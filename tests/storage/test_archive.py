"""Archives of every kind, honest ones, damaged ones and ones that are made to do harm."""

import errno
import io
import os
import random
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import py7zr
import pytest
from backports import zstd

from cassava_leaf_disease.errors import DataError, StorageError
from cassava_leaf_disease.storage import archive_guard
from cassava_leaf_disease.storage.archive import Unpacked, archive_kind, unpack
from cassava_leaf_disease.storage.archive_guard import TooLargeError

FILES = {
    "leaves/train.csv": b"image_id,label\n",
    "leaves/train_images/été 1.jpg": random.Random(1).randbytes(10_000),  # noqa: S311
    "leaves/empty.txt": b"",
}
LIMIT = 10_000_000

Write = Callable[[Path, Mapping[str, bytes]], None]


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("leaves")
        for name, content in files.items():
            archive.writestr(name, content)


def write_tar(path: Path, files: Mapping[str, bytes], compression: str = "") -> None:
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        top = tarfile.TarInfo("./")  # as `tar -c .` begins
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_tar_zst(path: Path, files: Mapping[str, bytes]) -> None:
    plain = path.with_suffix(".plain")
    write_tar(plain, files)
    path.write_bytes(zstd.compress(plain.read_bytes()))
    plain.unlink()


def write_7z(path: Path, files: Mapping[str, bytes]) -> None:
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(content, name)


def write_rar(
    path: Path, files: Mapping[str, bytes], *, method: int = 0x30, flags: int = 0, mode: int = 0o100644, volume: int = 0
) -> None:
    """RAR 4 after the format's technical note: no program that writes rar is free.

    Entries are stored (method 0x30); other methods and flags are claimed only.
    """

    def block(kind: int, block_flags: int, rest: bytes) -> bytes:
        head = struct.pack("<BHH", kind, block_flags, 7 + len(rest)) + rest
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head

    parts = [b"Rar!\x1a\x07\x00", block(0x73, volume, bytes(6))]
    for name, content in files.items():
        raw = name.encode()
        size, checksum = len(content), zlib.crc32(content)
        fields = struct.pack("<IIBIIBBHI", size, size, 3, checksum, 0x50000000, 29, method, len(raw), mode)
        parts += [block(0x74, 0x8000 | flags, fields + raw), content]
    path.write_bytes(b"".join([*parts, block(0x7B, 0x4000, b"")]))


KINDS: dict[str, Write] = {
    "zip": write_zip,
    "tar": write_tar,
    "tar.gz": lambda path, files: write_tar(path, files, "gz"),
    "tar.bz2": lambda path, files: write_tar(path, files, "bz2"),
    "tar.xz": lambda path, files: write_tar(path, files, "xz"),
    "tar.zst": write_tar_zst,
    "7z": write_7z,
    "rar": write_rar,
}


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_is_known_by_its_content_and_unpacked_whole(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "download"  # no suffix
        KINDS[kind](path, FILES)
        assert archive_kind(path) == kind
        done = unpack(path, tmp_path / "out", LIMIT)
        assert done == Unpacked(len(FILES), sum(map(len, FILES.values())))
        assert everything_in(tmp_path / "out") == FILES

    @pytest.mark.parametrize("part", [0.3, 0.6])
    def test_cut_off_is_told_as_damaged(self, kind: str, part: float, tmp_path: Path) -> None:
        path = tmp_path / "a"
        KINDS[kind](path, FILES)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match=r"set\.x: the archive is damaged \(.*\); fetch it again"):
            unpack(path, tmp_path / "out", LIMIT, "set.x")

    @pytest.mark.parametrize(
        "name", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "C:/outside.txt", "a/c:x"]
    )
    def test_no_name_leads_out_of_the_folder(self, kind: str, name: str, tmp_path: Path) -> None:
        path = tmp_path / "a"
        harmless = name.replace("..", "zz").replace("/", "z", 1) if kind == "7z" else name
        KINDS[kind](path, {harmless: b"gotcha"})
        if kind == "7z":  # py7zr writes no such names
            rename_in_7z(path, harmless, name)
        with pytest.raises(DataError, match=r"a: refused: the name .* leads out of its folder; nothing of it was kept"):
            unpack(path, tmp_path / "deep" / "out", LIMIT)
        assert everything_in(tmp_path).keys() == {"a"}

    def test_more_than_the_limit_is_refused_before_anything_is_written(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "a"
        KINDS[kind](path, {"zeros": bytes(500_000)})
        with pytest.raises(TooLargeError, match="unpacks to more than 400,000 bytes, as archive bombs do"):
            unpack(path, tmp_path / "out", 400_000)
        assert everything_in(tmp_path).keys() == {"a"}

    def test_too_many_entries_are_refused(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive_guard, "MAX_ENTRIES", 2)
        path = tmp_path / "a"
        KINDS[kind](path, {str(number): b"" for number in range(3)})
        with pytest.raises(DataError, match="it holds more than 2 entries"):
            unpack(path, tmp_path / "out", LIMIT)

    @pytest.mark.parametrize(
        "names",
        [("leaf.jpg", "Leaf.JPG"), ("\u00e9.jpg", "e\u0301.jpg"), ("a", "a/b"), ("A/b", "a"), ("x/leaf", "X/LEAF")],
    )
    def test_two_names_for_one_file_are_refused(self, kind: str, names: tuple[str, str], tmp_path: Path) -> None:
        path = tmp_path / "a"
        KINDS[kind](path, dict.fromkeys(names, b"1"))
        with pytest.raises(DataError, match=f"it holds '{names[1]}' twice"):
            unpack(path, tmp_path / "out", LIMIT)

    def test_a_disk_that_is_full_on_the_way_is_told(self, kind: str, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="no limits of file sizes on Windows")
        path = tmp_path / "a"
        KINDS[kind](path, FILES)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
        try:
            with pytest.raises(StorageError, match=r"été 1.jpg: cannot be written \(File too large\)"):
                unpack(path, tmp_path / "out", LIMIT)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("tar", "tar.zst")]
)  # those have no checksums of their own
def test_with_flipped_bytes_is_told_as_damaged(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    KINDS[kind](path, FILES)
    damaged = bytearray(path.read_bytes())
    for place in range(len(damaged) // 2, len(damaged) // 2 + 40):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"a: the archive is damaged \(.*\); fetch it again"):
        unpack(path, tmp_path / "out", LIMIT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("tar", "rar")])  # those are stored here
def test_far_more_than_its_own_size_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_guard, "RATIO_FREE_BYTES", 100_000)
    path = tmp_path / "a"
    KINDS[kind](path, {"zeros": bytes(9_000_000)})
    with pytest.raises(DataError, match="it unpacks to more than 200 times its size, as archive bombs do"):
        unpack(path, tmp_path / "out", LIMIT)


@pytest.mark.parametrize("kind", ["zip", "7z", "rar"])  # which say beforehand how much they hold
def test_more_than_fits_on_the_disk_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind.startswith("tar"):
        pytest.skip("how much it holds is not known beforehand")
    path = tmp_path / "a"
    KINDS[kind](path, FILES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StorageError, match=r"unpacks to 0.0 MB, more than the 0.0 MB that are free in .*make room"):
        unpack(path, tmp_path / "out", LIMIT)


def rename_in_7z(path: Path, old: str, new: str) -> None:
    """Writes another name of the same length into the (unpacked) header of a 7z archive."""
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(b"gotcha", old)
    raw = path.read_bytes()
    assert len(old) == len(new)
    start, header_size = struct.unpack("<QQ", raw[12:28])
    header = raw[32 + start :].replace(old.encode("utf-16-le"), new.encode("utf-16-le"))
    assert len(header) == header_size
    tail = struct.pack("<QQI", start, header_size, zlib.crc32(header))
    path.write_bytes(raw[:8] + struct.pack("<I", zlib.crc32(tail)) + tail + raw[32 : 32 + start] + header)


class TestTar:
    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
    def test_links_and_devices_are_refused(self, kind: bytes, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        with pytest.raises(DataError, match=r"'link' is a link or a device; nothing of it was kept"):
            unpack(path, tmp_path / "out", LIMIT)

    def test_of_the_old_kind_is_known_by_the_checksum_of_its_header(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        write_tar(path, FILES)
        old = bytearray(path.read_bytes())
        old[257:265] = bytes(8)  # the word ustar and its version
        header = old[:148] + b" " * 8 + old[156:512]
        old[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(old)
        assert archive_kind(path) == "tar"
        assert unpack(path, tmp_path / "out", LIMIT).files == len(FILES)

    def test_notes_of_gigabytes_about_one_member_are_not_read(self, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("././@PaxHeader")
        entry.type, entry.size = tarfile.XHDTYPE, 3 << 30
        (tmp_path / "a").write_bytes(entry.tobuf() + bytes(2048))
        with pytest.raises(DataError, match=r"damaged \(a note of 3,221,225,472 bytes about one member\)"):
            unpack(tmp_path / "a", tmp_path / "out", LIMIT)

    def test_with_a_damaged_header_in_the_middle_is_not_taken_for_complete(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        write_tar(path, FILES)
        damaged = bytearray(path.read_bytes())
        damaged[damaged.index(b"leaves/empty.txt") + 150] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a: the archive is damaged \(.*header.*\)"):
            unpack(path, tmp_path / "out", LIMIT)

    def test_without_its_end_is_not_taken_for_complete(self, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("a")
        (tmp_path / "a").write_bytes(entry.tobuf())
        with pytest.raises(DataError, match=r"a: the archive is damaged \(empty header\)"):
            unpack(tmp_path / "a", tmp_path / "out", LIMIT)

    def test_endless_padding_is_refused(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "plain", FILES)
        (tmp_path / "a").write_bytes(zstd.compress((tmp_path / "plain").read_bytes() + bytes(20_000_000)))
        with pytest.raises(TooLargeError, match="unpacks to more than 10,000,000 bytes"):
            unpack(tmp_path / "a", tmp_path / "out", LIMIT)


class TestZip:
    def test_links_are_refused(self, tmp_path: Path) -> None:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(entry, "/etc/passwd")
        with pytest.raises(DataError, match="'link' is a link or a device"):
            unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)

    def test_windows_separators_make_folders(self, tmp_path: Path) -> None:
        write_zip(tmp_path / "a.zip", {"leaves\\one.jpg": b"1"})
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)
        assert everything_in(tmp_path / "out") == {"leaves/one.jpg": b"1"}
        write_zip(tmp_path / "b.zip", {"..\\one.jpg": b"1"})
        with pytest.raises(DataError, match="leads out of its folder"):
            unpack(tmp_path / "b.zip", tmp_path / "other", LIMIT)

    def test_with_64_bit_sizes_is_unpacked(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("x", "w", force_zip64=True) as file:
            file.write(b"123")
        assert unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT) == Unpacked(1, 3)

    def test_that_holds_more_than_it_says_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        write_zip(path, {"zeros": bytes(500_000)})
        raw = path.read_bytes().replace(struct.pack("<I", 500_000), struct.pack("<I", 5))
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"the archive is damaged \(Bad CRC-32"):
            unpack(path, tmp_path / "out", LIMIT)

    def test_encrypted_is_refused(self, tmp_path: Path) -> None:
        write_zip(tmp_path / "a.zip", {"x": b"1"})
        raw = bytearray((tmp_path / "a.zip").read_bytes())
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            raw[raw.rindex(signature) + offset] |= 1
        (tmp_path / "a.zip").write_bytes(raw)
        with pytest.raises(DataError, match="'x' is encrypted"):
            unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)

    def test_packed_in_a_rare_way_is_told(self, tmp_path: Path) -> None:
        write_zip(tmp_path / "a.zip", {"x": b"1"})
        raw = bytearray((tmp_path / "a.zip").read_bytes())
        for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            raw[raw.rindex(signature) + offset] = 9  # deflate64
        (tmp_path / "a.zip").write_bytes(raw)
        with pytest.raises(DataError, match=r"packed in a rare way \(.*\); unpack it, and pack it anew as zip or tar"):
            unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)


class Test7z:
    def test_links_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/etc/passwd")
        with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
            archive.write(tmp_path / "link", "link")
        with pytest.raises(DataError, match="'link' is a link or a device"):
            unpack(tmp_path / "a.7z", tmp_path / "out", LIMIT)

    def test_folders_are_made_and_modes_forgotten(self, tmp_path: Path) -> None:
        (tmp_path / "set" / "empty").mkdir(parents=True)
        (tmp_path / "set" / "x").write_bytes(b"1")
        (tmp_path / "set" / "x").chmod(0o400)
        with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
            archive.writeall(tmp_path / "set", "set")
        unpack(tmp_path / "a.7z", tmp_path / "out", LIMIT)
        assert (tmp_path / "out" / "set" / "empty").is_dir()
        assert os.access(tmp_path / "out" / "set" / "x", os.W_OK)
        assert (tmp_path / "out" / "set" / "x").stat().st_mode & 0o777 != 0o400

    @pytest.mark.parametrize("names_too", [False, True])
    def test_encrypted_is_refused(self, names_too: bool, tmp_path: Path) -> None:
        with py7zr.SevenZipFile(
            tmp_path / "a.7z",
            "w",
            password="secret",  # noqa: S106
            header_encryption=names_too,
        ) as archive:
            archive.writestr(b"1", "x")
        with pytest.raises(DataError, match=r"a.7z: refused: it is encrypted; unpack it, and pack it anew"):
            unpack(tmp_path / "a.7z", tmp_path / "out", LIMIT)

    def test_packed_in_a_rare_way_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "a.7z"
        with py7zr.SevenZipFile(path, "w", filters=[{"id": py7zr.FILTER_COPY}]) as archive:
            archive.set_encoded_header_mode(False)
            archive.writestr(b"123", "x")
        raw = path.read_bytes()
        start, header_size = struct.unpack("<QQ", raw[12:28])
        header = raw[32 + start :].replace(b"\x07\x0b\x01\x00\x01\x01\x00", b"\x07\x0b\x01\x00\x01\x01\x7f", 1)
        assert header != raw[32 + start :]
        tail = struct.pack("<QQI", start, header_size, zlib.crc32(header))
        path.write_bytes(raw[:8] + struct.pack("<I", zlib.crc32(tail)) + tail + raw[32 : 32 + start] + header)
        with pytest.raises(DataError, match="packed in a rare way"):
            unpack(path, tmp_path / "out", LIMIT)


PROGRAMS = ("unrar", "unar", "7z", "7zz", "bsdtar")


class TestRar:
    @pytest.fixture
    def programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], None]:
        """Nothing but the programs that the test puts there; each writes what it is told to."""
        if sys.platform == "win32":
            pytest.skip("the stand-ins are shell scripts")
        (tmp_path / "bin").mkdir()
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))

        def install(name: str, output: bytes) -> None:
            (tmp_path / "bin" / f"{name}.out").write_bytes(output)
            program = tmp_path / "bin" / name
            program.write_text('#!/bin/sh\nexec /bin/cat "$0.out"\n')
            program.chmod(0o755)

        return install

    @pytest.fixture
    def compressed(self, tmp_path: Path) -> Path:
        write_rar(tmp_path / "a.rar", FILES, method=0x33)
        return tmp_path / "a.rar"

    def test_compressed_is_unpacked_by_one_run_of_a_program(
        self, programs: Callable[[str, bytes], None], compressed: Path, tmp_path: Path
    ) -> None:
        programs("unar", b"".join(FILES.values()))
        assert unpack(compressed, tmp_path / "out", LIMIT).files == len(FILES)
        assert everything_in(tmp_path / "out") == FILES

    @pytest.mark.parametrize("useless", [b"", b"Extracting from a.rar\n", b"image_id,label"])
    def test_a_program_that_cannot_is_passed_over(
        self, programs: Callable[[str, bytes], None], compressed: Path, tmp_path: Path, useless: bytes
    ) -> None:
        programs("unrar", useless)
        programs("bsdtar", b"".join(FILES.values()))
        unpack(compressed, tmp_path / "out", LIMIT)
        assert everything_in(tmp_path / "out") == FILES

    def test_without_a_program_that_can_the_message_names_what_to_install(
        self, programs: Callable[[str, bytes], None], compressed: Path, tmp_path: Path
    ) -> None:
        install = r"install unrar \(from rarlab.com\), unar, 7-Zip \(7z\) or bsdtar and type the command again"
        with pytest.raises(StorageError, match=f"a.rar: compressed rar needs a program to unpack it; {install}"):
            unpack(compressed, tmp_path / "out", LIMIT)
        programs("7z", b"")
        programs("7zz", b"")
        with pytest.raises(StorageError, match=f"a.rar: 7z, 7zz cannot unpack it; {install}"):
            unpack(compressed, tmp_path / "out", LIMIT)

    @pytest.mark.parametrize("output", [b"image_id,label\n123", b"image_id,label\n" + bytes(10_000)])
    def test_what_a_program_writes_is_held_to_the_checksums(
        self, programs: Callable[[str, bytes], None], compressed: Path, tmp_path: Path, output: bytes
    ) -> None:
        programs("unrar", output)
        with pytest.raises(StorageError, match=r"a.rar: unrar could not unpack 'leaves/train_images/été 1.jpg'"):
            unpack(compressed, tmp_path / "out", LIMIT)

    @pytest.mark.skipif(not any(map(shutil.which, PROGRAMS)), reason="no program that unpacks rar is installed")
    def test_what_no_program_can_unpack_ends_with_a_message(self, compressed: Path, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"a\.rar: .*cannot unpack it; install unrar"):
            unpack(compressed, tmp_path / "out", LIMIT)

    def test_with_a_damaged_header_is_told_as_damaged(self, tmp_path: Path) -> None:
        write_rar(tmp_path / "a.rar", FILES)
        raw = bytearray((tmp_path / "a.rar").read_bytes())
        raw[10] ^= 0xFF
        (tmp_path / "a.rar").write_bytes(raw)
        with pytest.raises(DataError, match=r"a.rar: the archive is damaged"):
            unpack(tmp_path / "a.rar", tmp_path / "out", LIMIT)

    def test_encrypted_is_refused(self, tmp_path: Path) -> None:
        write_rar(tmp_path / "a.rar", {"x": b"1"}, flags=0x04)
        with pytest.raises(DataError, match="it is encrypted"):
            unpack(tmp_path / "a.rar", tmp_path / "out", LIMIT)

    def test_links_are_refused(self, tmp_path: Path) -> None:
        write_rar(tmp_path / "a.rar", {"link": b"/etc/passwd"}, mode=0o120777)
        with pytest.raises(DataError, match="'link' is a link or a device"):
            unpack(tmp_path / "a.rar", tmp_path / "out", LIMIT)

    @pytest.mark.parametrize(
        "claims",
        [
            {"volume": 0x0011},  # a later one
            {"volume": 0x0111, "flags": 0x02},  # the first, its file goes on in the next
        ],
    )
    def test_one_volume_of_several_is_told(self, claims: dict[str, int], tmp_path: Path) -> None:
        write_rar(tmp_path / "a.part1.rar", {"x": b"1"}, **claims)
        with pytest.raises(DataError, match="it is one of several volumes, and not all of them are there"):
            unpack(tmp_path / "a.part1.rar", tmp_path / "out", LIMIT)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(
        DataError, match=r"a.zip: no archive \(.*begins with b'<!DOCTYPE html><'\); expected zip, tar, "
    ):
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)
    (tmp_path / "empty").touch()
    assert archive_kind(tmp_path / "empty") is None


def test_what_stands_there_is_not_written_over(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"x": b"1"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_bytes(b"before")
    with pytest.raises(StorageError, match=r"x: cannot be written \(File exists\)"):
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMIT)
    assert (tmp_path / "out" / "x").read_bytes() == b"before"


def test_a_disk_that_cannot_be_read_is_told_from_a_damaged_archive(tmp_path: Path) -> None:
    guard = archive_guard.Guard("a.zip", tmp_path, LIMIT, 1)
    with pytest.raises(StorageError, match=r"a.zip: cannot be read \(Input/output error\)"), guard.damage():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
