"""What every configuration key means: types, accepted values and bounds, checked once at the door.

The YAML files beside this module hold the values; these frozen models hold the meaning.
"""

from datetime import date
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from cassava_leaf_disease.config.combinations import contradictions
from cassava_leaf_disease.paths import resolve


def _resolved(value: object) -> object:
    if value == "":
        raise ValueError("an empty path")  # most often a shell variable that is not set
    return resolve(value) if isinstance(value, str | Path) else value


AbsolutePath = Annotated[Path, BeforeValidator(_resolved)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Weighting = Literal["none", "sqrt_inverse", "inverse"]
FindIssuesBy = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
RankLabelsBy = Literal["self_confidence", "normalized_margin", "confidence_weighted_entropy"]
OodScore = Literal["mahalanobis", "knn", "energy"]
Precision = Literal["fp32", "fp16", "fp16_weights", "int8"]
Tta = Literal["none", "flips", "rotations", "dihedral", "crops", "crops_hflip"]


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
    """Which photos train, select and test. Sizes are fractions of the whole table.

    `manifest` names a split file (`image_id,label,part`) that is used as it stands instead; `cassava split`
    writes it there.
    """

    strategy: Literal["holdout", "kfold"]
    val_size: float = Field(gt=0, lt=1)
    test_size: float = Field(ge=0, lt=1)
    folds: int = Field(ge=2, le=20)
    fold_index: int = Field(ge=0)
    seed: int = Field(ge=0, lt=2**32)
    manifest: AbsolutePath | None

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


class ExtraConfig(Section):
    """Photos beside the labelled ones that are learned with the probabilities of a table as their targets.

    `csv_path` is what `cassava pseudo-label` wrote about the photos in `images_dir`. `ratio` is how many of
    them an epoch draws for each labelled photo (null: each once).
    """

    csv_path: AbsolutePath | None
    images_dir: AbsolutePath | None
    ratio: float | None = Field(gt=0, le=100, description="a number above 0, or null")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.csv_path is None) != (self.images_dir is None):
            msg = (
                "data.extra.csv_path and data.extra.images_dir belong together: the table that `cassava "
                "pseudo-label` wrote, and the folder that it scored; type both, or neither"
            )
            raise ValueError(msg)
        return self


class DataConfig(Section):
    """The photos and how they are divided and drawn.

    `pipeline` says where training batches are made: on the device that trains, from photos that are kept
    there, or by the CPU's loader processes; auto: on the device where that is a CUDA GPU. `exclude_csv` and
    `soft_labels_csv` are what `cassava audit` wrote: photos to leave out of the training part, and probabilities to
    learn there in place of labels; validation and test keep theirs.
    """

    name: str
    synthetic: SyntheticConfig
    limits: LimitsConfig
    split: SplitConfig
    cache: CacheConfig
    pipeline: Literal["auto", "device", "loader"]
    sampling: Weighting
    exclude_csv: AbsolutePath | None
    soft_labels_csv: AbsolutePath | None
    extra: ExtraConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        cleaning = {"data.exclude_csv": self.exclude_csv, "data.soft_labels_csv": self.soft_labels_csv}
        for key, path in cleaning.items():
            if self.synthetic.enabled and path is not None:
                msg = (
                    f"{key}={path}: an audit is about photos, and there are none with data.synthetic.enabled=true; "
                    f"type data.synthetic.enabled=false or {key}=null"
                )
                raise ValueError(msg)
        if self.synthetic.enabled and self.extra.csv_path is not None:
            msg = (
                f"data.extra.csv_path={self.extra.csv_path}: photos beside drawn leaves teach nothing; "
                "type data.synthetic.enabled=false or data.extra.csv_path=null data.extra.images_dir=null"
            )
            raise ValueError(msg)
        if self.synthetic.enabled and self.split.manifest is not None:
            msg = (
                f"data.split.manifest={self.split.manifest}: a split file names photos, and there are none with "
                "data.synthetic.enabled=true; type data.synthetic.enabled=false or data.split.manifest=null"
            )
            raise ValueError(msg)
        return self


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
    """The network's input size and the random changes of training photos.

    `eval_size` is the input size of validation, test and inference (null: `image_size`). Random crops enlarge what
    they show, so a somewhat larger photo shows a trained network leaves of the size it knows (Touvron et al., 2019,
    "Fixing the train-test resolution discrepancy").
    """

    name: str
    image_size: int = Field(ge=32, le=1024)
    eval_size: int | None = Field(default=None, ge=32, le=1024, description="a whole number from 32 to 1024, or null")
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


