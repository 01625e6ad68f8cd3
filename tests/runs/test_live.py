"""The live view of a notebook, with a display that records what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from gsfl_tune import Run
from gsfl_tune.run import run_lock
from tests.report.runs import RunMaker


@dataclass
class Shown:
    """One output of a cell: what it showed first, and after each update."""

    texts: list[str] = field(default_factory=list)
    contents: list[Any] = field(default_factory=list)
    driver: Iterator[None] = field(default_factory=lambda: iter(()))

    def show(self, content: Any) -> None:
        self.texts.append(repr(content))
        self.contents.append(content)

    def update(self, content: Any) -> None:
        self.show(content)
        # A driver works between two looks.
        next(self.driver, None)


@pytest.fixture
def outputs(monkeypatch) -> list[Shown]:
    """The outputs of the cell, in their order: the run, and its curves."""
    pytest.importorskip("IPython")
    made = [Shown(), Shown()]
    given = iter(made)

    def display(content: Any, *, display_id: bool) -> Shown:
        assert display_id
        output = next(given)
        output.show(content)
        return output

    monkeypatch.setattr("IPython.display.display", display)
    return made


def longest(figure: Any) -> list[float]:
    lines = [list(line.get_ydata()) for line in figure.axes[0].get_lines()]
    return max(lines, key=len)


def test_it_is_drawn_anew_until_no_driver_works_on_the_run(tmp_path, outputs):
    maker = RunMaker(tmp_path / "run").begin().search(6, running=6, failed=0)
    run = Run(maker.path)
    about, drawn = outputs
    values = [0.1 * epoch for epoch in range(1, 8)]
    with ExitStack() as stack:
        stack.enter_context(run_lock(maker.run))

        def driver() -> Iterator[None]:
            maker.epochs(2, values)
            yield
            maker.search(6, failed=0).finish()
            stack.close()
            yield

        drawn.driver = driver()
        run.live(0.01)
    # At first, after the new epochs, and after the end.
    assert len(about.texts) == len(drawn.contents) == 4
    assert all("running" in text for text in about.texts[:3])
    assert "finished" in about.texts[3]
    lengths = [len(longest(figure)) for figure in drawn.contents]
    assert lengths == [4, 4, 7, 27]
    assert longest(drawn.contents[2]) == pytest.approx(values)


def test_a_run_that_nobody_works_on_is_shown_once(tmp_path, outputs):
    maker = RunMaker(tmp_path / "run").begin()
    Run(maker.path).live()
    about, drawn = outputs
    assert ["interrupted" in text for text in about.texts] == [True]
    assert drawn.contents == [f"{maker.path}: no trial has trained an epoch yet"]


def test_an_interrupted_cell_stops_looking(tmp_path, outputs, monkeypatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    maker = RunMaker(tmp_path / "run").begin().search(6, running=6, failed=0)
    monkeypatch.setattr("gsfl_tune.runs.notebook.time.sleep", interrupt)
    with run_lock(maker.run):
        Run(maker.path).live()
    assert [len(output.contents) for output in outputs] == [1, 1]
