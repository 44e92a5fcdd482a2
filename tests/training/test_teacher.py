"""A teacher that answers about every batch as the student sees it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.errors import ConfigError, DataError
from cassava_leaf_disease.export.onnx import export
from cassava_leaf_disease.inference.make_ensemble import write_ensemble
from cassava_leaf_disease.inference.vote import Combination, combine_answers, softmax
from cassava_leaf_disease.modeling.calibration import soften
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.build import describe_model
from cassava_leaf_disease.training.distill import mix_targets
from cassava_leaf_disease.training.fit import prepare, train
from cassava_leaf_disease.training.teacher import ConsistentTeacher

Config = Callable[..., AppConfig]
Teacher = Callable[..., Path]
WriteCheckpoint = Callable[[Path, ModelMetadata], Path]


class Fixed(nn.Module):
    """Answers the mean colour's logits, whatever the size."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(15.0).view(3, 5) * weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) @ self.weight


class TestAnswers:
    IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("combination", ["probabilities", "logits"])
    def test_are_those_of_the_ensemble(self, config_for: Config, combination: Combination) -> None:
        settings = config_for("distill.temperature=2").distill
        networks = [Fixed(0.1), Fixed(-0.3)]
        answers = ConsistentTeacher(networks, [1.5, 0.7], [0.25, 0.75], combination, settings).answer(self.IMAGES)
        alone = [
            softmax(network(self.IMAGES).detach().numpy().astype(np.float64) / temperature)
            for network, temperature in zip(networks, (1.5, 0.7), strict=True)
        ]
        expected = soften(combine_answers(np.stack(alone), [0.25, 0.75], combination), 2.0)
        np.testing.assert_allclose(answers.numpy(), expected, atol=1e-6)

    def test_targets_are_alpha_of_them_and_the_rest_the_batch_s(self, config_for: Config) -> None:
        settings = config_for("distill.alpha=0.7").distill
        teacher = ConsistentTeacher([Fixed(0.2)], [1.0], [1.0], "probabilities", settings)
        labels = np.array([0, 4, 2, 2])
        labelled = np.eye(5, dtype=np.float32)[labels]
        expected = mix_targets(teacher.answer(self.IMAGES).numpy().astype(np.float64), labelled, 0.7, 1.0)
        targets = teacher(self.IMAGES, nn.functional.one_hot(torch.from_numpy(labels), 5).float())
        np.testing.assert_allclose(targets.numpy(), expected, atol=1e-6)
        assert not targets.requires_grad


class TestTraining:
    def test_labels_do_not_matter_to_the_student_of_the_teacher_alone(
        self, config_for: Config, teacher: Teacher
    ) -> None:
        images = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8)

        def losses(*words: str) -> list[float]:
            config = config_for(f"distill.teacher={teacher('t')}", "distill.consistent=true", *words)
            module = prepare(config, LeafDataModule(config), sync_batchnorm=False).eval()
            return [
                module.training_step((images, torch.tensor(labels)), 0).item() for labels in ([0, 1, 2, 3], [4] * 4)
            ]

        alone = losses("distill.alpha=1")
        assert alone[0] == pytest.approx(alone[1])
        half = losses("distill.alpha=0.5")
        assert half[0] != pytest.approx(half[1])

    def test_teacher_is_neither_trained_nor_saved(self, config_for: Config, teacher: Teacher, tmp_path: Path) -> None:
        members = [teacher("a"), teacher("b", "augment.image_size=96")]
        before = [path.read_bytes() for path in members]
        write_ensemble(tmp_path / "two.json", members, "logits", "equal")
        student = train(config_for(f"distill.teacher={tmp_path / 'two.json'}", "distill.consistent=true"))
        bare = train(config_for())
        assert student.checkpoint is not None
        assert bare.checkpoint is not None
        assert (
            load_checkpoint(student.checkpoint).network_state.keys()
            == load_checkpoint(bare.checkpoint).network_state.keys()
        )
        assert [path.read_bytes() for path in members] == before
        assert not (student.run_dir / "soft_targets.csv").exists()


class TestRefusals:
    @pytest.mark.parametrize(
        "words", [(), ("distill.out_of_fold=true", "distill.teacher=t"), ("distill.tta=flips", "distill.teacher=t")]
    )
    def test_needs_a_teacher_that_looks_once(self, config_for: Config, words: tuple[str, ...]) -> None:
        with pytest.raises(ConfigError, match=r"distill.consistent=true .* type distill.teacher=FILE"):
            config_for("distill.consistent=true", *words)

    def test_teacher_that_learned_the_student_s_validation_photos(self, config_for: Config, teacher: Teacher) -> None:
        path = teacher("other", "data.split.seed=5")
        with pytest.raises(DataError, match=r"it (knows|learned)"):
            train(config_for(f"distill.teacher={path}", "distill.consistent=true"))

    def test_teacher_of_other_means(
        self, config_for: Config, write_random_checkpoint: WriteCheckpoint, tmp_path: Path
    ) -> None:
        config = config_for()
        data = LeafDataModule(config)
        data.divide()
        described = describe_model(config, data)
        other = described.preprocessing.model_copy(update={"mean": (0.5, 0.5, 0.5)})
        path = write_random_checkpoint(tmp_path / "t.ckpt", described.model_copy(update={"preprocessing": other}))
        with pytest.raises(ConfigError, match="other means"):
            train(config_for(f"distill.teacher={path}", "distill.consistent=true"))

    def test_teacher_of_one_size_only(self, config_for: Config, teacher: Teacher) -> None:
        path = teacher("t", "model.backbone=test_vit", "augment.image_size=64")
        with pytest.raises(ConfigError, match=r"takes photos of 64 px only.* type augment.image_size=64"):
            train(config_for(f"distill.teacher={path}", "distill.consistent=true"))

    def test_exported_teacher(self, config_for: Config, teacher: Teacher, tmp_path: Path) -> None:
        path = teacher("t")
        exported = tmp_path / "t.onnx"
        export(config_for(f"infer.checkpoint_path={path}", f"export.output_path={exported}"))
        with pytest.raises(ConfigError, match=r"t\.onnx is no checkpoint; type distill.consistent=false"):
            train(config_for(f"distill.teacher={exported}", "distill.consistent=true"))
