"""What the contracts share: expectations whose failures name the technique."""

from __future__ import annotations

import torch
from torch import nn


class Expect:
    """Raises an error where something does not hold.

    Args:
        subject: What is checked, as messages call it, such as ``the term``.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __call__(self, holds: bool, complaint: str) -> None:
        """Raises ``AssertionError`` with the complaint if something does not hold."""
        if not holds:
            raise AssertionError(f"{self._subject} {complaint}")

    def same_state(self, one: nn.Module, other: nn.Module, what: str) -> None:
        """Raises ``AssertionError`` if two modules differ in what checkpoints keep of them.

        Args:
            one: The module as it should be.
            other: The module that is compared.
            what: How the other one came about.
        """
        ours, theirs = one.state_dict(), other.state_dict()
        self(ours.keys() == theirs.keys(), f"{what}: has other names in its state_dict")
        for name in ours:
            same = torch.allclose(ours[name].double(), theirs[name].double(), rtol=1e-9, atol=1e-12)
            self(same, f"{what}: {name} is not the same")
