"""Observations for models of a fixed space: one comparable value of every trial that ended.

Optuna's Gaussian process and CMA-ES use COMPLETE trials only. Under ASHA most trials are stopped,
so they would have few data. Here the last rung of a stopped trial counts, brought to the scale of
the end: rung by rung, the median gain of other trials to the next rung is added. The order within a
rung is kept, and no shape of curves is assumed. Stopped trials might have gained less than those
that continued, so none is rated better than the best complete trial. With several objectives this
holds for each of them, and a stopped trial counts if all of them are known.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.metrics import MEASURED
from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.dry_run import ReadOnlyStudy
from gsfl_tune.search.samplers.history import (
    OTHERS,
    OUTSIDE,
    PAUSED,
    PAUSED_AT,
    RUNGS,
    as_stopped,
    thinned,
)


@dataclass(frozen=True)
class Observation:
    """Holds a trial in the form that these models use.

    Attributes:
        number: Number of the trial.
        state: COMPLETE for all that ended with a value, or RUNNING.
        params: Every parameter of the space. Inactive ones have their default: they have no
            effect, so a drawn value would be noise.
        values: One per objective; None while it runs.
    """

    number: int
    state: TrialState
    params: Mapping[str, Any]
    values: Sequence[float] | None = None
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Returns the first objective."""
        assert self.values is not None
        return self.values[0]

    @property
    def broken(self) -> float:
        """Returns by how much it breaks its constraints in all."""
        return sum(max(0.0, value) for value in self.constraints.values())


