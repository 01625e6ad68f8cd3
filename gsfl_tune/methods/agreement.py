"""How far two predictions are apart."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def symmetric_kl(one: Tensor, other: Tensor) -> Tensor:
    """Computes (KL(p || q) + KL(q || p)) / 2 of two predictions, averaged over the images.

    Args:
        one: (B, C) class scores.
        other: (B, C) class scores.
    """
    p = functional.log_softmax(one.float() if one.element_size() < 4 else one, dim=1)
    q = functional.log_softmax(other.float() if other.element_size() < 4 else other, dim=1)
    # sum p (log p - log q) + sum q (log q - log p)
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(1).mean()
