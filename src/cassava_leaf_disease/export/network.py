"""What an exported graph is made of: one network, or several of one preprocessing that answer as one."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from cassava_leaf_disease import __version__
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.inference.ensemble import EnsemblePredictor
from cassava_leaf_disease.inference.ood import NEEDS_FEATURES
from cassava_leaf_disease.inference.vote import Combination
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from cassava_leaf_disease.modeling.outputs import DiagnosticNetwork, shows_its_work

_SEVERAL: Final = "several"


class EnsembleNetwork(nn.Module):
    """Members that take the same input, as one network.

    Its logits are the logarithms of the combined probabilities, so that their softmax gives these: the temperatures
    are inside. Features are those of all members, one after another `(N, D1 + D2 + …)`; maps are the weighted mean of
    the members' maps, each divided by its temperature, where all have one shape. Where a member shows logits alone,
    so does the whole. The temperature of the combined answer stays outside, as that of a single network does.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        temperatures: Sequence[float],
        weights: Sequence[float],
        combination: Combination,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._temperatures = tuple(temperatures)
        self._combination = combination
        self.register_buffer("shares", torch.tensor(weights, dtype=torch.float64).div(sum(weights)).float())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits, and features and maps if there are any, of a batch."""
        answers = [member(images) for member in self.members]
        each = [answer if isinstance(answer, tuple) else (answer,) for answer in answers]
        logits = self._combine(torch.stack(self._calibrated([answer[0] for answer in each])))
        if any(len(answer) < 3 for answer in each):
            return (logits,)
        features = torch.cat([answer[1] for answer in each], dim=1)
        maps = self._calibrated([answer[2] for answer in each])
        if len({tuple(each.shape[1:]) for each in maps}) > 1:
            return logits, features
        shares = self.shares[:, None, None, None, None]  # type: ignore[index]
        return logits, features, (torch.stack(maps) * shares).sum(dim=0)

    def _calibrated(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        return [output / by for output, by in zip(outputs, self._temperatures, strict=True)]

    def _combine(self, logits: Tensor) -> Tensor:
        """(M, N, C) to (N, C)."""
        logarithms, shares = torch.log_softmax(logits, dim=2), self.shares[:, None, None]  # type: ignore[index]
        if self._combination == "logits":
            return torch.log_softmax((logarithms * shares).sum(dim=0), dim=1)
        return torch.logsumexp(logarithms + shares.log(), dim=0)


def showing(network: nn.Module, image_size_px: int) -> nn.Module:
    """The network with all that it has to show (see `modeling/outputs.py`)."""
    return DiagnosticNetwork(network) if shows_its_work(network, image_size_px) else network


def merge(predictor: EnsemblePredictor, networks: Sequence[nn.Module]) -> tuple[nn.Module, ModelMetadata]:
    """An ensemble of one preprocessing as one network with one self-description.

    Raises:
        ConfigError: A member's gate judges by what the combined graph does not give.
    """
    files = [member.metadata for member in predictor.members]
    size_px = files[0].preprocessing.image_size_px
    shown = [showing(network.eval(), size_px) for network in networks]
    network = EnsembleNetwork(shown, [file.temperature for file in files], predictor.shares, predictor.combination)
    with torch.no_grad():
        answers = [member(torch.zeros(1, 3, size_px, size_px)) for member in shown]
    sizes = [answer[1].shape[1] if isinstance(answer, tuple) else 0 for answer in answers]
    for file in files:
        if file.gate is not None and (file.gate.score not in NEEDS_FEATURES or 0 in sizes):
            raise ConfigError(
                f"the gate of {file.name} {file.version} judges by {file.gate.score}, which one graph for several "
                "networks does not give; type export.output_path=FOLDER, for a file for each"
            )
    return network, _describe(predictor, files, sizes if 0 not in sizes else [0] * len(sizes))


def _describe(
    predictor: EnsemblePredictor, members: Sequence[ModelMetadata], feature_sizes: Sequence[int]
) -> ModelMetadata:
    """One description for all; `members` keeps theirs, and their splits."""
    first = members[0]
    fingerprints = {member.data_fingerprint for member in members}
    return ModelMetadata(
        name=predictor.identity.name,
        version=predictor.identity.version,
        backbone=", ".join(dict.fromkeys(member.backbone for member in members)),
        preprocessing=first.preprocessing,
        temperature=predictor.temperature,
        thresholds=predictor.thresholds,
        class_prior=predictor.class_prior or _mean_prior(members, predictor.shares),
        metrics={},
        epoch=0,
        data_fingerprint=fingerprints.pop() if len(fingerprints) == 1 else _SEVERAL,
        split=first.split,
        git_commit=first.git_commit,
        package_version=__version__,
        created_at=max(member.created_at for member in members),
        licence_notes=tuple(dict.fromkeys(note for member in members for note in member.licence_notes)),
        members=tuple(members),
        feature_sizes=tuple(feature_sizes),
    )


def _mean_prior(members: Sequence[ModelMetadata], shares: Sequence[float]) -> tuple[float, ...] | None:
    priors = [member.class_prior for member in members if member.class_prior is not None]
    return tuple(np.average(priors, axis=0, weights=shares).tolist()) if len(priors) == len(members) else None
