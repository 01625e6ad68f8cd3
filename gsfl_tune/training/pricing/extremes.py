"""The most expensive trial of a space."""

from __future__ import annotations

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.config import Config
from gsfl_tune.training.pricing.cost import class_count
from gsfl_tune.training.pricing.costs import Costs
from gsfl_tune.training.pricing.one_step import largest_config
from gsfl_tune.training.pricing.work import training_work

# Any number: it cancels out.
_IMAGES = 2000


def dearest(experiment: Experiment) -> tuple[Config, float]:
    """Finds the most expensive configuration, and its cost relative to the defaults.

    Args:
        experiment: The experiment.

    Raises:
        BackboneError: A backbone cannot be built.
    """
    classes, costs = class_count(experiment), Costs()

    def price(config: Config) -> float:
        works = training_work(config, train=_IMAGES, validation=_IMAGES // 5, classes=classes)
        return costs.training(works)

    defaults = experiment.defaults()
    best = (defaults, 1.0)
    cases = [largest_config(experiment)]
    for name in experiment.values("model.backbone"):
        try:
            cases.append(largest_config(experiment.fixed({"model.backbone": name})))
        except UserError:  # a named mapping sets it
            continue
    for config in cases:
        factor = price(config) / price(defaults)
        if factor > best[1]:
            best = config, factor
    return best
