"""The choice of finalists, which are trained again at the end of a search.

Dear trials that are hardly better are left out, as in the one-standard-error rule of Breiman,
Friedman, Olshen and Stone, "Classification and Regression Trees", 1984, section 3.4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.metrics import is_mean, metric_of
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.epochs import own_seconds
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
            # What all trials share is paid by the first ones, and is no property of them.
            return sum(own_seconds(epoch) for epoch in epochs if "seconds" in epoch)

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
    that are worse than it would be at its end: what it had, and what complete trials have gained
    from as many epochs on (from the same rung where the epochs are not known), their median. The
    gain of the best trial alone would be chosen for its luck. Only the last two rungs count, and
    never the first: others say too little. If there are too few trials, those that came furthest
    join. With folds or repeats, complete trials come first, and those that were stopped follow by
    the number of their trainings. A stopped trial is trained to its end among the finalists. A
    trial that breaks a constraint, or has one that was never judged, is left out. Of equal
    configurations only the first is named. A complete trial that costs three times as much as
    another one, and is better by less than a standard error, is left out.

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
        curve = None if curve is None else cache(curve)
        # A mean over fewer folds or seeds does not come before one over all of them.
        whole = [t for t in wanted if t.state == TrialState.COMPLETE and not rows_of(t)]
        values = {other.number: study.value(other) for other in whole}
        ended = len(wanted)
        for trial in _stopped(study):
            end = _expected_end(study, trial, whole, curve)
            ahead = (
                place
                for place, other in enumerate(wanted[:ended])
                if _is_better(study, end, values.get(other.number))
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


def _expected_end(
    study: Study, trial: FrozenTrial, whole: Sequence[FrozenTrial], curve: Curve | None
) -> float | None:
    """Returns the value that a stopped trial would have at its end; None where that is not known.

    Args:
        study: The study.
        trial: The stopped trial.
        whole: Complete trials, which say how much is gained until the end.
        curve: The metric of a trial by epoch.
    """
    rungs = study.rungs(trial)
    last = max(rungs)
    # Earlier rungs say little of the end: after one of eight epochs the order is nearly random.
    if last <= 0:
        return None
    # Without time a trial stops between two rungs, often one epoch before its end.
    own = [] if curve is None else curve(trial.number)
    pairs = []
    for other in whole:
        final = study.value(other)
        if final is None or last < max(study.rungs(other), default=0) - 1:
            continue
        now, then = rungs[last], study.rungs(other).get(last, final)
        theirs = [] if curve is None else curve(other.number)
        epoch = len(own) - 1
        if 0 <= epoch < len(theirs) and math.isfinite(own[epoch]) and math.isfinite(theirs[epoch]):
            now, then = own[epoch], theirs[epoch]
        if math.isfinite(then):
            pairs.append(now + final - then)
    return median(pairs) if pairs else None


def _is_better(study: Study, value: float | None, other: float | None) -> bool:
    """Returns whether a value is better than another; nothing is better than what is not known."""
    if value is None or other is None or math.isclose(value, other, rel_tol=1e-9):
        return False
    return value > other if study.direction == "maximize" else value < other


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
