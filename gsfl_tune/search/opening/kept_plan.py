"""The plan that an earlier driver made and kept, for the budget that a resume has."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.units import seconds
from gsfl_tune.run import RunDirectory, read_json
from gsfl_tune.search.costs.time_budget import unlimited
from gsfl_tune.search.costs.time_plan import TimePlan, control_of
from gsfl_tune.search.samplers.spaces import own_experiment


def planned(experiment: Experiment, run: RunDirectory) -> tuple[Experiment, TimePlan | None]:
    """Returns the experiment as an earlier driver planned it, or unchanged without a plan.

    Args:
        experiment: The experiment.
        run: The run directory.

    Returns:
        The experiment with the plan's values, and the plan for its present budget.

    Raises:
        UserError: When the plan cannot be read.
    """
    budget = experiment.defaults().search.time_budget
    if budget is None or not run.plan_file.exists():
        return experiment, None
    try:
        plan = TimePlan(**read_json(run.plan_file))
    except (TypeError, ValueError) as error:
        raise UserError(f"{run.plan_file}: cannot be read ({error})") from error
    plan = _with_budget(plan, experiment, seconds(budget))
    return fixed_to(experiment, plan), plan


def as_asked(experiment: Experiment, run: RunDirectory) -> Experiment:
    """Returns the experiment of a resume as its user wrote it.

    The run's own ``experiment.yaml`` has the numbers of the plan in place of those that the user
    left out. Taken for the user's, they would not change with the budget, and the search would wait
    for a number of trials that it cannot reach in time.

    Args:
        experiment: The experiment of the resume; maybe the run's own file.
        run: The run directory.

    Returns:
        The experiment with the planned numbers automatic again. Those that differ are the user's.
    """
    if experiment.defaults().search.time_budget is None or not run.plan_file.exists():
        return experiment
    try:
        own = own_experiment(run)
        plan = TimePlan(**read_json(run.plan_file))
    except (UserError, TypeError, ValueError):
        return experiment  # `planned` names a plan that cannot be read
    budget = own.defaults().search.time_budget
    if budget is None:
        return experiment
    filled = _values(_scaled(plan, seconds(budget)))
    if plan.automatic is None and plan.alone:
        del filled["search.trials"]  # 1 may be the user's
    return experiment.automatic_too(
        path
        for path, value in filled.items()
        if (plan.automatic is None or path in plan.automatic) and experiment.values(path) == [value]
    )


def _with_budget(plan: TimePlan, experiment: Experiment, budget: float) -> TimePlan:
    """Returns a plan for another budget.

    Epochs stay, as trials of the journal have them. More time is for more trials.
    """
    search = experiment.defaults().search
    plan = replace(plan, control=control_of(experiment))
    if "search.finalists" not in experiment.automatic:
        plan = replace(plan, finalists=search.finalists)
    if "search.final_seeds" not in experiment.automatic:
        plan = replace(plan, final_seeds=search.final_seeds)
    return _scaled(plan, budget)


def _scaled(plan: TimePlan, budget: float) -> TimePlan:
    if budget > plan.budget:
        trials = math.ceil(plan.trials * budget / plan.budget)
        plan = replace(plan, alone=False, trials=trials)
    return replace(plan, budget=budget)


def fixed_to(experiment: Experiment, plan: TimePlan) -> Experiment:
    """Returns the experiment with the values of the plan."""
    fixed: dict[str, Any] = {k: v for k, v in _values(plan).items() if k in experiment.automatic}
    if 0 < plan.finetune_epochs < experiment.defaults().data.views:
        fixed["data.views"] = plan.finetune_epochs  # no epoch would show the others
    if not plan.finetune_epochs:
        defaults = experiment.space.leaf_values(experiment.default_params())
        searched = experiment.space.alternatives
        fixed |= {
            path: defaults[path]
            for path in searched
            if path.startswith("training.finetune.") and path in defaults and path not in fixed
        }
    return experiment.fixed({**fixed, **plan.only})


def _values(plan: TimePlan) -> dict[str, int]:
    """Returns the numbers that a plan gives to leaves which the user left out."""
    return {
        "training.head.epochs": plan.head_epochs,
        "training.finetune.epochs": plan.finetune_epochs,
        "search.finalists": plan.finalists,
        "search.final_seeds": plan.final_seeds,
        "search.trials": 1 if plan.alone else unlimited(plan.trials),
    }
