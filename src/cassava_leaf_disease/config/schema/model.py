"""What learns, and how: the network, its loss, its optimiser."""

from itertools import chain
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from cassava_leaf_disease.config.schema.base import AbsolutePath, Fraction, Section, Weighting


class ModelConfig(Section):
    """The network and the weights that it starts from."""

    name: str
    backbone: str = Field(min_length=1)
    pretrained: bool
    weights_path: AbsolutePath | None
    dropout: float = Field(ge=0, lt=1)
    drop_path: float = Field(ge=0, lt=1)
    freeze_backbone: bool
    unfreeze_epoch: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.unfreeze_epoch is not None and not self.freeze_backbone:
            msg = (
                f"model.unfreeze_epoch={self.unfreeze_epoch}: nothing is frozen; "
                "type model.freeze_backbone=true or model.unfreeze_epoch=null"
            )
            raise ValueError(msg)
        return self


class LossConfig(Section):
    """What training minimises. Each choice brings its own keys; those of the others are left out.

    `class_weights` weigh classes by their frequency in the training part, `beta` by their effective number of
    samples (Cui et al., 2019). `gamma` is that of the focal loss (Lin et al., 2017), `t1` and `t2` are the
    temperatures of the bi-tempered loss (Amid et al., 2019: 0 <= t1 < 1 < t2, cross-entropy in the limit of 1).
    """

    name: Literal["cross_entropy", "bi_tempered", "focal", "class_balanced"]
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Weighting | None = Field(default=None, description="none, sqrt_inverse or inverse")
    t1: float | None = Field(default=None, ge=0, le=1, description="a number from 0 to 1 (1: the plain logarithm)")
    t2: float | None = Field(default=None, ge=1, le=10, description="a number from 1 to 10 (1: the plain softmax)")
    gamma: float | None = Field(default=None, ge=0, le=10, description="a number from 0 to 10")
    beta: float | None = Field(default=None, ge=0, lt=1, description="a number from 0 to below 1")

    @model_validator(mode="after")
    def _check(self) -> Self:
        own = _LOSS_KEYS[self.name]
        missing = [key for key in own if getattr(self, key) is None]
        if missing:
            msg = f"loss.{missing[0]}: loss={self.name} needs this key; type loss={self.name}, which brings a value"
            raise ValueError(msg)
        for key in sorted({*chain(*_LOSS_KEYS.values())} - {*own}):
            if getattr(self, key) is not None:
                having = " or ".join(f"loss={name}" for name, keys in _LOSS_KEYS.items() if key in keys)
                msg = f"loss.{key}={getattr(self, key)}: no key of loss={self.name}; leave it out, or type {having}"
                raise ValueError(msg)
        return self

    @model_serializer(mode="wrap")
    def _own_keys(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


_LOSS_KEYS: dict[str, tuple[str, ...]] = {
    "cross_entropy": ("class_weights",),
    "bi_tempered": ("t1", "t2"),
    "focal": ("gamma", "class_weights"),
    "class_balanced": ("beta",),
}


class PlateauConfig(Section):
    """Multiply the rate by `factor` after `patience_epochs` without a better validation macro-F1."""

    factor: float = Field(gt=0, lt=1)
    patience_epochs: int = Field(ge=0)


class OptimConfig(Section):
    """AdamW and its schedule.

    The rate rises linearly for `warmup_epochs` (fractions allowed), then falls as a half cosine to
    `min_lr_ratio` of its peak, or by steps on a plateau. With `layer_decay` each layer learns at that fraction
    of the rate of the layer above it (null: all alike); the classifier at `head_lr_multiplier` times the rate.
    `ema_decay` averages the weights of all steps exponentially (null: off); the averaged weights are validated
    and saved. With `lr_rule` linear or sqrt `train.lr` is that of a batch of `lr_reference_batch` photos and
    grows with `train.batch_size`, or with its square root (Goyal et al., 2017; Krizhevsky, 2014).
    """

    name: Literal["adamw"]
    schedule: Literal["cosine", "plateau", "constant"]
    warmup_epochs: float = Field(ge=0)
    min_lr_ratio: float = Field(ge=0, le=1)
    plateau: PlateauConfig
    betas: tuple[Fraction, Fraction]
    lr_rule: Literal["constant", "linear", "sqrt"]
    lr_reference_batch: int = Field(ge=1, le=65_536)
    head_lr_multiplier: float = Field(gt=0, le=1000)
    layer_decay: float | None = Field(gt=0, le=1)
    grad_clip_norm: float | None = Field(gt=0)
    ema_decay: float | None = Field(gt=0, lt=1)
