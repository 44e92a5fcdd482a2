"""How the learning rate follows the batch size."""

import math

from cassava_leaf_disease.config.schema import AppConfig


def peak_lr(config: AppConfig) -> float:
    """The rate that training rises to: `train.lr`, or that times a power of the batch over the reference batch.

    Linear after Goyal et al. (2017), square root after Krizhevsky (2014), by the batch of all devices together.
    """
    ratio = config.train.batch_size / config.optim.lr_reference_batch
    factor = {"constant": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.optim.lr_rule]
    return config.train.lr * factor
