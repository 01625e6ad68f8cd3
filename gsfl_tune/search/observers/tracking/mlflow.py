"""The MLflow tracker: one run for the search, with a child run for every trial."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from gsfl_tune.run.results import Results
from gsfl_tune.search.observers.tracking._base import RunInfo, Tracker, TrialRecord

# Tags that let a driver find what an earlier one has created.
_RUN, _TRIAL, _STATE, _EPOCHS, _EXPERIMENT = (
    f"gsfl_tune.{name}" for name in ("run", "trial", "state", "epochs", "experiment")
)
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
# Most entries that the server accepts in one request.
_METRICS, _PARAMS = 900, 90
_PARAM_LENGTH = 6000


@dataclass
class _There:
    """Describes what the server has of a run.

    Attributes:
        run: Id of the run on the server.
        params: Names of the parameters.
        epochs: Number of logged epochs.
        state: State of the trial, empty before its end.
        status: Status of the run, in MLflow's words.
        experiment: Digest of the logged experiment file; empty for a trial.
    """

    run: str
    params: set[str]
    epochs: int
    state: str
    status: str
    experiment: str = ""

    @classmethod
    def of(cls, run: Any) -> _There:
        """Reads MLflow's entity."""
        tags = run.data.tags
        return cls(
            run=str(run.info.run_id),
            params=set(run.data.params),
            epochs=int(tags.get(_EPOCHS, 0)),
            state=tags.get(_STATE, ""),
            status=str(run.info.status),
            experiment=tags.get(_EXPERIMENT, ""),
        )


