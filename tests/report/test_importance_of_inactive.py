"""What a sampler drew for a parameter that was not active has no importance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsfl_tune.report.files import read_trials
from gsfl_tune.report.importance import importances
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study, write_trials
from tests.search.experiments import YAML, experiment

COUNT = "model.groups.count"


def test_values_of_inactive_parameters_are_not_used(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.experiment_file.write_text(YAML)
    study = open_study(experiment(), run)
    random = np.random.default_rng(0)
    drawn = []
    for number in range(60):
        plain = number % 2 == 1
        drawn.append({
            "model.head": "plain" if plain else "gsfl",
            "model.latent_dim": int(random.choice([8, 16, 24, 32])),
            "model.dropout": float(random.choice([0.0, 0.3, 0.6])),
            "training.head.learning_rate": float(10 ** random.uniform(-4, -1)),
            COUNT: int(random.integers(2, 5)),
        })  # fmt: skip
        # Samplers of packages may draw everything, and older versions stored it.
        study.recreate(drawn[-1])
        # A plain head has no groups: its results follow by chance what was drawn all the same.
        study.complete(number, float(drawn[-1][COUNT] - 3) if plain else 0.0)
    write_trials(run)
    records = read_trials(run, "validation/nll")
    assert len(records) == 60
    assert [COUNT in each.params for each in records] == [True, False] * 30
    found = importances(records)
    assert found is not None
    assert dict(found.shares)[COUNT] < 0.05
    assert found.explained < 0.15
    # With these values the forest would find the count.
    shown = importances([replace(each, params=drawn[each.number]) for each in records])
    assert shown is not None
    assert dict(shown.shares)[COUNT] > 0.3
