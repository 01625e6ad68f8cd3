"""The durable study: the only authoritative record of a search's trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from gsfl_tune.experiment.metrics import LATENCY, metric_of
from gsfl_tune.experiment.search_config import SamplerConfig
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import StudyName
from gsfl_tune.search.samplers.factory import fixed_params, whole_space
from gsfl_tune.search.samplers.history import OTHERS, OUTSIDE, RUNGS
from gsfl_tune.search.study.compatibility import sign_study
from gsfl_tune.search.study.goals import (
    Goals,
    latest_others,
    others_by_rung,
    recorded,
)
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.study.journal import end_of_proposals, open_journal
from gsfl_tune.search.study.noting import Noting
from gsfl_tune.search.study.pausing import Pausing
from gsfl_tune.search.study.prefetch import Ahead
from gsfl_tune.search.study.proposals import Proposals
from gsfl_tune.search.study.tally import Tally


class Study(Pausing, Noting):
    """Keeps an Optuna study in the run's journal.

    Every change is in the journal when the method returns, so it survives the driver. Every change
    may be made twice: a driver that is killed between a change and its consequence repeats both.
    The data reaches the disk some milliseconds later. After a power cut in between, the last
    changes are made again: a trial's own files record its progress.

    Args:
        journal: File of the run's journal.
        name: ``search`` or ``control``.
        space: The search space.
        goals: Objectives and constraints. With several objectives Optuna accepts no rung values:
            they are kept in the user attribute ``rungs`` of a trial. What is reported besides the
            first objective is in ``others``, by rung.
        sampler: Configuration of the sampler.
        seed: Seed of the study.
        signature: What must not change while the study goes on, by dotted path; see
            `gsfl_tune.search.study.reconcile.study_signature`.
        ahead: Computes proposals in advance; default: none are computed in advance.
        price: Returns the price of a configuration relative to that of the defaults, for
            ``search.sampler.cost_ratio``; default: all cost the same.

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
        goals: Goals,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        signature: Mapping[str, Any] | None = None,
        ahead: Ahead | None = None,
        price: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name: StudyName = name
        self.space = space
        self.goals = goals
        self.metric = goals.metric
        self.seed = seed
        self.direction = metric_of(goals.metric).direction
        self._path = journal
        self._ahead = ahead
        self._proposals = Proposals(
            sampler or SamplerConfig(), space, seed, further=goals.further, price=price
        )
        self._storage, self._journal = open_journal(journal)
        # Refuses a space that cannot be sampled (grid over floats) before anything is written.
        first = self._proposals.sampler(0)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=goals.directions,
            sampler=first,
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        sign_study(self._study, metric=self.metric, seed=seed, signature=signature or {})
        self._id = self._storage.get_study_id_from_name(name)
        self._distributions = whole_space(space)
        self._tally = Tally(self._key)
        self._handed_out: int | None = None
        self._look()
        self._find_paused()

    # --- asking ---------------------------------------------------------------------------

    def enqueue(self, params: Mapping[str, Any], origin: str) -> None:
        """Puts a configuration at the front of the queue; it is never stopped early.

        Args:
            params: Active parameters by name.
            origin: Its source: ``published``, ``defaults``, ``enqueue[i]`` or ``warm_start RUN#N``.
                Parameters that are already in the study are not added again, whatever their source.
        """
        wanted = self.space.active_params(params)
        for trial in self.trials():
            fixed = fixed_params(trial)
            if fixed is not None and OUTSIDE not in trial.user_attrs:
                # What differs without an effect is the same training once more.
                fixed = self.space.active_params(fixed)
            if fixed == wanted:
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
            self._unpause(number)
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

    def report(
        self, number: int, k: int, value: float, others: Mapping[str, float] | None = None
    ) -> None:
        """Stores the objective at rung `k`; a second call changes nothing.

        Args:
            number: Trial number.
            k: Rung.
            value: The (first) objective.
            others: The other numbers that the goals name, by key.
        """
        frozen = self.trial(number)
        if frozen.state.is_finished() or k in self.rungs(frozen):
            return
        with self._journal.batch():
            if others:
                known = {str(rung): row for rung, row in others_by_rung(frozen).items()}
                self.note(number, OTHERS, known | {str(k): dict(others)})
            if self.goals.several:
                rungs = {str(rung): known for rung, known in self.rungs(frozen).items()}
                self.note(number, RUNGS, rungs | {str(k): float(value)})
                return
            self._storage.set_trial_intermediate_value(frozen._trial_id, k, float(value))

    def complete(
        self,
        number: int,
        value: float,
        k: int | None = None,
        *,
        latency: Mapping[str, Any] | None = None,
        others: Mapping[str, float] | None = None,
    ) -> None:
        """Ends the trial at rung `k`; a value that is not finite makes it a failure.

        Args:
            number: Trial number.
            value: The objective.
            k: Rung at which it ended.
            latency: Result of `measure_latency`, where latency is needed.
            others: The other numbers that the goals name, by key.
        """
        found = {LATENCY: latency[LATENCY]} if latency is not None else {}
        found |= others or {}
        lacking = self.goals.lacking(found)
        if not math.isfinite(value):
            self.fail(number, f"{self.metric} is {value}")
        elif lacking is not None:
            what = "latency" if lacking == LATENCY else lacking
            self.fail(number, f"its {what} was not measured")
        elif bad := [key for key in self.goals.others if not math.isfinite(found[key])]:
            self.fail(number, f"{bad[0]} is {found[bad[0]]}")
        elif not self._finished(number):
            with self._journal.batch():
                if k is not None:
                    self.report(number, k, value, found)
                if latency is not None:
                    self.note_latency(number, latency)
                self._constrain(number, value, found)
                further = [found[key] for key in self.goals.further]
                self._tell(number, TrialState.COMPLETE, value, *further)

    def prune(
        self, number: int, value: float, k: int, others: Mapping[str, float] | None = None
    ) -> None:
        """Records that the scheduler stopped the trial at rung `k`.

        Value and state are one write, so a driver always finds both or neither.
        """
        if not self._finished(number):
            with self._journal.batch():
                self.report(number, k, value, others)
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

    def remember(self, key: str, value: Any) -> None:
        """Stores something about the study itself, in its user attributes."""
        if self.attributes.get(key) != value:
            self._study.set_user_attr(key, value)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Returns the user attributes of the study."""
        return dict(self._study.user_attrs)

    def fail(self, number: int, reason: str) -> None:
        """Marks the trial as failed and stores `reason` in its user attributes."""
        if not self._finished(number):
            with self._journal.batch():
                self.note(number, "reason", reason)
                self._tell(number, TrialState.FAIL)

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
        return self._create(self._proposals.afforded(self._study, number, params))

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

    def _finished(self, number: int) -> bool:
        return self.trial(number).state.is_finished()

    def _tell_last(self, number: int) -> None:
        """Marks a trial PRUNED with the value of its last rung (none with several objectives)."""
        trial = self.trial(number)
        rungs = self.rungs(trial)
        # A trial that was stopped in its pretraining has no value of the objective.
        judged = bool(rungs) and max(rungs) >= 0
        last = rungs[max(rungs)] if judged else math.nan
        if judged:
            self._constrain(number, last, latest_others(trial))
        one = [last] if math.isfinite(last) and not self.goals.several else []
        self._tell(number, TrialState.PRUNED, *one)

    def _constrain(self, number: int, value: float, others: Mapping[str, float]) -> None:
        """Records the constraints where Optuna's samplers look for them."""
        for key, each in recorded(self.goals.violations(value, others)).items():
            if math.isfinite(each):
                self._storage.set_trial_system_attr(self._trial_id(number), key, each)

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
