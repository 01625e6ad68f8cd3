"""The cross-entropy of single images: of labels or soft targets, with smoothing and focal weights.

Source of the focal weights: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy_each(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, focal: float = 0.0
) -> Tensor:
    """Computes sum_c q_c (1 - p_c)^gamma (-log p_c) of every image, (B,).

    p is the softmax of the scores and q the target: 1 at the label and 0 elsewhere, or what a soft
    target says. Smoothing makes (1 - e) q + e / C of it, as in torch. Without smoothing, the
    labels' loss is the paper's (1 - p_y)^gamma (-log p_y). The loss is linear in q: that of a
    mixed target is the mix of the losses.

    Args:
        logits: (B, C) class scores.
        target: (B,) labels, or (B, C) probabilities.
        label_smoothing: e.
        focal: gamma; 0 is the plain cross-entropy.
    """
    if focal == 0:
        return functional.cross_entropy(
            logits, target, label_smoothing=label_smoothing, reduction="none"
        )
    classes = logits.shape[1]
    log_p = functional.log_softmax(logits, dim=1)
    q = functional.one_hot(target, classes) if target.ndim == 1 else target
    q = (1 - label_smoothing) * q.to(log_p.dtype) + label_smoothing / classes
    # Not 0, where powers below 1 have no gradient.
    missing = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return -(q * missing.pow(focal) * log_p).sum(1)
