"""Durations and sizes as people write them."""

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.units import byte_count, duration_text, seconds, size_text


def search(line):
    return Experiment.parse(f"name: t\ndata: {{source: typefaces}}\nsearch: {{{line}}}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("20m", 1200), ("6h", 21600), ("2d", 172800), ("1.5 h", 5400), ("45", 45)],
)
def test_durations(text, expected):
    config = search(f"time_budget: {text}").defaults().search
    assert seconds(config.time_budget) == expected
    assert duration_text(config.time_budget) == ("45s" if text == "45" else text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("50GB", 50 * 10**9), ("2TiB", 2 * 2**40), ("500 MB", 5 * 10**8), ("1024", 1024)],
)
def test_sizes(text, expected):
    assert byte_count(search(f"disk_budget: {text}").defaults().search.disk_budget) == expected


@pytest.mark.parametrize(
    "line",
    [
        "time_budget: 6 hours",
        "time_budget: 0s",
        "trial_timeout: -5",
        "trial_timeout: true",
        "disk_budget: 50G",
        "disk_budget: 0.0GB",
        "disk_budget: 1.5",
    ],
)
def test_what_is_neither_is_refused_with_what_is_allowed(line):
    with pytest.raises(
        ExperimentError, match=r"found .*allowed a (duration such as 90s|size such)"
    ):
        search(line)


def test_sizes_in_words():
    assert [size_text(n) for n in (999, 3_200_000_000, 45_000)] == ["999B", "3.2GB", "45kB"]
