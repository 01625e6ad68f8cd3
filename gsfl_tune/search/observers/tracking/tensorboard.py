"""TensorBoard files of a run besides those of its trials: the table of parameters and pictures.

Trials write their own events (`gsfl_tune.search.workers.tensorboard_events`);
``tensorboard --logdir RUN`` finds them all.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from PIL import Image

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.metrics import VALIDATION
from gsfl_tune.experiment.space import Space
from gsfl_tune.run import EpochLog, RunDirectory, read_json
from gsfl_tune.run.layout import EPOCHS_FILE
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.observers.tracking.stored_pictures import StoredPictures
from gsfl_tune.search.samplers.factory import whole_space
from gsfl_tune.search.samplers.spaces import run_spaces, unchecked
from gsfl_tune.search.study.goals import rungs_of
from gsfl_tune.search.study.journal import read_studies
from gsfl_tune.search.workers.tensorboard_events import (
    EventWriter,
    hparam_kind,
    hparams,
    hparams_summary,
    matrix_picture,
)

_METRICS = tuple(f"{VALIDATION}/{name}" for name in ("accuracy", "balanced_accuracy", "nll"))


class TensorBoard(Watcher):
    """Writes the table of parameters when a search begins.

    Args:
        run: The run.
        experiment: The experiment, bounds clamped to the data.
    """

    def __init__(self, run: RunDirectory, experiment: Experiment) -> None:
        self._run = run
        self._experiment = experiment

    def begin(self, study: Any, budget: int | None, slots: int) -> None:
        """Writes the table unless an earlier driver has, of the same space."""
        # A full disk ends the search elsewhere, with a message.
        with suppress(OSError):
            _write_table(self._run.tensorboard, self._experiment)


def write_tensorboard(run: RunDirectory, notice: Callable[[str], None] = lambda text: None) -> Path:
    """Writes the table and pictures, and events for trials that have none.

    Such trials ran on another node. Their numbers come from their epochs, their pictures from the
    run's storage.

    Args:
        run: The run; no search is working in it.
        notice: Receives messages for the user.

    Returns:
        The folder; it is replaced as a whole.

    Raises:
        OSError: When it cannot be written.
    """
    # The images may have moved since and are not needed here.
    experiment = unchecked(run.experiment_file.read_text(encoding="utf-8"))
    folder = run.tensorboard
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=run.path))
    try:
        new.chmod(0o755)
        _write_table(new, experiment)
        metric = experiment.defaults().search.metric
        pictures = StoredPictures(experiment, notice)
        spaces = run_spaces(run)
        for name, trials in read_studies(run.journal).items():
            for trial in trials:
                directory = run.trial(name, trial.number)
                if not any(directory.glob("events.out.tfevents.*")):
                    place = directory.relative_to(run.path)
                    found = pictures.of(place.as_posix())
                    _write_trial(directory, new / place, trial, spaces[name], metric, found)
        _write_pictures(run, new)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def show_winner(run: RunDirectory) -> None:
    """Adds pictures of the winner if possible; an error must not affect a run with results."""
    with suppress(OSError):
        _write_pictures(run, run.tensorboard)


def _write_pictures(run: RunDirectory, folder: Path) -> None:
    """Writes the winner's confusion matrix and the existing pictures of the evidence."""
    pictures = _pictures(run)
    if not pictures:
        return
    writer = _writer(folder / "winner")
    for tag, pixels in pictures.items():
        writer.add_image(tag, pixels, 0, dataformats="HWC")
    writer.close()


def _write_table(folder: Path, experiment: Experiment) -> None:
    """Writes the table in place of one of another space: TensorBoard reads only the first one."""
    table = _table(experiment)
    mark = hashlib.blake2b(table.SerializeToString(), digest_size=8).hexdigest()
    known = list(folder.glob("events.out.tfevents.*"))
    if [path.suffix for path in known] == [f".{mark}"]:
        return
    for path in known:
        path.unlink()
    writer = _writer(folder, f".{mark}")
    writer.file_writer.add_summary(table)
    writer.close()


