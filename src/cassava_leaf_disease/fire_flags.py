"""The named flags of each command at the Fire door, and the keys that they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Flag:
    """A named flag and the override that it stands for; a switch is `--name` or `--no-name`."""

    name: str
    key: str
    summary: str
    switch: bool = False

    @property
    def spelled(self) -> str:
        """How help and errors write it."""
        return f"--{self.name}/--no-{self.name}" if self.switch else f"--{self.name}"


_TRAINING: Final = (
    Flag("epochs", "train.epochs", "passes over the training photos"),
    Flag("batch_size", "train.batch_size", "photos in one step"),
    Flag("lr", "train.lr", "peak learning rate"),
    Flag("precision", "train.precision", "auto, 32, 16-mixed or bf16-mixed"),
    Flag("num_workers", "train.num_workers", "auto, or a number of loader processes"),
    Flag("synthetic", "data.synthetic.enabled", "drawn leaves instead of photos", switch=True),
    Flag("mlflow", "logger.enabled", "also track the run in MLflow", switch=True),
)
_CHECKPOINT: Final = (
    Flag("ckpt", "infer.checkpoint_path", "a checkpoint, an ensemble, or '[a.ckpt,b.ckpt]'"),
    Flag("ckpt_s3", "infer.checkpoint_s3_uri", "s3://bucket/key of a checkpoint"),
)
_TTA: Final = Flag("tta", "infer.tta", "views of each photo, such as flips")
FLAGS: Final[Mapping[str, tuple[Flag, ...]]] = {
    "train": _TRAINING,
    "crossval": _TRAINING,
    "distill": (
        *_TRAINING,
        Flag("teachers", "distill.teachers", "how many are trained first"),
        Flag("students", "distill.students", "how many learn from them"),
    ),
    "tune": (
        *_TRAINING,
        Flag("trials", "tune.trials", "how many settings to try, those of earlier starts counted"),
        Flag("study", "tune.study", "the name of the search"),
        Flag("storage", "tune.storage", "the database's address"),
    ),
    "evaluate": (
        *_CHECKPOINT,
        _TTA,
        Flag("part", "evaluate.part", "train, val or test"),
        Flag("csv", "evaluate.csv_path", "a table like train.csv"),
        Flag("images", "evaluate.images_dir", "the folder of its photos"),
        Flag("report", "evaluate.report", "also a page for people", switch=True),
        Flag("compare", "evaluate.compare", "models or predictions.csv: '[b.ckpt]'"),
        Flag("slices", "evaluate.slices_csv", "a table of the photos to group by"),
    ),
    "plants": (
        *_CHECKPOINT,
        _TTA,
        Flag("part", "evaluate.part", "train, val or test"),
        Flag("csv", "evaluate.csv_path", "a table like train.csv"),
        Flag("images", "evaluate.images_dir", "the folder of its photos"),
    ),
    "calibrate": _CHECKPOINT,
    "fit_gate": (
        *_CHECKPOINT,
        Flag("score", "gate.score", "mahalanobis, knn or energy"),
        Flag("max_refused", "gate.max_refused", "fraction of real leaves refused as not_cassava"),
        Flag("foreign", "gate.foreign_dir", "a folder of photos without cassava, to measure on"),
    ),
    "ensemble": (
        Flag("members", "ensemble.members", "the checkpoints: '[a.ckpt,b.ckpt]'"),
        Flag("output", "ensemble.output_path", "the file to write"),
        Flag("combine", "ensemble.combine", "probabilities or logits"),
        Flag("weights", "ensemble.weights", "equal or val_f1_macro"),
    ),
    "pseudo_label": (
        Flag("images", "pseudo_label.images_dir", "the folder of unlabelled photos"),
        *_CHECKPOINT,
        _TTA,
        Flag("min_confidence", "pseudo_label.min_confidence", "keep answers from this probability up"),
        Flag("max_per_class", "pseudo_label.max_per_class", "at most so many photos of a class"),
        Flag("members_agree", "pseudo_label.members_agree", "all members must name one class", switch=True),
    ),
    "infer": (
        Flag("image", "infer.image_path", "a photo, or several: '[a.jpg,b.jpg]'"),
        *_CHECKPOINT,
        _TTA,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("top_k", "infer.top_k", "how many classes to rank"),
        Flag("plant", "infer.plant", "the photos show one plant: one answer", switch=True),
        Flag("explain", "infer.explain", "write a heatmap of each photo", switch=True),
    ),
    "demo": (),
    "download_data": (
        Flag("url", "download_data.public_url", "a link, an address or an archive"),
        Flag("force", "download_data.force", "replace what is there", switch=True),
    ),
    "check_data": (Flag("data_dir", "paths.data_dir", "the folder of the data set"),),
    "audit": (
        Flag("oof", "audit.oof_csv", "a cross-validation's out-of-fold table"),
        Flag("data_dir", "paths.data_dir", "the folder of the data set"),
        Flag("max_shown", "audit.max_shown", "photos in the gallery"),
        Flag("copies", "audit.near_duplicates", "look for pictures under two labels", switch=True),
    ),
    "feedback_export": (
        Flag("store", "feedback.url", "the store's database"),
        Flag("photos", "feedback.photos", "the folder of its photos, or s3://bucket/prefix"),
        Flag("reviewed", "feedback.reviewed_csv", "a table with an expert's labels"),
        Flag("output", "feedback.output_dir", "the folder to write"),
    ),
    "drift": (
        *_CHECKPOINT,
        Flag("statistics", "drift.statistics_url", "the database of counts"),
        Flag("days", "drift.days", "days of the period"),
        Flag("reference", "drift.reference", "what drift-reference wrote"),
    ),
    "drift_reference": (
        *_CHECKPOINT,
        Flag("part", "drift.part", "train, val or test"),
        Flag("output", "drift.reference", "the file to write"),
    ),
    "prepare": (
        Flag("data_dir", "paths.data_dir", "the folder of the data set"),
        Flag("synthetic", "data.synthetic.enabled", "draw leaves there first", switch=True),
    ),
    "split": (
        Flag("data_dir", "paths.data_dir", "the folder of the data set"),
        Flag("output", "data.split.manifest", "the split file to write"),
    ),
    "track": (
        Flag("run_dir", "track.run_dir", "the run's folder"),
        Flag("uri", "logger.tracking_uri", "the MLflow server"),
    ),
    "publish": (
        Flag("s3_prefix", "publish.s3_prefix", "s3://bucket/prefix"),
        Flag("run_dir", "publish.run_dir", "the run's folder"),
    ),
    "export": (
        *_CHECKPOINT,
        Flag("output", "export.output_path", "the file to write"),
        Flag("precision", "export.precision", "fp32, fp16, fp16_weights, int8_weights or int8"),
    ),
    "export_tensorrt": (
        *_CHECKPOINT,
        Flag("output", "export.tensorrt.output_dir", "the folder to write to"),
        Flag("max_batch", "export.tensorrt.max_batch", "the most photos at a time"),
    ),
    "export_triton": (
        *_CHECKPOINT,
        _TTA,
        Flag("output", "export.triton.output_dir", "the folder to write"),
        Flag("target", "export.triton.target", "cpu, gpu or multi_gpu"),
        Flag("backend", "export.triton.backend", "auto, python, onnxruntime or tensorrt"),
    ),
    "score": (
        Flag("input", "score.input", "a folder, a table of paths, or s3://bucket/prefix"),
        Flag("output", "score.output", "answers.parquet, answers.csv, or a folder"),
        *_CHECKPOINT,
        _TTA,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("engine", "score.engine", "local or ray"),
        Flag("workers", "score.workers", "photos at a time, or auto"),
        Flag("batch_size", "score.batch_size", "photos that the network sees at once"),
        Flag("resume", "score.resume", "go on with what was killed", switch=True),
    ),
    "benchmark": (
        *_CHECKPOINT,
        _TTA,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("images", "benchmark.images_dir", "a folder of photos to measure on"),
        Flag("batch_sizes", "benchmark.batch_sizes", "photos at once: '[1,8]'"),
        Flag("threads", "benchmark.threads", "of a network: auto, or a number"),
        Flag("compare", "benchmark.compare", "models to measure too: '[b.onnx]'"),
        Flag("clock", "benchmark.clock", "wall, or cpu on a busy machine"),
        Flag("seconds", "benchmark.seconds", "of measuring at most"),
    ),
    "serve": (
        *_CHECKPOINT,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("host", "serve.host", "the address to listen at"),
        Flag("port", "serve.port", "its port; 0: any that is free"),
        Flag("workers", "serve.workers", "photos at a time, or auto"),
        Flag("engine", "infer.engine", "local or triton"),
        Flag("triton_url", "infer.triton_url", "grpc://host:port of a Triton server"),
    ),
    "bot": (
        *_CHECKPOINT,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("api_url", "bot.api_url", "a service that answers instead of a model here"),
        Flag("webhook_url", "bot.webhook_url", "the https address that Telegram calls"),
        Flag("host", "bot.host", "where the webhook listens"),
        Flag("port", "bot.port", "its port; 0: any that is free"),
        Flag("state", "bot.state_path", "the SQLite file of what is to be answered"),
    ),
    "download_model": (
        Flag("s3_uri", "download_model.s3_uri", "s3://bucket/key of the model"),
        Flag("dst_dir", "download_model.dst_dir", "the folder to put it in"),
        Flag("overwrite", "download_model.overwrite", "replace a model that is there", switch=True),
        Flag("push", "download_model.push", "push it to the DVC remote afterwards", switch=True),
        Flag("remote", "download_model.remote", "the DVC remote to push to"),
    ),
}
