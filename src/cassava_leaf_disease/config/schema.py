"""What every configuration key means: types, accepted values and bounds, checked once at the door.

The YAML files beside this module hold the values; these frozen models hold the meaning.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cassava_leaf_disease.paths import resolve


def _resolved(value: object) -> object:
    if value == "":
        raise ValueError("an empty path")  # most often a shell variable that is not set
    return resolve(value) if isinstance(value, str | Path) else value


AbsolutePath = Annotated[Path, BeforeValidator(_resolved)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weighting = Literal["none", "sqrt_inverse", "inverse"]


class Section(BaseModel):
    """A frozen group of settings that accepts no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def changed(self, **values: object) -> Self:
        """A copy with other values, which are not checked again: for code, not for what users type."""
        return self.model_copy(update=values)


class PathsConfig(Section):
    """Where things lie; relative paths start at `CASSAVA_ROOT` or the current directory."""

    data_dir: AbsolutePath
    outputs_dir: AbsolutePath
    artifacts_dir: AbsolutePath
    cache_dir: AbsolutePath


class SyntheticConfig(Section):
    """Drawn leaves instead of photos; sizes are numbers of pictures for each part."""

    enabled: bool
    train_size: int = Field(ge=5)
    val_size: int = Field(ge=5)
    test_size: int = Field(ge=5)


class LimitsConfig(Section):
    """At most so many photos in a part; the class balance is kept. Null: all."""

    max_train_samples: int | None = Field(ge=5)
    max_val_samples: int | None = Field(ge=5)


class SplitConfig(Section):
    """Which photos train, select and test. Sizes are fractions of the whole table."""

    strategy: Literal["holdout", "kfold"]
    val_size: float = Field(gt=0, lt=1)
    test_size: float = Field(ge=0, lt=1)
    folds: int = Field(ge=2, le=20)
    fold_index: int = Field(ge=0)
    seed: int = Field(ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fold_index >= self.folds:
            msg = (
                f"data.split.fold_index={self.fold_index}: expected a whole number from 0 to "
                f"{self.folds - 1}, since data.split.folds={self.folds}"
            )
            raise ValueError(msg)
        if self.strategy == "holdout" and self.val_size + self.test_size >= 1:
            msg = (
                f"data.split.val_size={self.val_size} data.split.test_size={self.test_size}: nothing is left "
                "to train on; expected a sum below 1, for example 0.1 and 0.15"
            )
            raise ValueError(msg)
        return self


class CacheConfig(Section):
    """Decoded photos, kept as uint8 in memory-mapped files under `paths.cache_dir`.

    Training photos are kept at `train_zoom` times the image size (never larger than the photo), so that
    random crops stay sharp; validation photos at exactly the size that evaluation uses.
    """

    enabled: bool
    train_zoom: float = Field(ge=1, le=4)


class DataConfig(Section):
    """The photos and how they are divided and drawn."""

    name: str
    synthetic: SyntheticConfig
    limits: LimitsConfig
    split: SplitConfig
    cache: CacheConfig
    sampling: Weighting


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


class CropConfig(Section):
    """Random resized crop: area fraction and aspect ratio (width to height)."""

    scale: tuple[Fraction, Fraction]
    ratio: tuple[float, float]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                msg = f"augment.crop.{name}=[{low},{high}]: expected two rising numbers above 0"
                raise ValueError(msg)
        return self


class ColorConfig(Section):
    """Colour jitter: largest relative change of each property (hue: fraction of the circle)."""

    p: Probability
    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, le=1)
    saturation: float = Field(ge=0, le=1)
    hue: float = Field(ge=0, le=0.5)


class RotateConfig(Section):
    """Rotation by up to `limit_degrees` either way; the border mirrors the photo."""

    p: Probability
    limit_degrees: float = Field(ge=0, le=180)


class BlurConfig(Section):
    """Gaussian blur; the largest standard deviation in pixels of the network's input, drawn from a tenth of it up."""

    p: Probability
    sigma_max_px: float = Field(gt=0, le=10)


class NoiseConfig(Section):
    """Gaussian noise; the largest standard deviation as a fraction of full scale, drawn from a tenth of it up."""

    p: Probability
    std_max: float = Field(gt=0, le=0.5)


class JpegConfig(Section):
    """JPEG artefacts; qualities from `quality_min` to 100."""

    p: Probability
    quality_min: int = Field(ge=5, le=100)


class EraseConfig(Section):
    """Rectangles replaced by ImageNet's mean colour.

    At most `holes_max` of them; width and height are drawn apart, from a tenth of `side_max` up, as
    fractions of the image.
    """

    p: Probability
    holes_max: int = Field(ge=1, le=32)
    side_max: float = Field(gt=0, le=0.5)


class MixConfig(Section):
    """MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019) on batches; alpha 0 switches one off.

    `p` is the fraction of batches that are mixed; where both are on, each batch takes one of them.
    """

    p: Probability
    mixup_alpha: float = Field(ge=0, le=10)
    cutmix_alpha: float = Field(ge=0, le=10)


