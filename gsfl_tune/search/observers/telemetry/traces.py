"""A search as a trace: one span for the run, one for each trial and each training after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode

from gsfl_tune.search.observers.telemetry._base import Telemetry
from gsfl_tune.search.observers.tracking.choose import redacted

if TYPE_CHECKING:
    from gsfl_tune.search.study.study import Study

# A collector that is away must not hold up the end of a search for long.
_TIMEOUT_SECONDS = 5.0


class Traces(Telemetry):
    """Sends spans to an OpenTelemetry collector, by OTLP over HTTP.

    Headers and certificates come from OpenTelemetry's own environment variables
    (``OTEL_EXPORTER_OTLP_HEADERS``, ...). A collector that does not answer costs spans, never the
    search.

    Args:
        url: ``http://HOST:4318``; a path is used as it is, without one it is ``/v1/traces``.
        run: Name of the run.
        notice: Receives messages for the user.
    """

    def __init__(self, url: str, run: str, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._url = url
        # It would write a traceback for every batch that a collector refuses.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        base = url.rstrip("/")
        endpoint = base if base.count("/") > 2 else f"{base}/v1/traces"
        self._exporter = _Counting(endpoint=endpoint, timeout=_TIMEOUT_SECONDS)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "gsfl-tune", "gsfl_tune.run": run}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("gsfl_tune")
        self._root = self._tracer.start_span(f"search {run}")
        self._within = trace.set_span_in_context(self._root)
        self._study: Study | None = None
        self._open: dict[int, Span] = {}

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Notes what is searched."""
        self._study = study
        found = {"study": study.name, "metric": study.metric, "slots": slots, "seed": study.seed}
        if budget is not None:
            found["trials"] = budget
        self._root.add_event("study begins", found)

    def proposed(self, seconds: float) -> None:
        """Makes a span of a proposal."""
        now = time.time_ns()
        begun = now - int(1e9 * seconds)
        self._tracer.start_span("propose", context=self._within, start_time=begun).end(now)

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Opens the span of a trial; one that is begun again gets another."""
        self._end(number, "begun again")
        name = self._study.name if self._study is not None else "search"
        found = {f"param.{key}": _plain(value) for key, value in params.items()}
        self._open[number] = self._tracer.start_span(
            f"trial {number}",
            context=self._within,
            attributes={"study": name, "number": number, "again": again, **found},
        )

    def rung(self, number: int, k: int, value: float) -> None:
        """Adds a rung to the trial's span."""
        if number in self._open:
            self._open[number].add_event("rung", {"k": k, "value": value})

    def paused(self, number: int) -> None:
        """Closes the span of a trial; another one begins where it continues."""
        self._end(number, "PAUSED")

    def ended(self, number: int) -> None:
        """Closes the span of a trial, with its state and value."""
        span, study = self._open.get(number), self._study
        if span is None or study is None:
            return
        found = study.trial(number)
        if (value := study.value(found)) is not None:
            span.set_attribute("value", value)
        if found.state.name == "FAIL":
            reason = str(found.user_attrs.get("reason", "failed"))
            span.set_status(Status(StatusCode.ERROR, reason))
        self._end(number, found.state.name)

    def finish(self, *, interrupted: bool) -> None:
        """Closes what is open; trials of an interrupted search go on in another trace."""
        for number in list(self._open):
            self._end(number, "interrupted" if interrupted else "open")
        self._study = None

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        """Adds the time of checkpoints to the trial's span."""
        number = result.get("trial_number")
        if "checkpoint_seconds" in result and number in self._open:
            spent = {"seconds": float(result["checkpoint_seconds"])}
            self._open[number].add_event("checkpoints", spent)

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """Makes a span of a training after the search."""
        now = time.time_ns()
        begun = now - int(1e9 * float(result.get("seconds", 0.0)))
        span = self._tracer.start_span(f"retrain {name}", context=self._within, start_time=begun)
        if "failed" in result:
            span.set_status(Status(StatusCode.ERROR, str(result["failed"])))
        span.end(now)

    def close(self) -> None:
        """Closes the run's span and sends what is left."""
        self.finish(interrupted=True)
        self._root.end()
        self._provider.force_flush(int(1000 * _TIMEOUT_SECONDS))
        self._provider.shutdown()
        if self._exporter.lost:
            where = redacted(self._url)
            self._notice(f"--traces {where}: {self._exporter.lost} spans could not be sent")

    def _end(self, number: int, state: str) -> None:
        span = self._open.pop(number, None)
        if span is not None:
            span.set_attribute("state", state)
            span.end()


class _Counting(OTLPSpanExporter):
    """Counts spans that a collector did not take."""

    lost = 0

    def export(self, spans: Any) -> Any:
        result = super().export(spans)
        if result.name != "SUCCESS":
            self.lost += len(spans)
        return result


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else str(value)
