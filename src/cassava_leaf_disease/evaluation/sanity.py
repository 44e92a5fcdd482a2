"""Whether heatmaps show what a network has learned: they must change with its weights, and hot places must matter.

Source: Adebayo et al., Sanity Checks for Saliency Maps, 2018 (the model parameter randomization test).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import nn

from cassava_leaf_disease.errors import CheckpointError
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize
from cassava_leaf_disease.inference.engines.torch_engine import restore_network
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.outputs import DiagnosticNetwork, shows_its_work

Maps = npt.NDArray[np.float64]  # log-odds of a class at each place, (N, h, w)

_BATCH: Final = 16
_WINDOW_PX: Final = 7  # of the structural similarity, with its usual constants
_SSIM_CONSTANTS: Final = (0.01**2, 0.03**2)
_SSIM_SIDE_PX: Final = 56
_COVERED: Final = 0.25  # of the photo, in the deletion test


class RandomisedStep(BaseModel):
    """The maps once the network is random from the top down to a part, against those of the trained network.

    Means over the photos: Spearman's rank correlation of the places, structural similarity of the heat, and the
    fraction whose predicted class is still the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    randomised: str
    rank_correlation: float
    similarity: float
    same_answer: float


class HeatmapCheck(BaseModel):
    """The cascade of randomised parts, its first row the trained network, and what it is to be held against.

    `other_photos` is the rank correlation of the maps of two different photos: what remains where nothing but the
    habit of looking at the middle is shared. The three probabilities are the predicted class's, with the whole photo
    and with a quarter of it covered: its hottest places, as many at random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    steps: tuple[RandomisedStep, ...]
    other_photos: float
    confidence: float
    confidence_without_hottest: float
    confidence_without_random: float


def check_heatmaps(path: Path, images: npt.NDArray[np.uint8], seed: int = 0) -> HeatmapCheck:
    """Randomises a checkpoint's network from the top and measures its maps of photos `(N, S, S, 3)`, N at least 2.

    Raises:
        CheckpointError: The file is damaged, or its network gives no maps.
    """
    loaded = load_checkpoint(path)
    spec, temperature = loaded.metadata.preprocessing, loaded.metadata.temperature
    network = restore_network(loaded, path).eval()
    if not shows_its_work(network, spec.image_size_px):
        raise CheckpointError(f"{path}: its network {loaded.metadata.backbone} gives no class maps")
    logits, maps = _answers(network, images, spec)
    classes = logits.argmax(axis=1)
    trained = log_odds(maps / temperature, classes)
    covered = [_cover(images, order) for order in (trained, np.random.default_rng(seed).random(trained.shape))]
    without = [_confidence(_answers(network, photos, spec)[0] / temperature, classes) for photos in covered]
    steps = [RandomisedStep(randomised="nothing", rank_correlation=1, similarity=1, same_answer=1)]
    for name in _randomise_from_the_top(network, loaded.metadata.backbone, spec, images, seed):
        logits_now, maps_now = _answers(network, images, spec)
        changed = log_odds(maps_now / temperature, classes)
        pairs = list(zip(trained, changed, strict=True))
        steps.append(
            RandomisedStep(
                randomised=name,
                rank_correlation=float(np.mean([rank_correlation(*pair) for pair in pairs])),
                similarity=float(np.mean([structural_similarity(_heat(one), _heat(other)) for one, other in pairs])),
                same_answer=float((logits_now.argmax(axis=1) == classes).mean()),
            )
        )
    return HeatmapCheck(
        photos=len(images),
        steps=tuple(steps),
        other_photos=float(
            np.mean([rank_correlation(a, b) for a, b in zip(trained, np.roll(trained, 1, 0), strict=True)])
        ),
        confidence=_confidence(logits / temperature, classes),
        confidence_without_hottest=without[0],
        confidence_without_random=without[1],
    )


def parts_from_the_top(network: nn.Module) -> list[str]:
    """The names of a network's parts that hold weights, last one first; a chain of blocks counts block by block."""
    names = []
    for name, child in network.named_children():
        blocks = child.named_children() if isinstance(child, nn.Sequential) else ()
        names += [f"{name}.{block}" for block, _ in blocks] or [name]
    return [name for name in reversed(names) if any(True for _ in network.get_submodule(name).parameters())]


def log_odds(maps: npt.NDArray[np.float64], classes: npt.NDArray[np.int64]) -> Maps:
    """The logarithm of p / (1 - p) of each photo's class at each place, from scores `(N, C, h, w)`.

    It ranks places as the heat p does, also where p is 1 to the last bit.
    """
    chosen = np.arange(maps.shape[1])[None] == classes[:, None]  # (N, C)
    others = np.where(chosen[..., None, None], -np.inf, maps)
    highest = others.max(axis=1)
    odds: Maps = maps[chosen] - highest - np.log(np.exp(others - highest[:, None]).sum(axis=1))
    return odds


