"""Ensembles: the mean of probabilities of several networks or views of an image, as a module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models.network import Network

# Side of a crop at a corner, as a share of the image's: what 256 to 224 pixels are.
CROP = 0.875


class Ensemble(nn.Module):
    """Averages the probabilities of networks, and of several views of an image.

    Networks that differ only in their heads, such as seeds of a frozen backbone, share one
    backbone: it runs once and is stored once.

    Args:
        members: Networks with the same classes and inputs; at least one.
        flip: Whether every image is also evaluated mirrored.
        crops: Whether the four corners of every image are evaluated too. With `flip` these are the
            ten views of Krizhevsky et al. ("ImageNet Classification with Deep Convolutional Neural
            Networks", NeurIPS 2012, section 4.1), but for the whole image in place of its centre.

    Raises:
        ValueError: If there is no member.
    """

    def __init__(
        self, members: Sequence[Network], *, flip: bool = False, crops: bool = False
    ) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs a network")
        self.one_backbone = len(members) > 1 and _same_backbone(members)
        self.flip = flip
        self.crops = crops
        first = members[0]
        if self.one_backbone:
            members = [first, *(first.having(each.head) for each in members[1:])]
        self.members = nn.ModuleList(members)

    @property
    def networks(self) -> list[Network]:
        """Returns the members."""
        return [each for each in self.members if isinstance(each, Network)]

    def infer(self, images: Tensor) -> Tensor:
        """Returns logarithms (B, C) of the mean probabilities of normalised images (B, 3, h, w).

        They are logits: their softmax is the mean.
        """
        rows: list[Tensor] = []
        for view in self.views(images):
            features: Tensor | None = None
            for network in self.networks:
                if features is None or not self.one_backbone:
                    features = network.features(view)
                rows.append(network.classify(features).float().log_softmax(dim=1))
        if len(rows) == 1:
            return rows[0]
        return torch.stack(rows).logsumexp(dim=0) - math.log(len(rows))

    def views(self, images: Tensor) -> list[Tensor]:
        """Returns what is evaluated of images (B, 3, h, w), each view of the same shape."""
        found = [images, *(corners(images) if self.crops else [])]
        return found + [view.flip(3) for view in found] if self.flip else found

    def inference_state(self) -> dict[str, Tensor]:
        """Returns the tensors of all members; a shared backbone is included once."""
        return {
            f"members.{number}.{name}": tensor
            for number, network in enumerate(self.networks)
            for name, tensor in network.inference_state().items()
            if number == 0 or not self.one_backbone or name.startswith("head.")
        }


def corners(images: Tensor) -> list[Tensor]:
    """Returns the four corners of images (B, 3, h, w), enlarged to their size, bilinear."""
    height, width = images.shape[2:]
    down, right = round(CROP * height), round(CROP * width)
    found = []
    for rows in (slice(0, down), slice(height - down, height)):
        for columns in (slice(0, right), slice(width - right, width)):
            crop = images[:, :, rows, columns]
            found.append(
                functional.interpolate(
                    crop, size=(height, width), mode="bilinear", align_corners=False
                )
            )
    return found


def member_states(state: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Returns the tensors of every member, from `Ensemble.inference_state`.

    Args:
        state: Tensors of the ensemble.
        count: Number of members.

    Raises:
        ValueError: If a tensor belongs to none of them.
    """
    members: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in state.items():
        word, _, rest = name.partition(".")
        number, _, own = rest.partition(".")
        if word != "members" or not number.isdecimal() or int(number) >= count:
            raise ValueError(f"{name} belongs to none of {count} members")
        members[int(number)][own] = tensor
    shared = {name: each for name, each in members[0].items() if not name.startswith("head.")}
    return [
        each if any(not name.startswith("head.") for name in each) else shared | each
        for each in members
    ]


def _same_backbone(members: Sequence[Network]) -> bool:
    """Returns whether all tensors except those of the heads are equal."""
    first = _body(members[0])
    for member in members[1:]:
        other = _body(member)
        if first.keys() != other.keys():
            return False
        if not all(torch.equal(tensor, other[name]) for name, tensor in first.items()):
            return False
    return True


def _body(network: Network) -> dict[str, Tensor]:
    return {k: v for k, v in network.state_dict().items() if not k.startswith("head.")}
