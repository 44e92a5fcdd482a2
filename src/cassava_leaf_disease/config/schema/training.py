"""Trainings: one, and those that are made of several or learn from another model."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cassava_leaf_disease.config.schema.base import AbsolutePath, Fraction, Probability, Section, Tta


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

    The rest is `cassava distill`'s: how many `teachers` it trains, each for `teacher_epochs` (null: as the student)
    with `teacher_label_smoothing` (null: the loss's), and how many `students`.
    """

    teacher: AbsolutePath | None
    alpha: Fraction
    temperature: float = Field(gt=0, le=100)
    tta: Tta
    out_of_fold: bool
    consistent: bool
    teachers: int = Field(ge=1, le=100)
    students: int = Field(ge=1, le=100)
    teacher_epochs: int | None = Field(ge=1)
    teacher_label_smoothing: float | None = Field(ge=0, lt=1, description="a number from 0 to below 1, or null")
    resume: bool

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


class CrossvalConfig(Section):
    """All folds of one recipe; `resume` goes on with the newest unfinished set of folds.

    `parallel` folds train at a time, each in a process of its own on one device (auto: one for each GPU). With
    `distill` a fold's networks are students of the fold's own teachers (`distill.*`).
    """

    resume: bool
    parallel: Literal["auto"] | Annotated[int, Field(ge=1, le=64)]
    distill: bool


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
