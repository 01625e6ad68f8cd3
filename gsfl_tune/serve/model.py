"""The bundle as the server uses it: threads shared out, squares in, classes out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gsfl_tune.export import Bundle, Prediction
from gsfl_tune.models.frozen import frozen_forward

# Beyond that another batch side by side gains more than another thread.
_MOST_THREADS = 4


@dataclass(frozen=True)
class Threads:
    """Who computes on how many cores.

    On a CPU as many batches run side by side as cores divided by `model`, each on its own
    threads. With one thread a batch nothing spins while it waits for others, so that decoding,
    which takes its share of the same cores, takes time from the model and no more.

    Attributes:
        model: Threads of a forward pass.
        batches: Forward passes side by side.
        decode: Threads that decode images.
    """

    model: int
    batches: int
    decode: int

    @classmethod
    def of(cls, device: torch.device, cores: int, model: int | None = None) -> Threads:
        """Shares out the cores; `model` overrides the threads of a forward pass."""
        if device.type != "cpu":
            return cls(model=model or 1, batches=1, decode=max(1, cores - 1))
        model = min(cores, model or min(_MOST_THREADS, max(1, cores // 4)))
        return cls(model=model, batches=max(1, cores // model), decode=cores)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Question:
    """One decoded image, (side, side, 3) uint8, and how many classes its client wants."""

    square: np.ndarray
    top: int


class Model:
    """Answers batches of questions.

    Args:
        bundle: The bundle.
        on_batch: Told the size and the seconds of every forward pass.

    Attributes:
        trouble: Why the last forward pass failed; None when it did not.
    """

    def __init__(
        self, bundle: Bundle, on_batch: Callable[[int, float], None] = lambda images, seconds: None
    ) -> None:
        self.bundle = bundle
        self._on_batch = on_batch
        self.trouble: str | None = None

    def quicken(self) -> None:
        """Has a CPU run the backbone in its fast form, which gives the same but for rounding.

        Formats other than PyTorch's have made themselves fast.
        """
        if self.bundle.device.type != "cpu":
            return
        size = self.bundle.preprocessing.image_size
        made: dict[int, Any] = {}  # networks of an ensemble may share their backbone
        for network in self.bundle.networks:
            backbone = network.backbone
            if id(backbone) not in made:
                made[id(backbone)] = frozen_forward(backbone, (3, size, size))
            network.backbone = made[id(backbone)]

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """Predicts; called in a thread of the batcher.

        Raises:
            RuntimeError: When the model does, such as for want of memory.
        """
        started = time.perf_counter()
        top = max(question.top for question in questions)
        try:
            predictions = self.bundle.predict(
                [question.square for question in questions], top=top, batch_size=len(questions)
            )
        except Exception as error:
            self.trouble = f"{type(error).__name__}: {error}"
            raise
        self.trouble = None
        self._on_batch(len(questions), time.perf_counter() - started)
        return [
            Prediction(each.path, each.classes[: asked.top], each.probabilities[: asked.top])
            for asked, each in zip(questions, predictions, strict=True)
        ]

    def warm_up(self, batch: int) -> None:
        """Takes the time of the first passes before anybody waits for them."""
        side = self.bundle.preprocessing.side
        square = np.zeros((side, side, 3), dtype=np.uint8)
        for size in (1, batch):
            self.bundle.predict([square] * size, batch_size=size)
