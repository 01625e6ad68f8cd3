"""The durable study: the one source of truth about the trials of a search."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from gsfl_tune.experiment.config import METRICS, SamplerConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import StudyName
from gsfl_tune.search.grid import GridSampler
from gsfl_tune.search.journal import open_journal
from gsfl_tune.search.sampler import FIXED_SPACE, create_sampler, fixed_params

FORMAT = 1

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Asked:
    """A configuration to try.

    Attributes:
        number: Trial number.
        params: Parameter name to value.
        protected: Whether ASHA must leave the trial alone.
        rungs: Values that the journal already has, by rung: not empty for a trial that was
            under way when the search was cut off.
    """

    number: int
    params: dict[str, Any]
    protected: bool
    rungs: dict[int, float]


class Study:
    """An Optuna study in the run's journal.

    Every change is on disk when the method returns, and every change may be made twice: a
    driver that is killed between a change and its consequence does both again.

    Args:
        journal: File of the run's journal.
        name: ``search`` or ``control``.
        space: The search space.
        metric: The objective, a key of METRICS.
        sampler: Who proposes.
        seed: Seed of the study.
        fingerprint: What must not change while the study goes on, by dotted path; see
            `gsfl_tune.search.resume.fingerprint`.

    Raises:
        UserError: When the journal's study was made from something else: one line per
            difference.
    """

    def __init__(
        self,
        journal: Path,
        name: StudyName,
        space: Space,
        *,
        metric: str,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name: StudyName = name
        self.space = space
        self.metric = metric
        self.seed = seed
        self.direction = METRICS[metric]
        self._config = sampler or SamplerConfig()
        storage, self._journal = open_journal(journal)
        # Refuses what cannot be sampled (grid over floats) before anything is written.
        first = self._sampler(0)
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=self.direction,
            sampler=first,
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self._sign()
        self._check(fingerprint or {})
        self._live: dict[int, optuna.Trial] = {}

    # --- asking ---------------------------------------------------------------------------

    def enqueue(self, params: Mapping[str, Any], origin: str) -> None:
        """Puts a configuration in front of the queue, to be tried first and never stopped.

        Args:
            params: Active parameters by name.
            origin: Who wants it: ``published``, ``defaults`` or ``enqueue[i]``. Parameters
                that the study was given before are left alone, whoever wanted them.
        """
        if any(fixed_params(trial) == params for trial in self.trials()):
            return
        self._study.enqueue_trial(dict(params), user_attrs={"protected": True, "origin": origin})

    def ask(self) -> Asked | None:
        """Creates the next trial; None when a grid has been walked to its end."""
        waiting = [t.number for t in self.trials() if t.state == TrialState.WAITING]
        number = min(waiting) if waiting else len(self.trials())
        self._study.sampler = self._sampler(number)
        if (
            not waiting
            and isinstance(self._study.sampler, GridSampler)
            and self._study.sampler.exhausted(self._study)
        ):
            return None
        with self._journal.batch():
            return self._asked(self._study.ask())

    def again(self, number: int) -> Asked:
        """Hands out a RUNNING trial once more, under its number and with its parameters.

        Parameters that a driver killed in the middle of a write left out are drawn now.
        """
        self._study.sampler = self._sampler(number)
        with self._journal.batch():
            return self._asked(optuna.Trial(self._study, self._frozen(number)._trial_id))

    # --- telling --------------------------------------------------------------------------

    def report(self, number: int, k: int, value: float) -> None:
        """Stores the objective at rung `k`, once."""
        frozen = self._frozen(number)
        if frozen.state.is_finished() or k in frozen.intermediate_values:
            return
        self._trial(number).report(value, step=k)

    def complete(self, number: int, value: float, k: int | None = None) -> None:
        """The trial came to its end, rung `k`; a value that is not finite makes it a failure."""
        if not math.isfinite(value):
            self.fail(number, f"{self.metric} is {value}")
        elif not self._finished(number):
            with self._journal.batch():
                if k is not None:
                    self.report(number, k, value)
                self._tell(number, TrialState.COMPLETE, value)

    def prune(self, number: int, value: float, k: int) -> None:
        """The scheduler stopped the trial at rung `k`.

        Value and state are one write: no driver finds the one without the other.
        """
        if not self._finished(number):
            with self._journal.batch():
                self.report(number, k, value)
                self._tell(number, TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial broke; `reason` is kept in its user attributes."""
        if not self._finished(number):
            with self._journal.batch():
                self._trial(number).set_user_attr("reason", reason)
                self._tell(number, TrialState.FAIL)

    # --- looking --------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """All trials by number. They are the study's own objects: read only."""
        return self._study.get_trials(deepcopy=False)

    def running(self) -> list[int]:
        """Numbers of the trials that are under way, oldest first."""
        return [trial.number for trial in self.trials() if trial.state == TrialState.RUNNING]

    def counts(self) -> dict[str, int]:
        """Trials by state: COMPLETE, PRUNED, FAIL, RUNNING, WAITING."""
        found = Counter(trial.state.name for trial in self.trials())
        return {name: found[name] for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")}

    def created(self) -> int:
        """Trials that were handed out, finished or not: what counts against the budget."""
        return sum(trial.state != TrialState.WAITING for trial in self.trials())

    def ranking(self) -> list[FrozenTrial]:
        """COMPLETE trials, best first; equal values in the order of their numbers."""
        sign = -1.0 if self.direction == "maximize" else 1.0
        complete = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda t: (sign * float(t.value or 0.0), t.number))

    def best(self) -> FrozenTrial | None:
        """The best COMPLETE trial."""
        ranking = self.ranking()
        return ranking[0] if ranking else None

    # --- inside ---------------------------------------------------------------------------

    def _sampler(self, number: int) -> BaseSampler:
        return create_sampler(self._config, self.space, self.seed, number)

    def _asked(self, trial: optuna.Trial) -> Asked:
        self._live[trial.number] = trial
        params = self.space.suggest(trial, everything=self._config.name in FIXED_SPACE)
        return Asked(
            number=trial.number,
            params=params,
            protected=bool(trial.user_attrs.get("protected", False)),
            rungs=dict(self._frozen(trial.number).intermediate_values),
        )

    def _trial(self, number: int) -> optuna.Trial:
        if number not in self._live:
            self._live[number] = optuna.Trial(self._study, self._frozen(number)._trial_id)
        return self._live[number]

    def _frozen(self, number: int) -> FrozenTrial:
        return self.trials()[number]

    def _finished(self, number: int) -> bool:
        return self._frozen(number).state.is_finished()

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        self._study.tell(number, value, state=state)
        self._live.pop(number, None)

    def _sign(self) -> None:
        attributes = self._study.user_attrs
        if "format" not in attributes:
            self._study.set_user_attr("format", FORMAT)
            self._study.set_user_attr("seed", self.seed)
            self._study.set_user_attr("metric", self.metric)
            self._study.set_user_attr("created", time.time())
        elif attributes["format"] != FORMAT:
            raise UserError(
                f"study {self.name}: found format {attributes['format']}, this version reads "
                f"{FORMAT}; continue with the version of gsfl-tune that began the run"
            )

    def _check(self, fingerprint: Mapping[str, Any]) -> None:
        known = self._study.user_attrs.get("fingerprint")
        if known is None:
            self._study.set_user_attr("fingerprint", dict(fingerprint))
            return
        if fingerprint:
            check_fingerprint(self.name, known, fingerprint)


def check_fingerprint(name: str, known: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Compares what a study was begun with to what it would be continued with.

    Raises:
        UserError: With one line per difference.
    """
    lines = differences(known, found)
    if lines:
        raise UserError(
            "\n".join(
                [
                    f"study {name}: the experiment is not the one that began this run",
                    *lines,
                    "continue with the run's own experiment.yaml, or begin a new run",
                ]
            )
        )


def differences(known: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What changed between two fingerprints, one line per dotted path."""
    lines = []
    for path in sorted({*known, *found}):
        before, after = known.get(path, "nothing"), found.get(path, "nothing")
        if before != after:
            lines.append(f"  {path}: was {before}, found {after}")
    return lines