def rank_correlation(one: Maps, other: Maps) -> float:
    """Spearman's correlation of two maps `(h, w)`; 0 where one of them is flat."""
    first, second = _ranks(one.ravel()), _ranks(other.ravel())
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def structural_similarity(one: Maps, other: Maps) -> float:
    """Mean structural similarity of two pictures `(H, W)` in [0, 1], over windows of 7 x 7.

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004.
    """
    first, second = (np.lib.stride_tricks.sliding_window_view(each, (_WINDOW_PX, _WINDOW_PX)) for each in (one, other))
    means = first.mean(axis=(2, 3)), second.mean(axis=(2, 3))
    variances = first.var(axis=(2, 3)), second.var(axis=(2, 3))
    covariance = (first * second).mean(axis=(2, 3)) - means[0] * means[1]
    light, contrast = _SSIM_CONSTANTS
    upper = (2 * means[0] * means[1] + light) * (2 * covariance + contrast)
    return float((upper / ((means[0] ** 2 + means[1] ** 2 + light) * (sum(variances) + contrast))).mean())


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: npt.NDArray[np.float64] = (ends - (counts + 1) / 2)[place]
    return shared


def _heat(odds: Maps) -> Maps:
    """The heat `(56, 56)` in [0, 1] of log-odds `(h, w)`."""
    heat = (1 / (1 + np.exp(-np.clip(odds, -50, 50)))).astype(np.float32)
    resized = Image.fromarray(heat).resize((_SSIM_SIDE_PX, _SSIM_SIDE_PX), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def _answers(
    network: nn.Module, images: npt.NDArray[np.uint8], spec: Preprocessing
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Logits `(N, C)` and maps `(N, C, h, w)`."""
    showing = DiagnosticNetwork(network)
    with torch.inference_mode():
        outputs = [showing(batch) for batch in _batches(images, spec)]
    logits, _, maps = (torch.cat(parts).double().numpy() for parts in zip(*outputs, strict=True))
    return logits, maps


def _batches(images: npt.NDArray[np.uint8], spec: Preprocessing) -> Iterator[torch.Tensor]:
    for start in range(0, len(images), _BATCH):
        yield torch.from_numpy(normalize(images[start : start + _BATCH], spec))


def _confidence(logits: npt.NDArray[np.float64], classes: npt.NDArray[np.int64]) -> float:
    """The mean probability of each photo's class."""
    odds = log_odds(logits[..., None, None], classes)
    return float((1 / (1 + np.exp(-odds))).mean())


def _cover(images: npt.NDArray[np.uint8], order: Maps) -> npt.NDArray[np.uint8]:
    """Photos with the quarter of their places that is highest in `order` `(N, h, w)` in their mean colour."""
    covered = images.copy()
    for photo, values in zip(covered, order, strict=True):
        chosen = Image.fromarray(values >= np.quantile(values, 1 - _COVERED))
        mask = chosen.resize((photo.shape[1], photo.shape[0]), Image.Resampling.NEAREST)
        photo[np.asarray(mask)] = photo.mean(axis=(0, 1)).astype(np.uint8)
    return covered


def _randomise_from_the_top(
    network: nn.Module, backbone: str, spec: Preprocessing, images: npt.NDArray[np.uint8], seed: int
) -> Iterator[str]:
    """Gives part after part the weights of a fresh network, in place, and yields each part's name.

    Batch norms of random parts get the statistics that they see now: without them a random network answers with
    huge or vanishing numbers, and its maps would differ for that reason alone.
    """
    classes = network.get_classifier().out_features  # type: ignore[operator]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = rebuild_network(backbone, spec.image_size_px, classes)
    norms: list[nn.Module] = []
    for name in parts_from_the_top(network):
        part = network.get_submodule(name)
        part.load_state_dict(fresh.get_submodule(name).state_dict())
        norms += [each for each in part.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
        _measure_again(network, norms, images, spec)
        yield name


def _measure_again(
    network: nn.Module, norms: Sequence[nn.Module], images: npt.NDArray[np.uint8], spec: Preprocessing
) -> None:
    """Sets the running statistics of batch norms to their mean over the photos' batches."""
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]
        norm.train()
    with torch.inference_mode():
        for batch in _batches(images, spec):
            network(batch)
    for norm in norms:
        norm.eval()