class EarlyStoppingConfig(Section):
    """Stop after `patience_epochs` without a better validation macro-F1."""

    enabled: bool
    patience_epochs: int = Field(ge=1)


class TrainConfig(Section):
    """How long, how fast and on what the network learns.

    `batch_size` is that of all devices together, each takes its share: on one GPU or four the same steps are made.
    `sync_batchnorm` lets batch norms see all GPUs' photos (auto: where a GPU has fewer than 16 in a step). `run_dir`
    names the run's folder (null: the next `version_N` under `paths.outputs_dir`/runs). `keep` is the epoch whose
    weights `best.ckpt` holds: the one of the best validation macro-F1, or the last one, for which nothing is chosen
    on the validation photos. With `calibrate` that checkpoint gets a temperature, and with `fit_gate` a gate, where
    100 photos or more validate; drawn leaves give no gate, since every photo is foreign to them.
    With `cudnn_benchmark` cuDNN times its kernels for each shape first: light networks lose by it.
    """

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=8192)
    lr: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, le=10)
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    devices: Literal["auto"] | Annotated[int, Field(ge=1)]
    num_nodes: int = Field(ge=1)
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    sync_batchnorm: Literal["auto"] | bool
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"]
    compile: bool
    cudnn_benchmark: bool
    num_workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)]
    save_checkpoints: bool
    keep: Literal["best", "last"]
    calibrate: bool
    fit_gate: bool
    max_time: str | None = Field(
        pattern=r"^\d{2,}:\d{2}:\d{2}:\d{2}$", description="DD:HH:MM:SS, such as 00:01:30:00, or null"
    )
    seed: int = Field(ge=0, lt=2**32)
    resume: bool | AbsolutePath
    run_dir: AbsolutePath | None
    early_stopping: EarlyStoppingConfig

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class DistillConfig(Section):
    """A teacher's probabilities as targets: `alpha` of them, the rest the label's (Hinton et al., 2015, section 2).

    `teacher` is a checkpoint, an ensemble or a cross-validation's folder; `temperature` softens its answers (1: as
    they are), the student's stay as they are. With `out_of_fold` each labelled photo gets the answer of the fold
    that did not train on it; with `consistent` the teacher answers anew about every batch as the student sees it
    (Beyer et al., 2022).
    """

    teacher: AbsolutePath | None
    alpha: Fraction
    temperature: float = Field(gt=0, le=100)
    tta: Tta
    out_of_fold: bool
    consistent: bool

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.consistent and (self.teacher is None or self.out_of_fold or self.tta != "none"):
            msg = (
                f"distill.consistent=true distill.teacher={self.teacher} distill.out_of_fold={self.out_of_fold} "
                f"distill.tta={self.tta}: the teacher answers about each batch while the student learns, so it must "
                "be there, whole, and looks once; type distill.teacher=FILE distill.out_of_fold=false "
                "distill.tta=none, or distill.consistent=false"
            )
            raise ValueError(msg)
        if self.out_of_fold and self.teacher is None:
            msg = (
                "distill.out_of_fold=true: there is no teacher; type distill.teacher=FOLDER of a cross-validation, "
                "or distill.out_of_fold=false"
            )
            raise ValueError(msg)
        return self


