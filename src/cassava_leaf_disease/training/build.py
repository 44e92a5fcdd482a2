"""What a run trains and what trains it: the network, its self-description, and Lightning's trainer."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from cassava_leaf_disease import __version__
from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.log import stderr_is_terminal
from cassava_leaf_disease.modeling.backbone import build_network, check_eval_size
from cassava_leaf_disease.modeling.checkpoint_io import AtomicCheckpointIO
from cassava_leaf_disease.modeling.losses import loss_weights
from cassava_leaf_disease.modeling.metadata import ModelMetadata, SplitRecord
from cassava_leaf_disease.modeling.module import MONITOR, LeafClassifier
from cassava_leaf_disease.training.provenance import git_commit, utc_now
from cassava_leaf_disease.training.recorder import RunRecorder
from cassava_leaf_disease.training.team import Team, build_strategy


def build_training_network(config: AppConfig, *, sync_batchnorm: bool = False) -> nn.Module:
    """The network with the weights that it starts from.

    Raises:
        CassavaError: Its name, its size or its weights are wrong.
    """
    network = build_network(config.model, config.augment.image_size, NUM_CLASSES)
    check_eval_size(config.model.backbone, config.augment.image_size, config.augment.eval_size)
    if sync_batchnorm:
        # timm's, since PyTorch's own would drop the activations inside timm's norms
        network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return network


def build_module(config: AppConfig, data: LeafDataModule, network: nn.Module) -> LeafClassifier:
    """The network, its loss and its self-description, for a data module that is set up."""
    weights = loss_weights(config.loss, data.training_labels())
    return LeafClassifier(config, network, describe_model(config, data), weights)


def describe_model(config: AppConfig, data: LeafDataModule) -> ModelMetadata:
    """What the run's checkpoints will say of themselves."""
    split, limits = config.data.split, config.data.limits
    created_at = utc_now()
    return ModelMetadata(
        name=config.model.backbone,
        version=f"{__version__}+{created_at.replace(':', '').replace('-', '')[:13]}",
        backbone=config.model.backbone,
        preprocessing=data.spec,
        metrics={},
        epoch=0,
        data_fingerprint=data.fingerprint,
        split=SplitRecord(
            strategy="synthetic" if config.data.synthetic.enabled else split.strategy,
            **split.model_dump(exclude={"strategy", "manifest"}),
            **limits.model_dump(),
            hash=data.split_hash,
            photos=data.sizes(),
        ),
        extra_photos=len(data.extra_ids()),
        git_commit=git_commit(),
        package_version=__version__,
        created_at=created_at,
    )


def build_trainer(
    config: AppConfig, recorder: RunRecorder, accelerator: str, precision: str, team: Team | None = None
) -> lightning.Trainer:
    """Lightning's trainer with our callbacks; progress on stderr if that is a terminal."""
    team = team or Team()
    callbacks: list[lightning.Callback] = [recorder]
    if config.train.early_stopping.enabled:
        patience = config.train.early_stopping.patience_epochs
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=patience))
    show_bar = stderr_is_terminal()
    if show_bar:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    return lightning.Trainer(
        accelerator=accelerator,
        devices=team.local_size,
        num_nodes=team.nodes,
        strategy=build_strategy(config, team),
        precision=precision,  # type: ignore[arg-type]
        max_epochs=config.train.epochs,
        max_time=config.train.max_time,
        gradient_clip_val=config.optim.grad_clip_norm,
        callbacks=callbacks,
        logger=False,
        plugins=[AtomicCheckpointIO(), team.environment],
        default_root_dir=recorder.run_dir,
        enable_checkpointing=True,
        enable_progress_bar=show_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        benchmark=config.train.cudnn_benchmark,
    )


@contextmanager
def calm_lightning() -> Iterator[None]:
    """Hides Lightning's greetings, and its advice on what this project has already decided."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        advice = (
            ".*does not have many workers.*",
            ".*isinstance.treespec, LeafSpec.*",
            ".*sync_dist=True.*",  # the metrics are those of all ranks' photos already
        )
        for message in advice:
            warnings.filterwarnings("ignore", message)
        yield
