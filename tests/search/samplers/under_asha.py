"""A model of a fixed space in a search in which nearly all trials are stopped."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.search.samplers.factory import create_sampler
from gsfl_tune.search.schedulers.asha import Asha


def under_asha(name: str, tried: Experiment, trials: int, startup: int) -> tuple[int, int, int]:
    """Trials that came to their end, that were stopped, and that a model proposed."""
    study = optuna.create_study(direction="maximize")
    asha = Asha(4, reduction=3)
    config = SamplerConfig(name=name, startup_trials=startup)  # type: ignore[arg-type]
    ended, drawn = {"COMPLETE": 0, "PRUNED": 0}, 0
    for number in range(trials):
        sampler = study.sampler = create_sampler(config, tried.space, 1, number)
        trial = study.ask()
        frozen = study.trials[-1]
        joint = sampler.infer_relative_search_space(study, frozen)
        proposed = sampler.sample_relative(study, frozen, joint)
        params = tried.space.suggest(trial)
        if proposed:
            drawn += 1
            # The values need not be the same: asked twice, it may find another maximum.
            assert proposed.keys() <= params.keys()
        # Later ones are worse: nearly all are stopped.
        value = -float(params["model.dropout"]) - 0.1 * number
        for k in range(4):
            trial.report(value + k, k)
            if asha.record(number, k, value):
                study.tell(trial, state=TrialState.PRUNED)
                ended["PRUNED"] += 1
                break
        else:
            study.tell(trial, value + 3)
            ended["COMPLETE"] += 1
    return ended["COMPLETE"], ended["PRUNED"], drawn
