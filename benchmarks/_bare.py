"""Training loops as a user writes them in plain torch, without this package."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

Batches = Iterable[tuple[Tensor, Tensor]]


def encoder(dim: int, latent: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(dim, latent),
        nn.Dropout(dropout),
        nn.Linear(latent, latent),
        nn.ReLU(),
    )


class Plain(nn.Module):
    """Encoder and classifier on unit features, with its cross-entropy."""

    def __init__(self, dim: int, latent: int, classes: int, dropout: float, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.discriminative = encoder(dim, latent, dropout)
        self.classifier = nn.Linear(latent, classes)

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.classifier(self.discriminative(self.scale * f)), y)

    def after_step(self) -> None:
        """Nothing."""


class Gsfl(Plain):
    """GSFL-Net's head with its four terms and its centres, written straight from the formulas."""

    def __init__(
        self, dim: int, latent: int, classes: int, dropout: float, scale: float, groups: Tensor
    ) -> None:
        super().__init__(dim, latent, classes, dropout, scale)
        self.shared = encoder(dim, latent, dropout)
        self.decoder = nn.Sequential(nn.Linear(latent, latent), nn.ReLU(), nn.Linear(latent, dim))
        self.register_buffer("groups", groups)
        self.register_buffer("centers", torch.zeros(classes, latent))
        members = functional.one_hot(groups).float()
        self.register_buffer("mean_of_group", (members / members.sum(0)).T.contiguous())
        self.weights = (0.17, 0.005, 0.075)
        self.rate = 0.21

    def loss(self, f: Tensor, y: Tensor) -> Tensor:
        d = self.discriminative(self.scale * f)
        s = self.shared(self.scale * f)
        r = self.decoder(s + d)
        group_centers = self.mean_of_group @ self.centers
        w_r, w_c, w_s = self.weights
        d32, s32, r32 = (x.float() if x.dtype == torch.bfloat16 else x for x in (d, s, r))
        self.seen = (d32.detach(), y)
        return (
            functional.cross_entropy(self.classifier(d), y)
            + w_r * (r32 / self.scale - f).square().sum(1).mean()
            + w_c * (d32 - self.centers[y]).square().sum(1).mean()
            + w_s * (s32 - group_centers[self.groups[y]]).square().sum(1).mean()
        )

    @torch.no_grad()
    def after_step(self) -> None:
        d, y = self.seen
        counts = torch.zeros(len(self.centers), 1, device=d.device, dtype=d.dtype)
        counts.index_add_(0, y, torch.ones(len(y), 1, device=d.device, dtype=d.dtype))
        sums = torch.zeros_like(self.centers).index_add_(0, y, d)
        self.centers -= self.rate * (counts * self.centers - sums) / (1 + counts)


def train(
    head: Plain,
    features: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    *,
    autocast: bool = False,
) -> float:
    """One epoch; returns the mean loss, which is the only time that the device is waited for."""
    total: Tensor | float = 0.0
    count = 0
    for inputs, y in batches:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=autocast):
            loss = head.loss(features(inputs), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        head.after_step()
        total = total + loss.detach()
        count += 1
    return float(total) / count