def _table(experiment: Experiment) -> Any:
    """Returns the parameters and metrics for the columns of the view."""
    from tensorboardX.proto.api_pb2 import (
        DataType,
        HParamInfo,
        Interval,
        MetricInfo,
        MetricName,
    )
    from tensorboardX.proto.api_pb2 import Experiment as Table

    infos = []
    for name, distribution in whole_space(experiment.space).items():
        info = HParamInfo(name=name)
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            kind = hparam_kind(choices)
            if kind == "flag":
                info.type = DataType.Value("DATA_TYPE_BOOL")
                info.domain_discrete.extend(choices)
            elif kind == "number":
                info.type = DataType.Value("DATA_TYPE_FLOAT64")
                info.domain_discrete.extend([float(choice) for choice in choices])  # type: ignore[arg-type]
            else:
                info.type = DataType.Value("DATA_TYPE_STRING")
                info.domain_discrete.extend([str(choice) for choice in choices])
        else:
            low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
            info.type = DataType.Value("DATA_TYPE_FLOAT64")
            info.domain_interval.CopyFrom(Interval(min_value=low, max_value=high))
        infos.append(info)
    metric = experiment.defaults().search.metric
    tags = dict.fromkeys([f"final/{metric}", *_METRICS])
    metrics = [MetricInfo(name=MetricName(tag=tag)) for tag in tags]
    return hparams_summary("experiment", Table(hparam_infos=infos, metric_infos=metrics))


def _write_trial(
    directory: Path,
    target: Path,
    trial: FrozenTrial,
    space: Space,
    metric: str,
    pictures: Sequence[Any],
) -> None:
    """Writes events of a trial from its epochs, and pictures from its worker."""
    epochs = EpochLog(directory / EPOCHS_FILE).read()
    if not epochs:
        return
    events = EventWriter(target, hparams(space, trial.params), metric)
    at = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
    for epoch in epochs:
        at += float(epoch.get("seconds", 0.0))
        events.epoch(epoch, at)
    for picture in pictures:
        events.again(picture)
    events.close(_last(trial, epochs[-1].get(metric)), failed=trial.state == TrialState.FAIL)


def _last(trial: FrozenTrial, trained: float | None) -> float | None:
    """Returns the last value of a trial that has ended.

    Args:
        trial: The trial; with several trainings its values are their means.
        trained: The objective at the last epoch of the first training.
    """
    if not trial.state.is_finished():
        return None
    if trial.state == TrialState.COMPLETE and trial.values:
        return float(trial.values[0])
    rungs = rungs_of(trial)
    return rungs[max(rungs)] if rungs else trained


def _pictures(run: RunDirectory) -> dict[str, np.ndarray]:
    try:
        evidence = read_json(run.evidence_file)
    except (OSError, ValueError):
        return {}
    found: dict[str, np.ndarray] = {}
    confusion = evidence.get("confusion") or {}
    if isinstance(confusion, Mapping) and confusion.get("matrix"):
        matrix = np.array(confusion["matrix"], dtype=np.float64)
        order = confusion.get("order", range(len(matrix)))
        found["winner/confusion"] = matrix_picture(matrix[np.ix_(order, order)])
    for number, picture in enumerate(_listed(evidence.get("pictures"))):
        # A missing or damaged picture must not affect the others.
        with suppress(OSError, ValueError, KeyError, TypeError):
            file = (run.path / str(picture["file"])).resolve()
            if file.is_relative_to(run.path.resolve()):
                tag = f"{picture['kind']}/{number}"
                found[tag] = np.asarray(Image.open(file).convert("RGB"))
    return found


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _writer(folder: Path, suffix: str = "") -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(logdir=str(folder), filename_suffix=suffix, write_to_disk=True)
