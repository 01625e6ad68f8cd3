"""The final protocol: the best trials are trained again with more seeds, retrained and tested."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import numpy as np

from gsfl_tune.experiment import Config, Experiment
from gsfl_tune.experiment.heads import CONTROL
from gsfl_tune.experiment.metrics import LATENCY, metric_of
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.layout import TEST_FILE, VALIDATION_FILE
from gsfl_tune.run.results import Outcome, Score
from gsfl_tune.search.costs.time_budget import TimeBudget
from gsfl_tune.search.finals.race import Scores, beaten, image_scores
from gsfl_tune.search.finals.run_retrains import run_jobs
from gsfl_tune.search.observers.checkpoint_retention import make_room
from gsfl_tune.search.ray_tune.run_context import RunContext
from gsfl_tune.search.samplers.history import OUTSIDE
from gsfl_tune.search.study.goals import Goals, feasible, latency_reliable, none_feasible
from gsfl_tune.search.study.journal import read_studies
from gsfl_tune.search.study.pareto import front
from gsfl_tune.search.study.study import Study
from gsfl_tune.search.workers.replicates import errors_of, rows_of
from gsfl_tune.search.workers.retrain import Job, forget_without_model, is_finished
from gsfl_tune.training import FitOn, Predictions, load_predictions


class SearchInterrupted(Exception):
    """Raised when the search was asked to stop; a resume continues it."""


class SearchFailed(Exception):
    """Raised when no trial or no retrain completed; the message has the reasons."""


@dataclass(frozen=True)
class Candidate:
    """Holds a configuration and its results in the final protocol.

    Attributes:
        label: Name of its directory below ``finals``.
        config: The configuration.
        trial: Number of the trial that it comes from.
        params: Searched parameters that are active.
        validation: Metrics on the validation part, one mapping per seed. Empty before
            validation, and for a candidate that failed with one of the seeds.
        test: Metrics on the test split, likewise.
    """

    label: str
    config: Config
    trial: int
    params: dict[str, Any] = field(default_factory=dict)
    validation: list[dict[str, float]] = field(default_factory=list)
    test: list[dict[str, float]] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds of its retrains: new ones, as the trial was chosen with its own."""
        first = self.config.training.seed + 1
        return [first + offset for offset in range(self.config.search.final_seeds)]

    def with_seeds(self, count: int) -> Candidate:
        """Returns the same candidate with another number of seeds."""
        search = self.config.search.model_copy(update={"final_seeds": count})
        return replace(self, config=self.config.model_copy(update={"search": search}))

    def score(self, metric: str) -> float:
        """Returns the mean validation metric over the seeds, signed so that larger is better."""
        which = metric_of(metric)
        return which.sign * float(np.mean([row[which.name] for row in self.validation]))

    def outcome(self, kind: str | None = None) -> Outcome:
        """Returns its entry for ``results.json``, once it is tested.

        Args:
            kind: Kind of a control: ``matched`` or ``tuned``.
        """
        return Outcome(
            config=self.config.model_dump(mode="json"),
            validation=Score.table(self.validation),
            test=Score.table(self.test),
            seeds=self.seeds,
            params=self.params,
            trial=self.trial,
            kind=kind,
        )

    def plain(self) -> Candidate:
        """Returns the matched control: the same configuration with a plain head."""
        model = self.config.model.model_copy(update={"head": CONTROL})
        config = self.config.model_copy(update={"model": model})
        return Candidate(f"{self.label}-plain", config, self.trial, self.params)


def best(
    candidates: Sequence[Candidate],
    metric: str,
    cost: Callable[[Config], float] = lambda config: 0.0,
) -> Candidate:
    """Returns the candidate with the best mean over its seeds; ties are decided by lower NLL.

    Remaining ties are decided by lower cost.

    Args:
        candidates: Validated; those without metrics could not be trained.
        metric: The objective.
        cost: Seconds of a training.

    Raises:
        SearchFailed: When none could be trained with all seeds.
    """
    if len(candidates) == 1:
        return candidates[0]
    able = [candidate for candidate in candidates if candidate.validation]
    if not able:
        raise SearchFailed("none of the finalists could be trained again with every seed")
    # Means of a few seeds: values that differ only in their last bits are equal.
    return max(
        able,
        key=lambda one: (
            round(one.score(metric), 9),
            round(one.score("validation/nll"), 9) if _has_nll(one) else -math.inf,
            -cost(one.config),
        ),
    )


def _has_nll(candidate: Candidate) -> bool:
    return all("nll" in row for row in candidate.validation)


