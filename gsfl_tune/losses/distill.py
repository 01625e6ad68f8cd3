"""Distillation: the predictions of a teacher.

Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Sun et al., "Logit
Standardization in Knowledge Distillation", CVPR 2024; that a teacher sees what the student sees:
Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gsfl_tune.losses._base import LossInput, LossTerm

TEACHER = "teacher"
"""Name of the extra with the teacher's class scores (B, C), without gradient."""


class Distill(LossTerm):
    """Computes T^2 KL(softmax(t / T) || softmax(z / T)) of teacher's scores t and student's z.

    Averaged over the images; T^2 keeps the gradient's size whatever T is.

    Args:
        temperature: T.
        standardize: Whether t and z are first reduced to mean 0 and standard deviation 1 over the
            classes, image by image: the student then learns relations of scores, not their size.
    """

    any_head = True

    def __init__(self, temperature: float, *, standardize: bool) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardize = standardize

    def forward(self, batch: LossInput) -> Tensor:
        """Computes the term.

        Raises:
            ValueError: If there is no teacher.
        """
        found: Tensor | None = batch.extras.get(TEACHER)
        if found is None:
            raise ValueError("distillation needs a teacher: training.teacher names its bundle")
        teacher, student = found.to(batch.logits.dtype), batch.logits
        if self.standardize:
            teacher, student = _standardised(teacher), _standardised(student)
        wanted = functional.log_softmax(teacher / self.temperature, dim=1)
        learnt = functional.log_softmax(student / self.temperature, dim=1)
        divergence = functional.kl_div(learnt, wanted, reduction="batchmean", log_target=True)
        return self.temperature**2 * divergence


def _standardised(logits: Tensor) -> Tensor:
    apart = logits - logits.mean(dim=1, keepdim=True)
    # The floor keeps equal scores from dividing by zero.
    variance = apart.square().mean(dim=1, keepdim=True)
    return apart / torch.sqrt(variance.clamp(min=1e-12))
