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
    if budget > plan.budget:
        trials = math.ceil(plan.trials * budget / plan.budget)
        plan = replace(plan, alone=False, trials=trials)
    return replace(plan, budget=budget)


def fixed_to(experiment: Experiment, plan: TimePlan) -> Experiment:
    """Returns the experiment with the values of the plan."""
    values = {
        "training.head.epochs": plan.head_epochs,
        "training.finetune.epochs": plan.finetune_epochs,
        "search.finalists": plan.finalists,
        "search.final_seeds": plan.final_seeds,
        "search.trials": 1 if plan.alone else unlimited(plan.trials),
    }
    fixed: dict[str, Any] = {k: v for k, v in values.items() if k in experiment.automatic}
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
