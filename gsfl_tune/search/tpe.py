"""Optuna's TPE, made to cost the same whether a study has a hundred trials or ten thousand."""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import default_gamma
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr, ndtr

from gsfl_tune.search.proposal import ReadOnlyStudy

# Trials that TPE looks at. It models the good ones, 25 at most, and all others; of those, some
# stand for the rest.
HISTORY = 300
# Of them, those that are kept for being the best. More than the 25 that TPE would ever take.
BEST = 50

_HALF_LOG_2_PI = 0.5 * float(np.log(2 * np.pi))


class SeenTrial:
    """A trial as TPE needs it; Optuna's own looks up every attribute in several dictionaries.

    Args:
        trial: The trial.
        sign: -1 where larger values are better, else 1.
    """

    __slots__ = (
        "constraints", "distributions", "intermediate_values", "names", "number", "params",
        "rank", "state", "system_attrs", "value", "values",
    )  # fmt: skip

    def __init__(self, trial: FrozenTrial, sign: float) -> None:
        self.number = trial.number
        self.state = trial.state
        self.values = trial.values
        self.value = trial.values[0] if trial.values else None
        self.params = trial.params
        self.distributions = trial.distributions
        self.intermediate_values = trial.intermediate_values
        self.names = frozenset(trial.distributions)
        # A trial is written with all its parameters at once: nothing else is to be known of it.
        self.system_attrs: dict[str, Any] = {}
        self.constraints: dict[str, float] = {}
        self.rank = (*_rank(trial, sign), trial.number)


