"""The network as Lightning trains it: loss, schedule, running average, metrics over whole splits."""

from collections.abc import Callable
from typing import Any, Literal

import lightning
import numpy as np
import numpy.typing as npt
import torch
from timm.utils.distributed import distribute_bn
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torchmetrics import Metric
from typing_extensions import override

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.modeling.backbone import classifier_prefixes
from cassava_leaf_disease.modeling.losses import build_loss
from cassava_leaf_disease.modeling.lr_rule import peak_lr
from cassava_leaf_disease.modeling.metadata import METADATA_KEY, ModelMetadata, parse_metadata
from cassava_leaf_disease.modeling.metrics import accuracy, f1_macro
from cassava_leaf_disease.modeling.mixing import mix_batch
from cassava_leaf_disease.modeling.optim import build_optimizer, build_schedulers

Stage = Literal["train", "val", "test"]
Batch = tuple[torch.Tensor, torch.Tensor]  # (N, 3, S, S) uint8, or float of 0 to 255; (N,) int64, or (N, C) float32
# What a batch's targets (N, C) become, by what a teacher says of its normalised images (N, 3, S, S).
Teacher = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

MONITOR = "val/f1_macro"


class StageScores(Metric):
    """What one pass over a split adds up, over all ranks: the confusion matrix and the loss.

    Unlike torchmetrics' own confusion matrix it never makes the host wait for a GPU.
    """

    full_state_update = False
    counts: torch.Tensor
    loss_sum: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(NUM_CLASSES * NUM_CLASSES, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum")

    @override
    def update(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Adds a batch: logits `(N, C)`, labels `(N,)`, their mean loss."""
        cells = labels * NUM_CLASSES + logits.detach().argmax(dim=1)
        self.counts.index_add_(0, cells, torch.ones_like(cells))
        self.loss_sum += loss.detach() * len(labels)

    @override
    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The confusion matrix `(C, C)`, true classes as rows, and the sum of the losses."""
        return self.counts.view(NUM_CLASSES, NUM_CLASSES), self.loss_sum

    def finish(self, stage: Stage) -> tuple[dict[str, float], npt.NDArray[np.int64]]:
        """The metrics under their contract names and the confusion matrix `(C, C)`; starts anew."""
        counts, loss_sum = self.compute()
        matrix: npt.NDArray[np.int64] = counts.cpu().numpy().copy()
        loss = float(loss_sum) / max(int(matrix.sum()), 1)
        self.reset()
        return {f"{stage}/loss": loss, f"{stage}/acc": accuracy(matrix), f"{stage}/f1_macro": f1_macro(matrix)}, matrix


class LeafClassifier(lightning.LightningModule):
    """Trains `network` (float32 `(N, 3, S, S)` to logits `(N, 5)`) on uint8 batches.

    The training loss is the configured one; validation and test losses are plain cross-entropy, so that
    they compare between recipes. `metadata` is what the checkpoints will say of themselves.
    """

    def __init__(
        self,
        config: AppConfig,
        network: nn.Module,
        metadata: ModelMetadata,
        class_weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.metadata = metadata
        self.network = network.to(memory_format=torch.channels_last)
        self.head = classifier_prefixes(network)
        if config.model.freeze_backbone and not self.head:
            raise ConfigError(
                f"model.freeze_backbone=true: timm names no classifier in {config.model.backbone}; "
                "type model.freeze_backbone=false"
            )
        self.average: ModelEmaV3 | None = None
        if config.optim.ema_decay is not None:
            self.average = ModelEmaV3(self.network, decay=config.optim.ema_decay, use_warmup=True, warmup_power=0.75)
            self.average.requires_grad_(requires_grad=False).train()  # Lightning switches it with the network
        if config.train.compile:
            self.network.compile()  # in place: the names of the weights stay as they are
        self.loss = build_loss(config.loss, None if class_weights is None else torch.from_numpy(class_weights))
        self.scores = nn.ModuleDict({f"{stage}_scores": StageScores() for stage in ("train", "val", "test")})
        self.teacher: Teacher | None = None
        self.confusion: dict[str, npt.NDArray[np.int64]] = {}
        spec = metadata.preprocessing
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = torch.tensor(spec.mean).view(1, 3, 1, 1), torch.tensor(spec.std).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    @property
    def evaluation_network(self) -> nn.Module:
        """The network that is validated and saved: the running average where there is one."""
        return self.network if self.average is None else self.average.module

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """What `imaging.preprocess.normalize` does, on the batch's device, in one pass over the pixels.

        The result is channels-last, float32 or what autocast would make of that at once.
        """
        kind = images.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        out = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)
        return torch.addcmul(self.shift, images, self.scale, out=out)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        rng = np.random.default_rng((self.config.train.seed, self.current_epoch, batch_idx, self.global_rank))
        mixed, targets = mix_batch(self.normalize(images), labels, NUM_CLASSES, self.config.augment.mix, rng)
        if self.teacher is not None:
            targets = self.teacher(mixed, targets)
        logits = self.network(mixed).float()
        loss: torch.Tensor = self.loss(logits, targets)
        self._scores("train").update(logits, labels if labels.ndim == 1 else labels.argmax(dim=1), loss)
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    @override
    def on_train_epoch_start(self) -> None:
        # Dropout and stochastic depth draw the same numbers in a resumed epoch as in an uninterrupted one.
        torch.manual_seed(self.config.train.seed + 1_000_003 * (self.current_epoch + 1) + self.global_rank)
        frozen = self.config.model.freeze_backbone and self.current_epoch < (
            self.config.model.unfreeze_epoch or self.config.train.epochs
        )
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not frozen or name.startswith(self.head))
        if self.config.model.freeze_backbone:  # frozen batch norms keep their statistics
            self.network.train(not frozen)

    @override
    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update(self.network, step=self.global_step)

    @override
    def on_train_epoch_end(self) -> None:
        self._finish("train")

    @override
    def on_validation_epoch_start(self) -> None:
        if self.trainer.world_size > 1:  # each rank's batch norms have seen their own photos: all use the mean
            distribute_bn(self, self.trainer.world_size, reduce=True)  # type: ignore[no-untyped-call]

    @override
    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    @override
    def on_test_epoch_end(self) -> None:
        self._finish("test")

    @override
    def configure_optimizers(self) -> Any:
        train = self.config.train
        scaled = self.trainer.precision == "16-mixed"  # Lightning cannot clip a fused optimiser's scaled gradients
        optimizer = build_optimizer(
            self.network, self.config.optim, peak_lr(self.config), train.weight_decay, loss_scaling=scaled
        )
        steps_per_epoch = max(1, int(self.trainer.estimated_stepping_batches) // train.epochs)
        return [optimizer], build_schedulers(optimizer, self.config.optim, steps_per_epoch, train.epochs, MONITOR)

    @override
    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for fused optimisers under any mixed precision; only float16's scaler
        # hides the gradients' true size from us.
        if gradient_clip_val is None or self.trainer.precision == "16-mixed":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[METADATA_KEY] = self.metadata.model_dump_json()

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run still says what its best epoch so far was."""
        saved = parse_metadata(checkpoint[METADATA_KEY], "the checkpoint to resume")
        self.metadata = self.metadata.model_copy(update={"metrics": saved.metrics, "epoch": saved.epoch})

    def _scores(self, stage: Stage) -> StageScores:
        scores = self.scores[f"{stage}_scores"]
        assert isinstance(scores, StageScores)  # noqa: S101  for the type checker
        return scores

    def _evaluate(self, stage: Stage, batch: Batch) -> None:
        images, labels = batch
        logits = self.evaluation_network(self.normalize(images)).float()
        self._scores(stage).update(logits, labels, nn.functional.cross_entropy(logits, labels))

    def _finish(self, stage: Stage) -> None:
        metrics, self.confusion[stage] = self._scores(stage).finish(stage)
        self.log_dict(metrics, prog_bar=True)
