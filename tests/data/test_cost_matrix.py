"""The table of costs: read by names, and refused with file, line and class."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.data.cost_matrix import load_cost_matrix
from gsfl_tune.experiment import ExperimentError
from gsfl_tune.experiment.errors import UserError
from tests.search.experiments import experiment

CLASSES = ["ant", "bee", "cat"]
TEXT = """true,cat, bee,ant
bee,1,0,2.5

cat,0,3,4
ant,5,6,0
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "costs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_and_columns_are_matched_by_name(tmp_path: Path) -> None:
    costs = load_cost_matrix(written(tmp_path, TEXT), CLASSES)
    np.testing.assert_array_equal(costs, [[0, 6, 5], [2.5, 0, 1], [4, 3, 0]])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("known", ["NFC", "NFD"])
def test_names_may_be_composed_or_decomposed(tmp_path: Path, form: str, known: str) -> None:
    """macOS writes decomposed names; bundles of earlier versions may have them."""
    name = "\u00e9pervier"
    text = TEXT.replace("bee", unicodedata.normalize(form, name))
    classes = ["ant", unicodedata.normalize(known, name), "cat"]
    costs = load_cost_matrix(written(tmp_path, text), classes)
    np.testing.assert_array_equal(costs, [[0, 6, 5], [2.5, 0, 1], [4, 3, 0]])


@pytest.mark.parametrize(
    ("change", "complaints"),
    [
        (("bee,1,0,2.5\n", ""), [": no line for 'bee'"]),
        (("cat,0,3,4", "cow,0,3,4"), [":4: the class 'cow' is unknown", ": no line for 'cat'"]),
        (("ant,5", "bee,5"), [":5: the class 'bee' has a line already", ": no line for 'ant'"]),
        (
            (", bee", ", cow"),
            [":1: no column for 'bee'", ":1: unknown classes in the columns: 'cow'"],
        ),
        ((", bee", ",cat"), [":1: no column for 'bee'", ":1: more than one column for 'cat'"]),
        (("0,3,4", "0,3"), [":4: class 'cat': found 2 costs, allowed 3"]),
        (("0,3,4", "0,much,4"), [":4: class 'cat' answered as 'bee': found 'much', allowed a num"]),
        (("0,3,4", "0,nan,4"), [":4: class 'cat' answered as 'bee': found 'nan'"]),
    ],
)
def test_what_does_not_fit_is_told_by_line_and_class(
    tmp_path: Path, change: tuple[str, str], complaints: list[str]
) -> None:
    path = written(tmp_path, TEXT.replace(*change))
    with pytest.raises(UserError) as caught:
        load_cost_matrix(path, CLASSES)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(complaints)
    for complaint in complaints:
        assert any(f"search.cost_matrix: {path}{complaint}" in line for line in lines), lines


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no line for 'ant', 'bee', 'cat'"):
        load_cost_matrix(written(tmp_path, ""), CLASSES)
    with pytest.raises(UserError, match="cannot be read"):
        load_cost_matrix(tmp_path, CLASSES)


def test_an_experiment_names_a_file_that_exists(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"search\.cost_matrix: found '.*', which does not"):
        experiment(f"search.cost_matrix={tmp_path / 'nothing.csv'}")
    with pytest.raises(ExperimentError, match=r"expected_cost without search\.cost_matrix"):
        experiment("search.metric=validation/expected_cost")
    path = written(tmp_path, TEXT)
    made = experiment(f"search.cost_matrix={path}", "search.metric=validation/expected_cost")
    assert made.defaults().search.cost_matrix == str(path)
