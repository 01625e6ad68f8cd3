"""What a user can get wrong in lists of the section ``data``."""

from __future__ import annotations

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError


@pytest.mark.parametrize(
    ("setting", "path", "words"),
    [
        ("value_range: [9, 3]", "data.value_range", ["[9", "the smaller one first"]),
        ("value_range: [1]", "data.value_range", ["two numbers"]),
        ("box_columns: [x, y]", "data.box_columns", ["found 2", "one or four"]),
    ],
)
def test_lists_of_the_wrong_length_or_order(setting, path, words):
    text = f"name: t\ndata: {{source: typefaces, {setting}}}\n"
    with pytest.raises(ExperimentError) as error:
        Experiment.parse(text)
    (problem,) = error.value.problems
    assert (problem.line, problem.path) == (2, path)
    assert all(word in problem.message for word in words)
