"""The estimate of a search before it begins, from steps that are timed in this process."""

from __future__ import annotations

from pathlib import Path

import torch

from gsfl_tune.data.contrast import images_without_labels
from gsfl_tune.experiment import Experiment
from gsfl_tune.search.costs.estimate import Estimate, of_prices
from gsfl_tune.search.costs.time_plan import Asked, control_of
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.opening.planning import Frozen, longest, prices_of
from gsfl_tune.search.ray_tune.resources import Resources
from gsfl_tune.training.pretrain import without_pretraining
from gsfl_tune.training.pricing.calibrate import measure_frozen, measure_steps
from gsfl_tune.training.pricing.pretraining import pretraining_price
from gsfl_tune.training.standalone import open_workspace


def measured(
    experiment: Experiment, resources: Resources, cache_dir: Path | None = None
) -> Estimate:
    """Opens the data, times steps with the defaults, and estimates the whole run.

    One process is timed. Where several trials compete for memory, each is slower.

    Args:
        experiment: The experiment, without a time budget.
        resources: Slots of the search.
        cache_dir: Root of the node's caches.

    Raises:
        UserError: When the data cannot be used.
    """
    workspace = open_workspace(experiment, cache_dir)
    # Learned weights take the same time as others.
    config = without_pretraining(experiment.defaults())
    search = config.search
    resources = resources.of(config.model.backbone)
    costs = TrialCosts.of(workspace.dataset, search.folds)
    costs.node_slots = resources.per_node
    threads = torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    try:
        for each in measure_steps(config, workspace, resources.workers):
            costs.costs.observe(each)
        rate, making = measure_frozen(config, workspace)
    finally:
        torch.set_num_threads(threads)
    frozen = Frozen(rate, rate, making)
    learned = pretraining_price(experiment, search.trials)
    pretrainings = 0.0
    if learned is not None:
        images = len(images_without_labels(workspace.dataset))
        pretrainings = learned.count * learned.expected * images * learned.passes / rate
    asked = Asked(
        None, None, None, None,
        control=control_of(experiment),
        grace=search.scheduler.grace if search.scheduler.name == "asha" else None,
        replicates=search.replicates,
        reduction=search.scheduler.reduction,
    )  # fmt: skip
    return of_prices(
        prices_of(experiment, workspace, costs, frozen, resources.count),
        asked,
        trials=search.trials,
        epochs=(config.training.head.epochs, longest(experiment)),
        finals=(search.finalists, search.final_seeds),
        slots=resources.count,
        gpus=resources.gpu,
        pretrainings=pretrainings,
    )
