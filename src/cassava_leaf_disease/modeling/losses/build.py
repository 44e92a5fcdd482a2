"""From the configuration to a loss, and to the class weights that it needs."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cassava_leaf_disease.config.schema import LossConfig
from cassava_leaf_disease.data.sampling import Labels, class_weights
from cassava_leaf_disease.modeling.losses.bi_tempered import BiTempered
from cassava_leaf_disease.modeling.losses.class_balanced import effective_number_weights
from cassava_leaf_disease.modeling.losses.cross_entropy import CrossEntropy
from cassava_leaf_disease.modeling.losses.focal import Focal


def build_loss(config: LossConfig, weights: torch.Tensor | None) -> nn.Module:
    """The configured loss; `weights` `(C,)` float32 is what `loss_weights` gives for the training labels."""
    match config:
        case LossConfig(name="bi_tempered", t1=float(t1), t2=float(t2)):
            return BiTempered(t1, t2, config.label_smoothing)
        case LossConfig(name="focal", gamma=float(gamma)):
            return Focal(gamma, config.label_smoothing, weights)
        case _:  # class-balanced cross-entropy differs in its weights alone
            return CrossEntropy(config.label_smoothing, weights)


def loss_weights(config: LossConfig, labels: Labels) -> npt.NDArray[np.float32] | None:
    """How much each class weighs, `(C,)`, by the class ids of the training part; None where all weigh alike."""
    if config.beta is not None:
        return effective_number_weights(labels, config.beta)
    if config.class_weights is None or config.class_weights == "none":
        return None
    return class_weights(labels, config.class_weights)
