"""A page of numbers about a running search, in the format that Prometheus reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.observers.telemetry._base import Telemetry

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

_PROPOSALS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_CHECKPOINTS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_SECONDS_BETWEEN_LOOKS = 1.0


class PrometheusPage(Telemetry):
    """Serves ``/metrics`` while a search runs.

    All numbers are written by the driver's own thread; a request only reads them.

    Args:
        host: Address to listen at.
        port: Its port; 0 for a free one.

    Attributes:
        url: Where the page is.
    """

    def __init__(self, host: str, port: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="gsfl_tune_driver", registry=self.registry)
        self._study: Study | None = None
        self._most: int | None = None
        self._left: Callable[[], float] | None = None
        self._looked = 0.0
        self._trials = self._gauge("trials", "Trials by state.", ["study", "state"])
        self._budget = self._gauge("trials_budget", "Trials that the study may take.", ["study"])
        self._queue = self._gauge(
            "trials_queue", "Trials of the budget that have not begun.", ["study"]
        )
        self._slots = self._gauge("slots", "Trials or retrains that may run at once.")
        self._best = self._gauge(
            "best_value", "Objective of the best finished trial.", ["study", "metric"]
        )
        self._rest = self._gauge("seconds_left", "Estimated seconds to the tested bundle.")
        self._rungs = self._counter("rungs", "Rungs that trials have reached.", ["study"])
        self._retrains = self._counter("retrains", "Trainings after the search.", ["outcome"])
        self._busy = self._counter("slot_busy_seconds", "Seconds that slots were in use.")
        self._proposals = self._histogram(
            "proposal_seconds", "Seconds until the sampler had proposed a trial.", _PROPOSALS
        )
        self._checkpoints = self._histogram(
            "checkpoint_seconds",
            "Seconds for checkpoints from rung to rung.",
            _CHECKPOINTS,
        )
        try:
            self._server, self._thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise UserError(f"--metrics {host}:{port}: {error.strerror or error}") from None
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.server_port}/metrics"

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Shows a study from now on."""
        self._study = study
        self._slots.set(slots)
        self._most = budget
        if budget is not None:
            self._budget.labels(study.name).set(budget)
        self._look()

    def expects(self, left: Callable[[], float]) -> None:
        """Keeps the function that estimates the time left."""
        self._left = left

    def proposed(self, seconds: float) -> None:
        """Counts a proposal."""
        self._proposals.observe(seconds)

    def rung(self, number: int, k: int, value: float) -> None:
        """Counts a rung."""
        if self._study is not None:
            self._rungs.labels(self._study.name).inc()

    def paused(self, number: int) -> None:
        """Shows the new states."""
        self._look()

    def ended(self, number: int) -> None:
        """Shows the new states."""
        self._look()

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        """Counts the use of a slot."""
        self._busy.inc(max(0.0, seconds))
        if "checkpoint_seconds" in result:
            self._checkpoints.observe(float(result["checkpoint_seconds"]))

    def tick(self) -> None:
        """Looks at the study once a second."""
        if time.monotonic() - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._look()

    def finish(self, *, interrupted: bool) -> None:
        """Shows the last states of a study, and lets go of it."""
        self._look()
        self._study = None

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Shows how many retrains may run."""
        self._looked = 0.0

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """Counts a retrain."""
        self._retrains.labels("failed" if "failed" in result else "done").inc()

    def close(self) -> None:
        """Frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _look(self) -> None:
        self._looked = time.monotonic()
        if self._left is not None:
            self._rest.set(max(0.0, self._left()))
        study = self._study
        if study is None:
            return
        for state, count in study.states().items():
            self._trials.labels(study.name, state).set(count)
        if self._most is not None:
            self._queue.labels(study.name).set(max(0, self._most - study.created()))
        best = study.best()
        if best is not None and (value := study.value(best)) is not None:
            self._best.labels(study.name, study.metric).set(value)

    def _gauge(self, name: str, help: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"gsfl_tune_{name}", help, labels or [], registry=self.registry)

    def _counter(self, name: str, help: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"gsfl_tune_{name}", help, labels or [], registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"gsfl_tune_{name}", help, buckets=buckets, registry=self.registry)
