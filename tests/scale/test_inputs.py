"""Where photos come from: folders, tables of paths, S3."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, DataError, StorageError
from cassava_leaf_disease.scale.inputs import find_source, list_photos, read_parts, write_listing
from cassava_leaf_disease.scale.score import score
from cassava_leaf_disease.storage.s3_errors import UnreachableError
from cassava_leaf_disease.storage.s3_listing import S3Reader

Scoring = Callable[..., AppConfig]
ReadCsv = Callable[[Path], list[dict[str, str]]]


def listed(*words: str) -> list[str]:
    return list(list_photos(find_source(load_config([f"score.{word}" for word in words]).score)))


class TestTables:
    def test_lines_of_text_are_paths(self, tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_bytes("\ufeffa.jpg\r\n\r\nb, c.jpg\r\nKlär.png".encode())

        assert listed("input=list.txt") == ["a.jpg", "b, c.jpg", "Klär.png"]

    def test_a_column_of_csv_holds_paths(self, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text('photo,id\n"b, c.jpg",1\na.jpg,2\n,3\n')

        assert listed("input=list.csv", "path_column=photo") == ["b, c.jpg", "a.jpg", ""]

    def test_a_column_of_parquet_holds_paths(self, tmp_path: Path) -> None:
        parquet.write_table(pa.table({"path": ["a.jpg", None], "id": [1, 2]}), tmp_path / "list.parquet")

        assert listed("input=list.parquet") == ["a.jpg", ""]

    @pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
    def test_a_missing_column_is_told_with_those_that_are_there(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "list.csv").write_text("photo,id\na.jpg,1\n")
        parquet.write_table(pa.table({"photo": ["a.jpg"], "id": [1]}), tmp_path / "list.parquet")

        with pytest.raises(DataError, match=r"no column path, only photo, id; type score.path_column=NAME"):
            listed(f"input={name}")

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("list.csv", b"path\n\xff.jpg\n", "cannot be read"),
            ("list.csv", b"path\n", "no photos; expected files"),
            ("list.csv", b"", "no column path, only an empty line"),
            ("list.txt", b"", "no photos; expected files"),
            ("list.parquet", b"PAR1", "no Parquet file that can be read"),
        ],
    )
    def test_a_table_without_paths_is_told(self, tmp_path: Path, name: str, content: bytes, told: str) -> None:
        (tmp_path / name).write_bytes(content)

        with pytest.raises(DataError, match=told):
            write_listing(find_source(load_config([f"score.input={name}"]).score), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_relative_paths_start_at_the_root_or_beside_the_table(
        self, read_csv: ReadCsv, scoring: Scoring, field: Path
    ) -> None:
        table = field.parent / "lists" / "train.csv"
        table.parent.mkdir()
        table.write_text(f"image_id\nleaf 0.jpg\n{field}/leaf 2.jpg\nnone.jpg\n\0.jpg\n", encoding="utf-8")
        words = (f"score.input={table}", "score.path_column=image_id", "score.format=csv")

        from_root = score(scoring(*words, f"score.root={field}"))
        beside = score(scoring(*words))

        assert (from_root.predicted, beside.predicted) == (2, 1)
        missing = read_csv(from_root.output)[2]
        assert missing["error"] == f"{field}/none.jpg: no such file; give the path of a JPEG or PNG photo"


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ((), "score.input is not set; type score.input=FOLDER"),
            (("input=photos.xlsx",), "expected a folder, or a table of paths that ends in .csv, .txt, .parquet"),
            (("input=s3:///x",), "s3:///x: expected s3://bucket/prefix"),
        ],
    )
    def test_a_wrong_input_is_told(self, tmp_path: Path, words: Sequence[str], told: str) -> None:
        (tmp_path / "photos.xlsx").touch()

        with pytest.raises(ConfigError) as refused:
            listed(*words)
        assert told in str(refused.value)

    def test_a_missing_or_empty_folder_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such folder or table"):
            listed("input=nowhere")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no photos; expected files that end in .jpg"):
            write_listing(find_source(load_config(["score.input=empty"]).score), tmp_path / "out")


def test_names_that_are_no_text_have_rows_too(
    read_csv: ReadCsv, scoring: Scoring, tmp_path: Path, leaves: Sequence[bytes]
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    try:
        (folder / "blatt-\udcff.jpg").write_bytes(leaves[0])
        (folder / "zwei\nzeilen.jpg").write_bytes(leaves[1])
    except (OSError, UnicodeError):
        pytest.skip("this file system knows no such names")

    result = score(scoring(f"score.input={folder}", "score.output=a.csv"))

    assert [row["path"] for row in read_csv(result.output)] == ["blatt-\\udcff.jpg", "zwei\nzeilen.jpg"]
    assert result.predicted == 2


def test_parts_are_cut_by_place_and_done_ones_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{number}.jpg\n" for number in range(10)))
    source = find_source(load_config(["score.input=list.txt"]).score)
    assert write_listing(source, tmp_path / "listing").count == 10

    parts = list(read_parts(tmp_path / "listing", 4, frozenset({1})))

    assert [(part.number, part.first_row, part.paths) for part in parts] == [
        (0, 0, ("0.jpg", "1.jpg", "2.jpg", "3.jpg")),
        (2, 8, ("8.jpg", "9.jpg")),
    ]


class TestS3:
    @pytest.fixture(autouse=True)
    def _server(self, no_aws: None, moto_s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", moto_s3[0])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")

    @pytest.fixture
    def bucket(self, moto_s3: tuple[str, Any], leaves: Sequence[bytes]) -> Any:
        client = moto_s3[1]
        client.create_bucket(Bucket="field")
        for number, leaf in enumerate(leaves):
            client.put_object(Bucket="field", Key=f"2026/leaf ({number}).jpg", Body=leaf)
        client.put_object(Bucket="field", Key="2026/notes.txt", Body=b"no photo")
        client.put_object(Bucket="field", Key="2026/large.jpg", Body=b"\xff\xd8\xff" + bytes(60_000))
        client.put_object(Bucket="field", Key="2025/leaf.jpg", Body=leaves[0])
        return client

    def test_what_lies_below_a_prefix_has_rows(
        self, read_csv: ReadCsv, scoring: Scoring, bucket: Any, field: Path
    ) -> None:
        words = ("score.input=s3://field/2026", "score.output=a.csv", "infer.max_image_bytes=50000")
        result = score(scoring(*words))

        rows = read_csv(result.output)
        assert [row["path"] for row in rows] == [
            "s3://field/2026/large.jpg",
            *(f"s3://field/2026/leaf ({number}).jpg" for number in range(7)),
        ]
        assert rows[0]["error"] == "s3://field/2026/large.jpg: 60,003 bytes; expected at most 50,000"
        local = score(scoring(f"score.input={field}", "score.output=b.csv"))
        leaf = next(row for row in read_csv(local.output) if row["path"] == "leaf 2.jpg")
        assert rows[3]["prob_0"] == leaf["prob_0"]

    def test_a_missing_object_is_a_row_and_a_missing_bucket_ends_the_run(
        self, read_csv: ReadCsv, scoring: Scoring, bucket: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "list.txt").write_text("s3://field/2025/leaf.jpg\ns3://field/2025/gone.jpg\ns3:///a.jpg\n")
        result = score(scoring("score.input=list.txt", "score.output=a.csv"))
        assert [row["error"] for row in read_csv(result.output)] == [
            "",
            "s3://field/2025/gone.jpg: the bucket field holds no such key",
            "s3:///a.jpg: expected s3://bucket/prefix",
        ]
        with pytest.raises(StorageError, match="there is no bucket none"):
            score(scoring("score.input=s3://none/x"))
        with pytest.raises(DataError, match="no photos"):
            score(scoring("score.input=s3://field/2024"))

    def test_a_server_that_is_gone_ends_the_run_and_blames_no_photo(
        self, scoring: Scoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(*_: object) -> bytes:
            raise UnreachableError("s3://field/a.jpg: the server cannot be reached")

        (tmp_path / "list.txt").write_text("s3://field/a.jpg\n")
        monkeypatch.setattr(S3Reader, "read", gone)
        with pytest.raises(UnreachableError):
            score(scoring("score.input=list.txt", "score.output=answers"))
        assert list((tmp_path / "answers").glob("part-*")) == []
