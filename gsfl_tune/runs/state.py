"""The state of a run: whether a driver works on it, and how the last one ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, holder, read_json

StateName = Literal["running", "interrupted", "finished", "failed"]
STATES: tuple[StateName, ...] = ("running", "interrupted", "finished", "failed")


@dataclass(frozen=True)
class State:
    """Holds the state of a run.

    Attributes:
        name: ``running``: a driver works on it. ``finished``: it has results. ``failed``: its last
            driver ended with an error. ``interrupted``: it was stopped or killed before the end.
        reason: Why it failed; empty otherwise.
        process: Number of the driver's process on its own machine; empty if unknown.
    """

    name: StateName
    reason: str = ""
    process: str = ""

    def __str__(self) -> str:
        return self.name


def state_of(run: RunDirectory) -> State:
    """Returns the state of a run from its files and its lock; writes nothing.

    Raises:
        UserError: If it is not a run directory, or ``run.json`` cannot be read.
    """
    manifest = read_manifest(run)
    process = holder(run)
    if process is not None:
        return State("running", process=process)
    if run.results_file.is_file():
        return State("finished")
    ending = _last_driver(manifest).get("ending")
    if isinstance(ending, Mapping):
        if ending.get("state") == "failed":
            return State("failed", str(ending.get("reason", "")))
        return State("interrupted")
    return State("interrupted")


def read_manifest(run: RunDirectory) -> dict[str, Any]:
    """Reads ``run.json``.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    file = run.manifest_file
    try:
        content = read_json(file)
    except FileNotFoundError:
        missing = "no such run directory" if not run.path.is_dir() else "not a run directory"
        raise UserError(f"{run.path}: {missing} (there is no {file.name} in it)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: found {type(content).__name__}, expected a mapping")
    return content


def last_sign(manifest: Mapping[str, Any]) -> float | None:
    """Returns when a driver last wrote, in seconds since 1970; None in runs of older versions."""
    heard = _last_driver(manifest).get("end")
    return float(heard) if isinstance(heard, int | float) else None


def _last_driver(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    drivers = manifest.get("drivers")
    if isinstance(drivers, list) and drivers and isinstance(drivers[-1], Mapping):
        return drivers[-1]
    return {}
