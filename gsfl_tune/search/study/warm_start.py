"""First trials from earlier runs: configurations that were good there.

What was good on similar images is a better beginning than the middle of a range. Values of two data
sets cannot be compared, so an earlier run gives configurations, never results. Its best one comes
first. The others are chosen so that they complement each other: of those that are nearly as good,
the one that differs most from what was chosen before. Several that resemble each other would tell
the same thing several times (Feurer et al., "Auto-Sklearn 2.0", JMLR 2022, section 3, build such
portfolios from tables of results; a single run has no table of other data sets).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.run import RunDirectory, StudyName
from gsfl_tune.search.samplers.factory import whole_space
from gsfl_tune.search.samplers.history import OUTSIDE
from gsfl_tune.search.samplers.spaces import plain_space, unchecked
from gsfl_tune.search.study.journal import read_studies

# Of a search's trials at most this share, and at most `MOST`, come from earlier runs: they are
# never stopped early.
SHARE = 0.1
MOST = 4
# The others are chosen among this share of the finished trials.
GOOD = 0.25


@dataclass(frozen=True)
class Earlier:
    """Describes a trial of an earlier run.

    Attributes:
        run: The run as the experiment names it.
        number: The trial's number there.
        params: Its parameters, in the new space.
        notices: What could not be kept.
    """

    run: str
    number: int
    params: dict[str, Any]
    notices: list[str]


def count_of(trials: int) -> int:
    """Returns how many of a search's trials may come from earlier runs."""
    return min(MOST, max(1, int(SHARE * trials)))


def earlier_trials(
    experiment: Experiment,
    runs: Sequence[str],
    name: StudyName = "search",
    *,
    trials: int | None = None,
) -> list[Earlier]:
    """Chooses configurations of earlier runs for the begin of a search.

    Args:
        experiment: The new experiment.
        runs: Run directories; the first trial of each is its best one.
        name: The study. A tuned control takes those of an earlier tuned control, if there was one.

        trials: Number of trials that the new search is expected to have; default
            ``search.trials``, which is no more than a limit where there is a time budget.

    Returns:
        At most `count_of` its trials, best first.

    Raises:
        UserError: If a directory is not a run, or has no finished trial; one line for each.
    """
    problems: list[str] = []
    pools: list[list[Earlier]] = []
    for run in runs:
        try:
            pools.append(_good_trials(experiment, run, name))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    chosen: list[Earlier] = []
    bests = [pool[0] for pool in pools]
    wanted = count_of(experiment.defaults().search.trials if trials is None else trials)
    distance = _Distance(experiment)
    # The defaults are a first trial anyway.
    effective = experiment.space.active_params
    known = [effective(experiment.default_params())]
    while len(chosen) < wanted and any(pools):
        for pool in pools:
            pool[:] = [each for each in pool if effective(each.params) not in known]
            if not pool or len(chosen) == wanted:
                continue
            best = pool[0]
            if best not in bests:
                best = max(pool, key=lambda each: distance.nearest(each, known))
            chosen.append(best)
            known.append(effective(best.params))
    return chosen


def _good_trials(experiment: Experiment, run: str, name: StudyName) -> list[Earlier]:
    """Returns the good trials of a run in the new space, best first."""
    directory = RunDirectory(Path(run).expanduser())
    try:
        before = unchecked(directory.experiment_file.read_text(encoding="utf-8"))
        studies = read_studies(directory.journal)
    except OSError as error:
        raise UserError(
            f"search.warm_start: found {run}, allowed a run directory of a search "
            f"({error.strerror})"
        ) from None
    except (UserError, ValueError) as error:
        raise UserError(
            f"search.warm_start: {directory.experiment_file} cannot be read by this version "
            f"({' '.join(str(error).split())})"
        ) from None
    if name == "control" and "control" in studies:
        before, trials = plain_space(before), studies["control"]
    else:
        trials = studies.get("search", [])
    better = -1 if metric_of(before.defaults().search.metric).direction == "maximize" else 1

    def key(trial: FrozenTrial) -> tuple[float, int]:
        return better * float(trial.values[0]), trial.number

    ended = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.values and OUTSIDE not in trial.user_attrs
    ]
    if not ended:
        raise UserError(f"search.warm_start: {run} has no trial that was trained to its end")
    ended.sort(key=key)
    good = ended[: max(1, round(GOOD * len(ended)))]
    return [_in_space(experiment, before, run, trial) for trial in good]


def _in_space(experiment: Experiment, before: Experiment, run: str, trial: FrozenTrial) -> Earlier:
    """Returns a trial with the parameters of the new space.

    What the earlier run fixed is a value too: a leaf that is searched only now gets it.
    """
    space = before.space
    had = space.leaf_values(trial.params)
    # A sampler of a fixed space drew inactive ones too: the trial had other values in their place.
    drawn = space.active_params(trial.params)
    wanted: dict[str, Any] = {}
    for parameter in experiment.space.parameters:
        # The name of a mapping is not a leaf; alternatives of one path share its value.
        if parameter.name in drawn:
            wanted[parameter.path] = drawn[parameter.name]
        elif parameter.path in had:
            wanted[parameter.path] = had[parameter.path]
    params, notices = experiment.space.clip(wanted)
    return Earlier(run, trial.number, params, notices)


class _Distance:
    """Measures how far configurations are from each other, 0 to 1 for each parameter."""

    def __init__(self, experiment: Experiment) -> None:
        self._distributions = whole_space(experiment.space)

    def nearest(self, trial: Earlier, others: Sequence[Mapping[str, Any]]) -> float:
        """Returns the distance to the nearest of other configurations."""
        return min(self.between(trial.params, each) for each in others)

    def between(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        """Returns the mean distance over the parameters that one of both has."""
        names = one.keys() | other.keys()
        return sum(self._of(name, one, other) for name in names) / max(1, len(names))

    def _of(self, name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
        if name not in one or name not in other:
            return 1.0
        distribution = self._distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            return float(one[name] != other[name])
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = float(distribution.low), float(distribution.high)
        ends = np.array([low, high, float(one[name]), float(other[name])])
        if distribution.log:
            ends = np.log(ends)
        width = ends[1] - ends[0]
        return float(abs(ends[2] - ends[3]) / width) if width > 0 else 0.0