class Observer(BaseSampler):
    """Holds the common part of the samplers that learn from such observations.

    They know the space before the first trial has ended. They propose once the start-up number of
    trials has ended, stopped ones included.

    Args:
        space: The search space.
        joint: Jointly proposed parameters, as Optuna's distributions.
        startup_trials: Number of ended trials before anything is proposed.
        known: See `Observed`.
        further: See `Observed`.
        options: Passed to the next class in line.
    """

    def __init__(
        self,
        space: Space,
        joint: Mapping[str, BaseDistribution],
        *,
        startup_trials: int,
        known: dict[int, dict[str, Any]] | None = None,
        further: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._space = space
        self._joint = dict(joint)
        self._startup = startup_trials
        self._known = known
        self._further = tuple(further)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns all jointly proposed parameters."""
        return self._joint

    def observe(
        self, study: optuna.Study, number: int, avoid: Iterable[Mapping[str, Any]] = ()
    ) -> Observed | None:
        """Returns the study for the proposal of trial `number`; None during start-up."""
        seen = Observed(study, self._space, number, avoid, self._known, self._further)
        return None if len(seen.ended) < self._startup else seen


class Observed(ReadOnlyStudy):
    """Presents a study to such a model: ended trials in the order of their ends, then running ones.

    Args:
        study: The study.
        space: The search space.
        number: The trial that is being proposed, which does not count.
        avoid: Rejected proposals; they look like running trials.
        known: Parameters of finished trials from earlier reads; extended here.
        further: Keys of the objectives after the first.

    Attributes:
        ended: Trials that ended with a value.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        number: int,
        avoid: Iterable[Mapping[str, Any]] = (),
        known: dict[int, dict[str, Any]] | None = None,
        further: Sequence[str] = (),
    ) -> None:
        super().__init__(study)
        known = {} if known is None else known
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in known:
                known[trial.number] = _whole(space, trial.params)
        trials = [as_stopped(t) for t in study.get_trials(deepcopy=False) if t.number != number]
        values = comparable(trials, study.directions, further)
        ended = sorted((t for t in trials if t.number in values), key=_end)
        constraints = _constraints(ended)
        self.ended = [
            Observation(
                t.number,
                TrialState.COMPLETE,
                known[t.number] if t.number in known else _whole(space, t.params),
                values[t.number],
                constraints=constraints[t.number],
            )
            for t in ended
        ]
        self._running = [
            Observation(t.number, t.state, _whole(space, t.params))
            for t in trials
            if t.state == TrialState.RUNNING
        ]
        self._running += [
            Observation(number, TrialState.RUNNING, _whole(space, params)) for params in avoid
        ]

    def bound(self, most: int) -> None:
        """Bounds the number of trials to `most`: keeps the best, the newest, and an even sample of
        the earlier ones.
        """
        if len(self.ended) <= most:
            return
        sign = -1.0 if self._study.directions[0] == StudyDirection.MAXIMIZE else 1.0
        best = sorted(self.ended, key=lambda t: (t.broken, sign * t.value, t.number))[: most // 4]
        kept = thinned(
            [t.number for t in self.ended], most, best={t.number for t in best}, newest=most // 2
        )
        self.ended = [t for t in self.ended if t.number in kept]

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[Observation]:
        return [t for t in [*self.ended, *self._running] if states is None or t.state in states]


def comparable(
    trials: Sequence[FrozenTrial],
    directions: Sequence[StudyDirection],
    further: Sequence[str] = (),
) -> dict[int, list[float]]:
    """Returns the values of ended trials on the scale of the deepest rung that any has reached.

    Args:
        trials: Trials of one study, in any state.
        directions: Directions of the study.
        further: Keys of the objectives after the first; without the keys of all of them only
            COMPLETE trials have values.

    Returns:
        Values by trial number. A trial that failed or never reached a rung has none, nor has a
        stopped one of which an objective is not known.
    """
    found = {
        t.number: [float(value) for value in t.values]
        for t in trials
        if t.state == TrialState.COMPLETE and t.values and all(map(math.isfinite, t.values))
    }
    keys = (None, *further)
    if len(keys) != len(directions):
        return found
    guesses = []
    for place, (key, direction) in enumerate(zip(keys, directions, strict=True)):
        ended = [values[place] for values in found.values()]
        guesses.append(_guesses(trials, key, direction, ended))
    for number in guesses[0]:
        values = [known[number] for known in guesses if number in known]
        if len(values) == len(directions):
            found[number] = values
    return found


def _guesses(
    trials: Sequence[FrozenTrial],
    key: str | None,
    direction: StudyDirection,
    ended: Sequence[float],
) -> dict[int, float]:
    """Returns one objective of stopped trials by number, on the scale of the deepest rung.

    Args:
        trials: All trials.
        key: The objective; None: the first one.
        direction: Its direction.
        ended: Its values in COMPLETE trials.
    """
    sign = 1.0 if direction == StudyDirection.MAXIMIZE else -1.0
    best = max((sign * value for value in ended), default=math.inf)
    curves = {trial.number: _rungs(trial, key) for trial in trials}
    gains = _gains(curves.values())
    found = {}
    for trial in trials:
        rungs = curves[trial.number]
        if trial.state != TrialState.PRUNED or not rungs:
            continue
        last = max(rungs)
        found[trial.number] = rungs[last]
        if key not in MEASURED:  # training longer does not change what is measured on the model
            ahead = sum(gain for rung, gain in gains.items() if rung >= last)
            found[trial.number] = sign * min(sign * (rungs[last] + ahead), best)
    return found


def _constraints(trials: Sequence[FrozenTrial]) -> dict[int, dict[str, float]]:
    """Returns the constraints of trials by number, the same ones for each.

    Optuna's models need all of every trial. One that a trial lacks is taken as just kept.
    """
    names = sorted({name for trial in trials for name in trial.constraints})
    return {t.number: {name: t.constraints.get(name, 0.0) for name in names} for t in trials}


def _gains(curves: Iterable[Mapping[int, float]]) -> dict[int, float]:
    """Returns by rung the median gain of trials until the next one."""
    known: dict[int, list[float]] = {}
    for rungs in curves:
        for rung, value in rungs.items():
            if rung + 1 in rungs:
                known.setdefault(rung, []).append(rungs[rung + 1] - value)
    return {rung: float(np.median(gains)) for rung, gains in known.items()}


def _rungs(trial: FrozenTrial, key: str | None) -> dict[int, float]:
    """Returns an objective by rung, where it is known; None: the first objective."""
    attributes = {} if OUTSIDE in trial.user_attrs else trial.user_attrs
    if key is None:
        # Optuna keeps no rungs of a study with several objectives.
        known = trial.intermediate_values or attributes.get(RUNGS, {})
    else:
        rows = attributes.get(OTHERS, {})
        known = {k: row[key] for k, row in rows.items() if key in row}
    return {int(k): float(value) for k, value in known.items() if math.isfinite(value)}


def _whole(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {p.name: p.distribution.default for p in space.parameters}
    return defaults | space.active_params(params)


def _end(trial: FrozenTrial) -> tuple[float, int]:
    """Returns when a trial gave its slot back for good, as far as is known, and its number.

    For a trial that waits, and for one that has been stopped while it waited, that is its pause:
    its place must not change with later trials, or a model of populations would mix them again.
    """
    paused = trial.user_attrs.get(PAUSED_AT)
    if paused is not None and trial.user_attrs.get(PAUSED) is not None:
        return float(paused), trial.number
    # Runs of older versions have no time of a pause.
    ended = trial.datetime_complete or trial.datetime_start
    return (ended.timestamp() if ended else 0.0, trial.number)