class PseudoLabelConfig(Section):
    """Which unlabelled photos are kept, with a model's probabilities as their targets.

    Those in `images_dir`, at any depth, whose most probable class reaches `min_confidence`; with `members_agree`
    only those about which all members of an ensemble name one class. Of each class the most confident ones, at
    most `max_per_class` and at most `max_ratio` times its labelled photos (null: no such bound).
    """

    images_dir: AbsolutePath | None
    min_confidence: Probability
    members_agree: bool
    max_per_class: int | None = Field(ge=1)
    max_ratio: float | None = Field(gt=0, description="a number above 0, or null")
    batch_size: int = Field(ge=1, le=8192)
    output_dir: AbsolutePath | None


class LoggerConfig(Section):
    """Experiment tracking with MLflow, beside the run's own CSV and JSON files.

    With `required` a server that is down is an error before training starts; without it the run goes on
    untracked, with a warning. `register_as` names the model in MLflow's registry (null: not registered).
    """

    enabled: bool
    tracking_uri: str | None
    experiment_name: str = Field(min_length=1)
    run_name: str | None
    required: bool
    register_as: str | None


class TrackConfig(Section):
    """Which finished run `cassava track` sends to MLflow; null: the newest."""

    run_dir: AbsolutePath | None


class PublishConfig(Section):
    """Finished runs to S3, under `<s3_prefix>/<git commit>/<run id>/`.

    `enabled` makes training publish when it ends; `run_dir` names the run for `cassava publish`
    (null: the newest finished one, and whatever a training could not publish). `timeout_s` bounds how long
    the end of a training waits for its uploads.
    """

    enabled: bool
    s3_prefix: str | None = Field(pattern=r"^s3://[^/]+(/.*)?$", description="s3://bucket/prefix or null")
    run_dir: AbsolutePath | None
    timeout_s: float = Field(gt=0, le=86_400)


class InferConfig(Section):
    """Which photos, which model, which device.

    Several checkpoints, an ensemble file and a folder that holds one answer as one model. `tta` names the
    views of each photo whose answers are averaged (see `inference/views.py`). With `plant` all photos are leaves of
    one plant and get one answer. With `explain` the heatmap of each photo is written to `explain_dir`. With
    `engine=triton` the model is the one that a Triton server at `triton_url` serves; each answer of it has
    `triton_timeout_s`.
    """

    engine: Literal["auto", "triton"]
    triton_url: str
    triton_timeout_s: float = Field(gt=0, le=3600)
    image_path: AbsolutePath | tuple[AbsolutePath, ...] | None = Field(
        description="a path, a list of paths such as [a.jpg,b.jpg], or null"
    )
    checkpoint_path: AbsolutePath | tuple[AbsolutePath, ...] | None = Field(
        description="a path, a list of paths such as [a.ckpt,b.ckpt], or null"
    )
    checkpoint_s3_uri: str | None = Field(pattern=r"^s3://[^/]+/.+", description="s3://bucket/key or null")
    device: Literal["auto", "cpu", "cuda"]
    tta: Tta
    top_k: int = Field(ge=1, le=5)
    plant: bool
    explain: bool
    explain_dir: AbsolutePath | None
    max_image_bytes: int = Field(ge=1024)
    max_image_pixels: int = Field(ge=1024)


