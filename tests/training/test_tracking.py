"""Runs in MLflow: in a local store, on a real server, and when that server dies."""

import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from cassava_leaf_disease.cli import main
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import CLASS_NAMES
from cassava_leaf_disease.errors import ConfigError, StorageError
from cassava_leaf_disease.training.fit import train
from cassava_leaf_disease.training.tracking import TrackedRun, read_tracking, track, tracked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, from SQLAlchemy and elsewhere

Config = Callable[..., AppConfig]


class MlflowServer:
    """A real `mlflow server` process with its own store."""

    def __init__(self, folder: Path, empty_store: Path) -> None:
        shutil.copy(empty_store, folder / "server.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"),
            *("--artifacts-destination", str(self._folder / "artifacts")),
        ]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # seven processes less
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urlopen(f"{self.url}/health", timeout=2):  # noqa: S310
                    return
            except OSError:
                time.sleep(0.3)
        raise AssertionError((self._folder / "server.log").read_text())

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without a row: making them takes ten seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def local_store(empty_store: Path, tmp_path: Path) -> MlflowClient:
    """The store of the test's own `paths.outputs_dir`."""
    path = tmp_path / "outputs" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_store, path)
    return MlflowClient(tracking_uri=f"sqlite:///{path.as_posix()}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path_factory.mktemp("mlflow"), empty_store)
    running.start()
    yield running
    running.kill()


def only_run(client: MlflowClient, experiment: str = "leaves") -> mlflow.entities.Run:
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    [run] = client.search_runs([found.experiment_id])
    return run


def jpeg() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def in_mlflow(*words: str) -> tuple[str, ...]:
    return ("logger.enabled=true", "logger.experiment_name=leaves", *words)


class TestLocalStore:
    def test_needs_nothing_started_and_keeps_the_whole_run(self, small_config: Config, tmp_path: Path) -> None:
        result = train(small_config(*in_mlflow("logger.run_name=first")))
        client = MlflowClient(tracking_uri=f"sqlite:///{(tmp_path / 'outputs' / 'mlflow.db').as_posix()}")
        run = only_run(client)
        assert run.info.run_name == "first"
        assert run.info.status == "FINISHED"
        assert run.data.params["train.epochs"] == "2"
        assert run.data.params["model.backbone"] == "test_resnet"
        assert run.data.metrics["test/acc"] == pytest.approx(result.metrics["test/acc"])
        history = client.get_metric_history(run.info.run_id, "val/f1_macro")
        assert [metric.step for metric in history] == [0, 1]
        assert run.data.tags["split_hash"] == result.split_hash
        names = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"config.yaml", "split.csv", "metrics.csv", "metrics.json", "figures"} <= names
        assert read_tracking(result.run_dir) == TrackedRun(
            state="complete",
            tracking_uri=f"sqlite:///{(tmp_path / 'outputs' / 'mlflow.db').as_posix()}",
            experiment="leaves",
            run_id=run.info.run_id,
            model=client.get_model_version("cassava-leaf-disease", "1").source,
        )

    def test_without_a_name_the_model_is_logged_but_not_registered(
        self, small_config: Config, local_store: MlflowClient
    ) -> None:
        train(small_config(*in_mlflow("logger.register_as=null", "train.epochs=1")))
        assert local_store.search_registered_models() == []
        assert len(local_store.search_logged_models([only_run(local_store).info.experiment_id])) == 1

    def test_a_training_that_fails_is_marked_as_failed(
        self, small_config: Config, local_store: MlflowClient, tmp_path: Path
    ) -> None:
        config = small_config(*in_mlflow())
        with pytest.raises(RuntimeError), tracked(config, tmp_path):
            raise RuntimeError("a bug")
        assert only_run(local_store).info.status == "FAILED"
        with pytest.raises(KeyboardInterrupt), tracked(config, tmp_path):
            raise KeyboardInterrupt
        assert only_run(local_store).info.status == "KILLED"  # the second went on with the first


