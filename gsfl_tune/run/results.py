"""``results.json``: the results of a finished run, for the code that writes and that shows them.

The file is described in ``docs/results.md``. Everything in it is plain JSON. Metrics in ``test``
are fractions (0.874, not 87.4). Differences are winner minus the other model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.arguments import instance, path_of
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.atomic import read_json, write_json
from gsfl_tune.run.layout import RunDirectory

FORMAT = 1
# What an interval covers. Only files of older versions have the first.
PAIRED_BOOTSTRAP = "paired bootstrap over test images"
SEEDS_AND_IMAGES = "t interval over seeds and test images"
IMAGES_ALONE = "t interval over test images alone: one seed, what another would change is not known"


@dataclass(frozen=True)
class Score:
    """Summarises a metric over the seeds of a retrain."""

    mean: float
    std: float  # sample deviation over seeds; 0 for a single seed
    values: list[float]

    @classmethod
    def of(cls, values: Iterable[float]) -> Score:
        """Summarises values, one per seed.

        Raises:
            ValueError: If there is no value or one is not finite.
        """
        numbers = [float(value) for value in values]
        if not numbers or not all(map(math.isfinite, numbers)):
            raise ValueError(f"a score needs finite values, got {numbers}")
        std = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
        return cls(statistics.fmean(numbers), std, numbers)

    @staticmethod
    def table(rows: Iterable[Mapping[str, float]]) -> dict[str, Score]:
        """Returns one score per metric, from one metrics dictionary per seed."""
        listed = list(rows)
        # Seeds that an older version trained have fewer metrics.
        names = [name for name in listed[0] if all(name in row for row in listed)]
        return {name: Score.of(row[name] for row in listed) for name in names}


@dataclass(frozen=True)
class Interval:
    """Holds a confidence interval of a difference, with its `level`."""

    low: float
    high: float
    level: float = 0.95
    method: str = PAIRED_BOOTSTRAP

    @property
    def contains_zero(self) -> bool:
        """Returns whether the interval contains 0, so that no difference is shown."""
        return self.low <= 0.0 <= self.high

    @property
    def covers_seeds(self) -> bool:
        """Returns whether the interval includes the variation between trainings."""
        return self.method == SEEDS_AND_IMAGES


@dataclass(frozen=True)
class Difference:
    """Holds winner minus another model on the same test images."""

    mean: float
    interval: Interval
    metric: str = "test/accuracy"


@dataclass(frozen=True)
class Rejection:
    """Holds a threshold: below this probability a model answers that it does not know."""

    errors: float  # share of the validation errors that it should reject
    threshold: float
    rejected_errors: float  # share of the validation errors that it does reject
    rejected_right: float  # share of the right answers that it rejects on validation
    # The same for test images; None if there is no such answer.
    test_errors: float | None = None
    test_right: float | None = None


@dataclass(frozen=True)
class Calibration:
    """Holds temperature and thresholds, chosen on validation images and measured on test images."""

    temperature: float
    images: int  # validation images
    seeds: int  # networks that predicted them, trained on the training part only
    wrong: int  # wrong predictions among them
    before: dict[str, Score]  # on the test images, with unscaled logits
    after: dict[str, Score]  # with logits divided by the temperature
    rejections: list[Rejection] = field(default_factory=list)  # empty without errors

    @property
    def half(self) -> Rejection | None:
        """Returns the ``--threshold auto`` threshold: half of the validation errors are below."""
        return next((each for each in self.rejections if each.errors == 0.5), None)

    @property
    def carries_over(self) -> bool:
        """Returns whether the temperature keeps or lowers the NLL of the test images."""
        return self.after["nll"].mean <= self.before["nll"].mean + 1e-9


@dataclass(frozen=True)
class Ensemble:
    """Holds results of the mean probabilities of all retrained seeds, tested once."""

    seeds: list[int]
    test: dict[str, Score]  # of unscaled logits
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Flip:
    """Holds what the first seed's network gives if it sees images mirrored too."""

    seed: int
    images: int  # test images that were mirrored
    plain: dict[str, Score]  # of these images, without flip
    test: dict[str, Score]  # with flip: mean of both probabilities