class MlflowTracker(Tracker):
    """Logs to a tracking server or a database.

    The experiment in MLflow has the same name as this one. The tracker asks the server what was
    logged. Runs of this search carry its id as a tag. Every trial carries its number of logged
    epochs, set in the same request as the epochs. After a failed request the server is asked again,
    as it may have acted without answering.

    Args:
        uri: Tracking URI.
    """

    name = "MLflow"

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None
        self._info: RunInfo | None = None
        self._experiment = ""
        self._parent = ""
        self._there: dict[str, _There] = {}
        self._certain = False

    @property
    def secrets(self) -> Sequence[str]:
        """Returns passwords and tokens that a message of the client might repeat."""
        names = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
        found = [os.environ.get(name) for name in names]
        found.append(urlsplit(self._uri).password if "@" in self._uri else None)
        return [secret for secret in found if secret]

    def open(self, info: RunInfo) -> None:
        """Finds or creates the experiment and the runs of this search."""
        # A search must not wait: with the client's own defaults, retries take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        # The program must not report its user's actions to others.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        self._client, self._info = MlflowClient(tracking_uri=self._uri), info
        self._experiment = _experiment(self._client, info.name)
        self._look()
        with self._doubting():
            if "" not in self._there:
                created = self._client.create_run(
                    self._experiment,
                    run_name=f"{info.name} {info.id[:6]}",
                    tags={
                        _RUN: info.id,
                        _TRIAL: "",
                        "gsfl_tune.metric": info.metric,
                        "gsfl_tune.version": version("gsfl-tune"),
                    },
                )
                self._there[""] = _There.of(created)
            self._parent = self._there[""].run
            # A resumed search may have another space or other settings.
            file = info.run.experiment_file
            digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
            if self._there[""].experiment != digest:
                self._client.log_artifact(self._parent, str(file))
                self._client.set_tag(self._parent, _EXPERIMENT, digest)
                self._there[""].experiment = digest
            self._client.update_run(self._parent, status="RUNNING")

    def trial(self, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Logs new data of a trial, and what an earlier failed call left out."""
        if not self._certain:
            self._look()
        with self._doubting():
            there = self._there.get(record.key) or self._create(record)
            self._log_params(there, record)
            self._log_epochs(there, record, epochs)
            if record.done:
                self._end(there, record)

    def conclude(self, results: Results) -> None:
        """Logs the answer in the run of the search."""
        from mlflow.entities import Metric

        client = self._client
        assert self._info is not None
        # The time comes from the file, so that a repeated call writes the same row.
        at = int(self._info.run.results_file.stat().st_mtime * 1000)
        metrics = [Metric(name, value, at, 0) for name, value in answer(results).items()]
        client.log_batch(self._parent, metrics=metrics)
        client.set_tag(self._parent, "gsfl_tune.winner", str(results.winner.trial))
        client.log_artifact(self._parent, str(self._info.run.results_file))
        client.set_terminated(self._parent, "FINISHED")

    def close(self) -> None:
        """Does nothing: no connection is held open."""
        self._client = None

    def _look(self) -> None:
        """Asks the server what it has of this search."""
        assert self._info is not None
        self._there = {}
        for run in _runs(self._client, self._experiment, self._info.id):
            self._there.setdefault(run.data.tags.get(_TRIAL, ""), _There.of(run))
        self._certain = True

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """Marks the server's state as unknown after a failure."""
        self._certain = False
        yield
        self._certain = True

    def _create(self, record: TrialRecord) -> _There:
        assert self._info is not None
        created = self._client.create_run(
            self._experiment,
            start_time=_milliseconds(record.started),
            run_name=record.key.replace("-", " "),
            tags={
                _RUN: self._info.id,
                _TRIAL: record.key,
                "gsfl_tune.study": record.study,
                "mlflow.parentRunId": self._parent,
            },
        )
        there = self._there[record.key] = _There.of(created)
        return there

    def _log_params(self, there: _There, record: TrialRecord) -> None:
        from mlflow.entities import Param

        missing = {name: each for name, each in record.params.items() if name not in there.params}
        params = [Param(name, str(each)[:_PARAM_LENGTH]) for name, each in missing.items()]
        for piece in _pieces(params, _PARAMS):
            self._client.log_batch(there.run, params=piece)
        there.params |= missing.keys()

    def _log_epochs(
        self, there: _There, record: TrialRecord, epochs: Sequence[Mapping[str, Any]]
    ) -> None:
        from mlflow.entities import Metric, RunTag

        # Times come from the records, so that a repeated call writes the same row.
        at = float(_milliseconds(record.started))
        metrics: list[Any] = []
        for number, epoch in enumerate(epochs):
            at += 1000 * float(epoch.get("seconds", 0.0))
            if number < there.epochs:
                continue
            new = [
                Metric(name, float(value), int(at), int(epoch["epoch"]))
                for name, value in epoch.items()
                if isinstance(value, int | float) and name != "epoch"
            ]
            if len(metrics) + len(new) > _METRICS:
                self._client.log_batch(
                    there.run, metrics=metrics, tags=[RunTag(_EPOCHS, str(number))]
                )
                metrics = []
            metrics += new
        if metrics:
            tags = [RunTag(_EPOCHS, str(len(epochs)))]
            self._client.log_batch(there.run, metrics=metrics, tags=tags)
        there.epochs = max(there.epochs, len(epochs))

    def _end(self, there: _There, record: TrialRecord) -> None:
        from mlflow.entities import Metric, RunTag

        assert self._info is not None
        end = _milliseconds(record.finished)
        status = _STATUS[record.state]
        if there.state == record.state and there.status == status:
            return
        final = record.final(self._info.metric)
        metrics = [Metric(name, value, end, 0) for name, value in final.items()]
        tags = [RunTag(f"gsfl_tune.{name}", text) for name, text in record.attributes.items()]
        tags.append(RunTag(_STATE, record.state))
        self._client.log_batch(there.run, metrics=metrics, tags=tags)
        self._client.set_terminated(there.run, status, end)
        there.state, there.status = record.state, status


def answer(results: Results) -> dict[str, float]:
    """Returns the main numbers of a finished run."""
    numbers: dict[str, float] = {}
    for prefix, outcome in (("", results.winner), ("control/", results.control)):
        for name, score in (outcome.test if outcome is not None else {}).items():
            numbers[f"{prefix}test/{name}"] = score.mean
            numbers[f"{prefix}test/{name}_std"] = score.std
    if results.difference is not None:
        numbers["difference"] = results.difference.mean
        numbers["difference_low"] = results.difference.interval.low
        numbers["difference_high"] = results.difference.interval.high
    return numbers


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception:
            # Another search with that name may have created it first.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise RuntimeError(f"MLflow's experiment {name!r} was deleted; restore or rename it")
    return str(found.experiment_id)


def _runs(client: Any, experiment: str, run_id: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            filter_string=f"tags.`{_RUN}` = '{run_id}'",
            max_results=1000,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _pieces(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while piece := list(islice(rest, size)):
        yield piece


def _milliseconds(moment: datetime | None) -> int:
    return int((moment or datetime.now()).timestamp() * 1000)
