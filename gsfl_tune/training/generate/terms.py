"""Terms of the generator's loss beside that of its critic: its classes and its diversity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Factor of cosines before they become probabilities of classes.
_COSINES = 10.0
_SMALL = 1e-6


def class_loss(made: Tensor, labels: Tensor, means: Tensor, known: Tensor) -> Tensor:
    """Computes the cross-entropy of the classes of generated features.

    Scores are ten times the cosines of a feature with the means of the classes. AFHN (Li et al.,
    CVPR 2020) takes cosines too, of queries with generated features; means of all training images
    in place of drawn episodes are a choice of this project.

    Args:
        made: (B, D) generated features, of length 1.
        labels: (B,) their classes.
        means: (C, D) means of the classes, of length 1.
        known: (C,) whether a class has training images.

    Returns:
        A scalar.
    """
    scores = (_COSINES * made @ means.T).masked_fill(~known, -torch.inf)
    return functional.cross_entropy(scores, labels)


def collapse(made: Tensor, others: Tensor, noise: Tensor, further: Tensor) -> Tensor:
    """Computes how little features vary with the noise, the inverse of AFHN's diversity.

    ``1 / mean((1 - cos(G(s, z), G(s, z'))) / (1 - cos(z, z')))``. Source: Li et al., CVPR 2020.

    Args:
        made: (B, D) features of the noise z, of length 1.
        others: (B, D) features of the same conditions and the noise z'.
        noise: (B, Z) z.
        further: (B, Z) z'.

    Returns:
        A scalar, large where features are the same for every noise.
    """
    apart = 1 - (made * others).sum(dim=1)
    wanted = 1 - functional.cosine_similarity(noise, further, dim=1)
    return 1 / ((apart / (wanted + _SMALL)).mean() + _SMALL)
