"""Optuna's TPE, made to cost the same whether a study has a hundred trials or ten thousand."""

from __future__ import annotations

from collections.abc import Container, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr

from gsfl_tune.search.proposal import ReadOnlyStudy

# Trials that TPE looks at. It models the good ones, 25 at most, and all others; of those, the
# newest stand for the rest.
HISTORY = 1000
# Of them, those that are kept for being the best. More than the 25 that TPE would ever take.
BEST = 50

_SEEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class SeenTrial:
    """A trial as TPE needs it; Optuna's own looks up every attribute in several dictionaries.

    Args:
        trial: The trial.
    """

    __slots__ = (
        "constraints", "distributions", "intermediate_values", "internal", "names", "number",
        "params", "score", "state", "system_attrs", "value", "values",
    )  # fmt: skip

    def __init__(self, trial: FrozenTrial) -> None:
        self.number = trial.number
        self.state = trial.state
        self.values = trial.values
        self.value = trial.values[0] if trial.values else None
        self.params = trial.params
        self.distributions = trial.distributions
        self.intermediate_values = trial.intermediate_values
        self.internal = {
            name: distribution.to_internal_repr(trial.params[name])
            for name, distribution in trial.distributions.items()
        }
        self.names = frozenset(trial.distributions)
        # A trial is written with all its parameters at once: nothing else is to be known of it.
        self.system_attrs: dict[str, Any] = {}
        self.constraints: dict[str, float] = {}
        self.score = _score(trial)


Memory = MutableMapping[int, SeenTrial]


class Tpe(TPESampler):
    """Multivariate TPE, grouped by condition, with the constant liar.

    It proposes what Optuna's does from the same trials, up to rounding, at a fraction of the
    cost: normal distribution functions of whole arrays instead of one number at a time, and
    trials that are looked up once. Of a study with more than `history` finished trials it sees
    the best (so that the good ones are the same), the newest, and all that are running.

    Args:
        seed: Seed of this proposal.
        startup_trials: Finished trials before which it draws at random.
        history: Finished trials that it looks at, at most.
        memory: Finished trials of the study that were seen before; of one study, for all its
            proposals.
    """

    def __init__(
        self,
        *,
        seed: int,
        startup_trials: int = 10,
        history: int = HISTORY,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=startup_trials,
            seed=seed,
        )
        self._history = history
        self._memory: Memory = {} if memory is None else memory
        self._view: _View | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that some trial had."""
        view = self._see(study, trial)
        return super().infer_relative_search_space(view.of_each_shape(), trial)  # type: ignore[arg-type]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws them jointly."""
        with _whole_arrays():
            return super().sample_relative(self._see(study, trial), trial, search_space)  # type: ignore[arg-type]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws a parameter that no trial had before."""
        view = self._see(study, trial)
        with _whole_arrays():
            return super().sample_independent(view, trial, param_name, param_distribution)  # type: ignore[arg-type]

    def _see(self, study: optuna.Study, trial: FrozenTrial) -> _View:
        if self._view is None or self._view.number != trial.number:
            trials = _seen(study, trial.number, self._memory)
            self._view = _View(study, trial.number, trials, self._history)
        return self._view

    def _get_internal_repr(
        self, trials: list[Any], search_space: dict[str, BaseDistribution], study: Any
    ) -> dict[str, np.ndarray]:
        names = search_space.keys()
        rows = [trial.internal for trial in trials if names <= trial.names]
        return {name: np.array([row[name] for row in rows], dtype=float) for name in names}


class _View(ReadOnlyStudy):
    """The study as TPE sees it."""

    def __init__(
        self, study: optuna.Study, number: int, trials: list[SeenTrial], history: int
    ) -> None:
        super().__init__(study)
        self.direction = study.direction
        self.directions = study.directions
        self.number = number
        self.all = trials
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        self.trials = _bounded(trials, sign, history)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[SeenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    def of_each_shape(self) -> _View:
        """The same study with one trial of each set of parameters, the first of each.

        The spaces that TPE models jointly depend on these sets alone.
        """
        shapes: dict[frozenset[str], SeenTrial] = {}
        for trial in self.all:
            if trial.state != TrialState.RUNNING:
                shapes.setdefault(trial.names, trial)
        view = object.__new__(_View)
        view.__dict__ = {**self.__dict__, "trials": list(shapes.values())}
        return view


def _seen(study: optuna.Study, number: int, memory: Memory) -> list[SeenTrial]:
    seen = []
    for trial in study.get_trials(deepcopy=False, states=_SEEN):
        if trial.number == number:
            continue
        known = memory.get(trial.number)
        if known is None:
            known = SeenTrial(trial)
            if trial.state.is_finished():
                memory[trial.number] = known
        seen.append(known)
    return seen


def _bounded(trials: list[SeenTrial], sign: float, history: int) -> list[SeenTrial]:
    """All running trials, the best finished ones, and the newest of the rest, by number."""
    finished = [trial for trial in trials if trial.state != TrialState.RUNNING]
    if len(finished) <= history:
        return trials
    best = sorted(finished, key=lambda trial: (trial.score[0], sign * trial.score[1]))[:BEST]
    kept = {trial.number for trial in best}
    for trial in reversed(finished):
        if len(kept) >= history:
            break
        kept.add(trial.number)
    return [t for t in trials if t.number in kept or t.state == TrialState.RUNNING]


def _score(trial: FrozenTrial) -> tuple[float, float]:
    """TPE's order: complete trials by value, then pruned ones by how far they came."""
    if trial.state == TrialState.COMPLETE and trial.values:
        return (-np.inf, trial.values[0])
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return (-step, value)
    return (np.inf, 0.0)


@contextmanager
def _whole_arrays() -> Iterator[None]:
    """Optuna computes log Phi number by number, in Python: most of the time of a proposal."""
    from optuna.samplers._tpe import _truncnorm

    before = getattr(_truncnorm, "_log_ndtr", None)
    if before is None:  # another version of Optuna, which may do better
        yield
        return
    _truncnorm._log_ndtr = log_ndtr
    try:
        yield
    finally:
        _truncnorm._log_ndtr = before