@dataclass(frozen=True)
class Retraining:
    """Holds the retrains of a run; retrains that are finished on disk are not run again.

    Attributes:
        context: The run.
        max_failures: How often a retrain is started again after a crash.
        budget: Time that is left, where it is limited.
    """

    context: RunContext
    max_failures: int
    budget: TimeBudget | None = None

    def jobs(self, candidate: Candidate, fit: FitOn) -> list[Job]:
        """Returns one job per seed; jobs on train + validation are also tested."""
        final = fit == "train+validation"
        folder = self.context.run.finals / candidate.label / ("retrain" if final else "validate")
        return [
            Job(
                name=f"{candidate.label} seed {seed}" + ("" if final else ", validation"),
                config=candidate.config,
                seed=seed,
                directory=folder / f"seed-{seed}",
                fit=fit,
                test=final,
            )
            for seed in candidate.seeds
        ]

    def race(self, candidates: Sequence[Candidate], title: str) -> list[Candidate]:
        """Trains candidates on the training part, seed by seed, until one of them has won.

        A candidate that can no longer win (see `beaten`) gets no further seed, nor does the last
        one left. Idle slots train the next seed meanwhile. Where time is short the last candidates
        do not start, and seeds are left out. What an earlier driver has trained counts anyway.

        Returns:
            The candidates with the metrics of their seeds. A candidate that failed with a seed has
            no metrics, nor has a single candidate, which need not race.

        Raises:
            SearchInterrupted: When the run was asked to stop.
        """
        if self.budget is not None:
            candidates = self._in_time(self.budget, candidates)
        if len(candidates) == 1:
            return list(candidates)  # it has won; `conclude` validates it beside its retrains
        racing = {candidate.label: candidate for candidate in candidates}
        jobs = {label: self.jobs(each, "train") for label, each in racing.items()}
        rows: dict[str, list[dict[str, Any]]] = {label: [] for label in racing}
        scores: dict[str, list[Scores]] = {label: [] for label in racing}
        done = 0
        while racing and any(len(jobs[label]) > done for label in racing):
            count = max(1, self.context.resources.count // len(racing))
            batch = {label: jobs[label][done : done + count] for label in racing}
            affordable = done == 0 or self._affordable(list(racing.values()), batch)
            if not affordable:
                batch = {key: list(takewhile(self._finished, own)) for key, own in batch.items()}
                if not any(batch.values()):
                    break
            results = self._run([job for own in batch.values() for job in own], title)
            done += count
            for label, own in batch.items():
                rows[label] += results[: len(own)]
                results = results[len(own) :]
                if any("failed" in row for row in rows[label]):
                    del racing[label]
                    continue
                scores[label] += self._scores(racing[label], own)
            out = beaten({label: scores[label] for label in racing if scores[label]})
            for label in out:
                del racing[label]
            if len(racing) == 1 or not affordable:
                break
        return [
            replace(candidate, validation=_complete(rows[candidate.label], "validation"))
            for candidate in candidates
        ]

    def conclude(
        self, winner: Candidate, control: Candidate | None
    ) -> tuple[Candidate, Candidate | None]:
        """Retrains the winner and its control on train + validation and tests both once.

        A candidate without validation is also trained on the training part: the winner with its own
        seeds, the control with the seeds of the winner. All of these trainings run in parallel.

        Returns:
            Both; without metrics where a seed failed.
            SearchInterrupted: When the run was asked to stop.
        """
        if self.budget is not None:
            seeds = self._seeds_in_time(self.budget, winner, control)
            winner = winner.with_seeds(seeds)
            control = control.with_seeds(seeds) if control is not None else None
        parts = self._parts(winner, control)
        title = "retraining the winner" + (" and its control" if control else "")
        results = self._run([job for part in parts.values() for job in part], title)
        rows = {}
        for key, part in parts.items():
            rows[key] = results[: len(part)]
            results = results[len(part) :]

        def with_metrics(candidate: Candidate, name: str) -> Candidate:
            tested = _complete(rows[name, "train+validation"], "test")
            validated = candidate.validation
            if (name, "train") in rows:
                validated = _complete(rows[name, "train"], "validation")
            return replace(candidate, test=tested, validation=validated)

        winner = with_metrics(winner, "winner")
        return winner, None if control is None else with_metrics(control, "control")

    def predictions(self, candidate: Candidate) -> list[Predictions]:
        """Returns the predictions of the test split, one per seed."""
        jobs = self.jobs(candidate, "train+validation")
        return [load_predictions(job.directory / TEST_FILE) for job in jobs]

    def validations(self, candidate: Candidate) -> list[Predictions]:
        """Returns the predictions of the validation part by trainings on the training part.

        There is one per seed; a run that an older version began has none.
        """
        files = [each.directory / VALIDATION_FILE for each in self.jobs(candidate, "train")]
        return [load_predictions(file) for file in files if file.exists()]

    def _parts(
        self, winner: Candidate, control: Candidate | None
    ) -> dict[tuple[str, FitOn], list[Job]]:
        """Returns the trainings of `conclude`."""
        parts: dict[tuple[str, FitOn], list[Job]] = {}
        parts["winner", "train+validation"] = self.jobs(winner, "train+validation")
        if not winner.validation:
            parts["winner", "train"] = self.jobs(winner, "train")
        if control is not None:
            parts["control", "train+validation"] = self.jobs(control, "train+validation")
            if not control.validation:
                seeds = len(winner.validation) or len(winner.seeds)
                parts["control", "train"] = self.jobs(control, "train")[:seeds]
        return parts

    def _finished(self, job: Job) -> bool:
        return is_finished(job, stored=self.context.storage is not None)

    def _in_time(self, budget: TimeBudget, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Returns the candidates that race: the first ones, and those that have a result."""
        places = range(len(candidates))
        begun = {i for i in places if self._finished(self.jobs(candidates[i], "train")[0])}
        count = budget.finalists([each.config for each in candidates], begun)
        return [candidates[i] for i in places if i < count or i in begun]

    def _affordable(self, racing: Sequence[Candidate], batch: Mapping[str, Sequence[Job]]) -> bool:
        """Returns whether there is time for the unfinished jobs of a batch of the race."""
        owed = sum(not self._finished(job) for own in batch.values() for job in own)
        configs = [each.config for each in racing]
        return self.budget is None or self.budget.another_seed(configs, owed)

    def _seeds_in_time(
        self, budget: TimeBudget, winner: Candidate, control: Candidate | None
    ) -> int:
        """Returns the number of seeds that there is time for, and at least those tested already."""

        def owed(seeds: int) -> int:
            other = None if control is None else control.with_seeds(seeds)
            parts = self._parts(winner.with_seeds(seeds), other)
            return sum(not self._finished(job) for part in parts.values() for job in part)

        both = [each for each in (winner, control) if each is not None]
        tested = zip(*(self.jobs(each, "train+validation") for each in both), strict=True)
        finished = takewhile(lambda jobs: all(map(self._finished, jobs)), tested)
        dearest = budget.dearest([each.config for each in both])
        return budget.seeds(dearest, owed, finished=len(list(finished)))

    def _scores(self, candidate: Candidate, jobs: Sequence[Job]) -> list[Scores]:
        metric = candidate.config.search.metric
        found = []
        for job in jobs:
            file = job.directory / VALIDATION_FILE
            # A run that an older version began has none.
            score = image_scores(metric, load_predictions(file)) if file.exists() else None
            if score is not None:
                found.append(score)
        return found

    def _run(self, jobs: Sequence[Job], title: str) -> list[dict[str, Any]]:
        context = self.context
        make_room(context.run, jobs[0].config.search, context.storage)
        for job in jobs:
            forget_without_model(job, context.storage)
        outcome = run_jobs(jobs, context, title=title, max_failures=self.max_failures)
        if outcome.interrupted:
            raise SearchInterrupted
        return [result or {} for result in outcome.results]


def _complete(rows: Sequence[dict[str, Any]], part: str) -> list[dict[str, float]]:
    return [] if any("failed" in row for row in rows) else [row[part] for row in rows]


def pareto_entries(experiment: Experiment, run: RunDirectory) -> list[dict[str, Any]]:
    """Returns the entries of the front for ``results.json``; empty with one objective.

    ``accuracy`` is the first objective, whatever it is; the others have their own names. With
    folds or repeats, ``errors`` has the standard errors of those that are means, by their names.

    Args:
        experiment: The experiment, bounds clamped to the data.
        run: The run.
    """
    search = experiment.defaults().search
    if not search.objectives:
        return []
    goals = Goals.of(search)
    entries = []
    for trial in front(read_studies(run.journal).get("search", []), goals.directions):
        entry = {"trial": trial.number, "accuracy": trial.values[0]}
        entry |= dict(zip(goals.further, trial.values[1:], strict=True))
        if LATENCY in goals.further:
            entry["latency_reliable"] = latency_reliable(trial)
        if errors := errors_of(trial):
            entry["errors"], entry["replicates"] = errors, len(rows_of(trial))
        entry["params"] = experiment.space.active_params(trial.params)
        entry["config"] = experiment.configure(trial.params).model_dump(mode="json")
        entries.append(entry)
    return entries


def no_finalist(study: Study) -> str:
    """Says why a study has no finalist: no trial keeps the constraints, or none reached a rung."""
    ended = [
        trial
        for trial in study.trials()
        if trial.state.is_finished() and OUTSIDE not in trial.user_attrs
    ]
    if study.goals.constraints and any(not feasible(trial) for trial in ended):
        return f"{study.name}: {none_feasible(ended, study.goals)}"
    return f"no {study.name} trial reached a rung:\n{reasons(study)}"


def reasons(study: Study) -> str:
    """Lists why trials of a study did not complete, one line per reason."""
    found: dict[str, int] = {}
    for trial in study.trials():
        attributes = {"reason": trial.state.name.lower(), **trial.user_attrs}
        reason = str(attributes.get("ended", attributes["reason"]))
        found[reason] = found.get(reason, 0) + 1
    lines = [f"  {count} x {reason}" for reason, count in found.items()]
    return "\n".join(lines[:10]) or "  there were no trials"
