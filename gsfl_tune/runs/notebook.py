"""A run in Python: its trials as a table, its winner, its figures; made for notebooks."""

from __future__ import annotations

import html
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gsfl_tune.arguments import instance, path_of, shown, whole
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.report.files import CurveReader, RunFiles, read_run
from gsfl_tune.report.results import begun
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.results import Outcome, Results
from gsfl_tune.runs import plots
from gsfl_tune.runs.state import State, state_of

if TYPE_CHECKING:
    from gsfl_tune.export import Bundle
    from gsfl_tune.runs.comparison import Comparison

_SIZE = (7.0, 4.0)
_STUDIES = ("search", "control")


class Run:
    """Reads a run directory, finished or not; what changed on disk is read again.

    Args:
        path: The run directory.

    Raises:
        UserError: If it is not a run directory.
    """

    def __init__(self, path: str | Path) -> None:
        self._run = RunDirectory(path_of(path, "Run: path"))
        self._given = str(path)
        self._curves = CurveReader()
        self._known: tuple[list[tuple[str, int, int]], RunFiles] | None = None
        state_of(self._run)

    @property
    def path(self) -> Path:
        """Returns the run directory."""
        return self._run.path

    @property
    def state(self) -> State:
        """Returns whether it is running, interrupted, finished or failed."""
        return state_of(self._run)

    @property
    def name(self) -> str:
        """Returns the name of the experiment."""
        return self._files.results.name

    @property
    def metric(self) -> str:
        """Returns the metric that the search compares, such as ``validation/accuracy``."""
        return self._files.results.metric

    @property
    def experiment(self) -> Experiment:
        """Returns the experiment that was searched.

        Raises:
            ExperimentError: If its file cannot be read on this machine.
        """
        return Experiment.load(self._run.experiment_file)

    @property
    def trials(self) -> pd.DataFrame:
        """Returns a row for each trial of both studies, as in ``trials.parquet``."""
        return self._files.results.trials.copy()

    @property
    def results(self) -> Results | None:
        """Returns the content of ``results.json``; None before the run is finished."""
        return self._files.results.results

    @property
    def winner(self) -> Outcome | None:
        """Returns the retrained and tested winner; None before the run is finished."""
        return None if self.results is None else self.results.winner

    @property
    def best(self) -> dict[str, Any] | None:
        """Returns ``trial``, ``value`` and ``params`` of the best finished trial, None if none."""
        board = self._files.results.leaderboard(1)
        return board[0] if board else None

    def epochs(self, trial: int, study: str = "search") -> pd.DataFrame:
        """Returns a row for each epoch of a trial: losses, metrics of validation, seconds.

        Args:
            trial: Number of the trial.
            study: ``search`` or ``control``.

        Raises:
            UserError: If it has trained no epoch.
        """
        number = whole(trial, "Run.epochs: trial", 0)
        if study not in _STUDIES:
            raise ValueError(
                f"Run.epochs: study: found {shown(study)}, allowed 'search', 'control'"
            )
        folder = self._run.trials("control" if study == "control" else "search") / str(number)
        records = EpochLog(folder / EPOCHS_FILE).read()
        if not records:
            raise UserError(f"{folder}: found no epochs of trial {number} of the {study}")
        return pd.DataFrame(records)

    def bundle(self, device: str = "auto") -> Bundle:
        """Loads the bundle of the winner.

        Args:
            device: As for `load_bundle`.

        Raises:
            UserError: If the run has none yet.
        """
        from gsfl_tune.export import load_bundle

        if not self._run.best.is_dir():
            raise UserError(f"{self.path}: {self.state}, and has no bundle (best/)")
        return load_bundle(self._run.best, device)

    def compare(self, *others: str | Path | Run) -> Comparison:
        """Compares the run with others; see `compare_runs`."""
        from gsfl_tune.runs.comparison import compare_runs

        paths = [each.path if isinstance(each, Run) else each for each in others]
        return compare_runs([self.path, *paths])

    # --- figures --------------------------------------------------------------------------

    def plot_curves(
        self, trials: Iterable[int] | None = None, *, size: tuple[float, float] = _SIZE
    ) -> plots.Plot:
        """Draws learning curves.

        Args:
            trials: Numbers of trials; default: all of the search.
            size: Width and height in inches.

        Raises:
            UserError: If there is no such trial, or nothing to draw.
        """
        return plots.curves(self._files, _numbers(trials), _size(size))

    def plot_training(
        self, trial: int | None = None, *, size: tuple[float, float] = (7.0, 5.0)
    ) -> plots.Plot:
        """Draws the losses of training and validation in one plot, the accuracy below.

        Args:
            trial: Number of a trial of the search; default: the winner, or while there is none
                the best finished trial.
            size: Width and height in inches.

        Raises:
            UserError: If there is no such trial, or nothing to draw.
        """
        if trial is not None:
            whole(trial, "Run.plot_training: trial", 0)
        return plots.training(self._files, trial, _size(size))

    def plot_best(self, *, size: tuple[float, float] = _SIZE) -> plots.Plot:
        """Draws the best value by the time of the search.

        Raises:
            UserError: If no trial has ended.
        """
        return plots.best(self._files, _size(size))

    def plot_importance(
        self, rung: int | None = None, *, size: tuple[float, float] = _SIZE
    ) -> plots.Plot:
        """Draws how much of the result each parameter explains.

        Args:
            rung: Explain the value at this rung, counted from 0; default: that of finished trials.
            size: Width and height in inches.

        Raises:
            UserError: With fewer than ten trials, or if all their values are equal.
        """
        if rung is not None:
            whole(rung, "Run.plot_importance: rung", 0)
        return plots.importance(self._files, rung, _size(size))

    def plot_parameter(self, name: str, *, size: tuple[float, float] = _SIZE) -> plots.Plot:
        """Draws the result of every trial against one parameter.

        Args:
            name: Its dotted path, such as ``model.dropout``.
            size: Width and height in inches.

        Raises:
            UserError: If nothing of that name was searched; lists the parameters.
        """
        instance(
            str,
            name,
            "Run.plot_parameter: name",
            "the name of a parameter, such as 'model.dropout'",
        )
        return plots.parameter(self._files, name, _size(size))

    def plot_confusion(self, *, size: tuple[float, float] = (7.0, 6.0)) -> plots.Plot:
        """Draws which classes the winner takes for which on the test images.

        Raises:
            UserError: If the run has no such evidence.
        """
        return plots.confusion(self._files, _size(size))

    def live(self, every: float = 2.0) -> None:
        """Shows state, curves and best value in a notebook, until no driver works on the run.

        Args:
            every: Seconds between two looks. Interrupt the cell to stop looking.

        Raises:
            UserError: Outside of IPython.
        """
        if isinstance(every, bool) or not isinstance(every, int | float):
            raise TypeError(f"Run.live: every: found {shown(every)}, allowed a number of seconds")
        if not every > 0:
            raise ValueError(f"Run.live: every: found {every}, allowed a number of seconds above 0")
        try:
            from IPython.display import display
        except ImportError as error:
            raise UserError("Run.live: needs IPython, as in a notebook") from error
        running = self.state.name == "running"
        about = display(self, display_id=True)
        drawn = display(self._picture(), display_id=True)
        while about is not None and running:
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                return
            # Before the drawing: what is drawn last is the state after the end.
            running = self.state.name == "running"
            about.update(self)
            drawn.update(self._picture())

    def _picture(self) -> Any:
        try:
            return self.plot_curves()
        except UserError as error:
            return str(error)

    # --- reading --------------------------------------------------------------------------

    @property
    def _files(self) -> RunFiles:
        run = self._run
        now = [
            (file.name, stat.st_mtime_ns, stat.st_size)
            for file in (run.results_file, run.trials_parquet, run.evidence_file, run.data_file)
            if (stat := _stat(file)) is not None
        ]
        if self._known is None or self._known[0] != now or self.state.name == "running":
            self._known = now, read_run(run.path, self._curves)
        return self._known[1]

    def __repr__(self) -> str:
        return f"Run({self._given!r}, {', '.join(self._facts().values())})"

    def _facts(self) -> dict[str, str]:
        found = self._files.results
        facts = {"state": str(self.state), "trials": f"{begun(found.counts)} trials"}
        best = self.best
        if best is not None:
            facts["best"] = f"best {metric_of(found.metric).text(best['value'])}"
        winner = self.winner
        if winner is not None:
            facts["test"] = f"test accuracy {100 * winner.test['accuracy'].mean:.1f} %"
        return facts

    def _repr_html_(self) -> str:
        cells = "".join(f"<td>{html.escape(text)}</td>" for text in self._facts().values())
        name = html.escape(self._given)
        return f"<table><tr><th>{name}</th>{cells}</tr></table>"


def _stat(file: Path) -> Any:
    try:
        return file.stat()
    except OSError:
        return None


def _numbers(trials: Any) -> Collection[int] | None:
    allowed = "numbers of trials, such as [0, 3]"
    if trials is None:
        return None
    if isinstance(trials, str | bytes) or not isinstance(trials, Iterable):
        raise TypeError(f"Run.plot_curves: trials: found {shown(trials)}, allowed {allowed}")
    return [whole(each, "Run.plot_curves: trials", 0) for each in trials]


def _size(size: Any) -> tuple[float, float]:
    try:
        width, height = (float(each) for each in size)
    except (TypeError, ValueError):
        raise TypeError(
            f"size: found {shown(size)}, allowed width and height in inches, such as (7, 4)"
        ) from None
    if not (0 < width <= 100 and 0 < height <= 100):
        raise ValueError(f"size: found {shown(size)}, allowed inches above 0, at most 100")
    return width, height
