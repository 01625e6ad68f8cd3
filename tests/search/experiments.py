"""Small real experiments: typefaces at 32 pixels on a small untrained backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import (
    Interrupt,
    Job,
    JobsOutcome,
    RunContext,
    StudyOutcome,
    run_jobs,
    run_study,
)

YAML = """
name: tiny
data:
  source: typefaces
  image_size: 32
  typefaces: {train: 6, test: 2, size: 32}
model:
  backbone: resnet10t
  weights: none
  head: {choice: [gsfl, plain]}
  latent_dim: {int: [8, 32], step: 8}
  dropout: {float: [0.0, 0.6], step: 0.3}
  groups:
    count: {int: [2, 4], when: {model.head: gsfl}}
training:
  head:
    epochs: 4
    learning_rate: {float: [1.0e-4, 1.0e-1], log: true}
search:
  trials: 8
  seed: 3
  metric: validation/nll
  scheduler: {grace: 1, reduction: 3}
  resources: {cpu: 1, gpu: 0}
"""


def experiment(*overrides: str, text: str = YAML) -> Experiment:
    return Experiment.parse(text, overrides=overrides)


# Arguments of `run_study` itself.
_OF_A_STUDY = ("name", "trials", "feature_dim", "clock", "trainable", "limit")
_OF_JOBS = ("title", "max_failures")


def context(run: RunDirectory, **options: Any) -> RunContext:
    """A run with an interrupt of its own, unless one is given."""
    return RunContext(run=run, **{"interrupt": Interrupt(run), **options})


def searched(tried: Experiment, run: RunDirectory, **options: Any) -> StudyOutcome:
    """Runs a study; options of the study and of its run together."""
    own = {name: options.pop(name) for name in _OF_A_STUDY if name in options}
    return run_study(tried, context(run, **options), **own)


def retrained(jobs: Sequence[Job], run: RunDirectory, **options: Any) -> JobsOutcome:
    """Runs retrains; options of the jobs and of their run together."""
    own = {name: options.pop(name) for name in _OF_JOBS if name in options}
    return run_jobs(jobs, context(run, **options), **own)


def states(study: Any) -> list[tuple[int, str, dict[int, float]]]:
    """What must not depend on interruptions."""
    return [
        (trial.number, trial.state.name, dict(trial.intermediate_values))
        for trial in study.trials()
    ]
