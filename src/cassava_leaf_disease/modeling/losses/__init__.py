"""The losses, one file each: logits `(N, C)` against class ids `(N,)` or probabilities `(N, C)`, in float32."""

from cassava_leaf_disease.modeling.losses.build import build_loss, loss_weights

__all__ = ["build_loss", "loss_weights"]