@dataclass(frozen=True)
class Outcome:
    """Holds a configuration that was retrained with several seeds and tested once."""

    config: dict[str, Any]  # the complete configuration, as Config.model_dump(mode="json")
    validation: dict[str, Score]
    test: dict[str, Score]
    seeds: list[int]
    params: dict[str, Any] = field(default_factory=dict)  # searched parameters only
    trial: int | None = None
    kind: str | None = None  # "matched" or "tuned" for a control
    interval: Interval | None = None  # of the test accuracy, over seeds and images
    calibration: Calibration | None = None  # None in files of older versions

    def __repr__(self) -> str:
        trial = "" if self.trial is None else f"trial {self.trial}, "
        return f"Outcome({trial}{len(self.seeds)} seeds, {_accuracy(self.test)})"


def _accuracy(test: Mapping[str, Score]) -> str:
    found = test.get("accuracy")
    return "untested" if found is None else f"test accuracy {100 * found.mean:.1f} %"


@dataclass(frozen=True)
class Probe:
    """Holds the linear probe on frozen features, the baseline; nothing in it depends on a seed."""

    test: dict[str, Score]
    difference: Difference | None = None  # winner minus probe
    validation: dict[str, Score] = field(default_factory=dict)
    strength: float | None = None  # inverse regularisation, chosen on validation
    interval: Interval | None = None  # of the test accuracy
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Finding:
    """Holds an observation about the results that a reader must know, made by the program.

    Attributes:
        code: Kind of the observation, see ``docs/evidence.md``.
        severity: ``severe``, ``warning`` or ``note``.
        numbers: Values that the sentence uses.
        sentence: The text.
    """

    code: str
    severity: str
    numbers: dict[str, Any]
    sentence: str


@dataclass(frozen=True)
class Finalist:
    """Holds one of the best trials, trained again with every final seed."""

    trial: int
    validation: dict[str, Score]


@dataclass(frozen=True)
class Results:
    """Holds everything in ``results.json``."""

    name: str
    metric: str
    trials: dict[str, int]  # by state: COMPLETE, PRUNED, FAIL, RUNNING
    winner: Outcome
    control: Outcome | None = None
    difference: Difference | None = None  # winner minus control
    probe: Probe | None = None
    ensemble: Ensemble | None = None  # of the winner's seeds; None for a single seed
    flip: Flip | None = None  # None if training did not mirror, or it could not be measured
    # The worst first; None in files of versions without findings.
    findings: list[Finding] | None = None
    finalists: list[Finalist] = field(default_factory=list)
    # For a search with several objectives, the best in the second first: trial, accuracy (the first
    # objective), the others by key, latency_reliable, params, config.
    pareto: list[dict[str, Any]] = field(default_factory=list)
    pretraining: list[dict[str, Any]] = field(default_factory=list)  # rungs within pretrainings
    groups: dict[str, int] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    status: str = "finished"
    format: int = FORMAT

    def __repr__(self) -> str:
        return f"Results({self.name!r}, winner={self.winner!r}, control={self.control!r})"

    def to_json(self) -> dict[str, Any]:
        """Returns plain dictionaries and lists, in an order for reading."""
        content = asdict(self)
        first = ("format", "name", "status", "metric", "trials")
        return {key: content.pop(key) for key in first} | content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Results:
        """Makes results from `to_json`; unknown keys of newer versions are ignored.

        Raises:
            KeyError, TypeError: If a required key is missing.
        """
        instance(Mapping, content, "Results.from_json: content", "what to_json returned")
        control, probe = content.get("control"), content.get("probe")
        return cls(
            name=content["name"],
            metric=content["metric"],
            trials=dict(content["trials"]),
            winner=_outcome(content["winner"]),
            control=_outcome(control) if control else None,
            difference=_difference(content.get("difference")),
            probe=_probe(probe) if probe else None,
            ensemble=_ensemble(content.get("ensemble")),
            flip=_flip(content.get("flip")),
            findings=None
            if content.get("findings") is None
            else [
                Finding(each["code"], each["severity"], dict(each["numbers"]), each["sentence"])
                for each in content["findings"]
            ],
            finalists=[
                Finalist(each["trial"], _scores(each["validation"]))
                for each in content.get("finalists") or []
            ],
            pareto=[dict(each) for each in content.get("pareto") or []],
            pretraining=[dict(each) for each in content.get("pretraining") or []],
            groups=dict(content.get("groups") or {}),
            cost=dict(content.get("cost") or {}),
            environment=dict(content.get("environment") or {}),
            status=content["status"],
            format=content["format"],
        )


