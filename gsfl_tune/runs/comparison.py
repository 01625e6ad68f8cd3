"""Several runs side by side: settings that differ, learning curves, winners on the test images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.arguments import path_of, shown
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError, first_line
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.report.clock import SearchClock
from gsfl_tune.report.files import SEARCH, CurveReader, RunFiles, read_run
from gsfl_tune.report.settings import flat
from gsfl_tune.report.trials import Curve, best_so_far
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.run.results import Difference, Outcome
from gsfl_tune.run.verdict import points
from gsfl_tune.runs.pairing import NotComparable, TestedWinner, paired, tested_winner
from gsfl_tune.runs.state import state_of

ACCURACY = "validation/accuracy"
ABSENT = "–"
# Not part of what is trained.
_OTHER = ("name", "search", "storage")


@dataclass(frozen=True)
class ComparedRun:
    """Holds one of the runs that are compared.

    Attributes:
        name: Shortest name that no other of the runs has.
        files: Its files.
        state: Its state.
        trial: The winner, or the best finished trial while there is no winner; None without one.
        config: Its complete configuration, dotted paths; empty without one.
        leaves: The leaves of its experiment file: values, or what they are drawn from.
        curve: The trial's metric by epoch.
        steps: When a trial was the best so far: seconds of the search, value, number.
        seconds: Length of the search.
    """

    name: str
    files: RunFiles
    state: str
    trial: int | None
    config: Mapping[str, str]
    leaves: Mapping[str, str]
    curve: Curve
    steps: list[tuple[float, float, int]]
    seconds: float

    @property
    def winner(self) -> Outcome | None:
        """Returns the tested winner, None before the end of the run."""
        results = self.files.results.results
        return None if results is None else results.winner

    @property
    def best(self) -> float | None:
        """Returns the best value of a finished trial."""
        board = self.files.results.leaderboard(1)
        return float(board[0]["value"]) if board else None


@dataclass(frozen=True)
class Pair:
    """Compares the winner of a run with that of the first.

    Attributes:
        name: Name of the run.
        against: Name of the first run.
        difference: Its test accuracy minus that of the first; None where that is refused.
        images: Number of common test images.
        seeds: Seeds of both.
        refused: Why there is no difference; empty where there is one.
    """

    name: str
    against: str
    difference: Difference | None = None
    images: int = 0
    seeds: tuple[int, int] = (0, 0)
    refused: str = ""

    def __repr__(self) -> str:
        if self.difference is None:
            return f"Pair({self.name} and {self.against}, refused)"
        interval = self.difference.interval
        low, high = map(points, (interval.low, interval.high))
        shown = f"{points(self.difference.mean)} points ({low} to {high})"
        return f"Pair({self.name} minus {self.against}, {shown}, {self.images} images)"

    @property
    def sentence(self) -> str:
        """Says what is shown."""
        if self.difference is None:
            return f"{self.name} and {self.against} cannot be compared: {self.refused}."
        found = self.difference
        interval = found.interval
        low, high = map(points, (interval.low, interval.high))
        words = (
            f"{self.name} minus {self.against} on the {self.images:,} common test images: "
            f"{points(found.mean)} points, {100 * interval.level:.0f} % interval {low} to "
            f"{high} ({interval.method})"
        )
        if interval.contains_zero:
            return f"{words}; no difference is shown."
        word = "better" if found.mean > 0 else "worse"
        if not interval.covers_seeds:
            return f"{words}; {self._of_one_seed(word)}: not settled."
        return f"{words}; the winner of {self.name} is {word} than that of {self.against}."

    def _of_one_seed(self, word: str) -> str:
        """Says whose single training is the reason why nothing is settled."""
        names = self.name, self.against
        single = [name for name, seeds in zip(names, self.seeds, strict=True) if seeds == 1]
        if len(single) == 1:
            (name,) = single
            return (
                f"with the one seed of {name}, {self.name} is {word}; whether it is with another "
                f"training of {name}, too, is not known"
            )
        many = "this one seed" if not single else "one seed of each"
        return f"with {many}, {self.name} is {word}; whether another training is, too, is not known"


@dataclass(frozen=True)
class Comparison:
    """Holds several runs side by side.

    Attributes:
        runs: The runs, in the order that they were given; the first is compared with all others.
        metric: Of the learning curves: that of the searches, else the accuracy.
        same_metric: Whether the searches compared the same metric.
        experiments: Leaves of the files that differ: path and one text for each run.
        winners: The same of the winners' configurations.
        pairs: Every other run against the first.
    """

    runs: list[ComparedRun]
    metric: str
    same_metric: bool
    experiments: list[tuple[str, list[str]]] = field(default_factory=list)
    winners: list[tuple[str, list[str]]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(run.name for run in self.runs)})"

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "runs": [_run_json(run) for run in self.runs],
            "experiments": [{"path": path, "values": values} for path, values in self.experiments],
            "winners": [{"path": path, "values": values} for path, values in self.winners],
            "metric": self.metric,
            "curves": [list(run.curve.values) for run in self.runs],
            "differences": [_pair_json(pair) for pair in self.pairs],
        }


def compare_runs(runs: Sequence[str | Path]) -> Comparison:
    """Compares runs, finished or not.

    Args:
        runs: Two run directories or more. Differences are to the first.

    Raises:
        UserError: If there are fewer than two, one is named twice, or one is not a run directory.
    """
    if isinstance(runs, str | Path) or not isinstance(runs, Iterable):
        raise TypeError(
            f"compare_runs: runs: found {shown(runs)}, allowed a list of run directories"
        )
    paths = [path_of(run, "compare_runs: runs") for run in runs]
    if len(paths) < 2:
        raise UserError(f"found {len(paths)} run{'s' * (len(paths) != 1)}, allowed two or more")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UserError(f"{path}: named twice; a run is compared with other ones")
        seen.add(path.resolve())
    every = [read_run(path) for path in paths]
    metrics = {files.results.metric for files in every}
    metric = metrics.pop() if len(metrics) == 1 else ACCURACY
    names = _names([files.run.path for files in every])
    compared = [_compared(f, name, metric) for f, name in zip(every, names, strict=True)]
    return Comparison(
        runs=compared,
        metric=metric,
        same_metric=all(files.results.metric == metric for files in every),
        experiments=_differing([run.leaves for run in compared], leave_out=("name",)),
        winners=_differing([run.config for run in compared], leave_out=_OTHER),
        pairs=_pairs(compared),
    )


def _compared(files: RunFiles, name: str, metric: str) -> ComparedRun:
    results, run = files.results.results, files.run
    board = files.results.leaderboard(1)
    config: Mapping[str, Any] = {}
    trial: int | None = None
    if results is not None:
        trial, config = results.winner.trial, results.winner.config
    elif board:
        trial = int(board[0]["trial"])
        config = _configured(files.experiment, board[0]["params"])
    steps, seconds = _progress(files)
    curve = Curve()
    if trial is not None:
        curve = CurveReader().read(run.trial("search", trial) / EPOCHS_FILE, metric)
        if not any(value is not None for value in curve.values):
            curve = Curve()
    return ComparedRun(
        name=name,
        files=files,
        state=state_of(run).name if run.manifest_file.is_file() else "finished",
        trial=trial,
        config=_texts(config),
        leaves=_leaves(files.experiment),
        curve=curve,
        steps=steps,
        seconds=seconds,
    )


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Flattens a configuration; numbers that a sampler drew get the digits that people read."""
    found = dict(flat(config))
    for path, text in found.items():
        if "." in text or "e-" in text:
            try:
                found[path] = f"{float(text):.4g}"
            except ValueError:
                continue
    return found


