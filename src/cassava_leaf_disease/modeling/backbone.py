"""Networks from timm, and the weights that they start from."""

import difflib
import logging
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import nn

from cassava_leaf_disease.config.schema import ModelConfig
from cassava_leaf_disease.errors import CheckpointError, ConfigError, WeightsError, first_line
from cassava_leaf_disease.modeling.checkpoint import read_plain, select_network

logger = logging.getLogger(__name__)

_HUB_TIMEOUT_S = 5.0


def build_network(config: ModelConfig, image_size_px: int, num_classes: int) -> nn.Module:
    """A timm network with a fresh classifier, its weights loaded as `config` asks.

    Takes float32 `(N, 3, S, S)`, gives logits `(N, num_classes)`.

    Raises:
        ConfigError: timm knows no such backbone.
        WeightsError: The starting weights cannot be had or do not fit.
    """
    import timm

    check_backbone(config.backbone)
    if config.pretrained:
        _check_hub_reachable(config.backbone)
    options: dict[str, Any] = {"num_classes": num_classes, "drop_rate": config.dropout}
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    try:
        network: nn.Module = timm.create_model(
            config.backbone, pretrained=config.pretrained, **options, **_size_options(config.backbone, image_size_px)
        )
    except OSError as error:
        raise _hub_error(config.backbone, error) from error
    except (TypeError, RuntimeError, AssertionError) as error:
        if "drop_path_rate" in str(error):  # 1,211 networks of timm 1.0.31 take it, 113 say this, none ignores it
            raise ConfigError(
                f"model.drop_path={config.drop_path:g}: {config.backbone} has no stochastic depth; "
                "type model.drop_path=0"
            ) from None
        raise ConfigError(f"model.backbone={config.backbone} cannot be built with these settings: {error}") from error
    check_image_size(network, config.backbone, image_size_px)
    start_classifier_small(network)
    if config.weights_path is not None:
        load_weights(network, config.weights_path)
    return network


def start_classifier_small(network: nn.Module) -> None:
    """Gives the fresh last layer weights near zero: five equal probabilities, gentle first gradients.

    timm starts EfficientNet-like classifiers at +-1/sqrt(classes), which with five classes and 1280 features
    means logits of about 9 and a first loss of 4.4 instead of ln 5 = 1.6.
    """
    for name in classifier_names(network):
        layer = network.get_submodule(name)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def rebuild_network(backbone: str, image_size_px: int, num_classes: int) -> nn.Module:
    """The bare architecture, for weights that a checkpoint brings along."""
    import timm

    check_backbone(backbone)
    network: nn.Module = timm.create_model(
        backbone, pretrained=False, num_classes=num_classes, **_size_options(backbone, image_size_px)
    )
    return network


def check_backbone(backbone: str) -> None:
    """Refuses a name that timm does not know.

    Raises:
        ConfigError: Names the closest backbones.
    """
    import timm

    if not timm.is_model(backbone):
        close = difflib.get_close_matches(backbone, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`timm.list_models()` lists them"
        raise ConfigError(f"model.backbone={backbone}: timm has no such network; {hint}")


def check_image_size(network: nn.Module, backbone: str, image_size_px: int) -> None:
    """Refuses a size that a vision transformer cannot take, or that it would silently cut off at the border.

    Raises:
        ConfigError: Names the nearest sizes that its patches fill, or the size that it was made for.
    """
    import timm

    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is None or not cfg.fixed_input_size:
        return
    seen = f"augment.image_size={image_size_px}: {backbone}"
    patches = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    patch_px: int = patches[0] if patches else 1
    below = image_size_px // patch_px * patch_px
    if image_size_px != below:
        raise ConfigError(
            f"{seen} takes multiples of {patch_px}; "
            f"type augment.image_size={below} or augment.image_size={below + patch_px}"
        )
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, image_size_px, image_size_px))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{seen} cannot take this size ({first_line(error)}); type augment.image_size={cfg.input_size[-1]}"
        ) from error
    network.train()


