"""A method of training: images that are classified well count less."""

import torch

from gsfl_tune.data import Batch
from gsfl_tune.losses import LossTerms, Sizes
from gsfl_tune.methods import Method, Passes


class HardImages(Method):
    """Weighs images by how badly they are classified, relative to a running mean.

    An image whose class has probability p weighs (1 - p), divided by the mean of that over the
    images seen so far, so that the loss keeps its size.
    """

    def build(self, sizes: Sizes) -> None:
        """Makes the running mean, as a sum and a count, and what a step adds to it."""
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("noted", torch.zeros(2), persistent=False)

    def step(self, batch: Batch, passes: Passes) -> LossTerms:
        """Passes every image once and weighs it."""
        features = passes.features(batch.inputs)
        output = passes.head(features)
        right = output.logits.detach().softmax(1).gather(1, batch.labels[:, None])[:, 0]
        hard = (1 - right).to(self.seen.dtype)
        if self.training:
            self.noted += torch.stack([hard.sum(), torch.ones_like(hard).sum()])
        total, count = self.seen
        mean = torch.where(count > 0, total / count.clamp(min=1), 1.0).clamp(min=0.05)
        return passes.loss(output, features, batch.targets.weighted(hard / mean))

    def sums(self) -> list[torch.Tensor]:
        """Returns what several GPUs add up."""
        return [self.noted]

    def after_step(self) -> None:
        """Takes the images of the step into the mean."""
        self.seen += self.noted
        self.noted.zero_()
