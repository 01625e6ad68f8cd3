"""The choice of finalists, which are trained again at the end of a search.

Dear trials that are hardly better are left out, as in the one-standard-error rule of Breiman,
Friedman, Olshen and Stone, "Classification and Regression Trees", 1984, section 3.4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.metrics import is_mean, metric_of
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.search.study.goals import feasible
from gsfl_tune.search.study.pareto import candidates
from gsfl_tune.search.workers.replicates import rows_of

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

# The metric of a trial by epoch, from its number; empty where it is not known.
Curve = Callable[[int], Sequence[float]]
# A trial that costs less than so many times another one is not dear.
_DEAR = 3.0


def curves_of(study: Study, run: RunDirectory) -> Curve:
    """Returns a function that reads the metric of a trial by epoch from the trial's own file.

    Args:
        study: The study.
        run: The run that it belongs to.
    """

    def read(number: int) -> list[float]:
        epochs = EpochLog(run.trial(study.name, number) / EPOCHS_FILE).read()
        return [float(epoch.get(study.metric, math.nan)) for epoch in epochs]

    return read


@dataclass(frozen=True)
class Prices:
    """Holds what decides whether a trial is worth its cost.

    Attributes:
        of: Returns the seconds that a trial was trained, from its number; 0 where not known.
        images: Number of validation images.
        notice: Receives a sentence for every trial that is left out.
    """

    of: Callable[[int], float]
    images: int
    notice: Callable[[str], None]

    @classmethod
    def measured(
        cls, study: Study, run: RunDirectory, images: int, notice: Callable[[str], None]
    ) -> Prices:
        """Takes the costs from the trials' own files, so that a resume chooses the same.

        Args:
            study: The study.
            run: The run that it belongs to.
            images: Number of validation images.
            notice: Receives a sentence for every trial that is left out.
        """

        def seconds(number: int) -> float:
            epochs = EpochLog(run.trial(study.name, number) / EPOCHS_FILE).read()
            return sum(float(epoch.get("seconds", 0.0)) for epoch in epochs)

        return cls(seconds, images, notice)

    def error(self, metric: str, value: float) -> float:
        """Returns the standard error of a share of the validation images; 0 for other metrics."""
        found = metric_of(metric)
        share = found.is_share and is_mean(found.name) and 0 <= value <= 1
        return math.sqrt(value * (1 - value) / max(1, self.images)) if share else 0.0


def choose_finalists(
    study: Study, count: int, curve: Curve | None = None, prices: Prices | None = None
) -> list[FrozenTrial]:
    """Returns the best complete trials, and stopped trials that were ahead of them when stopped.

    A trial that was stopped late, by the scheduler or by lack of time, ranks above complete trials
    that were worse after as many epochs, or at the same rung where the epochs are not known. Only
    the last two rungs count, and never the first: others say too little. If there are too few
    trials, those that came furthest join. With folds or repeats, complete trials come first, and
    those that were stopped follow by the number of their trainings. A stopped trial is trained to
    its end among the finalists. A trial that breaks a constraint, or has one that was never judged,
    is left out. Of equal configurations only the first is named. A complete trial that costs three
    times as much as another one, and is better by less than a standard error, is left out.

    Args:
        study: The study.
        count: Number of finalists wanted.
        curve: The metric of a trial by epoch.
        prices: Costs of trials; without them, and with several objectives, cost does not count.

    Returns:
        At most `count` trials, best first; none when no trial reached a rung.
    """
    wanted = candidates(study)
    if not study.goals.several:
        ended = len(wanted)
        for trial in _stopped(study):
            ahead = (
                place
                for place, other in enumerate(wanted[:ended])
                if other.state == TrialState.COMPLETE and _ahead_of(study, trial, other, curve)
            )
            place = next(ahead, len(wanted))
            wanted.insert(place, trial)
            ended += place < ended
    if prices is not None and not study.goals.several:
        wanted = _worth_it(study, wanted, prices)
    found: list[FrozenTrial] = []
    known: list[dict[str, Any]] = []
    for trial in wanted:
        params = study.space.active_params(trial.params)
        if len(found) < count and params not in known:
            found.append(trial)
            known.append(params)
    return found


def _worth_it(study: Study, trials: Sequence[FrozenTrial], prices: Prices) -> list[FrozenTrial]:
    """Leaves out complete trials that cost much more than others that are as good by chance."""
    sign = 1 if study.direction == "maximize" else -1
    ended = [
        (trial, sign * value, prices.of(trial.number))
        for trial in trials
        if trial.state == TrialState.COMPLETE and (value := study.value(trial)) is not None
    ]
    left_out = set()
    kept: list[tuple[FrozenTrial, float, float]] = []
    for trial, value, cost in sorted(ended, key=lambda each: each[2]):
        error = prices.error(study.metric, abs(value))
        # Only with trials that stay, or a row of small steps would lead far down.
        level = [each for each in kept if value - each[1] < error and 0 < _DEAR * each[2] <= cost]
        if not level:
            kept.append((trial, value, cost))
        else:
            other, theirs, less = min(level, key=lambda each: each[2])
            left_out.add(trial.number)
            prices.notice(
                f"trial {trial.number} ({abs(value):.3f}) is better than trial {other.number} "
                f"({abs(theirs):.3f}) by less than a standard error ({error:.3f}) and costs "
                f"{cost / less:.1f} times as much: it is not trained again"
                if value > theirs
                else f"trial {trial.number} is not better than trial {other.number} and costs "
                f"{cost / less:.1f} times as much: it is not trained again"
            )
    return [trial for trial in trials if trial.number not in left_out]


def _ahead_of(study: Study, trial: FrozenTrial, other: FrozenTrial, curve: Curve | None) -> bool:
    """Returns whether a stopped trial was better when it was stopped than another trial then."""
    if rows_of(other):
        return False  # a mean over fewer folds or seeds does not come before one over all of them
    rungs = study.rungs(trial)
    last = max(rungs)
    # Earlier rungs say little of the end: after one of eight epochs the order is nearly random.
    if last <= 0 or last < max(study.rungs(other), default=0) - 1:
        return False
    own, value = rungs[last], study.rungs(other).get(last, study.value(other))
    # Without time a trial stops between two rungs, often one epoch before its end.
    curves = [] if curve is None else [curve(trial.number), curve(other.number)]
    if curves and 0 < len(curves[0]) <= len(curves[1]):
        epoch = len(curves[0]) - 1
        if all(math.isfinite(each[epoch]) for each in curves):
            own, value = curves[0][epoch], curves[1][epoch]
    if value is None or not math.isfinite(value):
        return False
    return own > value if study.direction == "maximize" else own < value


def _stopped(study: Study) -> list[FrozenTrial]:
    """Returns PRUNED trials: those of the last rung first, the best of a rung first."""
    sign = -1.0 if study.direction == "maximize" else 1.0
    able = []
    for trial in study.trials():
        rungs = study.rungs(trial)
        judged = feasible(trial) and len(trial.constraints) >= len(study.goals.constraints)
        if trial.state == TrialState.PRUNED and rungs and judged:
            last = max(rungs)
            # In front of rung 0 there is only a pretraining.
            if last >= 0 and math.isfinite(rungs[last]):
                able.append((-last, sign * rungs[last], trial.number, trial))
    return [trial for *_, trial in sorted(able, key=lambda each: each[:3])]
