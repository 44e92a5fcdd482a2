"""Finished runs on their way to S3: by hand, in the background of a training, and once more after a failure."""

import json
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from cassava_leaf_disease import cli
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import ConfigError, StorageError
from cassava_leaf_disease.training import publication
from cassava_leaf_disease.training.publication import finish_publications
from cassava_leaf_disease.training.publish import check_publish, publish, run_path, start_publishing
from cassava_leaf_disease.training.publish_state import read_state, retry_command

PREFIX = "s3://models/runs"
FILES = ("best.ckpt", "config.yaml", "metrics.csv", "metrics.json", "split.csv")
FACTS = {"git_commit": "c0ffee" * 6 + "c0ff+dirty", "started_at": "2026-01-02T03:04:05+00:00", "metrics": {}}
CHECKPOINT_ID = "9a129038"  # of the bytes below


@pytest.fixture(scope="module")
def bucket(moto_s3: tuple[str, Any]) -> str:
    """A server with a bucket `models`."""
    url, client = moto_s3
    client.create_bucket(Bucket="models")
    return url


@pytest.fixture(autouse=True)
def at_server(bucket: str, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address and credentials for it are in the environment, and nothing else of the kind."""
    monkeypatch.setenv("S3_ENDPOINT_URL", bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture(autouse=True)
def objects(bucket: str, moto_s3: tuple[str, Any]) -> Iterator[Callable[[], dict[str, bytes]]]:
    """What is in the bucket; it is empty when a test begins."""
    assert bucket == moto_s3[0]
    client = moto_s3[1]

    def listed() -> dict[str, bytes]:
        keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="models").get("Contents", [])]
        return {key: client.get_object(Bucket="models", Key=key)["Body"].read() for key in keys}

    yield listed
    for key in listed():
        client.delete_object(Bucket="models", Key=key)


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    finish_publications()


def write_run(folder: Path, **facts: object) -> Path:
    """A finished run's folder."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    (folder / "config.yaml").write_text("logger:\n  tracking_uri: https://me:secret@host/path\n", encoding="utf-8")
    (folder / "split.csv").write_text("image_id,label,part\n")
    (folder / "metrics.csv").write_text("epoch\n0\n")
    (folder / "metrics.json").write_text(json.dumps(FACTS | facts))
    return folder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "outputs" / "runs" / "version_0")


def settings(*overrides: str) -> AppConfig:
    return load_config([f"publish.s3_prefix={PREFIX}", "publish.enabled=true", *overrides])


def dead_url() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


