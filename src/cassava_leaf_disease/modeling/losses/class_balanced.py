"""The weights of class-balanced cross-entropy (Cui et al., 2019): the effective number of samples."""

import numpy as np
import numpy.typing as npt

from cassava_leaf_disease.data.sampling import Labels, count_classes, mean_one


def effective_number_weights(labels: Labels, beta: float) -> npt.NDArray[np.float32]:
    """A weight for each class, (C,) float32, inverse to its effective number `(1 - beta**n) / (1 - beta)`.

    Beta 0 weighs all classes alike, beta near 1 by their inverse frequency. The ratios are the paper's; the
    paper scales the weights to the sum C, here their mean over the samples is 1, as for the other class
    weights, so that the size of the loss, and with it the gradient clipping, does not depend on beta.
    """
    counts = count_classes(labels)
    return mean_one((1 - beta) / (1 - np.power(beta, np.maximum(counts, 1.0))), counts)