class EvaluateConfig(Section):
    """Which photos a checkpoint is measured on, and what is told about it.

    `part` names a part of the split that the checkpoint was trained with; `csv_path` and `images_dir`
    name any table instead, `image_column` and `label_column` its columns. `class_map` brings the class names of
    another collection to ours (a class id, a name, or null where there is no counterpart). `report` writes a page
    for people, with at most `report_photos` mistakes of a kind, by the columns of `slices_csv` too, and compared
    with the models or `predictions.csv` files in `compare`.
    """

    part: Literal["train", "val", "test"]
    csv_path: AbsolutePath | None
    images_dir: AbsolutePath | None
    image_column: str = Field(min_length=1)
    label_column: str = Field(min_length=1)
    class_map: dict[str, int | str | None] | AbsolutePath | None = Field(
        description="a class map such as {mosaic:3,brown spot:null}, the path of a YAML or CSV file, or null"
    )
    batch_size: int = Field(ge=1, le=8192)
    bootstrap_samples: int = Field(ge=100, le=100_000)
    output_dir: AbsolutePath | None
    report: bool
    report_photos: int = Field(ge=0, le=60)
    slices_csv: AbsolutePath | None
    compare: tuple[AbsolutePath, ...] = Field(description="a list of paths such as [b.ckpt,predictions.csv]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.class_map is not None and self.csv_path is None:
            msg = "evaluate.class_map is set without evaluate.csv_path; type evaluate.csv_path=labels.csv too"
            raise ValueError(msg)
        for key in ("slices_csv", "compare"):
            if getattr(self, key) and not self.report:
                msg = f"evaluate.{key} is for the report; type evaluate.report=true too"
                raise ValueError(msg)
        return self


class PlantsConfig(Section):
    """Groups of 1 to `max_photos` photos of one class, drawn from those of `evaluate`, answered as plants.

    `answers_csv` is a table of answers to draw from instead, such as a cross-validation's `oof.csv`.

    `groups` are drawn for each number of photos, and again for each of `bootstrap_samples` draws of the photos.
    """

    answers_csv: AbsolutePath | None
    max_photos: int = Field(ge=1, le=50)
    groups: int = Field(ge=100, le=1_000_000)
    bootstrap_samples: int = Field(ge=20, le=10_000)
    seed: int = Field(ge=0)
    output_dir: AbsolutePath | None


class GateConfig(Section):
    """What `fit-gate` learns from training and validation photos, so that a model can tell when not to diagnose.

    `score` is the distance from the leaves of the training (see `inference/ood.py`): among `dimensions` main
    components of the features of at most `reference_photos`, to the n-th of the `neighbors`. The limit is the one
    that `max_refused` of the validation photos exceed. A photo is poor beyond the `photo_quantile` of the training
    photos and `photo_margin` of what is left from there to nothing. A diagnosis needs the confidence at which
    validation answers are `target_accuracy` right, or, where that is too much to ask, the one that `min_coverage`
    of them have.
    """

    score: OodScore
    dimensions: int = Field(ge=1, le=256)
    neighbors: int = Field(ge=1, le=100)
    reference_photos: int = Field(ge=10, le=20_000)
    max_refused: float = Field(gt=0, le=0.2)
    photo_quantile: float = Field(ge=0, le=0.1)
    photo_margin: float = Field(gt=0, lt=1)
    target_accuracy: Fraction
    min_coverage: Fraction
    foreign_dir: AbsolutePath | None


class EnsembleConfig(Section):
    """Several checkpoints as one model, written to `output_path` as a small JSON file that names them.

    `combine` says what is averaged; `weights` whether all members count alike or by their validation macro-F1.
    """

    members: tuple[AbsolutePath, ...] = Field(description="a list of paths such as [a.ckpt,b.ckpt]")
    output_path: AbsolutePath | None
    combine: Literal["probabilities", "logits"]
    weights: Literal["equal", "val_f1_macro"]


class CrossvalConfig(Section):
    """All folds of one recipe; `resume` goes on with the newest unfinished set of folds.

    `parallel` folds train at a time, each in a process of its own on one device (auto: one for each GPU).
    """

    resume: bool
    parallel: Literal["auto"] | Annotated[int, Field(ge=1, le=64)]


class TuneConfig(Section):
    """A search with Optuna; `space` says what is searched, in Hydra's grammar of sweeps (see `search_space`).

    `storage` is a database's address (null: SQLite under `paths.outputs_dir`/tune); several processes may share
    it. With `prune` a trial ends early that is behind the median of the others.
    """

    trials: int = Field(ge=1, le=100_000)
    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    storage: str | None
    seed: int = Field(ge=0)
    prune: bool
    space: tuple[str, ...]


class DemoConfig(Section):
    """How much the demo draws, and how long it learns."""

    train_size: int = Field(ge=50)
    epochs: int = Field(ge=1)


class DownloadDataConfig(Section):
    """Where the photos come from: fetched, unpacked, checked, then moved to `paths.data_dir`.

    `public_url` is a public Yandex Disk link, an http(s) address or an s3:// URI of an archive,
    `kaggle://competitions/NAME`, `kaggle://datasets/OWNER/NAME`, or the path of an archive here.
    `sha256` is the archive's expected checksum; `max_unpacked_bytes` refuses archive bombs.
    """

    public_url: str = Field(min_length=1)
    sha256: str | None = Field(pattern=r"^[0-9a-fA-F]{64}$", description="64 hexadecimal digits or null")
    force: bool
    max_unpacked_bytes: int = Field(ge=1024)


class DownloadModelConfig(Section):
    """Where a trained model comes from and goes to.

    `track` puts the file under DVC's care (auto: where there is a DVC repository); `push` then sends it to
    the DVC remote `remote` (null: DVC's default remote).
    """

    s3_uri: str | None = Field(pattern=r"^s3://[^/]+/.+", description="s3://bucket/key or null")
    dst_dir: AbsolutePath
    overwrite: bool
    track: Literal["auto"] | bool
    push: bool
    remote: str | None


class CheckDataConfig(Section):
    """What `check-data` calls a near duplicate: perceptual hashes (64 bits) that differ in at most so many bits."""

    near_distance: int = Field(ge=0, le=16)
    output_dir: AbsolutePath | None


class AuditConfig(Section):
    """Labels that a model which has not learned them contradicts, for an expert to look at.

    `oof_csv` is the out-of-fold table of a cross-validation (null: of the newest finished one). `find_by` and
    `rank_by` are cleanlab's names: how suspicious labels are told from others, and how they are ordered. At most
    `max_drop` of a class's labels go into `exclude.csv`; `soft_weight` is how much of a suspicious label's target
    in `soft_labels.csv` is the out-of-fold answer. Near duplicates are those of `check_data.near_distance`.
    """

    oof_csv: AbsolutePath | None
    find_by: FindIssuesBy
    rank_by: RankLabelsBy
    near_duplicates: bool
    max_shown: int = Field(ge=1, le=2000)
    max_drop: Fraction
    soft_weight: Fraction
    output_dir: AbsolutePath | None


class FeedbackConfig(Section):
    """What people said of the answers, out of the store that the service and the bot keep.

    `url` is the store's database, `photos` where its photos lie (null: as the environment says, see
    `serving/settings.py`). `reviewed_csv` holds the labels of an expert, which come before what people say.
    """

    url: str | None = Field(min_length=1)
    photos: str | None = Field(min_length=1)
    reviewed_csv: AbsolutePath | None
    only_reviewed: bool
    output_dir: AbsolutePath | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.only_reviewed and self.reviewed_csv is None:
            raise ValueError(
                "feedback.only_reviewed=true: expected feedback.reviewed_csv=FILE with the expert's labels"
            )
        return self


class DriftConfig(Section):
    """Counts of answers in the `days` days up to `until`, held against the model's reference.

    The levels are population stability indices: up to `watch` nothing has changed, from `alarm` on much has.
    """

    statistics_url: str | None = Field(min_length=1)
    reference: AbsolutePath | None
    part: Literal["train", "val", "test"]
    days: int = Field(ge=1, le=366)
    until: date | None = Field(description="a day such as 2026-11-30, or null")
    source: Literal["all", "service", "bot"]
    min_photos: int = Field(ge=20, le=1_000_000)
    watch: float = Field(gt=0, le=10)
    alarm: float = Field(gt=0, le=10)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.watch > self.alarm:
            raise ValueError(
                f"drift.watch={self.watch} drift.alarm={self.alarm}: expected drift.alarm to be the larger"
            )
        return self


class PrepareConfig(Section):
    """Where `prepare` puts its table and its summary of the photos (null: `paths.outputs_dir`/prepare)."""

    output_dir: AbsolutePath | None


class Int8Config(Section):
    """Weights and activations of convolutions in int8, calibrated on photos of the training part.

    Convolutions stay in float32, the noisiest first, until logits of training photos are off by at most `max_noise`
    (mean square, as a fraction of their own), `min_agreement` of the answers about validation photos are the
    checkpoint's, and at most `max_accuracy_loss` of them turn from right to wrong on balance.
    """

    calibration_photos: int = Field(ge=4, le=10_000)
    max_noise: float = Field(gt=0, le=1)
    min_agreement: Fraction
    max_accuracy_loss: Fraction


class TritonConfig(Section):
    """A model repository for NVIDIA Triton, in a folder of its own (null: `paths.outputs_dir`/triton).

    `backend` runs the networks (auto: Python with ONNX Runtime on the CPU, Triton's ONNX Runtime on GPUs);
    `preprocess` decodes and resizes, in `preprocess_instances` processes (auto: one for each processor here). At most
    `max_queue` photos wait for it; more are refused at once.
    """

    target: Literal["cpu", "gpu", "multi_gpu"]
    backend: Literal["auto", "python", "onnxruntime", "tensorrt"]
    preprocess: Literal["python", "dali"]
    preprocess_instances: Literal["auto"] | Annotated[int, Field(ge=1, le=256)]
    max_batch_size: int = Field(ge=1, le=1024)
    max_queue: int = Field(ge=1, le=1_000_000)
    output_dir: AbsolutePath | None


class TensorRtConfig(Section):
    """A TensorRT engine from an ONNX file, beside it or in `output_dir`.

    It runs batches of `min_batch` to `max_batch` photos, fastest with `opt_batch`; `workspace_bytes` is the GPU memory
    that building may use. `tolerance` is the largest difference of a probability from the ONNX file's.
    """

    min_batch: int = Field(ge=1, le=1024)
    opt_batch: int = Field(ge=1, le=1024)
    max_batch: int = Field(ge=1, le=1024)
    workspace_bytes: int = Field(ge=1_000_000)
    tolerance: float = Field(gt=0, le=0.1)
    output_dir: AbsolutePath | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            msg = (
                f"export.tensorrt.min_batch={self.min_batch} opt_batch={self.opt_batch} max_batch={self.max_batch}: "
                "expected rising numbers, for example 1, 8 and 32"
            )
            raise ValueError(msg)
        return self


class ExportConfig(Section):
    """A model file without PyTorch, beside the checkpoint or at `output_path`.

    `precision` is that of weights and arithmetic, or of the weights alone. `tolerance` is the largest difference of a
    probability (null: 0.0001 in fp32, 0.005 in fp16, none in int8, which has limits of its own).
    """

    precision: Precision
    output_path: AbsolutePath | None
    tolerance: float | None = Field(gt=0, le=1, description="a number above 0 and ≤ 1, or null")
    int8: Int8Config
    tensorrt: TensorRtConfig
    triton: TritonConfig


class ScoreRayConfig(Section):
    """How `score.engine=ray` works: `address` of a running cluster (null: one is started on this machine).

    Each of the `actors` (auto: as many as there is room for) is a process that takes `score.workers` processors and
    `gpus` GPUs, and works on a part at a time.
    """

    address: str | None = Field(min_length=1)
    actors: Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)]
    gpus: float = Field(ge=0, le=16)