def _configured(experiment: Experiment | None, params: Mapping[str, Any]) -> Mapping[str, Any]:
    if experiment is None:
        return params
    try:
        return experiment.configure(params).model_dump(mode="json")
    except UserError:
        return params


def _leaves(experiment: Experiment | None) -> dict[str, str]:
    """Returns every leaf of a file: its value, or the distribution that it is drawn from."""
    if experiment is None:
        return {}
    found = _texts(experiment.defaults().model_dump(mode="json"))
    drawn: dict[str, list[str]] = {}
    for parameter in experiment.space.parameters:
        drawn.setdefault(parameter.path, []).append(parameter.distribution.describe())
    return found | {path: " or ".join(texts) for path, texts in drawn.items()}


def _progress(files: RunFiles) -> tuple[list[tuple[float, float, int]], float]:
    trials = files.study(SEARCH)
    if not any(trial.begin is not None for trial in files.trials):
        return [], 0.0
    drivers = files.manifest.get("drivers")
    known = (
        [each for each in drivers if isinstance(each, dict)] if isinstance(drivers, list) else []
    )
    clock = SearchClock(files.trials, known, files.stretches)
    maximize = metric_of(files.results.metric).sign > 0
    steps = best_so_far(trials, maximize=maximize)
    return [(clock.at(end), value, t.number) for end, value, t in steps], clock.seconds