class AugmentConfig(Section):
    """The network's input size and the random changes of training photos."""

    name: str
    image_size: int = Field(ge=32, le=1024)
    crop_ratio: float = Field(gt=0.5, le=1)
    crop: CropConfig
    hflip_p: Probability
    vflip_p: Probability
    transpose_p: Probability
    rotate: RotateConfig
    color: ColorConfig
    blur: BlurConfig
    noise: NoiseConfig
    jpeg: JpegConfig
    erase: EraseConfig
    mix: MixConfig


class LossConfig(Section):
    """Cross-entropy, smoothed and weighted by class frequency in the training part."""

    name: Literal["cross_entropy"]
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Weighting


class PlateauConfig(Section):
    """Multiply the rate by `factor` after `patience_epochs` without a better validation macro-F1."""

    factor: float = Field(gt=0, lt=1)
    patience_epochs: int = Field(ge=0)


class OptimConfig(Section):
    """AdamW and its schedule.

    The rate rises linearly for `warmup_epochs` (fractions allowed), then falls as a half cosine to
    `min_lr_ratio` of its peak, or by steps on a plateau. `ema_decay` averages the weights of all steps
    exponentially (null: off); the averaged weights are validated and saved.
    """

    name: Literal["adamw"]
    schedule: Literal["cosine", "plateau", "constant"]
    warmup_epochs: float = Field(ge=0)
    min_lr_ratio: float = Field(ge=0, le=1)
    plateau: PlateauConfig
    betas: tuple[Fraction, Fraction]
    head_lr_multiplier: float = Field(gt=0, le=1000)
    grad_clip_norm: float | None = Field(gt=0)
    ema_decay: float | None = Field(gt=0, lt=1)


class EarlyStoppingConfig(Section):
    """Stop after `patience_epochs` without a better validation macro-F1."""

    enabled: bool
    patience_epochs: int = Field(ge=1)


class TrainConfig(Section):
    """How long, how fast and on what the network learns."""

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=8192)
    lr: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, le=10)
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    devices: Literal["auto"] | Annotated[int, Field(ge=1)]
    num_nodes: int = Field(ge=1)
    strategy: str = Field(min_length=1)
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"]
    num_workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)]
    save_checkpoints: bool
    max_time: str | None = Field(
        pattern=r"^\d{2,}:\d{2}:\d{2}:\d{2}$", description="DD:HH:MM:SS, such as 00:01:30:00, or null"
    )
    seed: int = Field(ge=0, lt=2**32)
    resume: bool | AbsolutePath
    early_stopping: EarlyStoppingConfig

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class LoggerConfig(Section):
    """Experiment tracking with MLflow, beside the run's own CSV and JSON files."""

    enabled: bool
    tracking_uri: str | None
    experiment_name: str = Field(min_length=1)
    run_name: str | None


class InferConfig(Section):
    """Which photos, which model, which device."""

    image_path: AbsolutePath | tuple[AbsolutePath, ...] | None = Field(
        description="a path, a list of paths such as [a.jpg,b.jpg], or null"
    )
    checkpoint_path: AbsolutePath | None
    checkpoint_s3_uri: str | None = Field(pattern=r"^s3://[^/]+/.+", description="s3://bucket/key or null")
    device: Literal["auto", "cpu", "cuda"]
    top_k: int = Field(ge=1, le=5)
    max_image_bytes: int = Field(ge=1024)
    max_image_pixels: int = Field(ge=1024)


class EvaluateConfig(Section):
    """Which photos a checkpoint is measured on.

    `part` names a part of the split that the checkpoint was trained with; `csv_path` and `images_dir`
    name any table in the Kaggle layout instead.
    """

    part: Literal["train", "val", "test"]
    csv_path: AbsolutePath | None
    images_dir: AbsolutePath | None
    batch_size: int = Field(ge=1, le=8192)
    bootstrap_samples: int = Field(ge=100, le=100_000)
    output_dir: AbsolutePath | None


class CrossvalConfig(Section):
    """All folds of one recipe; `resume` goes on with the newest unfinished set of folds."""

    resume: bool


class DemoConfig(Section):
    """The first command of the README."""

    train_size: int = Field(ge=50)
    epochs: int = Field(ge=1)


class DownloadDataConfig(Section):
    """Where the photos come from."""

    public_url: str
    force: bool


class DownloadModelConfig(Section):
    """Where a trained model comes from and goes to."""

    s3_uri: str | None
    dst_dir: AbsolutePath
    overwrite: bool
    push: bool
    remote: str | None


class AppConfig(Section):
    """The whole configuration of any command."""

    paths: PathsConfig
    data: DataConfig
    model: ModelConfig
    augment: AugmentConfig
    loss: LossConfig
    optim: OptimConfig
    train: TrainConfig
    logger: LoggerConfig
    infer: InferConfig
    evaluate: EvaluateConfig
    crossval: CrossvalConfig
    demo: DemoConfig
    download_data: DownloadDataConfig
    download_model: DownloadModelConfig