@pytest.mark.slow
class TestServer:
    def test_gets_figures_and_a_model_that_its_tools_load(
        self, server: MlflowServer, small_config: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)  # as MLflow's own tools read it
        result = train(small_config(*in_mlflow("logger.experiment_name=on the server")))
        client = MlflowClient(tracking_uri=server.url)
        run = only_run(client, "on the server")
        for name in ("learning", "confusion", "classes"):
            path = client.download_artifacts(run.info.run_id, f"figures/{name}.png")
            assert Path(path).read_bytes() == (result.run_dir / "figures" / f"{name}.png").read_bytes()
        mlflow.set_tracking_uri(server.url)
        model = mlflow.pyfunc.load_model("models:/cassava-leaf-disease/1")
        answers = model.predict(pd.DataFrame({"image": [jpeg(), jpeg()]}))
        assert list(answers.columns) == list(CLASS_NAMES)
        assert answers.sum(axis=1).tolist() == pytest.approx([1, 1])

    def test_that_dies_meanwhile_does_not_stop_the_run_which_can_be_sent_later(
        self, small_words: tuple[str, ...], tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server = MlflowServer(tmp_path, empty_store)
        server.start()
        run_dir = tmp_path / "outputs" / "runs" / "version_0"
        killer = threading.Thread(target=kill_after_first_epoch, args=(server, run_dir / "metrics.csv"))
        killer.start()
        epochs = 20
        words = ["train", *small_words, *in_mlflow(f"logger.tracking_uri={server.url}", f"train.epochs={epochs}")]
        code = main(words)
        killer.join()
        captured = capsys.readouterr()
        assert code == 0
        assert json.loads(captured.out)["epochs"] == epochs
        assert len((run_dir / "metrics.csv").read_text().splitlines()) == epochs + 1
        assert (run_dir / "checkpoints" / "best.ckpt").is_file()
        [warning] = [line for line in captured.err.splitlines() if "MLflow at" in line]
        retry = f"cassava track track.run_dir={run_dir} logger.tracking_uri={server.url}"
        assert retry in warning
        left = read_tracking(run_dir)
        assert left is not None
        assert left.state == "incomplete"

        server.start()
        try:
            assert main([*retry.split()[1:], "logger.experiment_name=leaves"]) == 0
            sent = TrackedRun.model_validate_json(capsys.readouterr().out)
            client = MlflowClient(tracking_uri=server.url)
            assert len(client.get_metric_history(str(sent.run_id), "train/loss")) == epochs
            assert client.get_run(str(sent.run_id)).info.status == "FINISHED"
        finally:
            server.kill()


def kill_after_first_epoch(server: MlflowServer, metrics: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not metrics.is_file():
        time.sleep(0.01)
    server.kill()


class TestNoServer:
    NOBODY = "logger.tracking_uri=http://127.0.0.1:9"  # the discard port: nobody listens there

    def test_is_one_line_before_anything_is_done(
        self, small_words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        start = time.monotonic()
        code = main(["train", *small_words, *in_mlflow(self.NOBODY)])
        assert code == 1
        assert time.monotonic() - start < 30
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: no MLflow server answers at http://127.0.0.1:9 (")
        assert "logger.required=false" in line
        assert not (tmp_path / "outputs" / "runs").exists()

    def test_is_a_warning_where_it_is_not_required(
        self, small_config: Config, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="cassava_leaf_disease"):
            result = train(small_config(*in_mlflow(self.NOBODY, "logger.required=false", "train.epochs=1")))
        assert [record.levelname for record in caplog.records if "MLflow" in record.message] == ["WARNING"]
        assert (result.run_dir / "metrics.json").is_file()

    def test_refuses_to_send_a_run_later(self, small_config: Config) -> None:
        run_dir = train(small_config("train.epochs=1")).run_dir
        with pytest.raises(StorageError, match="no MLflow server answers"):
            track(small_config(self.NOBODY, f"track.run_dir={run_dir}"))


class TestTrackCommand:
    @pytest.mark.usefixtures("local_store")
    def test_takes_the_newest_finished_run(self, small_config: Config) -> None:
        result = train(small_config("train.epochs=1"))
        sent = track(small_config())
        assert sent.state == "complete"
        assert read_tracking(result.run_dir) == sent

    def test_refuses_where_no_run_has_ended(self, small_config: Config, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no finished run lies under"):
            track(small_config())
        with pytest.raises(ConfigError, match=r"metrics.json is missing"):
            track(small_config(f"track.run_dir={tmp_path}"))
