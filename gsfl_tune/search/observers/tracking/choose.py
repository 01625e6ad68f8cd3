"""The trackers that the user asked for, checked before the search starts."""

from __future__ import annotations

import re
from importlib.util import find_spec
from urllib.parse import urlsplit

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.observers.tracking._base import Tracker

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def open_trackers(*, mlflow: str | None = None, wandb: str | None = None) -> list[Tracker]:
    """Makes the trackers of a search; none has connected yet.

    Args:
        mlflow: Tracking URI, such as ``http://HOST:5000`` or ``sqlite:///mlflow.db``.
        wandb: Project of Weights & Biases, or ENTITY/PROJECT.

    Raises:
        UserError: When an extra is missing, a URI is invalid, or W&B has no key.
    """
    trackers: list[Tracker] = []
    if mlflow is not None:
        _need("mlflow")
        _check_uri(mlflow)
        from gsfl_tune.search.observers.tracking.mlflow import MlflowTracker

        trackers.append(MlflowTracker(mlflow))
    if wandb is not None:
        _need("wandb")
        from gsfl_tune.search.observers.tracking.wandb import WandbTracker

        trackers.append(WandbTracker(wandb))
    return trackers


def redacted(uri: str) -> str:
    """Returns a URI without its password, for messages; also one that is no URI."""
    return re.sub(r"^((?:[^/]*//)?[^/@:]*):[^/]*@", r"\1:***@", uri)


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"--{package} needs a package: pip install 'gsfl-tune[{package}]'")


def _check_uri(uri: str) -> None:
    try:
        scheme = urlsplit(uri).scheme.partition("+")[0]
    except ValueError:
        scheme = ""
    if scheme not in _SCHEMES and uri != "databricks":
        raise UserError(
            f"--mlflow {redacted(uri)}: not a tracking URI of a server or a database; use "
            "http://HOST:PORT, https://HOST or sqlite:///FILE (MLflow no longer takes directories)"
        )
