"""What a network shows beside its logits."""

import timm
import torch
from torch import nn

from cassava_leaf_disease.modeling.outputs import DiagnosticNetwork, shows_its_work


def diagnostic(backbone: str, size_px: int) -> tuple[nn.Module, torch.Tensor, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    network = timm.create_model(backbone, num_classes=5).eval()
    images = torch.randn(3, 3, size_px, size_px)
    with torch.no_grad():
        return network, images, DiagnosticNetwork(network)(images)


def test_logits_are_those_of_the_network_itself() -> None:
    network, images, (logits, features, maps) = diagnostic("test_resnet", 64)

    with torch.no_grad():
        assert torch.equal(logits, network(images))
        assert torch.allclose(network.get_classifier()(features), logits, atol=1e-6)  # type: ignore[operator]
    assert features.shape == (3, 96)
    assert maps.shape == (3, 5, 2, 2)


def test_maps_of_a_convolutional_network_average_to_its_logits() -> None:
    _, _, (logits, _, maps) = diagnostic("mobilenetv2_035", 96)

    assert torch.allclose(maps.mean((2, 3)), logits, atol=1e-4)


def test_a_transformer_has_one_place_for_each_patch() -> None:
    _, _, (logits, features, maps) = diagnostic("test_vit", 160)

    assert logits.shape == (3, 5)
    assert features.shape == (3, 64)
    assert maps.shape == (3, 5, 10, 10)


def test_a_network_that_keeps_its_channels_last_has_maps_too() -> None:
    _, _, (logits, _, maps) = diagnostic("swin_tiny_patch4_window7_224", 224)

    assert torch.allclose(maps.mean((2, 3)), logits, atol=1e-4)


def test_a_network_without_timms_two_halves_shows_logits_alone() -> None:
    assert shows_its_work(timm.create_model("test_resnet", num_classes=5), 64)
    assert not shows_its_work(nn.Sequential(nn.Flatten(), nn.Linear(3, 5)), 1)
