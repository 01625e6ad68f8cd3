"""What is tried, and timed, before the first trial."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.experiment import Experiment
from gsfl_tune.run.storage import RunAddress
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.ray_tune.rehearsal import rehearse_largest
from gsfl_tune.search.ray_tune.resources import Resources
from gsfl_tune.search.ray_tune.timed_steps import timed_steps
from gsfl_tune.training import Workspace
from gsfl_tune.training.pricing import Measured

# Seconds of steps per stage. A guess of the speed is wrong by a factor of two and more, and then
# so is the time left until the first rung.
_SECONDS = 0.2


def rehearse_and_price(
    experiment: Experiment,
    workspace: Workspace,
    resources: Resources,
    costs: TrialCosts,
    *,
    cache_dir: Path | None = None,
    storage: RunAddress | None = None,
) -> list[Measured]:
    """Takes steps of the largest model, and times them unless a plan will time the defaults.

    Where no largest model is rehearsed, steps of the defaults are timed in this process.

    Args:
        experiment: The experiment, with provisional values for what a plan decides.
        workspace: Its data.
        resources: Resources of one trial, and how many fit.
        costs: Learns what was timed of kinds of work that it does not know.
        cache_dir: Root of the nodes' caches.
        storage: Second location of the run.

    Returns:
        What the costs have learned.

    Raises:
        UserError: When the step does not fit.
        EnvironmentProblem: When weights, caches or disk fail.
    """
    config = experiment.defaults()
    planned = config.search.time_budget is not None
    found = rehearse_largest(
        experiment,
        resources=resources,
        side=workspace.dataset.pool.side,
        cache_dir=cache_dir,
        storage=storage,
        least=0.0 if planned else _SECONDS,
    )
    own = resources.of(config.model.backbone)
    if not found and not planned and own.gpu == 0:
        found = timed_steps(
            config,
            workspace,
            gpu=False,
            threads=own.threads,
            workers=own.workers,
            least=_SECONDS,
        )
    learned = [each for each in found if not costs.costs.known(each.work)]
    for measured in learned:
        costs.costs.observe(measured)
    return learned