def write_results(path: Path, results: Results) -> None:
    """Writes ``results.json`` atomically."""
    write_json(path, results.to_json())


class NoResults(UserError, FileNotFoundError):
    """Signals that there is no ``results.json``: the run is not finished, or it is no run."""


def read_results(path: str | Path) -> Results:
    """Reads the results of a run.

    Args:
        path: The run directory, or its ``results.json``.

    Raises:
        NoResults: If the run is not finished, or it is no run; also a FileNotFoundError.
        UserError: If the file is damaged or of another format.
    """
    given = path_of(path, "read_results: path")
    path = RunDirectory(given).results_file if given.is_dir() else given
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise UserError(
                f"{path}: results of format {content['format']}, this version reads {FORMAT}"
            )
        return Results.from_json(content)
    except FileNotFoundError:
        raise NoResults(_why_none(given)) from None
    except (KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a results file ({type(error).__name__}: {error})") from error


def _why_none(given: Path) -> str:
    run = RunDirectory(given)
    if run.manifest_file.is_file() or run.experiment_file.is_file():
        return f"{given}: the run is not finished (there is no {run.results_file.name} in it)"
    what = "not a run directory" if given.is_dir() else "no such file"
    return f"{given}: {what}, allowed is a run directory or its {run.results_file.name}"


def _scores(content: Mapping[str, Any]) -> dict[str, Score]:
    return {name: Score(s["mean"], s["std"], list(s["values"])) for name, s in content.items()}


def _outcome(content: Mapping[str, Any]) -> Outcome:
    return Outcome(
        config=dict(content["config"]),
        validation=_scores(content["validation"]),
        test=_scores(content["test"]),
        seeds=list(content["seeds"]),
        params=dict(content.get("params") or {}),
        trial=content.get("trial"),
        kind=content.get("kind"),
        interval=_interval(content.get("interval")),
        calibration=read_calibration(content.get("calibration")),
    )


def _probe(content: Mapping[str, Any]) -> Probe:
    return Probe(
        test=_scores(content["test"]),
        difference=_difference(content.get("difference")),
        validation=_scores(content.get("validation") or {}),
        strength=content.get("strength"),
        interval=_interval(content.get("interval")),
        calibration=read_calibration(content.get("calibration")),
    )


def read_calibration(content: Mapping[str, Any] | None) -> Calibration | None:
    """Makes a `Calibration` from its ``asdict``; None for None.

    Raises:
        KeyError, TypeError: If a required key is missing.
    """
    if not content:
        return None
    return Calibration(
        temperature=content["temperature"],
        images=content["images"],
        seeds=content["seeds"],
        wrong=content["wrong"],
        before=_scores(content["before"]),
        after=_scores(content["after"]),
        rejections=[Rejection(**each) for each in content["rejections"]],
    )


def _ensemble(content: Mapping[str, Any] | None) -> Ensemble | None:
    if not content:
        return None
    seeds, test = list(content["seeds"]), _scores(content["test"])
    return Ensemble(seeds, test, read_calibration(content.get("calibration")))


def _flip(content: Mapping[str, Any] | None) -> Flip | None:
    if not content:
        return None
    plain, test = _scores(content["plain"]), _scores(content["test"])
    return Flip(content["seed"], content["images"], plain, test)


def _interval(content: Mapping[str, Any] | None) -> Interval | None:
    if not content:
        return None
    return Interval(
        content["low"],
        content["high"],
        content.get("level", 0.95),
        content.get("method", PAIRED_BOOTSTRAP),
    )


def _difference(content: Mapping[str, Any] | None) -> Difference | None:
    if not content:
        return None
    interval = _interval(content["interval"])
    if interval is None:
        raise TypeError("a difference without an interval")
    return Difference(content["mean"], interval, content.get("metric", "test/accuracy"))
