"""Settings of an adaptation, checked."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gsfl_tune.experiment.errors import UserError

Norms = Literal["auto", "new", "kept"]
Part = Literal["all", "norms", "biases"]
# Fewer images have no mean that says how answers are spread.
_LEAST_BATCH = 2


@dataclass(frozen=True)
class Settings:
    """Holds the settings of an adaptation.

    Attributes:
        epochs: Epochs; pseudo-labels are renewed before each.
        learning_rate: Peak rate of AdamW; it falls to zero on a cosine.
        batch_size: Images of a step.
        blocks: Last blocks of the backbone that are trained; ``all``, or 0 for none.
        train_encoder: Whether the discriminative encoder and the pooling are trained too.
        beta: Weight of the pseudo-labels.
        norms: Batch norms of trained blocks: ``new`` statistics of the images, those that are
            ``kept``, or ``auto``, see `Adapting.begin`.
        seed: Seed of order and augmentation.
        part: What of the trained blocks is trained.
    """

    epochs: int = 10
    learning_rate: float = 3e-4
    batch_size: int = 32
    blocks: int | Literal["all"] = "all"
    train_encoder: bool = True
    beta: float = 0.3
    norms: Norms = "auto"
    seed: int = 0
    part: Part = "all"

    def check(self, images: int, block_count: int, *, encodes: bool) -> None:
        """Refuses settings that cannot be used, all of them at once.

        Args:
            images: Number of images.
            block_count: Blocks of the backbone.
            encodes: Whether the head has an encoder.

        Raises:
            UserError: With a line for each problem.
        """
        problems = []
        if self.epochs < 1:
            problems.append(f"--epochs: found {self.epochs}, allowed a whole number from 1 on")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            problems.append(f"--learning-rate: found {self.learning_rate:g}, allowed above 0")
        if not (math.isfinite(self.beta) and self.beta >= 0):
            problems.append(f"--beta: found {self.beta:g}, allowed a number from 0 on")
        if self.seed < 0:
            problems.append(f"--seed: found {self.seed}, allowed a whole number from 0 on")
        if self.batch_size < _LEAST_BATCH:
            problems.append(
                f"--batch-size: found {self.batch_size}, allowed a whole number from "
                f"{_LEAST_BATCH} on"
            )
        elif images < self.batch_size:
            problems.append(
                f"--batch-size: found {self.batch_size} for {images:,} images, allowed at most "
                "their number"
            )
        if self.blocks != "all" and not 0 <= self.blocks <= block_count:
            problems.append(
                f"--blocks: found {self.blocks}, allowed 0 to {block_count} (the blocks of the "
                "backbone), or all"
            )
        if self.blocks == 0 and not (self.train_encoder and encodes):
            why = "the head has no encoder" if self.train_encoder else "--freeze-encoder"
            problems.append(f"--blocks: found 0 ({why}), so nothing is trained; allowed from 1 on")
        if problems:
            raise UserError("\n".join(problems))

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        found = asdict(self)
        if self.part == "all":
            # As in adaptations that were begun when there was nothing else.
            del found["part"]
        return found
