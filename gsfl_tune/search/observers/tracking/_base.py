"""The interface of trackers and the records that they receive."""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from optuna.trial import FrozenTrial

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.metrics import LATENCY
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import RunDirectory, StudyName, read_json, write_json
from gsfl_tune.run.results import Results
from gsfl_tune.search.study.goals import latest_others, rungs_of

_lock = threading.RLock()


@dataclass(frozen=True)
class TrialRecord:
    """Holds one trial in the form that trackers receive.

    Attributes:
        study: ``search`` or ``control``.
        number: Trial number.
        state: ``RUNNING``, ``COMPLETE``, ``PRUNED`` or ``FAIL``.
        params: Active parameters by dotted path.
        value: The objective of a complete trial.
        others: Numbers besides the objective that the search goes by, at the last rung.
        attributes: ``origin``, ``reason`` and ``ended``, as far as they exist.
        started: When it was handed out.
        finished: When it ended.
        reached: Whether it has reached a rung, and so has trained.
    """

    study: StudyName
    number: int
    state: str
    params: dict[str, Any]
    value: float | None = None
    others: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    started: datetime | None = None
    finished: datetime | None = None
    reached: bool = False

    @classmethod
    def of(cls, study: StudyName, trial: FrozenTrial, space: Space) -> TrialRecord:
        """Makes the record of a trial from the study.

        Args:
            study: Name of the study.
            trial: One of its trials.
            space: The search space; tells which parameters were active.
        """
        params = space.active_params(trial.params)
        values = trial.values if trial.state.name == "COMPLETE" and trial.values else []
        return cls(
            study=study,
            number=trial.number,
            state=trial.state.name,
            # `path@1` is the second alternative for `path`; only one of them is active.
            params={name.partition("@")[0]: value for name, value in params.items()},
            value=float(values[0]) if values else None,
            others=_others(trial),
            attributes={
                name: str(trial.user_attrs[name])
                for name in ("origin", "reason", "ended")
                if name in trial.user_attrs
            },
            started=trial.datetime_start,
            finished=trial.datetime_complete,
            reached=bool(trial.values or rungs_of(trial)),
        )

    def final(self, metric: str) -> dict[str, float]:
        """Returns its final values as ``final/...``; `metric` is the objective."""
        if self.value is None:
            return {}
        return {
            f"final/{name}": value for name, value in {metric: self.value, **self.others}.items()
        }

    @property
    def key(self) -> str:
        """Returns its key, such as ``search-12``."""
        return f"{self.study}-{self.number}"

    @property
    def done(self) -> bool:
        """Returns whether it has ended in any state."""
        return self.state in ("COMPLETE", "PRUNED", "FAIL")


def _others(trial: FrozenTrial) -> dict[str, float]:
    found = latest_others(trial)
    if not found and trial.values and len(trial.values) > 1:
        return {LATENCY: float(trial.values[1])}  # of an older version
    return found


@dataclass(frozen=True)
class RunInfo:
    """Describes the run that is tracked.

    Attributes:
        run: Its directory.
        id: Permanent identifier of this run; copies of its directory keep it.
        name: Name of the experiment.
        metric: The objective.
    """

    run: RunDirectory
    id: str
    name: str
    metric: str

    @classmethod
    def of(cls, run: RunDirectory, experiment: Experiment) -> RunInfo:
        """Reads the run's id, or creates one."""
        metric = experiment.defaults().search.metric
        return cls(run, str(memory(run)["id"]), experiment.name, metric)


def memory(run: RunDirectory) -> dict[str, Any]:
    """Returns the run's data on its trackers: its ``id``, and a section per tracker.

    Raises:
        OSError: When the run directory cannot be written.
    """
    file = run.tracking_file
    with _lock:
        try:
            content = dict(read_json(file))
        except (OSError, ValueError, TypeError):
            content = {}
        if not isinstance(content.get("id"), str):
            content["id"] = secrets.token_hex(6)
            write_json(file, content)
    return content


def remember(run: RunDirectory, section: str, content: Mapping[str, Any]) -> None:
    """Replaces a tracker's section.

    Raises:
        OSError: When the run directory cannot be written.
    """
    with _lock:
        write_json(run.tracking_file, {**memory(run), section: dict(content)})


class Tracker(ABC):
    """Sends the trials of a run to an external program.

    After a failure and in a resumed search, a tracker receives the same data again: all its actions
    must give the same result when repeated. All methods run in one thread, never in that of the
    search.
    """

    name: ClassVar[str]

    @property
    def secrets(self) -> Sequence[str]:
        """Returns strings that must not appear in any message."""
        return ()

    @abstractmethod
    def open(self, info: RunInfo) -> None:
        """Connects, and reads what is already there of this run."""

    @abstractmethod
    def trial(self, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Updates one trial.

        Args:
            record: The trial.
            epochs: All epochs of the trial so far.
        """

    @abstractmethod
    def conclude(self, results: Results) -> None:
        """Sends the results of the run."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection; another driver may continue unfinished trials."""
