"""What every method offers, and what it may call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from gsfl_tune.data import Batch, Targets
from gsfl_tune.losses import LossTerms, Sizes
from gsfl_tune.models import HeadOutput


class LossOf(Protocol):
    """Computes the loss of one pass."""

    def __call__(
        self, output: HeadOutput, features: Tensor, targets: Targets, *, note: bool = True
    ) -> LossTerms:
        """Computes cross-entropy and terms.

        Args:
            output: Of the head.
            features: (B, D) unit features that the head saw.
            targets: Of the batch; what was mixed in counts by its share.
            note: Whether terms with a state take these images in. A method that passes the same
                images several times notes one of the passes.
        """


@dataclass(frozen=True)
class Passes:
    """The passes that a method may take through the model of a stage.

    Attributes:
        features: Inputs of the stage (B, ...) to unit features (B, D). In the head stage inputs are
            unit features already.
        head: Unit features to everything that the head makes of them.
        infer: Unit features to class scores (B, C), as the exported model computes them.
        loss: Loss of a pass.
        parameters: What the optimiser of the stage trains.
    """

    features: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], HeadOutput]
    infer: Callable[[Tensor], Tensor]
    loss: LossOf
    parameters: Sequence[nn.Parameter] = ()


class Method(nn.Module):
    """Decides which passes a training step takes, and what is predicted.

    Its buffers and parameters are saved in checkpoints; parameters are trained with those of the
    head. Of a training, `build` is called once, `step` for every micro-batch, and `after_step`
    after every optimiser step.

    Attributes:
        views: Views of each image in a batch. In the head stage they are fixed views
            (``data.views``); without such, they are one and the same feature.
        feature_passes: Passes of a view through the backbone in a step, for its price.
        head_passes: Passes of an image through the head in a step, for its price.
        annotated: Whether batches of the finetune stage carry annotations, where the source has
            some. The head stage reads features, on which nothing has a place.
        unlabelled: Images of ``data.unlabelled`` for each labelled one in batches of the finetune
            stage; `Batch.unlabelled` holds their views.
    """

    views: ClassVar[int] = 1
    feature_passes: ClassVar[int] = 1
    head_passes: ClassVar[int] = 1
    annotated: ClassVar[bool] = False
    unlabelled: int = 0

    def build(self, sizes: Sizes) -> None:
        """Makes the buffers and parameters that depend on sizes."""

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Computes the loss of a micro-batch.

        Args:
            batch: With as many views as `views` says.
            passes: Through the model that is trained.

        Returns:
            Means over the images of the batch. The stage computes gradients and updates.
        """
        raise NotImplementedError

    def predict(self, inputs: Tensor, passes: Passes) -> Tensor:
        """Computes class scores (B, C) of un-augmented inputs, in eval mode.

        The exported model is backbone, pooling and head: a method that predicts otherwise cannot be
        exported, and `gsfl_tune.testing.check_method` says so.

        Args:
            inputs: Of the stage.
            passes: Through the model that is validated.
        """
        return passes.infer(passes.features(inputs))

    def sums(self) -> list[Tensor]:
        """Returns what was noted since the last step: float32 tensors that ranks add up."""
        return []

    def after_step(self) -> None:
        """Changes the state by what was noted, and forgets it."""
