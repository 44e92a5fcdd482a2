"""Which model answers, about what, and how fast."""

from typing import Annotated, Literal

from pydantic import Field

from cassava_leaf_disease.config.schema.base import AbsolutePath, Section, Tta


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


class EnsembleConfig(Section):
    """Several checkpoints as one model, written to `output_path` as a small JSON file that names them.

    `combine` says what is averaged; `weights` whether all members count alike or by their validation macro-F1.
    """

    members: tuple[AbsolutePath, ...] = Field(description="a list of paths such as [a.ckpt,b.ckpt]")
    output_path: AbsolutePath | None
    combine: Literal["probabilities", "logits"]
    weights: Literal["equal", "val_f1_macro"]


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
