"""What a network shows beside its logits: the features it decides by, and its answer at each place of the photo."""

import torch
from torch import Tensor, nn


class DiagnosticNetwork(nn.Module):
    """A timm network that shows what its answer rests on.

    Takes float32 `(N, 3, S, S)`, normalised; gives logits `(N, C)`, penultimate features `(N, D)`, and maps
    `(N, C, h, w)`: the classifier asked about each place of the last feature map, or about each patch's token. Where
    the network averages its feature map and classifies linearly, the maps' mean is the logits, so they are the class
    activation maps of Zhou et al. (2016, "Learning Deep Features for Discriminative Localization"). A vision
    transformer classifies by a token of its own: its maps tell what each patch's token looks like to the classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        self._prefix_tokens = int(getattr(network, "num_prefix_tokens", 0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, features and maps of a batch."""
        encoded = self.network.forward_features(images)  # type: ignore[operator]  # (N, D, h, w) or (N, tokens, D)
        features: Tensor = self.network.forward_head(encoded, pre_logits=True)  # type: ignore[operator]
        logits: Tensor = self.network.forward_head(encoded)  # type: ignore[operator]
        return logits, features, self._maps(encoded)

    def _maps(self, encoded: Tensor) -> Tensor:
        if encoded.ndim == 3:
            patches = encoded[:, self._prefix_tokens :]  # (N, h * w, D)
            side = round(patches.shape[1] ** 0.5)  # the input is a square
            scores: Tensor = self._classify_tokens(patches)  # (N, h * w, C)
            return scores.transpose(1, 2).reshape(scores.shape[0], -1, side, side)
        places = encoded if self._channels_last else encoded.permute(0, 2, 3, 1)  # (N, h, w, D)
        height, width, channels = places.shape[1:]
        alone = places.reshape(-1, 1, 1, channels) if self._channels_last else places.reshape(-1, channels, 1, 1)
        answers: Tensor = self.network.forward_head(alone)  # type: ignore[operator]  # (N * h * w, C)
        return answers.reshape(-1, height, width, answers.shape[-1]).permute(0, 3, 1, 2)

    def _classify_tokens(self, tokens: Tensor) -> Tensor:
        normalised = self.network.fc_norm(tokens) if hasattr(self.network, "fc_norm") else tokens  # type: ignore[operator]
        scores: Tensor = self.network.get_classifier()(normalised)  # type: ignore[operator]
        return scores


def shows_its_work(network: nn.Module, image_size_px: int) -> bool:
    """Whether `DiagnosticNetwork` fits a network: it has timm's two halves, and places to ask about."""
    if not (hasattr(network, "forward_features") and hasattr(network, "forward_head")):
        return False
    was_training = network.training
    example = next(network.parameters()).new_zeros(1, 3, image_size_px, image_size_px)
    try:
        with torch.no_grad():
            logits, features, maps = DiagnosticNetwork(network.eval())(example)
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError):
        return False
    finally:
        network.train(was_training)
    return bool(features.ndim == 2 and maps.ndim == 4 and maps.shape[:2] == logits.shape)