class ScoreConfig(Section):
    """Rows about very many photos, in parts of `part_rows`, each of which stands whole or not at all.

    `input` is a folder, a table of paths (its column `path_column`; relative ones start at `root`, null: at the
    table's folder), or `s3://bucket/prefix`. `output` is a folder, or a file that ends in .parquet or .csv (null: the
    next version_N under `paths.outputs_dir`/score). `workers` photos are decoded and asked about at a time, while
    `readers` threads more wait for files; the network sees `batch_size` of them at once.
    """

    input: str | None = Field(min_length=1)
    path_column: str = Field(min_length=1)
    root: AbsolutePath | None
    output: AbsolutePath | None
    format: Literal["auto", "parquet", "csv"]
    engine: Literal["local", "ray"]
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)]
    readers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)]
    batch_size: int = Field(ge=1, le=1024)
    part_rows: int = Field(ge=1, le=1_000_000)
    resume: bool
    ray: ScoreRayConfig


class BenchmarkConfig(Section):
    """How fast the model that `infer` names answers on this machine.

    At most `photos` of `images_dir` are measured (null: those of `paths.data_dir`, and where it has none drawn leaves
    whose shorter side is `drawn_side_px`), `rounds` times each; no call begins after `seconds` of measuring.
    `warmup` calls of each kind do not count. The models in `compare` are measured in turn with the first one. With
    `clock=cpu` the processor time of this process counts, of all its threads together, which repeats on a busy machine.
    """

    images_dir: AbsolutePath | None
    photos: int = Field(ge=1, le=1000)
    drawn_side_px: int = Field(ge=32, le=4096)
    batch_sizes: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        description="a list of whole numbers from 1 to 1024 such as [1,8]"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)]
    compare: tuple[AbsolutePath, ...] = Field(description="a list of paths such as [b.ckpt,c.onnx]")
    clock: Literal["wall", "cpu"]
    warmup: int = Field(ge=0, le=100)
    rounds: int = Field(ge=1, le=10_000)
    seconds: float = Field(gt=0, le=3600)


