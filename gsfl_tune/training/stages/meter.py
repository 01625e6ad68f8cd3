"""The mean loss of an epoch, by term."""

from __future__ import annotations

import torch
from torch import Tensor

from gsfl_tune.losses import LossTerms
from gsfl_tune.training.process_group import Ranks


class LossMeter:
    """Keeps the loss terms of every batch on the device until the epoch ends."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._values: list[Tensor] = []
        self._sizes: list[int] = []

    def add(self, terms: LossTerms, size: int) -> None:
        """Adds a batch of `size` images."""
        named = terms.detached()
        self._names = list(named)
        self._values.append(torch.stack(list(named.values())))
        self._sizes.append(size)

    def means(self, ranks: Ranks | None = None) -> dict[str, float]:
        """Returns each term's mean per image over all ranks; the epoch's one synchronisation."""
        values = torch.stack(self._values).cpu().double()
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        sums, count = sizes @ values, sizes.sum()
        if ranks is not None:
            ranks.add_up([sums, count])
        means = (sums / count).tolist()
        return {f"train/{name}": value for name, value in zip(self._names, means, strict=True)}
