"""Taking up a run where a driver left it, however it went."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.plugins import left_out
from gsfl_tune.run import RunDirectory
from gsfl_tune.search.study.compatibility import changeable, check_signature
from gsfl_tune.search.study.journal import study_attributes
from gsfl_tune.search.study.study import Study


@contextmanager
def run_lock(run: RunDirectory) -> Iterator[None]:
    """Keeps a second driver off a run directory; the lock dies with the process.

    Raises:
        UserError: When another process has it.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    handle = os.open(run.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise UserError(
                f"{run.path}: another search works in this run directory"
                + (f" (process {owner})" if owner else "")
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def study_signature(experiment: Experiment) -> dict[str, str]:
    """What must stay as it is while a study goes on: dotted path to a description.

    The journal's trials are comparable, and its samplers know what they see, only as long as
    parameters and constants stay the same.
    """
    constants = flat(experiment.defaults().model_dump(mode="json"))
    # A package that is installed meanwhile changes nothing as long as its terms are left out.
    constants = {path: value for path, value in constants.items() if not left_out(path, value)}
    if constants["search.objectives"] is None:
        # Runs that were begun before there were several do not know the key.
        del constants["search.objectives"]
    found = {path: str(value) for path, value in constants.items()}
    for parameter in experiment.space.parameters:
        text = parameter.distribution.describe()
        if parameter.when:
            text += f" when {parameter.when}"
        found[parameter.path] = (
            text
            if parameter.name == parameter.path or parameter.name.endswith("@0")
            else f"{found[parameter.path]} | {text}"
        )
    return {path: text for path, text in found.items() if not changeable(path)}


def refuse_changes(run: RunDirectory, experiment: Experiment) -> None:
    """Refuses an experiment that is not the one that began a run; writes nothing.

    Raises:
        UserError: With one line per difference.
    """
    if run.journal.exists():
        known = study_attributes(run.journal, "search").get("fingerprint")
        if known is not None:
            check_signature("search", known, study_signature(experiment))


@dataclass(frozen=True)
class Reconciled:
    """What an earlier driver left.

    Attributes:
        again: Trials that were under way, to be handed out again under their numbers.
        settled: Trials whose end was decided but not written down; it is now.
    """

    again: list[int] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)


def reconcile(study: Study, last_rung: int) -> Reconciled:
    """Settles what was decided, and lists what was under way.

    Args:
        study: The study, just opened.
        last_rung: Rung at which a trial is complete.
    """
    result = Reconciled()
    for number in study.running():
        trial = study.trial(number)
        values = study.rungs(trial)
        if "reason" in trial.user_attrs:
            study.fail(number, trial.user_attrs["reason"])
        elif "ended" in trial.user_attrs:
            study.cut(number, trial.user_attrs["ended"])
        elif last_rung in values and not study.latency:
            study.complete(number, values[last_rung])
        else:
            result.again.append(number)
            continue
        result.settled.append(number)
    return result


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nested mapping by dotted path."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat(item, f"{path}.{key}" if path else key)
    return found
