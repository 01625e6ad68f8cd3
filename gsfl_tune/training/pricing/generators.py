"""The memory of the largest generator of features in a space."""

from __future__ import annotations

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.generate_config import GenerateConfig
from gsfl_tune.training.generate import generator_numbers

_SECTION = "training.head.generate"


def numbers_of_generators(case: Experiment, feature_dim: int, class_count: int) -> int:
    """Counts the numbers that a generator and its critic keep, gradients and moments included.

    Args:
        case: A part of a space.
        feature_dim: D, the largest.
        class_count: C.
    """
    share, epochs = case.values(f"{_SECTION}.share"), case.values("training.head.epochs")
    if max(share) <= 0 or max(epochs) == 0:
        return 0
    sizes = {key: max(case.values(f"{_SECTION}.{key}")) for key in ("noise_dim", "hidden_dim")}
    most = 0
    for critic in case.values(f"{_SECTION}.critic"):
        for condition in case.values(f"{_SECTION}.condition"):
            given = {"critic": critic, "condition": condition, **sizes}
            config = GenerateConfig.model_validate(given)
            most = max(most, sum(generator_numbers(config, feature_dim, class_count)))
    return 4 * most
