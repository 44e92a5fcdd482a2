"""Settings that are right each by itself and make no sense together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cassava_leaf_disease.config.schema import AppConfig


def contradictions(config: "AppConfig") -> Iterator[str]:
    """One line for each: what was typed, why it makes no sense, what to type."""
    yield from _imbalance(config)
    yield from _start(config)
    yield from _mixing(config)
    yield from _time(config)
    yield from _targets(config)
    yield from _served(config)
    yield from _asked(config)
    yield from _scored(config)


def _imbalance(config: "AppConfig") -> Iterator[str]:
    loss, sampling = config.loss, config.data.sampling
    if sampling == "none":
        return
    if loss.name == "class_balanced":
        yield (
            f"loss=class_balanced data.sampling={sampling}: the imbalance would be corrected twice; "
            "type data.sampling=none or loss=cross_entropy"
        )
    elif sampling == loss.class_weights == "inverse":
        yield (
            "loss.class_weights=inverse data.sampling=inverse: each makes up for the whole imbalance, both turn it "
            "round; type data.sampling=none or loss.class_weights=none, or sqrt_inverse for both"
        )


def _start(config: "AppConfig") -> Iterator[str]:
    model, decay = config.model, config.optim.layer_decay
    if model.pretrained and model.weights_path is not None:
        yield (
            f"model.pretrained=true model.weights_path={model.weights_path}: the network cannot start from both; "
            "type model.pretrained=false or model.weights_path=null"
        )
    if decay is not None and model.freeze_backbone and model.unfreeze_epoch is None:
        yield (
            f"optim.layer_decay={decay:g} model.freeze_backbone=true: only the classifier learns, there are no rates "
            "to grade; type optim.layer_decay=null or model.unfreeze_epoch=5"
        )


def _mixing(config: "AppConfig") -> Iterator[str]:
    mix = config.augment.mix
    if mix.p > 0 and not (mix.mixup_alpha or mix.cutmix_alpha):
        yield (
            f"augment.mix.p={mix.p:g}: MixUp and CutMix are both switched off; type augment.mix.p=0, "
            "augment.mix.mixup_alpha=0.4 or augment.mix.cutmix_alpha=1"
        )


def _time(config: "AppConfig") -> Iterator[str]:
    epochs, warmup = config.train.epochs, config.optim.warmup_epochs
    unfreeze, stopping = config.model.unfreeze_epoch, config.train.early_stopping
    if warmup > epochs:
        yield (
            f"optim.warmup_epochs={warmup:g} train.epochs={epochs}: training would end before the warm-up; "
            f"type optim.warmup_epochs={epochs / 10:g} or more epochs"
        )
    if unfreeze is not None and unfreeze >= epochs:
        yield (
            f"model.unfreeze_epoch={unfreeze} train.epochs={epochs}: training would end before the backbone learns; "
            "type model.unfreeze_epoch=null, an earlier epoch, or more epochs"
        )
    if stopping.enabled and stopping.patience_epochs >= epochs:
        yield (
            f"train.early_stopping.patience_epochs={stopping.patience_epochs} train.epochs={epochs}: it could never "
            "stop early; type train.early_stopping.enabled=false, less patience, or more epochs"
        )


def _targets(config: "AppConfig") -> Iterator[str]:
    if config.data.soft_labels_csv is not None and config.distill.teacher is not None:
        yield (
            f"data.soft_labels_csv={config.data.soft_labels_csv} distill.teacher={config.distill.teacher}: both say "
            "what a photo's target is; type data.soft_labels_csv=null or distill.teacher=null"
        )


def _served(config: "AppConfig") -> Iterator[str]:
    triton = config.export.triton
    if triton.target == "cpu" and triton.backend == "tensorrt":
        yield (
            "export.triton.target=cpu export.triton.backend=tensorrt: TensorRT runs on GPUs alone; "
            "type export.triton.target=gpu or export.triton.backend=onnxruntime"
        )
    if triton.target == "cpu" and triton.preprocess == "dali":
        yield (
            "export.triton.target=cpu export.triton.preprocess=dali: DALI would decode on a GPU; "
            "type export.triton.target=gpu or export.triton.preprocess=python"
        )
    if triton.target != "cpu" and triton.backend == "python":
        yield (
            f"export.triton.target={triton.target} export.triton.backend=python: members in Python run on the CPU; "
            "type export.triton.target=cpu or export.triton.backend=onnxruntime"
        )
    if triton.preprocess == "dali" and config.infer.tta != "none":
        yield (
            f"export.triton.preprocess=dali infer.tta={config.infer.tta}: DALI's pipeline shows a photo once; "
            "type infer.tta=none or export.triton.preprocess=python"
        )


def _asked(config: "AppConfig") -> Iterator[str]:
    infer = config.infer
    if infer.engine == "auto":
        return
    elsewhere = {
        "infer.checkpoint_path": infer.checkpoint_path is not None,
        "infer.device": infer.device != "auto",
        "infer.tta": infer.tta != "none",
        "infer.explain": infer.explain,
    }
    for key in (key for key, typed in elsewhere.items() if typed):
        yield (
            f"infer.engine=triton {key}: the server's model, device and views are what it was exported with; "
            f"type infer.engine=auto, or leave {key} out"
        )


def _scored(config: "AppConfig") -> Iterator[str]:
    score = config.score
    if score.output is not None and score.format != "auto":
        suffix = score.output.suffix.lower()
        if suffix in (".csv", ".parquet") and suffix != f".{score.format}":
            yield (
                f"score.output={score.output} score.format={score.format}: they name two formats; "
                f"type score.format=auto, or an output that ends in .{score.format}"
            )
    if score.engine == "local" and score.ray.address is not None:
        yield (
            f"score.ray.address={score.ray.address} score.engine=local: only Ray works on a cluster; "
            "type score.engine=ray, or score.ray.address=null"
        )
