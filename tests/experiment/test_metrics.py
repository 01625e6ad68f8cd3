from __future__ import annotations

import numpy as np
import pytest

from gsfl_tune.experiment.metrics import (
    FURTHER_TITLES,
    METRIC_TITLES,
    METRICS,
    RANKED,
    SHARES,
    keyed,
    metric_of,
    of_part,
    ranked,
)
from gsfl_tune.experiment.search_config import SearchConfig
from gsfl_tune.plugins import BUILT_IN, PluginError
from gsfl_tune.training.metrics import classification_metrics


def test_what_may_be_searched_is_what_is_computed():
    [named] = SearchConfig.model_fields["metric"].metadata
    everything = {"ranked": RANKED, "costs": np.ones((3, 3)), "own_threshold": True}
    computed = classification_metrics(np.eye(3), [0, 1, 2], **everything)
    assert list(METRICS) == list(named.words)
    assert [metric.name for metric in METRICS.values()] == list(computed)
    assert [*METRIC_TITLES, *FURTHER_TITLES] == list(computed)
    assert list(BUILT_IN["metric"]) == list(computed)  # names that no package may take


def test_a_better_model_is_better_in_every_metric():
    labels = np.arange(200) % 8
    logits = np.random.default_rng(0).normal(size=(200, 8))
    logits[np.arange(200), labels] += 1.0
    # Sure where it is right alone: better calibrated too.
    better = logits.copy()
    better[np.arange(200), labels] += 12.0
    everything = {"ranked": RANKED, "costs": 1 - np.eye(8), "own_threshold": True}
    one, other = (classification_metrics(each, labels, **everything) for each in (logits, better))
    for metric in METRICS.values():
        assert metric.sign * other[metric.name] > metric.sign * one[metric.name]
        assert metric.is_share == (metric.key in SHARES)


def test_a_metric_that_nobody_adds_has_no_direction():
    with pytest.raises(PluginError, match="no installed package adds the metric 'worst_class'"):
        metric_of("validation/worst_class")


def test_metrics_that_rank_all_images_are_computed_where_they_are_named():
    assert ranked(["validation/accuracy", "latency_ms"]) == set()
    assert ranked(["validation/auroc", "validation/nll"]) == {"auroc"}


def test_metrics_of_a_record_come_back_as_they_went():
    record = {"epoch": 3, **keyed("validation", {"accuracy": 0.5, "nll": 1.0}), "train/loss": 2.0}
    assert of_part("validation", record) == {"accuracy": 0.5, "nll": 1.0}
    assert of_part("train", record) == {"loss": 2.0}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("validation/accuracy", 0.12345, "12.3 %"),
        ("validation/nll", 0.123456, "0.1235"),
        ("latency_ms", 12.0, "12"),
        ("validation/accuracy", None, "–"),
    ],
)
def test_values_are_written_as_people_do(key, value, text):
    assert metric_of(key).text(value) == text
    assert metric_of(key).key == key
