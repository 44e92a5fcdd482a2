"""What every configuration key means: types, accepted values and bounds, checked once at the door.

The YAML files beside this package hold the values; these frozen models hold the meaning, a file for each subject.
"""

from cassava_leaf_disease.config.schema.app import AppConfig
from cassava_leaf_disease.config.schema.augment import AugmentConfig, CropConfig, EraseConfig, MixConfig
from cassava_leaf_disease.config.schema.base import AbsolutePath, Section, Tta, Weighting
from cassava_leaf_disease.config.schema.data import DataConfig, LimitsConfig, SplitConfig
from cassava_leaf_disease.config.schema.evaluation import FindIssuesBy, GateConfig, OodScore, PlantsConfig, RankLabelsBy
from cassava_leaf_disease.config.schema.export import ExportConfig, Precision, TensorRtConfig, TritonConfig
from cassava_leaf_disease.config.schema.inference import (
    BenchmarkConfig,
    EnsembleConfig,
    InferConfig,
    ScoreConfig,
    ScoreRayConfig,
)
from cassava_leaf_disease.config.schema.model import LossConfig, ModelConfig, OptimConfig
from cassava_leaf_disease.config.schema.tracking import DownloadModelConfig
from cassava_leaf_disease.config.schema.training import DistillConfig, PseudoLabelConfig, TrainConfig

__all__ = [
    "AbsolutePath",
    "AppConfig",
    "AugmentConfig",
    "BenchmarkConfig",
    "CropConfig",
    "DataConfig",
    "DistillConfig",
    "DownloadModelConfig",
    "EnsembleConfig",
    "EraseConfig",
    "ExportConfig",
    "FindIssuesBy",
    "GateConfig",
    "InferConfig",
    "LimitsConfig",
    "LossConfig",
    "MixConfig",
    "ModelConfig",
    "OodScore",
    "OptimConfig",
    "PlantsConfig",
    "Precision",
    "PseudoLabelConfig",
    "RankLabelsBy",
    "ScoreConfig",
    "ScoreRayConfig",
    "Section",
    "SplitConfig",
    "TensorRtConfig",
    "TrainConfig",
    "TritonConfig",
    "Tta",
    "Weighting",
]