def _differing(
    every: Sequence[Mapping[str, str]], leave_out: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Lists the paths whose values differ between mappings; what has no value says nothing."""
    known = [each for each in every if each]
    rows = []
    for path in dict.fromkeys(path for each in known for path in each):
        if path.partition(".")[0] in leave_out:
            continue
        if len({each.get(path, ABSENT) for each in known}) > 1:
            rows.append((path, [each.get(path, ABSENT) for each in every]))
    return rows


def _pairs(runs: Sequence[ComparedRun]) -> list[Pair]:
    tested: dict[str, TestedWinner | NotComparable] = {}
    for run in runs:
        try:
            tested[run.name] = tested_winner(run.files, run.name)
        except NotComparable as error:
            tested[run.name] = error
    first, *others = runs
    return [_pair(tested[run.name], tested[first.name], run.name, first.name) for run in others]


def _pair(
    one: TestedWinner | NotComparable, first: TestedWinner | NotComparable, name: str, against: str
) -> Pair:
    try:
        for each in (first, one):
            if isinstance(each, NotComparable):
                raise each
        assert isinstance(one, TestedWinner)
        assert isinstance(first, TestedWinner)
        found = paired(one, first)
    except NotComparable as error:
        return Pair(name, against, refused=first_line(error))
    seeds = len(one.correct), len(first.correct)
    return Pair(name, against, found, len(one.paths), seeds)


def _names(paths: Sequence[Path]) -> list[str]:
    """Returns the last parts of paths, as many as tell them apart."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _run_json(run: ComparedRun) -> dict[str, Any]:
    winner = run.winner
    return {
        "name": run.name,
        "path": str(run.files.run.path),
        "experiment": run.files.results.name,
        "state": run.state,
        "metric": run.files.results.metric,
        "trials": run.files.results.counts,
        "trial": run.trial,
        "best": run.best,
        "test_accuracy": None if winner is None else winner.test["accuracy"].mean,
        "seeds": None if winner is None else winner.seeds,
        "search_seconds": run.seconds,
        "best_so_far": [list(step) for step in run.steps],
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    found = pair.difference
    return {
        "run": pair.name,
        "against": pair.against,
        "images": pair.images or None,
        "metric": None if found is None else found.metric,
        "mean": None if found is None else found.mean,
        "interval": None
        if found is None
        else {
            "low": found.interval.low,
            "high": found.interval.high,
            "level": found.interval.level,
            "method": found.interval.method,
        },
        "refused": pair.refused or None,
        "sentence": pair.sentence,
    }
