"""The photos: where they lie and come from, how they are divided, drawn and checked."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cassava_leaf_disease.config.schema.base import AbsolutePath, ClassMapSetting, Section, Weighting


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
    """Photos beside the labelled ones that are learned with the probabilities or labels of a table as their targets.

    `csv_path` is what `cassava pseudo-label` wrote about the photos in `images_dir`, or, with `label_column`, a table
    of photos (`image_column`) that people have labelled; `class_map` brings the class names of another collection to
    ours. What a class map gives null is a leaf with another trouble: no class is more probable than the others.
    `ratio` is how many of them an epoch draws for each labelled photo (null: each once).
    """

    csv_path: AbsolutePath | None
    images_dir: AbsolutePath | None
    image_column: str = Field(min_length=1)
    label_column: str | None = Field(min_length=1, description="the name of a column, or null")
    class_map: ClassMapSetting
    ratio: float | None = Field(gt=0, le=100, description="a number above 0, or null")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.csv_path is None) != (self.images_dir is None):
            msg = (
                "data.extra.csv_path and data.extra.images_dir belong together: the table that `cassava "
                "pseudo-label` wrote, and the folder that it scored; type both, or neither"
            )
            raise ValueError(msg)
        if self.label_column is not None and self.csv_path is None:
            msg = f"data.extra.label_column={self.label_column}: of no table; type data.extra.csv_path=labels.csv too"
            raise ValueError(msg)
        if self.class_map is not None and self.label_column is None:
            msg = "data.extra.class_map is set without their column; type data.extra.label_column=COLUMN too"
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


class CheckDataConfig(Section):
    """What `check-data` calls a near duplicate: perceptual hashes (64 bits) that differ in at most so many bits."""

    near_distance: int = Field(ge=0, le=16)
    output_dir: AbsolutePath | None


class PrepareConfig(Section):
    """Where `prepare` puts its table and its summary of the photos (null: `paths.outputs_dir`/prepare)."""

    output_dir: AbsolutePath | None
