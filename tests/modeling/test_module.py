"""The Lightning module: parity with the one preprocessing definition, freezing, the running average."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.imaging.preprocess import normalize
from cassava_leaf_disease.modeling.module import LeafClassifier, StageScores
from cassava_leaf_disease.training.build import build_module, build_training_network

SmallConfig = Callable[..., AppConfig]


def module_of(config: AppConfig) -> LeafClassifier:
    data = LeafDataModule(config)
    data.setup("fit")
    return build_module(config, data, build_training_network(config))


def test_normalisation_on_the_device_is_the_one_definition(small_config: SmallConfig) -> None:
    module = module_of(small_config())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)

    ours = module.normalize(torch.from_numpy(pixels.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(ours.numpy(), normalize(pixels, module.metadata.preprocessing), atol=1e-5)


def test_metrics_are_of_the_whole_split_not_means_of_batches() -> None:
    scores = StageScores()
    for labels, right in (([0, 0, 0, 0], True), ([1], False)):
        targets = torch.tensor(labels)
        logits = torch.nn.functional.one_hot(targets if right else (targets + 1) % 5, 5).float()
        scores.update(logits, targets, torch.tensor(1.0 if right else 6.0))

    metrics, matrix = scores.finish("val")
    assert metrics["val/acc"] == pytest.approx(0.8)  # the mean over batches would be 0.5
    assert metrics["val/loss"] == pytest.approx(2.0)  # the mean over batches would be 3.5
    assert metrics["val/f1_macro"] == pytest.approx(1 / 3)  # classes 0, 1 and 2 occur: 1, 0, 0
    assert matrix.sum() == 5
    scores.update(torch.eye(5)[:1], torch.tensor([0]), torch.tensor(0.0))
    assert scores.finish("val")[1].sum() == 1  # nothing of the last epoch is left


def test_a_frozen_backbone_stands_still_until_its_epoch(small_config: SmallConfig) -> None:
    import lightning

    from cassava_leaf_disease.training.build import calm_lightning

    class Watch(lightning.Callback):
        def __init__(self) -> None:
            self.states: list[dict[str, torch.Tensor]] = []

        def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
            assert isinstance(pl_module, LeafClassifier)
            self.states.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})

    config = small_config("model.freeze_backbone=true", "model.unfreeze_epoch=2", "train.epochs=4")
    data, watch = LeafDataModule(config), Watch()
    data.setup("fit")
    with calm_lightning():
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=4,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        trainer.fit(build_module(config, data, build_training_network(config)), datamodule=data)

    first, _, third, fourth = watch.states
    body = [name for name in first if not name.startswith("fc.")]
    assert all(torch.equal(first[name], third[name]) for name in body)
    assert not torch.equal(first["fc.weight"], third["fc.weight"])
    assert any(not torch.equal(third[name], fourth[name]) for name in body)


def test_the_running_average_follows_slowly_and_is_what_is_evaluated(small_config: SmallConfig) -> None:
    module = module_of(small_config("optim.ema_decay=0.5"))
    assert module.average is not None
    assert module.evaluation_network is module.average.module
    assert not any(parameter.requires_grad for parameter in module.average.parameters())
    before = module.average.module.get_submodule("fc").state_dict()["weight"].clone()
    with torch.no_grad():
        module.network.get_submodule("fc").state_dict()["weight"].add_(1.0)

    module.average.update(module.network, step=10_000)
    after = module.average.module.get_submodule("fc").state_dict()["weight"]
    torch.testing.assert_close(after, before + 0.5)


def test_a_resumed_run_still_knows_its_best_epoch(small_config: SmallConfig) -> None:
    before, after = module_of(small_config()), module_of(small_config())
    before.metadata = before.metadata.model_copy(update={"metrics": {"val/f1_macro": 0.5}, "epoch": 7})
    checkpoint: dict[str, object] = {}
    before.on_save_checkpoint(checkpoint)

    after.on_load_checkpoint(checkpoint)
    assert (after.metadata.metrics, after.metadata.epoch) == ({"val/f1_macro": 0.5}, 7)


def test_without_an_average_the_network_itself_is_evaluated(small_config: SmallConfig) -> None:
    module = module_of(small_config())
    assert module.evaluation_network is module.network