class TestByHand:
    def test_newest_finished_run_goes_below_its_commit_and_its_id(
        self, run_dir: Path, objects: Callable[[], dict[str, bytes]], tmp_path: Path
    ) -> None:
        write_run(run_dir.with_name("version_9"), git_commit=None)
        newest = write_run(run_dir.with_name("version_10"))
        (run_dir.with_name("version_11")).mkdir()  # not finished

        [published] = publish(settings()).runs

        folder = f"runs/{'c0ffee' * 6}c0ff-dirty/20260102T030405Z-version_10-{CHECKPOINT_ID}"
        assert published.run_dir == newest
        assert published.destination == f"s3://models/{folder}"
        assert set(objects()) == {f"{folder}/{name}" for name in FILES}
        assert objects()[f"{folder}/best.ckpt"] == b"weights"
        assert objects()[f"{folder}/metrics.json"] == (newest / "metrics.json").read_bytes()
        assert [sent.uri for sent in published.objects] == [
            f"s3://models/{folder}/{name}"
            for name in ("best.ckpt", "config.yaml", "split.csv", "metrics.csv", "metrics.json")
        ]
        assert published.uploaded_bytes == sum(map(len, objects().values()))

    def test_passwords_in_addresses_stay_at_home(self, run_dir: Path, objects: Callable[[], dict[str, bytes]]) -> None:
        publish(settings())

        [config] = [content for key, content in objects().items() if key.endswith("config.yaml")]
        assert config == b"logger:\n  tracking_uri: https://***@host/path\n"
        assert "secret" in (run_dir / "config.yaml").read_text()

    def test_second_time_sends_nothing(self, run_dir: Path) -> None:
        first, second = publish(settings()), publish(settings(f"publish.run_dir={run_dir}"))

        assert [sent.uploaded for sent in first.runs[0].objects] == [True] * 5
        assert [sent.uploaded for sent in second.runs[0].objects] == [False] * 5
        assert second.runs[0].uploaded_bytes == 0
        state = read_state(run_dir)
        assert state is not None
        assert (state.state, state.error, state.retry) == ("done", None, None)
        assert state.uris == tuple(sent.uri for sent in first.runs[0].objects)

    def test_run_without_its_smaller_files_goes_without_them(
        self, run_dir: Path, objects: Callable[[], dict[str, bytes]]
    ) -> None:
        for name in ("config.yaml", "split.csv", "metrics.csv"):
            (run_dir / name).unlink()

        publish(settings())

        assert [key.rpartition("/")[2] for key in objects()] == ["best.ckpt", "metrics.json"]

    def test_fold_of_a_cross_validation_is_named_by_both(self, tmp_path: Path) -> None:
        fold = write_run(tmp_path / "outputs" / "crossval" / "version_3" / "fold_1", git_commit=None)

        assert run_path(fold) == f"unknown-commit/20260102T030405Z-version_3-fold_1-{CHECKPOINT_ID}"

    @pytest.mark.parametrize("commit", ["feature/ä b", "..", ""])
    def test_path_is_plain_whatever_the_commit_is_called(self, commit: str, tmp_path: Path) -> None:
        run = write_run(tmp_path / "größe (1) b", git_commit=commit)

        assert run_path(run) == (
            f"{'feature-b' if commit.startswith('f') else 'unknown-commit'}/20260102T030405Z-gr-e-1-b-{CHECKPOINT_ID}"
        )

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            ("metrics.json", r"publish\.run_dir=.*version_0: no finished run \(no metrics\.json in it\)"),
            ("checkpoints/best.ckpt", r"publish\.run_dir=.*version_0: no checkpoints.best\.ckpt in it to publish"),
        ],
    )
    def test_what_is_no_finished_run_is_refused(self, spoil: str, message: str, run_dir: Path) -> None:
        (run_dir / spoil).unlink()

        with pytest.raises(ConfigError, match=message):
            publish(settings(f"publish.run_dir={run_dir}"))
        assert read_state(run_dir) is None

    def test_cross_validation_as_a_whole_is_refused_and_a_fold_named(self, tmp_path: Path) -> None:
        fold = write_run(tmp_path / "cv" / "fold_0")
        (tmp_path / "cv" / "metrics.json").write_text('{"folds": []}')

        with pytest.raises(ConfigError) as error:
            publish(settings("publish.run_dir=cv"))
        assert str(error.value).endswith(f"its folds are runs, for example publish.run_dir={fold}")

    def test_without_a_run_or_a_prefix_it_says_what_to_type(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"no finished run under .*runs; train one, or type publish\.run_dir="):
            publish(settings())
        write_run(tmp_path / "outputs" / "runs" / "version_0")
        with pytest.raises(ConfigError, match=r"publish\.s3_prefix is not set: where should .*version_0 go\? type"):
            publish(load_config([]))

    def test_run_that_cannot_be_written_to_is_published_with_a_warning(
        self, run_dir: Path, objects: Callable[[], dict[str, bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        (run_dir / "publish.json").mkdir()  # stands in for a medium that is read only

        publish(settings())

        assert len(objects()) == 5
        assert [line.partition(": cannot be noted there as ")[2].split()[0] for line in warnings_of(caplog)] == [
            "pending",
            "done",
        ]

    @pytest.mark.usefixtures("run_dir")
    def test_metrics_are_sent_last_so_that_they_mean_the_rest_is_there(
        self, objects: Callable[[], dict[str, bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)

        publish(settings())

        assert len(objects()) == 5
        sent = [message.split()[6].rpartition("/")[2] for message in caplog.messages if '"PUT ' in message]
        assert (sent[0], sent[-1], len(sent)) == ("best.ckpt", "metrics.json", 5)

    def test_everything_that_waits_is_published_too_where_its_own_note_says(self, tmp_path: Path) -> None:
        runs = tmp_path / "outputs" / "runs"
        waiting = [
            write_run(runs / "version_1"),
            write_run(tmp_path / "outputs" / "crossval" / "version_0" / "fold_2"),
        ]
        for number, run in enumerate(waiting):
            note = {"state": ("failed", "pending")[number], "s3_prefix": f"s3://models/{number}", "updated_at": ""}
            (run / "publish.json").write_text(json.dumps(note))
        write_run(runs / "version_2")

        assert [(run.run_dir, run.destination[:13]) for run in publish(load_config([])).runs] == [
            (waiting[0], "s3://models/0"),
            (waiting[1], "s3://models/1"),
        ]
        [newest] = publish(settings()).runs
        assert newest.run_dir == runs / "version_2"

    def test_prefix_that_is_typed_comes_before_the_noted_one(self, run_dir: Path) -> None:
        with pytest.raises(StorageError, match="there is no bucket tpyo at "):
            publish(load_config(["publish.s3_prefix=s3://tpyo/runs"]))

        [published] = publish(settings()).runs

        assert published.run_dir == run_dir
        assert published.destination.startswith("s3://models/runs/")
        assert [run.run_dir for run in publish(load_config([])).runs] == [run_dir]  # noted as done, with its prefix

    def test_one_run_that_fails_does_not_keep_back_the_others(
        self, objects: Callable[[], dict[str, bytes]], tmp_path: Path
    ) -> None:
        runs = [write_run(tmp_path / "outputs" / "runs" / f"version_{number}") for number in range(3)]
        for run, bucket in zip(runs, ("no-1", "models", "no-2"), strict=True):
            note = {"state": "failed", "s3_prefix": f"s3://{bucket}/runs", "updated_at": ""}
            (run / "publish.json").write_text(json.dumps(note))

        with pytest.raises(StorageError) as error:
            publish(load_config([]))

        assert [line.partition("/runs/")[0] for line in str(error.value).splitlines()] == ["s3://no-1", "s3://no-2"]
        assert len(objects()) == 5
        states = [read_state(run) for run in runs]
        assert [state and state.state for state in states] == ["failed", "done", "failed"]

    def test_note_that_is_damaged_is_passed_over_with_a_warning(
        self, run_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (run_dir / "publish.json").write_text("{")

        assert len(publish(settings()).runs) == 1
        assert warnings_of(caplog) == [
            f"{run_dir / 'publish.json'}: not readable as the state of a publication; it is passed over"
        ]


class TestInTheBackground:
    def test_run_is_published_by_another_process(
        self, run_dir: Path, objects: Callable[[], dict[str, bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        start = time.monotonic()
        started = start_publishing(settings(), run_dir)
        returned_after_s = time.monotonic() - start
        assert started is not None
        promised = read_state(run_dir)

        assert started.finish(60)

        assert returned_after_s < 1
        assert promised is not None
        assert promised.state == "pending"
        assert len(objects()) == 5
        assert f"published {run_dir}: s3://models/runs/c0ffee" in caplog.text
        assert warnings_of(caplog) == []
        assert not (run_dir / "publish.log").exists()
        assert finished_state(run_dir) == "done"

    def test_nothing_is_started_unless_asked_for(self, run_dir: Path) -> None:
        before = set(run_dir.iterdir())

        assert start_publishing(settings("publish.enabled=false"), run_dir) is None
        assert set(run_dir.iterdir()) == before

    def test_server_that_is_down_is_one_warning_whose_command_works_once_it_is_up(
        self,
        run_dir: Path,
        objects: Callable[[], dict[str, bytes]],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        url = dead_url()
        monkeypatch.setenv("S3_ENDPOINT_URL", url)
        started = start_publishing(settings(), run_dir)
        assert started is not None
        assert not started.finish(60)

        [warning] = warnings_of(caplog)
        command = f"cassava publish publish.s3_prefix={PREFIX} publish.run_dir={run_dir}"
        assert warning.startswith(f"{run_dir} is not published (s3://models/runs/c0ffee")
        assert f"{url} cannot be reached" in warning
        assert warning.endswith(f"; the run itself is whole; to try again type: {command}")
        note = json.loads((run_dir / "publish.json").read_text(encoding="utf-8"))
        assert (note["state"], note["retry"]) == ("failed", command)
        assert f"{url} cannot be reached" in note["error"]
        assert (run_dir / "publish.log").is_file()

        up = ThreadedMotoServer(ip_address="127.0.0.1", port=int(url.rpartition(":")[2]), verbose=False)
        up.start()
        try:
            capfd.readouterr()
            exit_code = cli.main(shlex.split(command)[1:])
        finally:
            up.stop()

        assert exit_code == 0
        assert [sent["uploaded"] for sent in json.loads(capfd.readouterr().out)["runs"][0]["objects"]] == [True] * 5
        assert len(objects()) == 5
        assert finished_state(run_dir) == "done"

    def test_command_works_for_folders_with_odd_names(
        self, tmp_path: Path, objects: Callable[[], dict[str, bytes]]
    ) -> None:
        run = write_run(tmp_path / "it's [our] run, größe=1 (b)" / "version_0")
        prefix = "s3://models/a, b/'c'"

        assert cli.main(shlex.split(retry_command(run, prefix))[1:]) == 0
        started = start_publishing(settings().changed(publish=settings().publish.changed(s3_prefix=prefix)), run)
        assert started is not None
        assert started.finish(60)
        assert {key.split("/c0ffee")[0] for key in objects()} == {"a, b/'c'"}

    def test_process_that_dies_is_told_with_its_log(self, run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
        started = start_publishing(settings(), run_dir)
        assert started is not None
        started.process.kill()

        assert not started.finish(60)
        assert "is not published (the upload ended with exit code " in warnings_of(caplog)[0]
        assert f"see {run_dir / 'publish.log'}" in warnings_of(caplog)[0]
        assert finished_state(run_dir) == "failed"

    def test_run_is_told_about_when_the_next_one_starts(
        self, run_dir: Path, objects: Callable[[], dict[str, bytes]], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        first = start_publishing(settings(), run_dir)
        assert first is not None
        first.process.wait(60)
        assert f"published {run_dir}" not in caplog.text

        start_publishing(settings(), write_run(run_dir.with_name("version_1")))

        assert f"published {run_dir}:" in caplog.text
        finish_publications()
        assert f"published {run_dir.with_name('version_1')}:" in caplog.text
        assert len(objects()) == 10

    def test_process_that_cannot_be_started_is_a_warning(self, run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
        (run_dir / "publish.log").mkdir()

        assert start_publishing(settings(), run_dir) is None
        assert "to try again type: cassava publish " in warnings_of(caplog)[0]
        assert finished_state(run_dir) == "failed"

    def test_upload_that_does_not_stop_when_asked_is_killed(
        self, run_dir: Path, deaf_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("S3_ENDPOINT_URL", deaf_url)
        monkeypatch.setattr(publication, "_STOP_S", 0)
        started = start_publishing(settings(), run_dir)
        assert started is not None

        assert not started.finish(0)
        assert "not done 0 s after training; publish.timeout_s=600" in warnings_of(caplog)[0]


@pytest.fixture
def deaf_url() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def finished_state(run_dir: Path) -> str | None:
    state = read_state(run_dir)
    return None if state is None else state.state


TRAINING_THAT_ENDED = """
import sys
from pathlib import Path
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.log import configure_logging
from cassava_leaf_disease.training.publish import start_publishing

configure_logging()
config = load_config(["publish.enabled=true", "publish.s3_prefix=s3://models/runs", sys.argv[1]])
for run_dir in sys.argv[2:]:
    start_publishing(config, Path(run_dir))
print("the result", flush=True)
"""


class TestEndOfTheProcess:
    def test_it_waits_for_all_uploads_and_exits_with_0(
        self, run_dir: Path, objects: Callable[[], dict[str, bytes]]
    ) -> None:
        runs = [run_dir, write_run(run_dir.with_name("version_1"))]

        ended = subprocess.run(
            [sys.executable, "-c", TRAINING_THAT_ENDED, "publish.timeout_s=60", *map(str, runs)],
            capture_output=True,
            text=True,
            check=True,
        )

        assert len(objects()) == 10
        assert ended.stdout == "the result\n"
        assert ended.stderr.count("INFO published ") == 2
        assert "WARNING" not in ended.stderr

    def test_it_waits_no_longer_than_it_is_told_to(self, run_dir: Path, deaf_url: str) -> None:
        start = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-c", TRAINING_THAT_ENDED, "publish.timeout_s=1", str(run_dir)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"S3_ENDPOINT_URL": deaf_url},
        )

        assert time.monotonic() - start < 60  # a server that does not answer would hold each request for a minute
        assert "WARNING" in ended.stderr
        assert "not done 1 s after training; publish.timeout_s=1)" in ended.stderr
        assert "to try again type: cassava publish " in ended.stderr
        assert finished_state(run_dir) == "failed"

    @pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
    def test_an_interrupt_ends_the_waiting(self, run_dir: Path, deaf_url: str) -> None:
        environment = os.environ | {"S3_ENDPOINT_URL": deaf_url}
        command = [sys.executable, "-c", TRAINING_THAT_ENDED, "publish.timeout_s=600", str(run_dir)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:  # type: ignore[call-overload]
            process.stdout.readline()
            process.stderr.readline()  # it says that it waits
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)

        assert process.returncode == 0
        assert "is not published (interrupted)" in told
        assert "Traceback" not in told
        assert finished_state(run_dir) == "failed"


@pytest.mark.slow
class TestTraining:
    @pytest.fixture
    def train(self, small_words: tuple[str, ...]) -> Callable[..., subprocess.CompletedProcess[str]]:
        """The whole command as a user types it."""
        command = [sys.executable, "-m", "cassava_leaf_disease", "train", *small_words, "train.epochs=1"]
        wanted = ["publish.enabled=true", f"publish.s3_prefix={PREFIX}"]
        return lambda *words, **environment: subprocess.run(
            [*command, *wanted, *words], capture_output=True, text=True, check=False, env=os.environ | environment
        )

    def test_every_run_of_a_sweep_is_published_when_the_command_ends(
        self, train: Callable[..., subprocess.CompletedProcess[str]], objects: Callable[[], dict[str, bytes]]
    ) -> None:
        ended = train("-m", "train.seed=1,2")

        assert ended.returncode == 0, ended.stderr
        results = json.loads(ended.stdout)
        published = {key.rpartition("/")[2]: content for key, content in objects().items() if "-version_1-" in key}
        assert set(published) == set(FILES)
        assert len(objects()) == 10
        assert json.loads(published["metrics.json"]) == results[1]
        assert published["best.ckpt"] == Path(results[1]["checkpoint"]).read_bytes()

    def test_server_that_is_down_costs_a_warning_whose_command_works_later(
        self, train: Callable[..., subprocess.CompletedProcess[str]], objects: Callable[[], dict[str, bytes]]
    ) -> None:
        ended = train(S3_ENDPOINT_URL=dead_url())

        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["epochs"] == 1
        [warning] = [line for line in ended.stderr.splitlines() if line.startswith("WARNING ")]
        retry = shlex.split(warning.partition("to try again type: ")[2])
        subprocess.run([sys.executable, "-m", "cassava_leaf_disease", *retry[1:]], check=True, capture_output=True)
        assert len(objects()) == 5


class TestCheckBeforeTraining:
    def test_complete_settings_pass_and_so_do_those_that_ask_for_nothing(self) -> None:
        check_publish(settings())
        check_publish(load_config([]))

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (
                ["publish.s3_prefix=null"],
                r"^publish\.enabled=true: where to\? type publish\.s3_prefix=s3://bucket/prefix",
            ),
            (["train.save_checkpoints=false"], r"save_checkpoints=false: no checkpoint would be there to publish"),
        ],
    )
    def test_settings_that_cannot_lead_to_a_publication_are_refused(self, overrides: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            check_publish(settings(*overrides))

    @pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
    def test_half_of_the_credentials_is_refused(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(name)

        with pytest.raises(ConfigError, match=r"^publish\.enabled=true: s3://models/runs: credentials are missing or"):
            check_publish(settings())