class ServeConfig(Section):
    """What `cassava serve` sets beside the environment variables `CASSAVA_*`; null: as they say.

    Which model answers is said by `infer`; the service's other settings are environment variables only (see
    `serving/settings.py`).
    """

    name: str
    host: str | None
    port: int | None = Field(ge=0, le=65_535, description="a whole number from 0 to 65535, or null")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] | None
    queue_size: int | None = Field(ge=0, le=100_000, description="a whole number from 0 to 100000, or null")
    deadline_s: float | None = Field(gt=0, le=600, description="a number above 0, to 600, or null")
    reload_s: float | None = Field(ge=0, le=3600, description="a number from 0 to 3600, or null")
    offline_model_path: AbsolutePath | None
    log_format: Literal["json", "text"] | None


class BotConfig(Section):
    """What `cassava bot` sets beside the environment variables `CASSAVA_BOT_*`; null: as they say.

    Which model answers is said by `infer`; the token and the other settings are environment variables only (see
    `bot/settings.py`).
    """

    name: str
    api_url: str | None
    state_path: AbsolutePath | None
    webhook_url: str | None
    host: str | None
    port: int | None = Field(ge=0, le=65_535, description="a whole number from 0 to 65535, or null")
    album_quiet_s: float | None = Field(gt=0, le=30, description="a number above 0, to 30, or null")
    photos_per_hour: int | None = Field(ge=1, le=100_000, description="a whole number from 1 to 100000, or null")
    max_waiting: int | None = Field(ge=1, le=1000, description="a whole number from 1 to 1000, or null")
    log_format: Literal["json", "text"] | None


class AppConfig(Section):
    """The whole configuration of any command."""

    paths: PathsConfig
    data: DataConfig
    model: ModelConfig
    augment: AugmentConfig
    loss: LossConfig
    optim: OptimConfig
    train: TrainConfig
    distill: DistillConfig
    pseudo_label: PseudoLabelConfig
    logger: LoggerConfig
    infer: InferConfig
    evaluate: EvaluateConfig
    plants: PlantsConfig
    gate: GateConfig
    crossval: CrossvalConfig
    tune: TuneConfig
    ensemble: EnsembleConfig
    demo: DemoConfig
    download_data: DownloadDataConfig
    download_model: DownloadModelConfig
    check_data: CheckDataConfig
    audit: AuditConfig
    feedback: FeedbackConfig
    drift: DriftConfig
    prepare: PrepareConfig
    track: TrackConfig
    publish: PublishConfig
    export: ExportConfig
    score: ScoreConfig
    benchmark: BenchmarkConfig
    serve: ServeConfig
    bot: BotConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        mistakes = "\n".join(contradictions(self))
        if mistakes:
            raise ValueError(mistakes)
        return self
