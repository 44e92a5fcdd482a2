"""Several checkpoints as one model: the mean by hand, the file that names them, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cassava_leaf_disease import cli, fire_cli
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import CheckpointError, ConfigError
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.inference.discover import FoundModel, find_model
from cassava_leaf_disease.inference.ensemble import load_found, read_ensemble
from cassava_leaf_disease.inference.infer import infer
from cassava_leaf_disease.inference.make_ensemble import ensemble
from cassava_leaf_disease.inference.vote import combine_answers
from cassava_leaf_disease.modeling.metadata import ModelMetadata, Thresholds

Config = Callable[..., AppConfig]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


@pytest.fixture
def members(tmp_path: Path, metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint) -> list[Path]:
    """Three models of other backbones and input sizes."""
    changes = [
        {"metrics": {"val/f1_macro": 0.6}, "thresholds": Thresholds(min_confidence=0.3)},
        {"backbone": "test_vit", "name": "test_vit", "metrics": {"val/f1_macro": 0.3}, "temperature": 2.0},
        {"preprocessing": Preprocessing(image_size_px=96), "metrics": {"val/f1_macro": 0.1}},
    ]
    return [
        write_random_checkpoint(tmp_path / "models" / f"member {index}.ckpt", metadata.model_copy(update=change))
        for index, change in enumerate(changes)
    ]


@pytest.fixture
def photo(tmp_path: Path, photo_bytes: bytes) -> Path:
    (tmp_path / "leaf.jpg").write_bytes(photo_bytes)
    return tmp_path / "leaf.jpg"


@pytest.fixture
def models(
    members: list[Path], metadata: ModelMetadata, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
) -> Path:
    """A folder of models; beside it `a.ckpt`, `b.ckpt` without a score, and a JSON file that is no ensemble."""
    shutil.copy(members[0], tmp_path / "a.ckpt")
    write_random_checkpoint(tmp_path / "b.ckpt", metadata.model_copy(update={"metrics": {}}))
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    return members[0].parent


def alone(path: Path, photo: Path, tta: str = "none") -> list[float]:
    predictor = load_found(FoundModel(path, "explicit"), "cpu", tta=tta)  # type: ignore[arg-type]
    return list(predictor.predict_bytes(photo.read_bytes(), name="a").probabilities.values())


def listed(paths: list[Path]) -> str:
    return "[" + ",".join(f"'{path}'" for path in paths) + "]"


def made(config: Config, paths: list[Path], output: Path, *overrides: str) -> Path:
    return ensemble(config(f"ensemble.members={listed(paths)}", f"ensemble.output_path={output}", *overrides)).path


@pytest.mark.parametrize("tta", ["none", "flips"])
def test_list_of_checkpoints_answers_with_the_mean_of_their_probabilities(
    tta: str, small_config: Config, members: list[Path], photo: Path
) -> None:
    answer = infer(
        small_config(
            f"infer.checkpoint_path={listed(members)}", f"infer.image_path={photo}", f"infer.tta={tta}", "infer.top_k=2"
        )
    )

    assert isinstance(answer, Prediction)
    expected = np.mean([alone(path, photo, tta) for path in members], axis=0)
    assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert answer.model.name == "2 x test_resnet + 1 x test_vit"
    assert answer.model.members == tuple(map(str, members))
    assert answer.model.path == str(members[0])
    assert answer.views == (("identity", "hflip", "vflip", "rot180") if tta == "flips" else ())


def test_single_model_is_its_own_and_its_json_has_no_new_keys(
    small_config: Config, members: list[Path], photo: Path
) -> None:
    one = infer(small_config(f"infer.checkpoint_path={listed(members[:1])}", f"infer.image_path={photo}"))

    assert isinstance(one, Prediction)
    assert one.model.name == "test_resnet"
    assert set(one.model.model_dump()) == {"name", "version", "source", "path"}
    assert list(one.probabilities.values()) == alone(members[0], photo)


@pytest.mark.parametrize("weights", ["equal", "val_f1_macro"])
@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_ensemble_file_combines_as_it_was_made(
    combine: str, weights: str, small_config: Config, members: list[Path], photo: Path
) -> None:
    settings = (f"ensemble.combine={combine}", f"ensemble.weights={weights}")
    path = made(small_config, members, photo.parent / "ensemble.json", *settings)

    answers = np.array([alone(member, photo) for member in members])
    shares = [0.6, 0.3, 0.1] if weights == "val_f1_macro" else None
    if combine == "probabilities":
        expected = np.average(answers, axis=0, weights=shares)
    else:  # the mean of logits, up to a constant, is the mean of log-probabilities
        expected = np.exp(np.average(np.log(answers), axis=0, weights=shares))
        expected /= expected.sum()
    assert alone(path, photo) == pytest.approx(expected.tolist(), abs=1e-6)


def test_mean_of_logits_is_that_of_the_networks_own_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 40, (3, 4, 5))
    probabilities = np.exp(logits - logits.max(axis=2, keepdims=True))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    mean = np.average(logits, axis=0, weights=[2, 1, 1])
    expected = np.exp(mean - mean.max(axis=1, keepdims=True))

    combined = combine_answers(probabilities, [2, 1, 1], "logits")

    assert combined == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-9)


def test_answer_of_zero_probability_keeps_the_mean_of_logits_finite() -> None:
    certain = np.eye(5)[[0, 1]][:, None, :]  # two members that contradict each other, each beyond doubt

    combined = combine_answers(certain, [1, 1], "logits")

    assert combined[0].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])


def test_most_cautious_threshold_holds(small_config: Config, members: list[Path], photo: Path) -> None:
    assert (
        load_found(find_model(small_config(f"infer.checkpoint_path={listed(members)}")), "cpu")
        .answer((0.45, 0.35, 0.2, 0.0, 0.0), top_k=1)
        .verdict
        == "uncertain"
    )
    assert load_found(FoundModel(members[0], "explicit"), "cpu").answer((0.45, 0.35, 0.2, 0, 0), top_k=1).verdict == (
        "diagnosis"
    )


def test_file_names_its_members_from_its_own_folder_and_moves_with_them(
    small_config: Config, members: list[Path], photo: Path, tmp_path: Path
) -> None:
    path = made(small_config, members, tmp_path / "models" / "all" / "ensemble.json")
    before = load_found(FoundModel(path, "explicit"), "cpu")
    shutil.move(tmp_path / "models", tmp_path / "elsewhere")

    moved = load_found(FoundModel(tmp_path / "elsewhere" / "all" / "ensemble.json", "explicit"), "cpu")
    folder = load_found(FoundModel(tmp_path / "elsewhere" / "all", "explicit"), "cpu")

    content = json.loads((tmp_path / "elsewhere" / "all" / "ensemble.json").read_text(encoding="utf-8"))
    assert [member["path"] for member in content["members"]] == [f"../member {index}.ckpt" for index in range(3)]
    assert (content["format"], content["format_version"]) == ("cassava-ensemble", 1)
    leaf = draw_leaf(1, 1, 100)
    assert moved.identity.version == before.identity.version == folder.identity.version
    assert moved.predict_image(leaf).probabilities == before.predict_image(leaf).probabilities
    assert moved.identity.path == str(tmp_path / "elsewhere" / "all" / "ensemble.json")


def test_member_that_is_gone_or_changed_is_refused(
    small_config: Config, members: list[Path], photo: Path, tmp_path: Path
) -> None:
    path = made(small_config, members, tmp_path / "ensemble.json")
    members[1].write_bytes(members[0].read_bytes())

    with pytest.raises(CheckpointError, match=r"ensemble\.json: its member .*member 1\.ckpt is not the file .*SHA-256"):
        alone(path, photo)
    members[1].unlink()
    with pytest.raises(CheckpointError, match=r"member 1\.ckpt is not there; copy the members along with it"):
        alone(path, photo)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no ensemble file"),
        ('{"format": "other"}', "no ensemble file"),
        ('{"format": "cassava-ensemble", "format_version": 2, "combine": "logits"}', "format_version"),
        ('{"combine": "median", "weights": "equal", "members": []}', "combine"),
    ],
)
def test_other_json_is_no_ensemble(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")

    with pytest.raises(CheckpointError, match=message) as error:
        read_ensemble(tmp_path / "a.json")
    assert "\n" not in str(error.value)
    assert "cassava ensemble" in str(error.value)


def test_ensemble_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.json: cannot be read"):
        load_found(FoundModel(tmp_path / "a.json", "explicit"), "cpu")


@pytest.mark.usefixtures("no_packaged_model")
def test_member_of_a_list_that_is_not_there_is_passed_over_with_the_list(
    small_config: Config, members: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(
        CheckpointError, match=r"infer\.checkpoint_path=.*gone\.ckpt: no such file; no best\.ckpt under"
    ):
        find_model(small_config(f"infer.checkpoint_path={listed([members[0], tmp_path / 'gone.ckpt'])}"))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["ensemble.output_path=null"], ConfigError, r"ensemble\.output_path is not set"),
        (["ensemble.output_path=best.ckpt"], ConfigError, r"best\.ckpt: expected a name that ends in \.json"),
        (["ensemble.output_path=notes.json"], ConfigError, r"notes\.json: another file stands there"),
        (["ensemble.members=[a.ckpt]"], ConfigError, r"ensemble\.members names 1 models; an ensemble has two or more"),
        (["ensemble.members=[]"], ConfigError, r"ensemble\.members names 0 models"),
        (["ensemble.members=[a.ckpt,a.ckpt]"], CheckpointError, r"a\.ckpt: the same model as .*name each member once"),
        (["ensemble.members=[a.ckpt,gone.ckpt]"], CheckpointError, r"gone\.ckpt: no such file; expected a model file"),
        (["ensemble.members=[a.ckpt,models]"], CheckpointError, r"models: a folder; expected a model file"),
        (["ensemble.members=[a.ckpt,other.json]"], CheckpointError, r"other\.json: an ensemble cannot be a member"),
        (["ensemble.weights=val_f1_macro"], CheckpointError, r"b\.ckpt: it has no validation macro-F1 above 0"),
    ],
)
def test_ensembles_that_make_no_sense_are_refused(
    overrides: list[str], error: type[Exception], message: str, models: Path, small_config: Config
) -> None:
    with pytest.raises(error, match=message):
        ensemble(small_config("ensemble.members=[a.ckpt,b.ckpt]", "ensemble.output_path=out.json", *overrides))
    assert not (models.parent / "out.json").exists()
    assert (models.parent / "notes.json").read_text(encoding="utf-8") == "{}"


def test_ensemble_file_may_be_written_again(small_config: Config, members: list[Path], tmp_path: Path) -> None:
    made(small_config, members, tmp_path / "ensemble.json")

    made(small_config, members[:2], tmp_path / "ensemble.json", "ensemble.combine=logits")

    again = read_ensemble(tmp_path / "ensemble.json")
    assert (len(again.members), again.combine) == (2, "logits")


def test_both_doors_make_an_ensemble_and_ask_it(
    members: list[Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ensemble", f"ensemble.members={listed(members)}", "ensemble.output_path=ensemble.json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert [member["share"] for member in written["members"]] == pytest.approx([1 / 3] * 3)
    assert [member["image_size_px"] for member in written["members"]] == [64, 64, 96]

    words = ["--output", "weighted.json", "--weights", "val_f1_macro", "--combine", "logits"]
    assert fire_cli.main(["ensemble", "--members", listed(members), *words]) == 0
    weighted = json.loads(capsys.readouterr().out)
    assert [member["share"] for member in weighted["members"]] == pytest.approx([0.6, 0.3, 0.1])

    answers = []
    for main, words in (
        (
            cli.main,
            ["infer", f"infer.image_path={photo}", "infer.checkpoint_path=ensemble.json", "infer.tta=rotations"],
        ),
        (fire_cli.main, ["infer", "--image", str(photo), "--ckpt", "ensemble.json", "--tta", "rotations"]),
    ):
        assert main(words) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert answers[0]["views"] == ["identity", "rot90", "rot180", "rot270"]
    assert answers[0]["model"]["path"] == str(tmp_path / "ensemble.json")
    assert answers[0]["model"]["members"] == list(map(str, members))


def test_unknown_views_are_refused_at_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["infer", "infer.tta=flip"]) == 2
    assert "infer.tta=flip: expected none, flips, rotations" in capsys.readouterr().err
