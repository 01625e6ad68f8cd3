"""Contrast of attributes: what an image shows of an attribute is like that of others that have it.

Sources: Lei et al., "High-Discriminative Attribute Feature Learning for Generalized Zero-Shot
Learning" (HDAFL), arXiv 2404.04953, has a contrastive loss; Khosla et al., "Supervised Contrastive
Learning", NeurIPS 2020, equation 2, is the form that is taken here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attribute_contrast(
    embeddings: Tensor, attributes: Tensor, temperature: float, *, absent: bool
) -> Tensor:
    """Computes by how much embeddings of an attribute are not like those of the same value.

    With unit embeddings e_ia of image i and attribute a, s(x, y) = exp(x'y / T), and the other
    images P_ia that have the same known value of a,

        l_ia = - mean over p in P_ia of log(s(e_ia, e_pa) / (sum over j of s(e_ia, e_ja)
                                                            + sum over b of s(e_ia, e_ib)))

    j are the other images of which a is known, b the other attributes of the same image: so an
    embedding repels those of the other value, and those of other attributes. The term is the mean
    of l_ia over the attributes of an image for which P_ia is not empty, then over the images; an
    image without such counts 0.

    Args:
        embeddings: (B, A, E), of any length.
        attributes: (B, A): present above 0.5, absent below, unknown at 0.5 and NaN.
        temperature: T, above 0.
        absent: Whether images that both lack an attribute are alike too, or those alone that both
            have it.

    Returns:
        A scalar. It compares the images of the batch: one image has none to be compared with.
    """
    unit = functional.normalize(embeddings, dim=2)
    present = (attributes > 0.5).T
    known = present | (attributes < 0.5).T
    by_attribute = unit.transpose(0, 1)
    images = by_attribute @ by_attribute.transpose(1, 2) / temperature
    others = unit @ unit.transpose(1, 2) / temperature
    compared = known[:, None, :] & ~_itself(images)
    # Not minus infinity: a row of nothing else has no gradient.
    least = torch.finfo(unit.dtype).min
    of_images = images.masked_fill(~compared, least).logsumexp(2)
    of_attributes = others.masked_fill(_itself(others), least).logsumexp(2).T
    alike = compared & known[:, :, None] & (present[:, :, None] == present[:, None, :])
    if not absent:
        alike = alike & present[:, :, None]
    count = alike.sum(2)
    near = (images * alike).sum(2) / count.clamp(min=1)
    each = torch.logaddexp(of_images, of_attributes) - near
    taken = count > 0
    each = torch.where(taken, each, torch.zeros_like(each))
    return (each.sum(0) / taken.sum(0).clamp(min=1)).mean()


def _itself(pairs: Tensor) -> Tensor:
    """Returns (n, n), true where something is compared with itself, for pairs (m, n, n)."""
    return torch.eye(pairs.shape[-1], dtype=torch.bool, device=pairs.device)
