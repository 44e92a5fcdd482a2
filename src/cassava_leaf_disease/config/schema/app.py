"""The whole of it."""

from typing import Self

from pydantic import model_validator

from cassava_leaf_disease.config.combinations import contradictions
from cassava_leaf_disease.config.schema.augment import AugmentConfig
from cassava_leaf_disease.config.schema.base import Section
from cassava_leaf_disease.config.schema.data import (
    CheckDataConfig,
    DataConfig,
    DownloadDataConfig,
    PathsConfig,
    PrepareConfig,
)
from cassava_leaf_disease.config.schema.doors import BotConfig, ServeConfig
from cassava_leaf_disease.config.schema.evaluation import AuditConfig, EvaluateConfig, GateConfig, PlantsConfig
from cassava_leaf_disease.config.schema.export import ExportConfig
from cassava_leaf_disease.config.schema.feedback import DriftConfig, FeedbackConfig
from cassava_leaf_disease.config.schema.inference import BenchmarkConfig, EnsembleConfig, InferConfig, ScoreConfig
from cassava_leaf_disease.config.schema.model import LossConfig, ModelConfig, OptimConfig
from cassava_leaf_disease.config.schema.tracking import DownloadModelConfig, LoggerConfig, PublishConfig, TrackConfig
from cassava_leaf_disease.config.schema.training import (
    CrossvalConfig,
    DemoConfig,
    DistillConfig,
    PseudoLabelConfig,
    TrainConfig,
    TuneConfig,
)


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