class Memory:
    """The trials of one study, each looked at until it is finished and not again.

    Attributes:
        shapes: The first finished trial of each set of parameters.
    """

    def __init__(self) -> None:
        self._trials: dict[int, SeenTrial] = {}
        self._numbers: list[int] = []
        self._ranked: list[SeenTrial] = []
        self._open: set[int] = set()
        self._running: dict[int, SeenTrial] = {}
        self._looked = 0
        # Parameters as numbers, a row a trial and a column a parameter; NaN: not active.
        self._columns: dict[str, int] = {}
        self._table = np.full((256, 0), np.nan)
        self.shapes: dict[frozenset[str], SeenTrial] = {}

    def look(self, study: Any, number: int) -> list[SeenTrial]:
        """Takes in what has happened.

        Args:
            study: The study.
            number: The trial that is being proposed, which does not count.

        Returns:
            Running trials, by number.
        """
        trials = study.get_trials(deepcopy=False)
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        self._open.update(range(self._looked, len(trials)))
        self._looked = len(trials)
        running = []
        for each in sorted(self._open):
            trial = trials[each]
            if trial.state == TrialState.RUNNING and each != number:
                running.append(self._see_running(trial, sign))
            elif trial.state.is_finished():
                self._open.remove(each)
                self._running.pop(each, None)
                if trial.state != TrialState.FAIL:
                    self._add(SeenTrial(trial, sign))
        return running

    def internal(self, trials: Sequence[SeenTrial], names: Sequence[str]) -> np.ndarray:
        """Parameters as numbers.

        Args:
            trials: N trials that were looked at.
            names: P parameters.

        Returns:
            (n, P), a row for each of the trials that has all of them.
        """
        if any(name not in self._columns for name in names):
            return np.empty((0, len(names)))
        numbers = np.fromiter((trial.number for trial in trials), dtype=np.intp, count=len(trials))
        rows = self._table[numbers][:, [self._columns[name] for name in names]]
        found: np.ndarray = rows[~np.isnan(rows).any(axis=1)]
        return found

    def column(self, numbers: np.ndarray, name: str) -> np.ndarray:
        """(n,) values of a parameter as numbers, of those of the trials `numbers` that have it."""
        column = self._columns.get(name)
        if column is None:
            return np.empty(0)
        values = self._table[numbers, column]
        found: np.ndarray = values[~np.isnan(values)]
        return found

    def best(self, count: int) -> list[SeenTrial]:
        """The best finished trials, best first."""
        return self._ranked[:count]

    def history(self, most: int) -> list[SeenTrial]:
        """Finished trials by number; of too many the best, the newest, and some of all times.

        The best and the newest alone are good: the worse of them would stand for what is bad,
        and TPE would look for better ones where everything is worse.
        """
        if len(self._numbers) <= most:
            return [self._trials[number] for number in self._numbers]
        kept = {trial.number for trial in self.best(min(BEST, most // 3))}
        others = [number for number in self._numbers if number not in kept]
        newest = (most - len(kept)) // 2
        kept.update(others[len(others) - newest :])
        earlier = others[: len(others) - newest]
        spread = np.linspace(0, len(earlier) - 1, most - len(kept)).round().astype(int)
        kept.update(earlier[position] for position in spread)
        return [self._trials[number] for number in sorted(kept)]

    def _see_running(self, trial: FrozenTrial, sign: float) -> SeenTrial:
        """A running trial has nothing that changes and that TPE looks at, but that one whose
        driver was killed in the middle of a write gets the rest of its parameters.
        """
        seen = self._running.get(trial.number)
        if seen is None or len(seen.names) != len(trial.distributions):
            seen = self._running[trial.number] = SeenTrial(trial, sign)
            self._note(seen)
        return seen

    def _note(self, trial: SeenTrial) -> None:
        for name in trial.names - self._columns.keys():
            self._columns[name] = len(self._columns)
        rows, columns = self._table.shape
        if trial.number >= rows or len(self._columns) > columns:
            size = (max(rows, 2 * trial.number), len(self._columns))
            table = np.full(size, np.nan)
            table[:rows, :columns] = self._table
            self._table = table
        for name, distribution in trial.distributions.items():
            value = distribution.to_internal_repr(trial.params[name])
            self._table[trial.number, self._columns[name]] = value

    def _add(self, trial: SeenTrial) -> None:
        self._note(trial)
        self._trials[trial.number] = trial
        insort(self._numbers, trial.number)
        insort(self._ranked, trial, key=lambda each: each.rank)
        first = self.shapes.get(trial.names)
        if first is None or trial.number < first.number:
            self.shapes[trial.names] = trial


class Tpe(TPESampler):
    """TPE with the constant liar: of each parameter alone, or jointly, grouped by condition.

    It proposes what Optuna's does from the same trials, up to rounding, at a fraction of the
    cost: normal distribution functions of whole arrays instead of one number at a time, and
    trials that are looked up and sorted once. Of a study with more than `history` finished
    trials it sees the best (so that the good ones are the same), the newest, an even sample of the
    earlier ones, and all that run.

    Args:
        seed: Seed of this proposal.
        startup_trials: Finished trials before which it draws at random.
        multivariate: Whether parameters are drawn jointly.
        history: Finished trials that it looks at, at most.
        memory: What was seen before, of one study and for all its proposals.

    Attributes:
        history: Finished trials that it looks at, at most.
    """

    def __init__(
        self,
        *,
        seed: int,
        startup_trials: int = 10,
        multivariate: bool = False,
        history: int = HISTORY,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(
            multivariate=multivariate,
            group=multivariate,
            constant_liar=True,
            n_startup_trials=startup_trials,
            seed=seed,
        )
        self.history = history
        self._memory = memory or Memory()
        self._view: _View | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that some trial had, none where each is drawn alone."""
        view = self._see(study, trial)
        return super().infer_relative_search_space(view.of_each_shape(), trial)  # type: ignore[arg-type]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws them jointly."""
        with _quickly():
            return super().sample_relative(self._see(study, trial), trial, search_space)  # type: ignore[arg-type]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws a parameter alone, or one that no trial had before."""
        view = self._see(study, trial)
        with _quickly():
            return super().sample_independent(view, trial, param_name, param_distribution)  # type: ignore[arg-type]

    def _sample(
        self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's, but that trials are divided once for all parameters that are drawn alone."""
        if len(search_space) != 1 or not isinstance(study, _View):
            return super()._sample(study, trial, search_space)
        ((name, distribution),) = search_space.items()
        estimators = [
            self._parzen_estimator_cls(
                {name: study.column(numbers, name)}, search_space, self._parzen_estimator_parameters
            )
            for numbers in study.halves(default_gamma(study.finished))
        ]
        drawn = estimators[0].sample(self._rng.rng, self._n_ei_candidates)
        gain = self._compute_acquisition_func(drawn, *estimators)
        chosen = TPESampler._compare(drawn, gain)[name]
        return {name: distribution.to_external_repr(chosen)}

    def _see(self, study: optuna.Study, trial: FrozenTrial) -> _View:
        if self._view is None or self._view.number != trial.number:
            self._view = _View(study, trial.number, self._memory, self.history)
        return self._view

    def _get_internal_repr(
        self, trials: list[Any], search_space: dict[str, BaseDistribution], study: Any
    ) -> dict[str, np.ndarray]:
        names = list(search_space)
        return dict(zip(names, study.internal(trials, names).T, strict=True))


class _View(ReadOnlyStudy):
    """The study as TPE sees it."""

    def __init__(self, study: optuna.Study, number: int, memory: Memory, history: int) -> None:
        super().__init__(study)
        self.direction = study.direction
        self.directions = study.directions
        self.number = number
        self._memory = memory
        running = memory.look(study, number)
        self._finished = memory.history(history)
        self.trials = sorted([*self._finished, *running], key=lambda each: each.number)
        self._halves: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def finished(self) -> int:
        """Finished trials that are seen."""
        return len(self._finished)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[SeenTrial]:
        if states is None or TrialState.RUNNING in states:
            return self.trials
        return self._finished

    def internal(self, trials: Sequence[SeenTrial], names: Sequence[str]) -> np.ndarray:
        """See `Memory.internal`."""
        return self._memory.internal(trials, names)

    def column(self, numbers: np.ndarray, name: str) -> np.ndarray:
        """See `Memory.column`."""
        return self._memory.column(numbers, name)

    def halves(self, n_below: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the good trials and of all others."""
        if n_below not in self._halves:
            below, above = (
                np.array([trial.number for trial in part], dtype=np.intp)
                for part in self.split(n_below)
            )
            self._halves[n_below] = below, above
        return self._halves[n_below]

    def split(self, n_below: int) -> tuple[list[SeenTrial], list[SeenTrial]]:
        """The good trials and all others, each by number."""
        good = {trial.number for trial in self._memory.best(n_below)}
        below = [trial for trial in self.trials if trial.number in good]
        return below, [trial for trial in self.trials if trial.number not in good]

    def of_each_shape(self) -> _View:
        """The same study with one trial of each set of parameters, the first of each.

        The spaces that TPE models jointly depend on these sets alone.
        """
        view = object.__new__(_View)
        first = sorted(self._memory.shapes.values(), key=lambda each: each.number)
        view.__dict__ = {**self.__dict__, "trials": first, "_finished": first}
        return view


def _rank(trial: FrozenTrial, sign: float) -> tuple[float, float]:
    """TPE's order: complete trials by value, then pruned ones by how far they came."""
    if trial.state == TrialState.COMPLETE and trial.values:
        return -np.inf, sign * trial.values[0]
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        step, value = max(trial.intermediate_values.items())
        return -step, np.inf if np.isnan(value) else sign * value
    return np.inf, 0.0


@contextmanager
def whole_arrays() -> Iterator[None]:
    """Puts whole arrays where Optuna's TPE computes number by number, most of a proposal's time.

    What another version of Optuna does not have is left as it is.
    """
    from optuna.samplers._tpe import _truncnorm

    general = getattr(_truncnorm, "_log_gauss_mass", None)

    def mass(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # Kernels lie within their bounds, and then this is all that is computed.
        if (a <= 0).all() and (b > 0).all():
            return np.asarray(np.log1p(-ndtr(a) - ndtr(-b)))
        return np.asarray(general(a, b))  # type: ignore[misc]

    with (
        _instead(_truncnorm, "_log_ndtr", log_ndtr),
        _instead(_truncnorm, "_ndtr", ndtr),
        _instead(_truncnorm, "_log_gauss_mass", mass),
        _instead(_truncnorm, "logpdf", _log_pdf),
    ):
        yield


def _log_pdf(
    x: np.ndarray, a: np.ndarray, b: np.ndarray, loc: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Log density of truncated normal distributions: Optuna's, with fewer arrays on the way.

    Args:
        x: (S, 1, P) where.
        a: (K, P) lower bounds, in standard deviations from the mean; smaller than `b`.
        b: (K, P) upper bounds.
        loc: (K, P) means.
        scale: (K, P) standard deviations.

    Returns:
        (S, K, P).
    """
    from optuna.samplers._tpe import _truncnorm

    out: np.ndarray = x - loc
    out /= scale
    outside = (out < a) | (out > b)
    out *= out
    out /= -2.0
    out -= _HALF_LOG_2_PI
    out -= _truncnorm._log_gauss_mass(a, b)
    out -= np.log(scale)
    if outside.any():
        out[outside] = -np.inf
    return out


@contextmanager
def _quickly() -> Iterator[None]:
    """The same, and the good trials of a `_View` from its memory."""
    from optuna.samplers._tpe import sampler

    def split(study: _View, trials: object, n_below: int) -> object:
        return study.split(n_below)

    with whole_arrays(), _instead(sampler, "_split_trials", split):
        yield


@contextmanager
def _instead(module: ModuleType, name: str, function: object) -> Iterator[None]:
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)