def check_eval_size(backbone: str, image_size_px: int, eval_size_px: int | None) -> None:
    """Refuses a second size for a network that takes only the one it is built for.

    Raises:
        ConfigError: It is a vision transformer.
    """
    import timm

    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is not None and cfg.fixed_input_size and eval_size_px not in (None, image_size_px):
        raise ConfigError(
            f"augment.eval_size={eval_size_px} augment.image_size={image_size_px}: {backbone} takes one size only; "
            "type augment.eval_size=null"
        )


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the last layers, those that depend on the number of classes."""
    names = getattr(network, "pretrained_cfg", {}).get("classifier", ())
    return (names,) if isinstance(names, str) else tuple(names)


def classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """What the names of the last layers' tensors start with."""
    return tuple(f"{name}." for name in classifier_names(network))


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads a state dict (safetensors, or a checkpoint without code) into `network`, in place.

    The classifier is left as it is where the file's has another number of classes. float16 tensors are
    cast to the network's type; position embeddings of another image size are resampled.

    Raises:
        WeightsError: The file is missing, unsafe, or made for another backbone.
    """
    state = _as_timm_loads(network, _read_state(path))
    wanted = network.state_dict()
    head = classifier_prefixes(network)
    dropped = {
        name
        for name in state
        if name.startswith(head) and (name not in wanted or wanted[name].shape != state[name].shape)
    }
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    missing = [name for name in wanted if name not in kept and not name.startswith(head)]
    unexpected = [name for name in kept if name not in wanted]
    misshapen = [name for name in kept if name in wanted and kept[name].shape != wanted[name].shape]
    if missing or unexpected or misshapen:
        example = (missing + unexpected + misshapen)[0]
        raise WeightsError(
            f"model.weights_path={path} does not fit model.backbone: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(misshapen)} of another shape (first: {example}); "
            "choose the backbone that the file was made for"
        )
    network.load_state_dict(kept, strict=False)
    logger.info("starting weights: %s (%d tensors%s)", path, len(kept), ", new classifier" if dropped else "")


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise WeightsError(f"model.weights_path={path}: no such file; expected a .safetensors or .ckpt file")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = read_plain(path)
    except (CheckpointError, OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"model.weights_path={path}: cannot be read as plain weights ({type(error).__name__}); "
            "expected a .safetensors file, or a .ckpt or .pth file that holds tensors only"
        ) from error
    state = content.get("state_dict", content)
    return select_network(state) or {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _as_timm_loads(network: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What timm makes of the weights that it fetches: position embeddings of the network's own size, new names.

    Each of its files that needs one has such a function; a state of another architecture can make it fail, and
    is then left as it is, for the check of names and shapes to tell.
    """
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        adapted: dict[str, torch.Tensor] = adapt(dict(state), network)
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError):
        return state
    return adapted


def _size_options(backbone: str, image_size_px: int) -> dict[str, Any]:
    """`img_size` for networks whose input size is part of the architecture (vision transformers)."""
    import timm

    cfg = timm.get_pretrained_cfg(backbone)
    return {"img_size": image_size_px} if cfg is not None and cfg.fixed_input_size else {}


def _check_hub_reachable(backbone: str) -> None:
    """Fails in seconds, where the hub's own client would retry for most of a minute."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    cfg = timm.get_pretrained_cfg(backbone)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise WeightsError(
            f"model.pretrained=true: timm has no pretrained weights for {backbone}; "
            "type model.pretrained=false, or name a file with model.weights_path=…"
        )
    cached = cfg.hf_hub_id and any(
        isinstance(try_to_load_from_cache(cfg.hf_hub_id, name), str)
        for name in ("model.safetensors", "pytorch_model.bin")
    )
    if cached:
        return
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_HUB_TIMEOUT_S):  # noqa: S310  https
            return
    except HTTPError:
        return  # the hub answered, if only to say no: its own client knows better
    except OSError as error:
        raise _hub_error(backbone, error) from error


def _hub_error(backbone: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"model.pretrained=true: the weights of {backbone} cannot be fetched from timm's hub ({first_line(error)}); "
        "with no network, name a local file: model.pretrained=false model.weights_path=weights.safetensors"
    )
