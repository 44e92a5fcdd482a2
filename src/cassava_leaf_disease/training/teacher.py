"""A teacher that answers about every batch as the student sees it: cropped, turned, recoloured and mixed.

Its answers hold for exactly these pixels, so that a student may learn for as long as it likes without learning any
answer by heart (Beyer et al., 2022, "Knowledge distillation: a good teacher is patient and consistent").
"""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import nn

from cassava_leaf_disease.config.schema import AppConfig, DistillConfig
from cassava_leaf_disease.data.datamodule import LeafDataModule
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.torch_engine import restore_network
from cassava_leaf_disease.inference.ensemble import EnsemblePredictor, load_found
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.inference.vote import Combination
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.training.distill import check_leaks

CHECKPOINT_SUFFIX = ".ckpt"


class ConsistentTeacher:
    """Turns a batch's targets into those that the student learns.

    No `nn.Module`, so that it is neither trained nor saved with the student; it follows the batches to their device.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        temperatures: Sequence[float],
        shares: Sequence[float],
        combination: Combination,
        settings: DistillConfig,
    ) -> None:
        self._networks = nn.ModuleList(networks).eval().requires_grad_(requires_grad=False)
        self._networks.to(memory_format=torch.channels_last)
        self._temperatures = torch.tensor(temperatures)
        self._shares = torch.tensor(shares)
        self._combination = combination
        self._settings = settings

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """`alpha` times the answers about `images` `(N, 3, S, S)`, normalised, and `targets` `(N, C)` for the rest."""
        alpha = self._settings.alpha
        return alpha * self.answer(images) + (1 - alpha) * targets

    @torch.no_grad()
    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities `(N, C)` float32 about normalised images `(N, 3, S, S)`."""
        self._follow(images.device)
        logits = torch.stack([network(images).float() for network in self._networks])
        logarithms = torch.log_softmax(logits / self._temperatures.view(-1, 1, 1), dim=-1)
        shares = self._shares.view(-1, 1, 1)
        if self._combination == "probabilities":
            mean = (shares * logarithms.exp()).sum(dim=0).log()
        else:
            mean = (shares * logarithms).sum(dim=0)
        return torch.softmax(mean / self._settings.temperature, dim=-1)

    def _follow(self, device: torch.device) -> None:
        if self._shares.device != device:
            self._networks.to(device)
            self._temperatures, self._shares = self._temperatures.to(device), self._shares.to(device)


def consistent_teacher(config: AppConfig, data: LeafDataModule, student: ModelMetadata) -> ConsistentTeacher | None:
    """The teacher of `distill.consistent`, for `data` that is set up; None where it is not asked for.

    Raises:
        ConfigError: It cannot look at the student's batches.
        DataError: It learned photos that measure the student.
        CassavaError: It cannot be loaded.
    """
    settings = config.distill
    if settings.teacher is None or not settings.consistent:
        return None
    teacher = load_found(FoundModel(settings.teacher, "explicit"), "cpu")
    check_leaks(config, data, teacher)
    paths = [Path(member.identity.path) for member in teacher.members]
    for path, metadata in zip(paths, _described(teacher), strict=True):
        _check_looks(config, path, metadata, student)
    return ConsistentTeacher(
        [restore_network(load_checkpoint(path), path) for path in paths],
        [metadata.temperature for metadata in _described(teacher)],
        teacher.shares,
        teacher.combination if isinstance(teacher, EnsemblePredictor) else "probabilities",
        settings,
    )


def _described(teacher: AnyPredictor) -> list[ModelMetadata]:
    return [member.described[0] for member in teacher.members]


def _check_looks(config: AppConfig, path: Path, teacher: ModelMetadata, student: ModelMetadata) -> None:
    """Refuses a network that cannot answer about the student's batches."""
    asked = f"distill.consistent=true distill.teacher={config.distill.teacher}"
    if path.suffix != CHECKPOINT_SUFFIX:
        raise ConfigError(
            f"{asked}: {path} is no checkpoint; type distill.consistent=false, or name {CHECKPOINT_SUFFIX} files"
        )
    own, batches = teacher.preprocessing, student.preprocessing
    if (own.mean, own.std) != (batches.mean, batches.std):
        raise ConfigError(
            f"{asked}: {path} was trained with other means and deviations (mean {own.mean}, std {own.std}) than the "
            f"student (mean {batches.mean}, std {batches.std}); type distill.consistent=false"
        )
    known = timm.get_pretrained_cfg(teacher.backbone)
    size_px = config.augment.image_size
    if known is not None and known.fixed_input_size and own.image_size_px != size_px:
        raise ConfigError(
            f"{asked}: {path} ({teacher.backbone}) takes photos of {own.image_size_px} px only, the student learns at "
            f"augment.image_size={size_px}; type augment.image_size={own.image_size_px} or distill.consistent=false"
        )
