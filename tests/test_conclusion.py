"""A linear probe as a bundle: it predicts what the logistic regression does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsfl_tune.evidence import measure_probe, probe_network
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.run.results import Score
from gsfl_tune.run.verdict import is_ahead
from gsfl_tune.training import Workspace
from tests.training.conftest import tiny_config

POOLINGS = [
    {},
    {"pooling": "bilinear", "pooling_channels": 8},
    {"pooling": "compact_bilinear", "pooling_channels": 8, "pooling_dim": 64},
    {"pooling": "native", "backbone": "test_convnext"},
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    return Workspace.open(tiny_config().data, cache_dir=cache, device=torch.device("cpu"))


@pytest.mark.parametrize("model", POOLINGS)
def test_the_bundle_of_a_probe_gives_its_logits(workspace, tmp_path, model):
    config = tiny_config(model=model)
    yardstick = measure_probe(workspace, config)
    test = workspace.dataset.test
    path = bundle_from_network(
        tmp_path / "probe",
        probe_network(workspace, config, yardstick.probe),
        config,
        classes=workspace.dataset.classes,
        groups=None,
        side=workspace.dataset.pool.side,
        metrics={},
        model="probe",
    )
    bundle = load_bundle(path, device="cpu")
    squares = np.asarray(test.gather(np.arange(len(test))))
    logits = bundle.runtime.logits(squares).numpy()
    np.testing.assert_allclose(logits, yardstick.logits, rtol=1e-3, atol=2e-3)
    assert (logits.argmax(1) == yardstick.logits.argmax(1)).mean() > 0.98
    card = (path / "README.md").read_text()
    assert "logistic regression" in card


def test_a_probe_has_validation_metrics_that_chose_its_strength(workspace):
    yardstick = measure_probe(workspace, tiny_config())
    result = yardstick.result(np.stack([yardstick.correct] * 2))
    assert result.validation["accuracy"].values == [yardstick.validation["accuracy"]]
    assert result.strength == yardstick.probe.strength
    assert result.difference is not None
    assert result.difference.mean == 0.0


def test_a_probe_has_the_costs_that_the_search_goes_by(workspace, tmp_path):
    """Without them it could never be better than the winner on validation."""
    classes = workspace.dataset.classes
    costs = np.arange(len(classes) ** 2, dtype=float).reshape(len(classes), -1)
    np.fill_diagonal(costs, 0.0)
    file = tmp_path / "costs.csv"
    lines = [",".join(["true", *classes])]
    lines += [f"{name},{','.join(map(str, row))}" for name, row in zip(classes, costs, strict=True)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    search = {"metric": "validation/expected_cost", "cost_matrix": str(file)}
    yardstick = measure_probe(workspace, tiny_config(search=search))

    def mean_cost(logits, labels):
        answers = logits.argmax(axis=1).tolist()
        return sum(costs[t, a] for t, a in zip(labels.tolist(), answers, strict=True)) / len(labels)

    expected = mean_cost(yardstick.validation_logits, yardstick.validation_labels)
    result = yardstick.result(np.stack([yardstick.correct] * 2))
    assert result.validation["expected_cost"].mean == pytest.approx(expected)
    tested = mean_cost(yardstick.logits, yardstick.labels)
    assert result.test["expected_cost"].mean == pytest.approx(tested)
    dearer = {"expected_cost": Score.of([expected + 1.0])}
    assert is_ahead("validation/expected_cost", result.validation, dearer)
