"""The table of commands: what each does, the workflow behind it, its keys, and examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cassava_leaf_disease.errors import ConfigError


@dataclass(frozen=True)
class Command:
    """A verb of the command line; `workflow` is `module:function` in the package, imported when it runs."""

    summary: str
    workflow: str
    sections: tuple[str, ...]
    examples: tuple[str, ...]
    in_ranks: bool = False  # processes that torchrun or SLURM start together have one result, which rank zero prints


COMMANDS: Final[Mapping[str, Command]] = {
    "train": Command(
        "train a network on photos; keeps the best checkpoint and its figures",
        "training.fit:train",
        ("train", "distill", "paths"),
        (
            "cassava train paths.data_dir=data/cassava model=resnet18 train.epochs=10",
            "cassava train data.synthetic.enabled=true train.epochs=1 train.num_workers=0",
            "cassava train train.resume=true",
            "cassava train train.devices=4 train.batch_size=128",
            "cassava train -m model=resnet18,mobilenetv2 train.seed=1,2,3",
        ),
        in_ranks=True,
    ),
    "crossval": Command(
        "train all folds of a k-fold split; out-of-fold table, mean and spread",
        "training.crossval:crossval",
        ("crossval", "train", "paths"),
        (
            "cassava crossval data.split.folds=5 train.epochs=10",
            "cassava crossval crossval.parallel=2",
            "cassava crossval experiment=field_distilled data.split.folds=10",
            "cassava crossval crossval.resume=true",
        ),
    ),
    "distill": Command(
        "train teachers, then students that learn what the teachers say of every batch",
        "training.distillation:distill",
        ("distill", "train", "paths"),
        (
            "cassava distill experiment=field_448 model=mobilenetv2 train.epochs=40 distill.teacher_epochs=24",
            "cassava distill distill.teachers=5 distill.students=2",
            "cassava distill distill.resume=true",
        ),
    ),
    "tune": Command(
        "search for better settings with Optuna; goes on where it was cut off",
        "training.tune:tune",
        ("tune", "train", "paths"),
        (
            "cassava tune tune.trials=30 train.epochs=15",
            "cassava tune tune.study=rates 'tune.space=[\"train.lr=tag(log,interval(1e-4,1e-2))\"]'",
            "cassava tune tune.storage=postgresql://user:password@host/cassava",
        ),
    ),
    "evaluate": Command(
        "measure a checkpoint on photos it has not seen: accuracy, macro-F1, intervals",
        "evaluation.evaluate:evaluate",
        ("evaluate", "infer", "paths"),
        (
            "cassava evaluate infer.checkpoint_path=outputs/runs/version_0/checkpoints/best.ckpt",
            "cassava evaluate evaluate.csv_path=other/train.csv evaluate.images_dir=other/train_images",
            "cassava evaluate evaluate.report=true 'evaluate.compare=[other.ckpt,other.onnx]'",
        ),
    ),
    "plants": Command(
        "measure answers from several photos of a plant, on groups of photos of one class",
        "evaluation.plants:plants",
        ("plants", "evaluate", "infer", "paths"),
        (
            "cassava plants infer.checkpoint_path=outputs/runs/version_0/checkpoints/best.ckpt",
            "cassava plants evaluate.csv_path=other/train.csv plants.max_photos=6",
            "cassava plants plants.answers_csv=outputs/crossval/version_0/oof.csv",
        ),
    ),
    "calibrate": Command(
        "fit a checkpoint's temperature on its validation photos, so that confidences are what they say",
        "evaluation.calibrate:calibrate",
        ("infer", "paths"),
        ("cassava calibrate infer.checkpoint_path=outputs/runs/version_0/checkpoints/best.ckpt",),
    ),
    "fit-gate": Command(
        "fit what refuses poor photos, foreign subjects and unsure answers, and keep it in the checkpoint",
        "evaluation.fit_gate:fit_gate",
        ("gate", "infer", "paths"),
        (
            "cassava fit-gate infer.checkpoint_path=outputs/runs/version_0/checkpoints/best.ckpt",
            "cassava fit-gate gate.max_refused=0.01 gate.foreign_dir=photos/not_cassava",
        ),
    ),
    "ensemble": Command(
        "make several checkpoints answer as one model, by a small file that names them",
        "inference.make_ensemble:ensemble",
        ("ensemble", "paths"),
        (
            "cassava ensemble 'ensemble.members=[a.ckpt,b.ckpt]' ensemble.output_path=ensemble.json",
            "cassava evaluate infer.checkpoint_path=ensemble.json infer.tta=flips",
        ),
    ),
    "infer": Command(
        "diagnose one photo or several",
        "inference.infer:infer",
        ("infer", "paths"),
        (
            "cassava infer infer.image_path=leaf.jpg",
            "cassava infer 'infer.image_path=[leaf.jpg,\"leaf (1).jpg\"]' infer.top_k=3",
            "cassava infer infer.image_path=leaf.jpg 'infer.checkpoint_path=[a.ckpt,b.ckpt]' infer.tta=flips",
            "cassava infer infer.image_path=leaf.jpg infer.explain=true",
            "cassava infer 'infer.image_path=[a.jpg,b.jpg,c.jpg]' infer.plant=true",
        ),
    ),
    "pseudo-label": Command(
        "let a model label a folder of photos, and keep the answers it is sure of for training",
        "training.pseudo_label:pseudo_label",
        ("pseudo_label", "infer", "paths"),
        (
            "cassava pseudo-label pseudo_label.images_dir=field infer.checkpoint_path=outputs/crossval/version_0",
            "cassava train data.extra.images_dir=field "
            "data.extra.csv_path=outputs/pseudo-label/version_0/pseudo_labels.csv",
        ),
    ),
    "download-data": Command(
        "fetch the photos, unpack and check them; replaces paths.data_dir only when all is well",
        "data.download:download_data",
        ("download_data", "paths"),
        (
            "cassava download-data",
            "cassava download-data download_data.public_url=photos.zip download_data.force=true",
            "cassava download-data download_data.public_url=kaggle://competitions/cassava-leaf-disease-classification",
        ),
    ),
    "check-data": Command(
        "look for unreadable photos, duplicates and contradictions in the data set",
        "data.check:check_data",
        ("check_data", "paths"),
        ("cassava check-data", "cassava check-data paths.data_dir=photos/cassava check_data.near_distance=4"),
    ),
    "audit": Command(
        "find labels that are likely to be wrong, for an expert to look at; what a training can leave out or soften",
        "evaluation.audit.run:audit",
        ("audit", "paths"),
        (
            "cassava audit",
            "cassava audit audit.oof_csv=outputs/crossval/version_0/oof.csv audit.max_shown=400",
            "cassava train data.exclude_csv=outputs/audit/version_0/exclude.csv",
        ),
    ),
    "feedback-export": Command(
        "write what people said of the answers as a data set, for an expert and for training",
        "feedback.export:export_feedback",
        ("feedback", "paths"),
        (
            "cassava feedback export feedback.url=sqlite:///feedback/feedback.db",
            "cassava feedback export feedback.reviewed_csv=review.csv feedback.only_reviewed=true",
            "cassava train data.extra.csv_path=outputs/feedback/version_0/extra.csv "
            "data.extra.images_dir=outputs/feedback/version_0/train_images",
        ),
    ),
    "drift": Command(
        "compare the answers of the last days with what the model was trained on",
        "drift.report:drift",
        ("drift", "infer", "paths"),
        (
            "cassava drift drift.statistics_url=sqlite:///statistics.db infer.checkpoint_path=best.onnx",
            "cassava drift drift.days=30 drift.until=2026-11-30",
        ),
    ),
    "drift-reference": Command(
        "count a model's answers about its validation photos, for `drift` to compare with",
        "drift.reference:make_reference",
        ("drift", "evaluate", "infer", "paths"),
        (
            "cassava drift reference infer.checkpoint_path=outputs/runs/version_0/checkpoints/best.ckpt",
            "cassava drift reference evaluate.csv_path=season/train.csv evaluate.images_dir=season/train_images",
        ),
    ),
    "prepare": Command(
        "check the photos, or draw some, and write a table and a summary of them",
        "data.prepare:prepare",
        ("prepare", "paths"),
        ("cassava prepare", "cassava prepare data.synthetic.enabled=true paths.data_dir=data/drawn"),
    ),
    "split": Command(
        "divide the photos once, into a file that trainings and evaluations then use",
        "data.divide:split",
        ("paths",),
        (
            "cassava split data.split.manifest=data/split.csv data.split.test_size=0.2",
            "cassava train data.split.manifest=data/split.csv",
        ),
    ),
    "download-model": Command(
        "fetch a trained model from S3, check it, put it under DVC's care",
        "inference.fetch:download_model",
        ("download_model", "paths"),
        (
            "cassava download-model download_model.s3_uri=s3://bucket/best.ckpt",
            "cassava download-model download_model.s3_uri=s3://bucket/best.ckpt download_model.push=true",
        ),
    ),
    "track": Command(
        "send a finished run to MLflow, as after a training whose server was down",
        "training.tracking:track",
        ("track", "logger", "paths"),
        (
            "cassava track",
            "cassava track track.run_dir=outputs/runs/version_0 logger.tracking_uri=http://127.0.0.1:8080",
        ),
    ),
    "publish": Command(
        "send a finished run's checkpoint and figures to S3",
        "training.publish:publish",
        ("publish", "paths"),
        (
            "cassava publish publish.s3_prefix=s3://bucket/runs",
            "cassava publish publish.s3_prefix=s3://bucket/runs publish.run_dir=outputs/runs/version_0",
        ),
    ),
    "export": Command(
        "write a checkpoint or an ensemble as ONNX, which needs no PyTorch, and compare their answers",
        "export.onnx:export",
        ("export", "infer", "paths"),
        (
            "cassava export",
            "cassava export infer.checkpoint_path=artifacts/best.ckpt export.output_path=best.onnx",
            "cassava export infer.checkpoint_path=ensemble.json export.precision=fp16",
        ),
    ),
    "export-tensorrt": Command(
        "build a TensorRT engine from an exported model, for the GPU of this machine",
        "export.tensorrt:export_tensorrt",
        ("export", "infer", "paths"),
        (
            "cassava export-tensorrt infer.checkpoint_path=best.onnx",
            "cassava export-tensorrt infer.checkpoint_path=best.onnx export.tensorrt.max_batch=64",
        ),
    ),
    "export-triton": Command(
        "write a model or an ensemble as a model repository that NVIDIA Triton serves",
        "export.triton.repository:export_triton",
        ("export", "infer", "paths"),
        (
            "cassava export-triton infer.checkpoint_path=ensemble.json",
            "cassava export-triton 'infer.checkpoint_path=[a.onnx,b.onnx]' export.triton.output_dir=served",
            "cassava export-triton export.triton.target=gpu export.triton.backend=tensorrt",
        ),
    ),
    "score": Command(
        "answer about very many photos: a table with a row for each; goes on where it was killed",
        "scale.score:score",
        ("score", "infer", "paths"),
        (
            "cassava score score.input=photos score.output=answers.csv infer.checkpoint_path=best.onnx",
            "cassava score score.input=photos.csv score.path_column=image score.output=answers score.resume=true",
            "cassava score score.input=s3://bucket/photos score.output=answers.parquet",
            "cassava score score.input=s3://bucket/photos score.engine=ray score.ray.address=auto",
        ),
    ),
    "benchmark": Command(
        "measure how fast a model answers on this machine, and where the time goes",
        "benchmark.run:benchmark",
        ("benchmark", "infer", "paths"),
        (
            "cassava benchmark",
            "cassava benchmark benchmark.images_dir=photos infer.checkpoint_path=best.onnx",
            "cassava benchmark infer.checkpoint_path=a.ckpt 'benchmark.compare=[a.onnx,b.onnx]'",
            "cassava benchmark -m benchmark.threads=1,2 'benchmark.batch_sizes=[1,8,32]'",
        ),
    ),
    "serve": Command(
        "answer over HTTP: an API and a web page, until it is told to end",
        "serving.serve:serve",
        ("serve", "infer", "paths"),
        (
            "cassava serve infer.checkpoint_path=best.onnx",
            "cassava serve serve.port=8080 serve.workers=4",
            "cassava serve infer.engine=triton infer.triton_url=grpc://127.0.0.1:8001",
        ),
    ),
    "bot": Command(
        "answer photos in Telegram, until it is told to end",
        "bot.run:bot",
        ("bot", "infer", "paths"),
        (
            "cassava bot",
            "cassava bot infer.checkpoint_path=best.onnx",
            "cassava bot bot.api_url=http://127.0.0.1:8000",
            "cassava bot bot.webhook_url=https://bot.example.org/telegram bot.port=8443",
        ),
    ),
    "demo": Command(
        "train on drawn leaves for under a minute, then diagnose one",
        "training.demo:demo",
        ("demo", "paths"),
        ("cassava demo", "cassava demo demo.epochs=2"),
    ),
}


def find_command(word: str) -> tuple[str, Command]:
    """The command that a word names; `-` and `_` are spelled alike.

    Raises:
        ConfigError: It names none.
    """
    import difflib

    name = word.replace("_", "-")
    if name in COMMANDS:
        return name, COMMANDS[name]
    known = ", ".join(COMMANDS)
    close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(f"{word}: no such command; {hint}commands: {known}")


def joined(words: Sequence[str]) -> list[str]:
    """A command line whose command is one word: `export triton` is `export-triton`."""
    together = "-".join(words[:2])
    return [together, *words[2:]] if len(words) > 1 and together in COMMANDS else list(words)
