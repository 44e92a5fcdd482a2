"""Where finished runs go, and where models come from."""

from typing import Literal

from pydantic import Field

from cassava_leaf_disease.config.schema.base import AbsolutePath, Section


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
