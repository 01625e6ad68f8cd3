"""Recomputation of a finished run's evidence from its files and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from pydantic import ValidationError

from gsfl_tune.evidence.trained import ModelGone, Retrained
from gsfl_tune.evidence.write import write_evidence
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, read_json
from gsfl_tune.run.layout import CHECKPOINT_FILE
from gsfl_tune.run.results import Outcome, Results, read_results
from gsfl_tune.training import Workspace


def recompute_evidence(
    run: str | Path,
    *,
    cache_dir: Path | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Writes ``evidence.json`` and its pictures again.

    Needs the images of the run and its retrained models: the checkpoints in ``RUN/finals``, or
    for the first seed ``RUN/best`` and ``RUN/best-training``. Nothing else in the run changes.

    Args:
        run: Directory of a finished run.
        cache_dir: Root of the node's caches.
        notice: Receives what could not be computed and why.

    Returns:
        The content of ``evidence.json``.

    Raises:
        UserError: If the run is not finished, its images or all of its models are gone, or the
            directory cannot be written to.
    """
    directory = RunDirectory(run)
    results = _results(directory, run)
    _refuse_unwritable(directory)
    winner = _retrained(directory, results.winner, f"search-{results.winner.trial}", results)
    _refuse_gone(winner, directory, notice)
    workspace = _workspace(directory, winner.config, cache_dir)
    control = _control(directory, results, notice)
    predictions = winner.predictions()
    if not predictions:
        notice("the predictions of the retrains (finals/) are gone: computing the first model's")
        predictions = [next(winner.models(workspace, 1)).predictions()]
    groups: np.ndarray | None = None
    if results.groups:
        classes = workspace.dataset.classes
        groups = np.asarray([results.groups[name] for name in classes], dtype=np.int64)
    try:
        return write_evidence(
            directory,
            workspace,
            winner,
            control,
            predictions=predictions,
            groups=groups,
            calibrated=results.winner.calibration,
            notice=notice,
        )
    except OSError as error:
        place = error.filename2 or error.filename or directory.path
        raise _cannot_be_written(place, error) from error


def _results(directory: RunDirectory, given: str | Path) -> Results:
    if not directory.path.is_dir():
        raise UserError(f"{given}: no such run directory")
    if not directory.experiment_file.is_file():
        raise UserError(
            f"{given}: not a run directory (there is no {directory.experiment_file.name} in it)"
        )
    if not directory.results_file.is_file():
        raise UserError(f"{given}: the run is not finished; evidence is about its tested winner")
    return read_results(directory.results_file)


def _refuse_unwritable(directory: RunDirectory) -> None:
    """Refuses a run of somebody else, or on a read-only disk, before minutes of work."""
    try:
        with TemporaryFile(dir=directory.path):
            pass
    except OSError as error:
        raise _cannot_be_written(directory.path, error) from error


def _cannot_be_written(place: Path | str, error: OSError) -> UserError:
    return UserError(f"{place}: cannot be written ({error.strerror or error})")


def _retrained(
    directory: RunDirectory, outcome: Outcome, label: str, results: Results
) -> Retrained:
    try:
        config = Config.model_validate(outcome.config)
    except ValidationError as error:
        raise UserError(
            f"{directory.results_file}: the configuration is not valid for this gsfl-tune version "
            f"({error.error_count()} problem(s)): {error.errors()[0]['msg']}"
        ) from error
    folder = directory.finals / label / "retrain"
    return Retrained(
        config,
        {seed: folder / f"seed-{seed}" for seed in outcome.seeds},
        (directory.best, directory.best_training) if outcome is results.winner else None,
    )


def _control(
    directory: RunDirectory, results: Results, notice: Callable[[str], None]
) -> Retrained | None:
    outcome = results.control
    if outcome is None:
        return None
    tuned = outcome.kind == "tuned"
    label = f"control-{outcome.trial}" if tuned else f"search-{outcome.trial}-plain"
    control = _retrained(directory, outcome, label, results)
    if len(control.missing()) == len(control.directories):
        notice("the control's models (finals/) are gone: there is no probe of its features")
        return None
    return control


def _refuse_gone(winner: Retrained, directory: RunDirectory, notice: Callable[[str], None]) -> None:
    gone = winner.missing()
    if len(gone) == len(winner.directories):
        raise ModelGone(
            f"{directory.path}: the winner's models are gone: found neither "
            f"{gone[0] / CHECKPOINT_FILE} nor {directory.best / 'model.safetensors'}; "
            "the evidence cannot be computed without them"
        )
    if gone:
        notice(
            f"{len(gone)} of {len(winner.directories)} retrained models are gone: the numbers use "
            "the others only"
        )


def _workspace(directory: RunDirectory, config: Config, cache_dir: Path | None) -> Workspace:
    known = read_json(directory.manifest_file)["data"]
    side = read_json(directory.data_file)["side"]
    try:
        workspace = Workspace.open(config.data, side=side, cache_dir=cache_dir)
    except UserError as error:
        raise UserError(
            f"{directory.path}: the evidence needs the images of the run:\n{error}"
        ) from error
    if workspace.dataset.digest != known:
        raise UserError(
            f"{directory.path}: the images or their split differ from those of the run (digest "
            f"{workspace.dataset.digest[:12]}, was {known[:12]}): the models were not trained and "
            "tested on them"
        )
    return workspace
