"""The durable study: the only authoritative record of a search's trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import StudyName
from gsfl_tune.search.samplers.factory import fixed_params, whole_space
from gsfl_tune.search.study.compatibility import sign_study
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.study.journal import end_of_proposals, open_journal
from gsfl_tune.search.study.prefetch import Ahead
from gsfl_tune.search.study.proposals import Proposals
from gsfl_tune.search.study.tally import Tally

_STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING")


class Study:
    """Keeps an Optuna study in the run's journal.

    Every change is in the journal when the method returns, so it survives the driver. Every change
    may be made twice: a driver that is killed between a change and its consequence repeats both.
    The data reaches the disk some milliseconds later. After a power cut in between, the last
    changes are made again: a trial's own files record its progress.

    Args:
        journal: File of the run's journal.
        name: ``search`` or ``control``.
        space: The search space.
        metric: The objective, a key of a metric.
        latency: Whether latency is a second objective. Optuna accepts no rung values then:
            they are kept in the user attribute ``rungs`` of a trial.
        sampler: Configuration of the sampler.
        seed: Seed of the study.
        signature: What must not change while the study goes on, by dotted path; see
            `gsfl_tune.search.study.reconcile.study_signature`.
        ahead: Computes proposals in advance; default: none are computed in advance.

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
        latency: bool = False,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        signature: Mapping[str, Any] | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name: StudyName = name
        self.space = space
        self.metric = metric
        self.seed = seed
        self.direction = metric_of(metric).direction
        self.latency = latency
        self._path = journal
        self._ahead = ahead
        self._proposals = Proposals(sampler or SamplerConfig(), space, seed, several=latency)
        self._storage, self._journal = open_journal(journal)
        # Refuses a space that cannot be sampled (grid over floats) before anything is written.
        first = self._proposals.sampler(0)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=[self.direction, "minimize"] if latency else [self.direction],
            sampler=first,
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        sign_study(self._study, metric=metric, seed=seed, signature=signature or {})
        self._id = self._storage.get_study_id_from_name(name)
        self._distributions = whole_space(space)
        self._tally = Tally(self._key)
        self._handed_out: int | None = None
        self._look()

    # --- asking ---------------------------------------------------------------------------

    def enqueue(self, params: Mapping[str, Any], origin: str) -> None:
        """Puts a configuration at the front of the queue; it is never stopped early.

        Args:
            params: Active parameters by name.
            origin: Its source: ``published``, ``defaults`` or ``enqueue[i]``. Parameters that are
                already in the study are not added again, whatever their source.
        """
        for trial in self.trials():
            if fixed_params(trial) == params:
                return
            if trial.user_attrs.get("recreated") and params.items() <= trial.params.items():
                # The journal that recorded its origin is lost.
                if not trial.state.is_finished():
                    self.note(trial.number, "protected", True)
                    self.note(trial.number, "origin", origin)
                return
        self._study.enqueue_trial(dict(params), user_attrs={"protected": True, "origin": origin})
        self._look()

    def ask(self) -> Asked | None:
        """Creates the next trial; returns None when every configuration was tried."""
        self._look()
        asked = self._waited_for() or self._proposed_ahead() or self._proposed()
        if asked is not None:
            self._handed_out = self._journal.end
            self._prepare()
        return asked

    def again(self, number: int) -> Asked:
        """Hands out a RUNNING trial again, with its number and parameters.

        If a driver was killed in the middle of a write, missing parameters are drawn now.
        """
        self._study.sampler = self._proposals.sampler(number)
        before = self._journal.end
        with self._journal.batch():
            asked = self._asked(optuna.Trial(self._study, self._trial_id(number)))
        if self._journal.end != before:
            self._handed_out = self._journal.end
        self._prepare()
        return asked

    def recreate(self, params: Mapping[str, Any]) -> None:
        """Creates the next trial, RUNNING, with parameters from a lost journal.

        Raises:
            KeyError: For a parameter that the space does not have.
            ValueError: For a value outside its distribution.
        """
        self._create(params, {"recreated": True})

    def on_loss(self, notice: Callable[[str], None]) -> None:
        """Sets the callback for the moment when proposals can no longer be computed ahead."""
        if self._ahead is not None:
            self._ahead.on_loss = notice

    def close(self) -> None:
        """Waits for the disk and ends the background work; the study stays readable."""
        if self._ahead is not None:
            self._ahead.close()
        self._journal.close()

    # --- telling --------------------------------------------------------------------------

    def report(self, number: int, k: int, value: float) -> None:
        """Stores the objective at rung `k`; a second call changes nothing."""
        frozen = self.trial(number)
        if frozen.state.is_finished() or k in self.rungs(frozen):
            return
        with self._journal.batch():
            if self.latency:
                rungs = {str(rung): known for rung, known in self.rungs(frozen).items()}
                self.note(number, "rungs", rungs | {str(k): float(value)})
                return
            self._storage.set_trial_intermediate_value(frozen._trial_id, k, float(value))

    def complete(
        self,
        number: int,
        value: float,
        k: int | None = None,
        *,
        latency: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends the trial at rung `k`; a value that is not finite makes it a failure.

        Args:
            number: Trial number.
            value: The objective.
            k: Rung at which it ended.
            latency: Result of `measure_latency`, where latency is an objective.
        """
        if not math.isfinite(value):
            self.fail(number, f"{self.metric} is {value}")
        elif self.latency and latency is None:
            self.fail(number, "its latency was not measured")
        elif not self._finished(number):
            with self._journal.batch():
                if k is not None:
                    self.report(number, k, value)
                values = [value]
                if self.latency and latency is not None:
                    self.note(number, "latency", dict(latency))
                    values.append(latency["latency_ms"])
                self._tell(number, TrialState.COMPLETE, *values)

    def prune(self, number: int, value: float, k: int) -> None:
        """Records that the scheduler stopped the trial at rung `k`.

        Value and state are one write, so a driver always finds both or neither.
        """
        if not self._finished(number):
            with self._journal.batch():
                self.report(number, k, value)
                # As in Optuna, the value of a pruned trial is that of its last rung.
                self._tell_last(number)

    def cut(self, number: int, reason: str) -> None:
        """Marks a trial as PRUNED because the search ended first.

        Args:
            number: Trial number.
            reason: Kept in the user attribute ``ended``.
        """
        if not self._finished(number):
            with self._journal.batch():
                self.note(number, "ended", reason)
                self._tell_last(number)

    def note(self, number: int, key: str, value: Any) -> None:
        """Stores additional information on a trial in its user attributes."""
        self._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def fail(self, number: int, reason: str) -> None:
        """Marks the trial as failed and stores `reason` in its user attributes."""
        if not self._finished(number):
            with self._journal.batch():
                self.note(number, "reason", reason)
                self._tell(number, TrialState.FAIL)

    # --- looking --------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials by number. They are the study's own objects: do not change them."""
        return self._study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """Returns one trial. It is the study's own object: do not change it."""
        return self._storage.get_trial(self._trial_id(number))

    def running(self) -> list[int]:
        """Returns the numbers of the running trials, oldest first."""
        return self._tally.running()

    def counts(self) -> dict[str, int]:
        """Counts trials by state: COMPLETE, PRUNED, FAIL, RUNNING, WAITING."""
        return {name: self._tally.count(TrialState[name]) for name in _STATES}

    def created(self) -> int:
        """Counts trials that were handed out, finished or not. The budget limits this number."""
        return len(self._tally) - len(self._tally.waiting)

    @property
    def configurations(self) -> int:
        """Counts the different configurations of its trials, as of the last proposal."""
        return len(self._proposals.tried)

    def rungs(self, trial: FrozenTrial) -> Mapping[int, float]:
        """Returns the objective at every rung that a trial has reached."""
        if not self.latency:
            return trial.intermediate_values
        return {int(k): value for k, value in trial.user_attrs.get("rungs", {}).items()}

    def value(self, trial: FrozenTrial) -> float | None:
        """Returns the (first) objective of a finished trial, or None without one."""
        return float(trial.values[0]) if trial.values else None

    def ranking(self) -> list[FrozenTrial]:
        """Returns COMPLETE trials, best first; ties are ordered by number."""
        complete = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        return sorted(complete, key=self._key)

    def best(self) -> FrozenTrial | None:
        """Returns the best COMPLETE trial."""
        return self._tally.best

    # --- inside ---------------------------------------------------------------------------

    def _waited_for(self) -> Asked | None:
        if not self._tally.waiting:
            return None
        self._study.sampler = self._proposals.sampler(self._tally.waiting[0])
        with self._journal.batch():
            trial = self._study.ask()
            self._look()
            self._tally.note(self.trial(trial.number))
            return self._asked(trial)

    def _proposed_ahead(self) -> Asked | None:
        number = len(self._tally)
        if self._ahead is None or not self._ahead.covers(number):
            return None
        params = self._ahead.take(number, self._until())
        if params is None:
            return None
        return self._create(params)

    def _proposed(self) -> Asked | None:
        found = self._proposals.new(self._study, len(self._tally))
        if found is None:
            return None
        return self._create(found.params, notes=found.notes)

    def _prepare(self) -> None:
        """Starts the computation of the next proposal, unless a queued configuration is next."""
        if self._ahead is not None and not self._tally.waiting:
            self._ahead.prepare(len(self._tally), self._until())

    def _create(
        self,
        params: Mapping[str, Any],
        attrs: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Asked:
        distributions = {each: self._distributions[each] for each in params}
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=distributions,
            user_attrs=dict(attrs or {}),
            system_attrs=dict(notes or {}),
        )
        with self._journal.batch():
            self._storage.create_new_trial(self._id, trial)
            self._look()
        number = len(self._tally) - 1
        return Asked(number=number, params=dict(params), protected=False, rungs={})

    def _until(self) -> int:
        """Returns the length of the journal in bytes up to the trial that was handed out last."""
        if self._handed_out is None:
            ids = {trial._trial_id for trial in self.trials()}
            self._handed_out = end_of_proposals(self._path, self._id, ids)
        return self._handed_out

    def _asked(self, trial: optuna.Trial) -> Asked:
        params = self.space.suggest(trial, everything=self._proposals.everything)
        frozen = self.trial(trial.number)
        return Asked(
            number=trial.number,
            params=params,
            protected=bool(frozen.user_attrs.get("protected", False)),
            rungs=dict(self.rungs(frozen)),
        )

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _finished(self, number: int) -> bool:
        return self.trial(number).state.is_finished()

    def _tell_last(self, number: int) -> None:
        """Marks a trial PRUNED with the value of its last rung (none with two objectives)."""
        rungs = self.rungs(self.trial(number))
        last = rungs[max(rungs)] if rungs else math.nan
        one = [last] if math.isfinite(last) and not self.latency else []
        self._tell(number, TrialState.PRUNED, *one)

    def _tell(self, number: int, state: TrialState, *found: float) -> None:
        # Does the work of `optuna.Study.tell` without its deep copy of the trial.
        values = [float(value) for value in found] or None
        self._storage.set_trial_state_values(self._trial_id(number), state, values)
        self._tally.note(self.trial(number))

    def _look(self) -> None:
        """Registers new trials."""
        while True:
            try:
                trial = self.trial(len(self._tally))
            except KeyError:
                return
            self._tally.note(trial)

    def _key(self, trial: FrozenTrial) -> tuple[float, int]:
        """Returns the sort key that puts the best trial first."""
        sign = -1.0 if self.direction == "maximize" else 1.0
        return sign * (self.value(trial) or 0.0), trial.number
