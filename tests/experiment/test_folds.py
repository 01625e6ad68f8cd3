"""What a user can get wrong about folds and repeats."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError

TEXT = "name: t\ndata: {source: typefaces}\nsearch:\n  folds: 5\n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.folds=1", "search.folds: found 1, allowed an integer at least 2 or null"),
        ("search.folds=2.5", "search.folds: found 2.5, allowed an integer"),
        ("search.repeats=0", "search.repeats: found 0, allowed an integer at least 1"),
        ("search.folds={int: [2, 5]}", "search.folds: "),
        (
            "data.shots=4",
            "search.folds: found 5 with data.shots 4, allowed nothing, or all training images",
        ),
    ],
)
def test_one_message_says_what_was_found_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        Experiment.parse(TEXT, overrides=[override])
    (problem,) = error.value.problems
    assert message in str(problem)


def test_the_message_names_the_line() -> None:
    with pytest.raises(ExperimentError) as error:
        Experiment.parse(TEXT, overrides=["data.shots=4"])
    (problem,) = error.value.problems
    assert (problem.path, problem.line) == ("search.folds", 4)
    # Further seeds take no images away.
    repeats = Experiment.parse(TEXT.replace("folds", "repeats"), overrides=["data.shots=4"])
    assert repeats.defaults().search.replicates == 5


@pytest.mark.parametrize("key", ["folds", "repeats"])
def test_they_go_with_several_objectives_and_a_storage(key: str) -> None:
    found = Experiment.parse(
        TEXT.replace("folds", key),
        overrides=["search.objectives=[validation/accuracy, macs]", "storage=s3://bucket/runs"],
    )
    assert found.defaults().search.replicates == 5


def test_folds_and_repeats_go_together() -> None:
    both = Experiment.parse(TEXT, overrides=["search.repeats=2"])
    assert both.defaults().search.replicates == 10
    assert (
        Experiment.parse("name: t\ndata: {source: typefaces}\n").defaults().search.replicates == 1
    )
