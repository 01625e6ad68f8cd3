"""The model of the server: division of threads, and prediction of batches of squares."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gsfl_tune.export import Bundle, Prediction
from gsfl_tune.models.frozen import frozen_forward

# With more threads, another concurrent batch gains more than another thread.
_MOST_THREADS = 4


@dataclass(frozen=True)
class Threads:
    """Holds the number of threads for each task.

    On a CPU the number of concurrent batches is cores divided by `model`, each batch on its own
    threads. With one thread per batch, no thread spins while it waits for others. So decoding,
    which uses the same cores, costs the model only the time that it takes itself.

    Attributes:
        model: Threads of a forward pass.
        batches: Concurrent forward passes.
        decode: Threads that decode images.
    """

    model: int
    batches: int
    decode: int

    @classmethod
    def of(cls, device: torch.device, cores: int, model: int | None = None) -> Threads:
        """Divides the cores; `model` overrides the threads of a forward pass."""
        if device.type != "cpu":
            return cls(model=model or 1, batches=1, decode=max(1, cores - 1))
        model = min(cores, model or min(_MOST_THREADS, max(1, cores // 4)))
        return cls(model=model, batches=max(1, cores // model), decode=cores)


@dataclass(frozen=True)
class Question:
    """Holds one decoded image, (side, side, 3) uint8, and the requested number of classes."""

    square: np.ndarray
    top: int


class Model:
    """Answers batches of questions.

    Args:
        bundle: The bundle.
        on_batch: Receives the size and the seconds of every forward pass.

    Attributes:
        trouble: Why the last forward pass failed; None if it did not.
    """

    def __init__(
        self, bundle: Bundle, on_batch: Callable[[int, float], None] = lambda images, seconds: None
    ) -> None:
        self.bundle = bundle
        self._on_batch = on_batch
        self.trouble: str | None = None

    def quicken(self) -> None:
        """Uses the fast form of the backbone on a CPU; results differ only by rounding.

        Other formats than PyTorch's are already optimised.
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
            RuntimeError: If the model fails, for example without enough memory.
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
        """Runs the slow first passes before requests arrive."""
        side = self.bundle.preprocessing.side
        square = np.zeros((side, side, 3), dtype=np.uint8)
        for size in (1, batch):
            self.bundle.predict([square] * size, batch_size=size)
