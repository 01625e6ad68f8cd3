"""What happens to the best trials: trained again with several seeds, then retrained and tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gsfl_tune.experiment import METRICS, Config, Experiment
from gsfl_tune.experiment.fields import leaves
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.storage import RunStorage
from gsfl_tune.search.final import run_jobs
from gsfl_tune.search.interrupt import Interrupt
from gsfl_tune.search.job import Job
from gsfl_tune.search.journal import read_studies
from gsfl_tune.search.keeper import make_room
from gsfl_tune.search.pareto import front
from gsfl_tune.search.runner import Resources
from gsfl_tune.search.study import Study
from gsfl_tune.search.watcher import Watcher
from gsfl_tune.training import FitOn, Predictions, load_predictions

# What a plain head has no use for: at the schema's defaults in the control's own search.
_GSFL_ONLY = (
    "loss.reconstruction",
    "loss.class_center",
    "loss.shared_center",
    "loss.center_rate",
    "loss.center_init",
    "loss.reconstruction_target",
    "model.decoder",
    "model.groups.count",
    "model.groups.method",
    "model.groups.taxonomy",
)


class SearchInterrupted(Exception):
    """The search was asked to stop; a resume continues it."""


class SearchFailed(Exception):
    """No trial, or no retrain, came to its end; the message has the reasons."""


@dataclass(frozen=True)
class Candidate:
    """A configuration on its way to the end of the protocol.

    Attributes:
        label: Name of its directory below ``finals``.
        config: The configuration.
        trial: Number of the trial that it comes from.
        params: Searched parameters that are active.
        validation: Metrics on the validation part, one mapping a seed; empty until `validate`,
            and for a candidate that failed with one of the seeds.
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
        """Seeds of its retrains. Fresh ones: it was chosen for what it did with the trial's."""
        first = self.config.training.seed + 1
        return [first + offset for offset in range(self.config.search.final_seeds)]

    def score(self, metric: str) -> float:
        """Mean of a validation metric over the seeds, turned so that larger is better."""
        sign = 1.0 if METRICS[metric] == "maximize" else -1.0
        name = metric.partition("/")[2]
        return sign * float(np.mean([row[name] for row in self.validation]))

    def plain(self) -> Candidate:
        """The matched control: the same configuration with a plain head."""
        model = self.config.model.model_copy(update={"head": "plain"})
        config = self.config.model_copy(update={"model": model})
        return Candidate(f"{self.label}-plain", config, self.trial, self.params)


def best(candidates: Sequence[Candidate], metric: str) -> Candidate:
    """The candidate with the best mean over its seeds.

    Raises:
        SearchFailed: When none could be trained with all seeds.
    """
    able = [candidate for candidate in candidates if candidate.validation]
    if not able:
        raise SearchFailed("none of the finalists could be trained again with every seed")
    return max(able, key=lambda candidate: candidate.score(metric))


@dataclass(frozen=True)
class Retraining:
    """The retrains of a run; those that are finished on disk are not run again.

    Attributes:
        run: The run directory.
        resources: Of one retrain, and how many fit.
        side: Side of the decoded squares.
        cache_dir: Root of the nodes' caches.
        max_failures: Times a retrain is started again after a crash.
        watchers: Are told of every change.
        interrupt: Of the whole run.
        storage: Where the run is kept beside its directory.
    """

    run: RunDirectory
    resources: Resources
    side: int
    cache_dir: Path
    max_failures: int
    watchers: Sequence[Watcher]
    interrupt: Interrupt
    storage: RunStorage | None = None

    def jobs(self, candidate: Candidate, fit: FitOn) -> list[Job]:
        """One job a seed; those on train + validation are tested."""
        final = fit == "train+validation"
        folder = self.run.finals / candidate.label / ("retrain" if final else "validate")
        return [
            Job(
                name=f"{candidate.label} seed {seed}",
                config=candidate.config,
                seed=seed,
                directory=folder / f"seed-{seed}",
                fit=fit,
                test=final,
            )
            for seed in candidate.seeds
        ]

    def validate(self, candidates: Sequence[Candidate], title: str) -> list[Candidate]:
        """Trains candidates on the training part with every seed, side by side.

        Raises:
            SearchInterrupted: When the run was asked to stop.
        """
        rows = self._run(candidates, "train", title)
        return [
            replace(candidate, validation=_complete(own, "validation"))
            for candidate, own in zip(candidates, rows, strict=True)
        ]

    def test(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Retrains on train + validation with every seed, side by side, and tests once.

        Raises:
            SearchInterrupted: When the run was asked to stop.
        """
        rows = self._run(candidates, "train+validation", "retraining on train + validation")
        return [
            replace(candidate, test=_complete(own, "test"))
            for candidate, own in zip(candidates, rows, strict=True)
        ]

    def predictions(self, candidate: Candidate) -> list[Predictions]:
        """Predictions of the test split, one a seed."""
        jobs = self.jobs(candidate, "train+validation")
        return [load_predictions(job.directory / "test.npz") for job in jobs]

    def _run(
        self, candidates: Sequence[Candidate], fit: FitOn, title: str
    ) -> list[list[dict[str, Any]]]:
        make_room(self.run, candidates[0].config.search, self.storage)
        jobs = [self.jobs(candidate, fit) for candidate in candidates]
        outcome = run_jobs(
            [job for own in jobs for job in own],
            self.run,
            resources=self.resources,
            title=title,
            max_failures=self.max_failures,
            side=self.side,
            cache_dir=self.cache_dir,
            watchers=self.watchers,
            interrupt=self.interrupt,
            storage=self.storage,
        )
        if outcome.interrupted:
            raise SearchInterrupted
        results = iter([result or {} for result in outcome.results])
        return [[next(results) for _ in own] for own in jobs]


def _complete(rows: Sequence[dict[str, Any]], part: str) -> list[dict[str, float]]:
    return [] if any("failed" in row for row in rows) else [row[part] for row in rows]


def active_params(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a configuration has use for, of all that were drawn."""
    active = experiment.space.active(params)
    return {name: value for name, value in params.items() if name in active}


def pareto_entries(experiment: Experiment, run: RunDirectory) -> list[dict[str, Any]]:
    """What ``results.json`` says of the front; empty for a search with one objective.

    Args:
        experiment: The experiment, bounds clamped to the data.
        run: The run.
    """
    search = experiment.defaults().search
    if not search.objectives:
        return []
    return [
        {
            "trial": trial.number,
            "accuracy": trial.values[0],
            "latency_ms": trial.values[1],
            "params": active_params(experiment, trial.params),
            "config": experiment.configure(trial.params).model_dump(mode="json"),
        }
        for trial in front(read_studies(run.journal).get("search", []), METRICS[search.metric])
    ]


def reasons(study: Study) -> str:
    """Why the trials of a study did not come to their ends, one line a reason."""
    found: dict[str, int] = {}
    for trial in study.trials():
        attributes = {"reason": trial.state.name.lower(), **trial.user_attrs}
        reason = str(attributes.get("ended", attributes["reason"]))
        found[reason] = found.get(reason, 0) + 1
    lines = [f"  {count} x {reason}" for reason, count in found.items()]
    return "\n".join(lines[:10]) or "  there were no trials"


def plain_space(experiment: Experiment) -> Experiment:
    """The space of the control's own search: a plain head, and nothing that it has no use for."""
    plain: dict[str, Any] = {"model.head": "plain", "search.enqueue": []}
    terms = [path for path in leaves() if path.startswith("loss.terms.")]
    return experiment.fixed(plain | dict.fromkeys([*_GSFL_ONLY, *terms]))
