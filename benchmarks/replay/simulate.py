"""A search on a simulated clock: workers take trials, epochs take time, nothing is trained."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from benchmarks.replay.schedulers import NONE, SchedulerName
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.experiment.space import Space
from gsfl_tune.search.samplers.configurations import Tried
from gsfl_tune.search.samplers.cost_aware import Affordable
from gsfl_tune.search.samplers.dry_run import propose_new
from gsfl_tune.search.samplers.factory import create_sampler, whole_space
from gsfl_tune.search.samplers.history import PAUSED, WARM, SeenTrials
from gsfl_tune.search.samplers.tpe import Tpe

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


# Of defaults that nobody chose.
DEFAULTS_SEED = 77


@dataclass(frozen=True)
class Setting:
    """One way to search.

    Attributes:
        sampler: ``random``, ``tpe`` (each parameter alone), ``ntpe`` (the same, half of its
            start-up trials near the defaults), ``mtpe`` (multivariate, group; all with constant
            liar) or ``gp``.
        scheduler: Who stops trials.
        workers: Trials at once.
        told: What the sampler hears of a stopped trial: ``pruned`` (with its rung values, as the
            product does), ``complete`` (finished with the value it had when it was stopped, as
            Ray's OptunaSearch does) or ``nothing``.
        protected: Whether the first trial has the defaults and is never stopped, as in the product.
        ahead: Whether a suggestion is made when the one before it is taken, so that it does not
            know what has ended since.
        history: Finished trials that TPE sees; 0: as many as in the product, which is all.
        trials: Trials of the search.
        promote: Whether trials that the scheduler stops pause, and continue where it says so
            (`search.scheduler.promote`).
        defaults: ``own``, those of the space, or ``random``, another configuration for each seed.
        cost_ratio: As `search.sampler.cost_ratio`; the objective then has a method ``price``.
    """

    sampler: str = "mtpe"
    scheduler: SchedulerName = NONE
    workers: int = 4
    told: str = "pruned"
    protected: bool = True
    ahead: bool = False
    history: int = 0
    trials: int = 100
    promote: bool = False
    defaults: str = "own"
    cost_ratio: float | None = None


class Objective(Protocol):
    """What is searched.

    With an attribute `earlier`, a list of configurations, these come before the defaults, as those
    of `search.warm_start` do.
    """

    space: Space
    defaults: dict[str, Any]

    def trial(self, params: dict[str, Any], draw: tuple[int, int]) -> Outcome:
        """What training these parameters would give; `draw` seeds the chance in it."""


@dataclass(frozen=True)
class Outcome:
    """A training that can be looked up.

    Attributes:
        curve: (epochs,) what is observed after each epoch.
        truth: The last value without chance.
        epoch_time: Time of one epoch; 1 / epochs is that of an average configuration.
    """

    curve: np.ndarray
    truth: float
    epoch_time: float


@dataclass
class Trace:
    """What came of a search.

    Attributes:
        ends: (time, observed value, truth) of every trial that came to its end, in time.
        epochs: Epochs that each trial was given, by number.
        duration: When the last trial ended.
    """

    ends: list[tuple[float, float, float]] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    duration: float = 0.0

    def incumbent(self, times: np.ndarray) -> np.ndarray:
        """Truth of the trial with the best observed value so far; NaN before there is one."""
        best, found = -np.inf, np.nan
        steps, values = [-np.inf], [np.nan]
        for time, observed, truth in self.ends:
            if observed > best:
                best, found = observed, truth
                steps.append(time)
                values.append(found)
        return np.array(values)[np.searchsorted(steps, times, side="right") - 1]


def simulate(objective: Objective, setting: Setting, seed: int) -> Trace:
    """Runs a search; the same arguments give the same trace."""
    study = SimulatedStudy(objective, setting, seed)
    scheduler = setting.scheduler.create(seed)
    rungs = scheduler.rungs
    trace = Trace(epochs=[0] * setting.trials)
    outcomes: dict[int, Outcome] = {}
    # (time, order of creation, trial, rung): ties go to what was scheduled first.
    events: list[tuple[float, int, int, int]] = []
    order = 0

    def schedule(now: float, number: int, k: int) -> None:
        nonlocal order
        epochs = rungs[k] - (rungs[k - 1] if k else 0)
        heapq.heappush(events, (now + epochs * outcomes[number].epoch_time, order, number, k))
        order += 1

    paused: dict[int, int] = {}

    def start(now: float) -> bool:
        number = scheduler.promotable(paused) if paused else None
        if number is not None:
            study.go_on(number)
            schedule(now, number, paused.pop(number) + 1)
            return True
        taken = study.take()
        if taken is None:
            return False
        number, params = taken
        outcomes[number] = objective.trial(params, (seed, number))
        schedule(now, number, 0)
        return True

    free = setting.workers
    while free and start(0.0):
        free -= 1
    while events:
        now, _, number, k = heapq.heappop(events)
        outcome = outcomes[number]
        value = float(outcome.curve[rungs[k] - 1])
        trace.epochs[number] = rungs[k]
        study.report(number, k, value)
        stops = scheduler.record(number, k, value, protected=number < study.protected)
        if k == len(rungs) - 1:
            trace.ends.append((now, value, outcome.truth))
            study.finish(number, value)
        elif stops and setting.promote:
            paused[number] = k
            study.pause(number, k)
        elif stops:
            study.stop(number, value)
        else:
            # Before a free worker takes a paused trial that this rung has shown to be good.
            schedule(now, number, k + 1)
            free -= 1
        trace.duration = now
        free += 1
        while free and start(now):
            free -= 1
    return trace


class SimulatedStudy:
    """An Optuna study in memory, asked as the product asks its own."""

    def __init__(self, objective: Objective, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.space = objective.space
        self.seed = seed
        self._study = optuna.create_study(direction="maximize")
        defaults = objective.defaults
        if setting.defaults == "random":
            defaults = _anywhere(self.space, seed)
            self.space = _with_defaults(self.space, defaults)
        # Never stopped; they are the first trials.
        first = [*getattr(objective, "earlier", ()), defaults] if setting.protected else []
        for params in first[:-1]:
            self._study.enqueue_trial(params, user_attrs={"origin": f"{WARM} run#0"})
        for params in first[-1:]:
            self._study.enqueue_trial(params)
        self.protected = len(first)
        self._tried = Tried(self.space)
        self._affordable: Affordable | None = None
        if setting.cost_ratio is not None:
            price = objective.price  # type: ignore[attr-defined]
            self._affordable = Affordable(self.space, price, setting.cost_ratio, seed)
        self._live: dict[int, optuna.Trial] = {}
        self._memory = SeenTrials()
        self._asked = 0
        self._waiting: list[tuple[int, dict[str, Any]]] = []

    def take(self) -> tuple[int, dict[str, Any]] | None:
        """The next trial; with `ahead`, one that was proposed when the last one was taken."""
        if not self.setting.ahead:
            return self._ask()
        taken = self._waiting.pop() if self._waiting else self._ask()
        following = self._ask()
        if following is not None:
            self._waiting.append(following)
        return taken

    def report(self, number: int, k: int, value: float) -> None:
        self._live[number].report(value, k)

    def finish(self, number: int, value: float) -> None:
        self._study.tell(self._live.pop(number), value)

    def pause(self, number: int, k: int) -> None:
        self._live[number].set_user_attr(PAUSED, k)

    def go_on(self, number: int) -> None:
        self._live[number].set_user_attr(PAUSED, None)

    def stop(self, number: int, value: float) -> None:
        trial = self._live.pop(number)
        if self.setting.told == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        elif self.setting.told == "complete":
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def fail(self, number: int) -> None:
        self._study.tell(self._live.pop(number), state=TrialState.FAIL)

    def _ask(self) -> tuple[int, dict[str, Any]] | None:
        number = self._asked
        if number >= self.setting.trials:
            return None
        self._asked += 1
        if self._affordable is not None and number >= self.protected:
            return self._ask_affordable(number)
        self._study.sampler = self._sampler(number)
        trial = self._study.ask()
        self._live[number] = trial
        return number, self.space.suggest(trial)

    def _ask_affordable(self, number: int) -> tuple[int, dict[str, Any]]:
        """As the product asks."""
        found = propose_new(
            self._study,
            lambda turned_down: self._sampler(number, turned_down),
            self.space,
            number,
            self._tried,
            seed=self.seed,
            affordable=self._affordable,
        )
        assert found is not None
        whole = whole_space(self.space)
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=found.params,
            distributions={name: whole[name] for name in found.params},
            system_attrs=found.notes,
        )
        key = self._study._storage.create_new_trial(self._study._study_id, trial)
        self._live[number] = optuna.Trial(self._study, key)
        return number, dict(found.params)

    def _sampler(self, number: int, turned_down: Sequence[Mapping[str, Any]] = ()) -> BaseSampler:
        return _sampler(
            self.setting.sampler,
            self.space,
            self.seed,
            number,
            self._memory,
            self.setting.history,
            turned_down,
        )


def _sampler(
    name: str,
    space: Space,
    seed: int,
    number: int,
    memory: SeenTrials,
    history: int,
    turned_down: Sequence[Mapping[str, Any]] = (),
) -> BaseSampler:
    product = "tpe" if name.endswith("tpe") else name
    near = 0.5 if name == "ntpe" else 0.0
    config = SamplerConfig(name=product, multivariate=name == "mtpe", near_defaults=near)
    sampler = create_sampler(config, space, seed, number, memory, turned_down=turned_down)
    if history and isinstance(sampler, Tpe):
        sampler.history = history
    return sampler


def _anywhere(space: Space, seed: int) -> dict[str, Any]:
    """A random configuration."""
    sampler = create_sampler(SamplerConfig(name="random"), space, DEFAULTS_SEED, seed)
    return space.suggest(optuna.create_study(sampler=sampler).ask())


def _with_defaults(space: Space, defaults: dict[str, Any]) -> Space:
    """The space with other defaults."""
    parameters = [
        replace(one, distribution=replace(one.distribution, default=defaults[one.name]))
        if one.name in defaults
        else one
        for one in space.parameters
    ]
    return Space(space.constants, parameters)
