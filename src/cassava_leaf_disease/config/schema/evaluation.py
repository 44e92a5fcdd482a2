"""What a model is measured on, held to, and told about labels."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cassava_leaf_disease.config.schema.base import AbsolutePath, ClassMapSetting, Fraction, Section

FindIssuesBy = Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"]
RankLabelsBy = Literal["self_confidence", "normalized_margin", "confidence_weighted_entropy"]
OodScore = Literal["mahalanobis", "knn", "energy"]


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
    class_map: ClassMapSetting
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

    Extra photos of leaves with a trouble that is none of the classes (`data.extra.class_map` gives null) lie farther
    out than others. An answer as unsure as those about `other_trouble` of them has a limit of its own, which
    `max_refused` of them exceed.
    """

    score: OodScore
    dimensions: int = Field(ge=1, le=256)
    neighbors: int = Field(ge=1, le=100)
    reference_photos: int = Field(ge=10, le=20_000)
    max_refused: float = Field(gt=0, le=0.2)
    photo_quantile: float = Field(ge=0, le=0.1)
    photo_margin: float = Field(gt=0, lt=1)
    other_trouble: float = Field(gt=0, lt=1)
    target_accuracy: Fraction
    min_coverage: Fraction
    foreign_dir: AbsolutePath | None


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
