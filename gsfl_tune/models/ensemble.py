"""Ensembles: the mean of probabilities of several networks or views of an image, as a module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gsfl_tune.models.network import Network


class Ensemble(nn.Module):
    """Averages the probabilities of networks, and of an image and its mirror image.

    Networks that differ only in their heads, such as seeds of a frozen backbone, share one
    backbone: it runs once and is stored once.

    Args:
        members: Networks with the same classes and inputs; at least one.
        flip: Whether every image is also evaluated mirrored.

    Raises:
        ValueError: If there is no member.
    """

    def __init__(self, members: Sequence[Network], *, flip: bool = False) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs a network")
        self.one_backbone = len(members) > 1 and _same_backbone(members)
        self.flip = flip
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
        for view in [images, images.flip(3)] if self.flip else [images]:
            features: Tensor | None = None
            for network in self.networks:
                if features is None or not self.one_backbone:
                    features = network.features(view)
                rows.append(network.classify(features).float().log_softmax(dim=1))
        if len(rows) == 1:
            return rows[0]
        return torch.stack(rows).logsumexp(dim=0) - math.log(len(rows))

    def inference_state(self) -> dict[str, Tensor]:
        """Returns the tensors of all members; a shared backbone is included once."""
        return {
            f"members.{number}.{name}": tensor
            for number, network in enumerate(self.networks)
            for name, tensor in network.inference_state().items()
            if number == 0 or not self.one_backbone or name.startswith("head.")
        }


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
