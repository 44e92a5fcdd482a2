"""What happens in an actor of Ray, and what the cluster is asked for, without starting one."""

import json
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import ScoreRayConfig
from cassava_leaf_disease.errors import CheckpointError, ConfigError, ProcessError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.scale.cluster import PartScorer, _actors, _told_in_one_line, score_parts_on_ray
from cassava_leaf_disease.scale.inputs import Part
from cassava_leaf_disease.scale.rows import rows_from_json
from cassava_leaf_disease.scale.shipped import ship
from cassava_leaf_disease.scale.work_order import WorkOrder, order_work


@pytest.fixture
def order(field: Path) -> WorkOrder:
    return order_work(load_config(["score.engine=ray", "infer.device=cpu"]), field, remote=False)


def test_an_actor_answers_about_parts_by_the_model_that_travelled(
    order: WorkOrder, served_models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    write_ensemble(tmp_path / "a" / "ensemble.json", served_models, "logits", "equal")
    shipped = ship(FoundModel(tmp_path / "a", "explicit"))
    batch = {
        "part": np.array([5]),
        "first_row": np.array([20]),
        "paths": np.array([json.dumps(["leaf 0.jpg", "empty.png"])], np.object_),
    }

    answer = PartScorer(shipped, order, __version__)(batch)

    rows = rows_from_json(answer["rows"][0])
    assert answer["part"].tolist() == [5]
    assert [row.row for row in rows] == [20, 21]
    assert rows[0].model_name == "1 x test_resnet + 1 x larger"
    assert (rows[0].error, rows[1].verdict) == (None, None)


def test_machines_with_another_version_are_refused(order: WorkOrder, exported_model: Path) -> None:
    with pytest.raises(ProcessError, match=r"has cassava .*, this one 0\.0\.1"):
        PartScorer(ship(FoundModel(exported_model, "explicit")), order, "0.0.1")


def test_the_digest_of_a_model_is_of_its_content(served_models: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "another name.onnx"
    copy.write_bytes(served_models[0].read_bytes())
    one, same, other = (
        ship(FoundModel(path, "explicit")).digest for path in (served_models[0], copy, served_models[1])
    )
    both = ship(FoundModel(served_models[0], "explicit", served_models)).digest

    assert one == same
    assert len({one, other, both}) == 3
    with pytest.raises(CheckpointError, match="cannot be read"):
        ship(FoundModel(tmp_path, "explicit"))


def test_a_cluster_is_not_started_for_nothing(order: WorkOrder, exported_model: Path) -> None:
    settings = load_config([]).score.ray
    shipped = ship(FoundModel(exported_model, "explicit"))

    assert list(score_parts_on_ray([], shipped, order, settings, lambda *_: None)) == []


@pytest.mark.parametrize(
    ("words", "resources", "actors"),
    [
        ([], {"CPU": 8.0}, 8),
        (["score.workers=3"], {"CPU": 8.0}, 2),
        (["score.ray.actors=4"], {"CPU": 8.0}, 4),
        (["score.ray.gpus=0.5"], {"CPU": 8.0, "GPU": 2.0}, 4),
    ],
)
def test_there_are_as_many_actors_as_have_room(words: list[str], resources: dict[str, float], actors: int) -> None:
    config = load_config(["score.engine=ray", *words])

    assert _actors(config.score.ray, order_work(config, Path(), remote=False), resources) == actors


@pytest.mark.parametrize("words", [["score.ray.actors=9"], ["score.ray.gpus=1"], ["score.workers=16"]])
def test_more_than_there_is_room_for_is_told(words: list[str]) -> None:
    config = load_config(["score.engine=ray", *words])

    with pytest.raises(ProcessError, match="the cluster has room for"):
        _actors(config.score.ray, order_work(config, Path(), remote=False), {"CPU": 8.0})


def test_what_an_actor_raises_is_told_as_it_was() -> None:
    from ray.exceptions import RayActorError, RayTaskError

    own = RayTaskError("score", "traceback", CheckpointError("best.onnx: gives no finite answer"))  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match="no finite answer"), _told_in_one_line():
        raise own
    with pytest.raises(ProcessError, match=r"Ray gave up: .*type score.resume=true"), _told_in_one_line():
        raise RayActorError


def test_threads_follow_the_place_of_the_photos() -> None:
    local = load_config(["score.workers=3"])
    assert order_work(local, Path(), remote=False).readers == 2
    assert order_work(local, Path(), remote=True).readers == 16
    assert order_work(load_config(["score.readers=0"]), Path(), remote=True).readers == 0


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://10.0.0.1:10001", r"score\.ray\.address=ray://10\.0\.0\.1:10001: no Ray cluster answers \(timeout\)"),
        (None, r"Ray does not start on this machine \(timeout\)"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told(
    order: WorkOrder, exported_model: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, told: str
) -> None:
    import ray

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("timeout")

    monkeypatch.setattr(ray, "init", refuse)
    settings = ScoreRayConfig(address=address, actors="auto", gpus=0)
    shipped = ship(FoundModel(exported_model, "explicit"))
    with pytest.raises(ProcessError, match=told):
        list(score_parts_on_ray([Part(0, 0, ("a.jpg",))], shipped, order, settings, lambda *_: None))


def test_contradictions_are_told() -> None:
    with pytest.raises(ConfigError, match=r"they name two formats; type score.format=auto"):
        load_config(["score.output=a.csv", "score.format=parquet"])
    with pytest.raises(ConfigError, match=r"only Ray works on a cluster; type score.engine=ray"):
        load_config(["score.ray.address=auto"])
