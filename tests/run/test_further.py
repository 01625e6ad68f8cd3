"""The second table of results, and where people see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gsfl_tune.export.card import model_card
from gsfl_tune.report.files import read_run
from gsfl_tune.report.page import render
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.further import further_rows
from gsfl_tune.run.results import Calibration, Results, Score, write_results
from tests.export.conftest import CLASSES, make_config
from tests.report.conftest import begun, make_results  # noqa: F401 (a fixture)
from tests.report.test_tables import text_of


def _results() -> Results:
    found = make_results()
    further = {
        "macro_f1": Score.of([0.5, 0.7]),
        "expected_cost": Score.of([1.25]),
        "of_a_package": Score.of([0.125]),
    }
    at_threshold = {"auto_coverage": Score.of([0.9]), "accuracy": Score.of([0.1])}
    calibration = Calibration(1.0, 10, 1, 2, {}, at_threshold)
    assert found.probe is not None
    return replace(
        found,
        winner=replace(found.winner, test=found.winner.test | further, calibration=calibration),
        probe=replace(found.probe, test=found.probe.test | {"macro_f1": Score.of([0.25])}),
    )


ROWS = [
    ("macro F1", ["60.0 %", "–", "25.0 %"]),
    ("answered with --threshold auto", ["90.0 %", "–", "–"]),
    ("cost of an answer", ["1.25", "–", "–"]),
    ("of_a_package", ["0.125", "–", "–"]),
]


def test_there_is_a_row_for_every_further_metric_of_some_model() -> None:
    assert further_rows(_results()) == (["winner", "control", "linear probe"], ROWS)
    # Runs of older versions have none.
    assert further_rows(make_results())[1] == []


def test_terminal_page_and_card_have_it(begun: Path) -> None:  # noqa: F811
    write_results(RunDirectory(begun).results_file, _results())
    lines = [line.split() for line in text_of(begun).splitlines()]
    card = model_card(
        make_config().model_dump(mode="json"),
        classes=CLASSES,
        groups={},
        preprocessing={"side": 37, "image_size": 32, "mean": [0.5], "std": [0.5]},
        metrics=_results().to_json(),
    )
    page = render(read_run(begun))
    for title, cells in ROWS:
        assert f"{title} {' '.join(cells)}".split() in lines
        assert f"| {title} | {' | '.join(cells)} |" in card
        cells_of_page = "".join(f"<td>{cell}</td>" for cell in cells)
        assert f'<tr><th scope="row">{title}</th>{cells_of_page}</tr>' in page
