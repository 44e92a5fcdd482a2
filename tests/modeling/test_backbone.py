"""Networks and the weights that they start from."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.config.schema import ModelConfig
from cassava_leaf_disease.errors import ConfigError, WeightsError
from cassava_leaf_disease.modeling import backbone
from cassava_leaf_disease.modeling.backbone import build_network, classifier_names, load_weights, rebuild_network


def model_config(*overrides: str) -> ModelConfig:
    return load_config(["model.backbone=test_resnet", *overrides]).model


def network_of(*overrides: str, classes: int = 5) -> torch.nn.Module:
    return build_network(model_config(*overrides), 64, classes)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenetv2"])
def test_presets_give_five_logits(name: str) -> None:
    network = build_network(load_config([f"model={name}"]).model, 64, 5).eval()

    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_a_vision_transformer_is_built_for_the_image_size() -> None:
    network = build_network(model_config("model.backbone=test_vit"), 96, 5).eval()

    assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


def test_a_fresh_network_gives_every_class_nearly_the_same_probability() -> None:
    network = network_of("model.backbone=mobilenetv2_100").train()

    probabilities = network(torch.randn(8, 3, 64, 64)).softmax(dim=1)
    assert probabilities.max() < 0.4


def test_dropout_and_drop_path_reach_the_network() -> None:
    network: Any = network_of("model.dropout=0.35", "model.drop_path=0.2")

    assert network.drop_rate == 0.35
    assert any(getattr(module, "drop_prob", 0) for module in network.modules())


def test_an_unknown_backbone_names_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone=resnet81.*did you mean .*resnet18"):
        network_of("model.backbone=resnet81")
    with pytest.raises(ConfigError, match="list_models"):
        network_of("model.backbone=zzzzzz")


def test_stochastic_depth_is_refused_where_the_backbone_has_none() -> None:
    with pytest.raises(ConfigError) as error:
        network_of("model.backbone=vgg11", "model.drop_path=0.1")
    assert str(error.value) == "model.drop_path=0.1: vgg11 has no stochastic depth; type model.drop_path=0"


def test_settings_that_a_backbone_cannot_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone=xcit_nano_12_p8_224 cannot be built with these settings"):
        build_network(model_config("model.backbone=xcit_nano_12_p8_224"), 100, 5)


@pytest.mark.parametrize(("size_px", "below", "above"), [(100, 96, 112), (40, 32, 48), (65, 64, 80)])
def test_a_size_that_patches_do_not_fill_is_refused_with_the_nearest_two(size_px: int, below: int, above: int) -> None:
    with pytest.raises(ConfigError) as error:
        build_network(model_config("model.backbone=test_vit"), size_px, 5)
    assert str(error.value) == (
        f"augment.image_size={size_px}: test_vit takes multiples of 16; "
        f"type augment.image_size={below} or augment.image_size={above}"
    )


def test_a_size_that_a_transformer_cannot_take_names_the_one_it_was_made_for() -> None:
    with pytest.raises(ConfigError) as error:
        build_network(model_config("model.backbone=levit_128s"), 50, 5)
    assert re.fullmatch(
        r"augment\.image_size=50: levit_128s cannot take this size \(.+\); type augment\.image_size=224",
        str(error.value),
    )


def test_a_network_is_built_ready_to_train() -> None:
    assert build_network(model_config("model.backbone=test_vit"), 64, 5).training


def test_a_convolutional_network_takes_any_size() -> None:
    assert build_network(model_config(), 65, 5).eval()(torch.zeros(1, 3, 65, 65)).shape == (1, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b3", "efficientnet_b4", "vit_base_384"])
def test_large_presets_give_five_logits_and_learn(name: str) -> None:
    network = build_network(load_config([f"model={name}"]).model, 64, 5)

    logits = network(torch.randn(2, 3, 64, 64))
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_weights_load_but_the_classifier_of_another_task_does_not(tmp_path: Path) -> None:
    source = rebuild_network("test_resnet", 64, 1000)
    half = {name: tensor.half() for name, tensor in source.state_dict().items()}
    save_file(half, tmp_path / "imagenet.safetensors")

    network = network_of(f"model.weights_path={tmp_path / 'imagenet.safetensors'}")

    loaded = network.state_dict()
    [head] = classifier_names(network)
    for name, tensor in half.items():
        if not name.startswith(head):
            assert loaded[name].dtype != torch.float16
            torch.testing.assert_close(loaded[name], tensor.to(loaded[name].dtype))
    assert loaded[f"{head}.weight"].shape[0] == 5


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_nfnet", "mobilenetv2_100"]
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_every_family_of_networks_load_whole(name: str, suffix: str, tmp_path: Path) -> None:
    source = rebuild_network(name, 64, 1000)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path)

    network = network_of(f"model.backbone={name}", f"model.weights_path={path}")
    loaded, head = network.state_dict(), backbone.classifier_prefixes(network)
    for tensor_name, tensor in source.state_dict().items():
        if not tensor_name.startswith(head):
            assert torch.equal(loaded[tensor_name], tensor)


@pytest.mark.parametrize(("made_px", "size_px"), [(64, 160), (160, 64), (96, 112)])
def test_weights_of_a_vision_transformer_load_at_another_image_size(made_px: int, size_px: int, tmp_path: Path) -> None:
    from timm.layers.pos_embed import resample_abs_pos_embed

    source = rebuild_network("test_vit", made_px, 1000).state_dict()
    torch.nn.init.normal_(source["pos_embed"])
    save_file({name: tensor.half() for name, tensor in source.items()}, tmp_path / "vit.safetensors")

    network = build_network(
        model_config("model.backbone=test_vit", f"model.weights_path={tmp_path / 'vit.safetensors'}"), size_px, 5
    )
    loaded, cells = network.state_dict(), size_px // 16
    expected = resample_abs_pos_embed(source["pos_embed"].half(), [cells, cells], num_prefix_tokens=1).float()
    torch.testing.assert_close(loaded["pos_embed"], expected, rtol=0, atol=0)
    torch.testing.assert_close(loaded["blocks.5.attn.qkv.weight"], source["blocks.5.attn.qkv.weight"].half().float())
    assert network.eval()(torch.zeros(1, 3, size_px, size_px)).shape == (1, 5)


def test_a_checkpoint_trained_at_one_size_is_a_start_at_another(tmp_path: Path) -> None:
    """The way from 224 to 384 pixels: the classifier comes along."""
    source = rebuild_network("test_vit", 64, 5)
    torch.nn.init.normal_(source.get_parameter("head.weight"))
    state = {f"network.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")

    network = build_network(
        model_config("model.backbone=test_vit", f"model.weights_path={tmp_path / 'best.ckpt'}"), 96, 5
    )
    assert torch.equal(network.get_parameter("head.weight"), source.get_parameter("head.weight"))


@pytest.mark.parametrize("prefix", ["", "network.", "average.module."])
def test_a_checkpoint_with_five_classes_brings_its_classifier(tmp_path: Path, prefix: str) -> None:
    source = rebuild_network("test_resnet", 64, 5)
    state = {f"{prefix}{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": state} if prefix else state, tmp_path / "start.ckpt")

    network = network_of(f"model.weights_path={tmp_path / 'start.ckpt'}")

    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, source.state_dict()[name])


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    save_file(rebuild_network("test_vit", 160, 5).state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit model\.backbone: \d+ tensors missing, \d+ unexpected"):
        network_of(f"model.weights_path={tmp_path / 'vit.safetensors'}")


@pytest.mark.parametrize("other", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_byobnet"])
def test_weights_of_another_family_are_refused_in_one_line(name: str, other: str, tmp_path: Path) -> None:
    if name == other:
        return
    save_file(rebuild_network(other, 64, 5).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit model\.backbone: [^\n]*$"):
        network_of(f"model.backbone={name}", f"model.weights_path={tmp_path / 'other.safetensors'}")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    state = rebuild_network("test_resnet", 64, 5).state_dict()
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[name] = torch.zeros(1, 1, 1, 1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=f"1 of another shape .first: {name}"):
        network_of(f"model.weights_path={tmp_path / 'odd.pth'}")


def test_missing_and_damaged_weight_files_are_refused(tmp_path: Path) -> None:
    network = network_of()
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(network, tmp_path / "nowhere.safetensors")
    for name in ("bad.safetensors", "bad.ckpt"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(WeightsError, match="cannot be read as plain weights"):
            load_weights(network, tmp_path / name)


def test_a_weights_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.ckpt")
    with pytest.raises(WeightsError, match="cannot be read as plain weights"):
        load_weights(network_of(), tmp_path / "harmful.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_shared_imagenet_weights_fit_their_presets(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = shared_data.parent / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    if not weights.is_file():
        pytest.skip(f"no starting weights: {weights} is missing")
    with caplog.at_level(logging.INFO, logger="cassava_leaf_disease"):
        build_network(load_config(["model=mobilenetv2", f"model.weights_path={weights}"]).model, 224, 5)
    assert "new classifier" in caplog.text


class TestHub:
    def test_an_unreachable_hub_names_the_key_that_works_without_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(WeightsError, match=r"resnet18 cannot be fetched .*model\.weights_path="):
            build_network(model_config("model.backbone=resnet18", "model.pretrained=true"), 64, 5)

    def test_a_backbone_without_published_weights_is_told(self) -> None:
        with pytest.raises(WeightsError, match="timm has no pretrained weights for coatnet_nano_cc_224"):
            build_network(model_config("model.backbone=coatnet_nano_cc_224", "model.pretrained=true"), 64, 5)

    def test_a_hub_that_answers_is_left_to_timm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What timm does with the answer is timm's; an error of its client is told in our words."""
        import timm

        def failing(*_arguments: Any, **_options: Any) -> None:
            raise OSError("503 busy\nmore")

        monkeypatch.setattr(backbone, "_check_hub_reachable", lambda _name: None)
        monkeypatch.setattr(timm, "create_model", failing)
        with pytest.raises(WeightsError, match=r"cannot be fetched from timm's hub \(503 busy\)"):
            build_network(model_config("model.pretrained=true"), 64, 5)

    @pytest.mark.parametrize("status", [200, 404])
    def test_any_answer_of_the_hub_counts_as_reachable(self, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
        import threading
        from http.server import BaseHTTPRequestHandler, HTTPServer

        from huggingface_hub import constants

        class Hub(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Hub) as server:
            threading.Thread(target=server.handle_request, daemon=True).start()
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            backbone._check_hub_reachable("resnet18")

    def test_weights_in_the_local_cache_need_no_hub(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
        backbone._check_hub_reachable("resnet18")
