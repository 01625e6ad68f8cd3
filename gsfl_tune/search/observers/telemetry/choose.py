"""The telemetry that the user asked for, checked before the search starts."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from urllib.parse import urlsplit

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.observers.telemetry._base import Telemetry
from gsfl_tune.search.observers.tracking.choose import redacted

_HOST = "127.0.0.1"


def open_telemetry(
    *,
    metrics: str | None = None,
    traces: str | None = None,
    run: str,
    notice: Callable[[str], None],
) -> list[Telemetry]:
    """Makes the watchers; a port is open when this returns.

    Args:
        metrics: ``PORT`` (on 127.0.0.1) or ``HOST:PORT`` of the page that Prometheus reads.
        traces: URL of an OpenTelemetry collector that takes OTLP over HTTP.
        run: The run's name in both.
        notice: Receives messages for the user.

    Raises:
        UserError: For an address that cannot be used, or a missing extra.
    """
    place = None if metrics is None else _place(metrics)
    if traces is not None:
        _check_url(traces)
    missing = [
        package
        for package, wanted in (("prometheus_client", metrics), ("opentelemetry.sdk", traces))
        if wanted is not None and not _installed(package)
    ]
    if missing:
        option = "--metrics" if "prometheus_client" in missing else "--traces"
        raise UserError(f"{option} needs a package: pip install 'gsfl-tune[telemetry]'")
    found: list[Telemetry] = []
    if place is not None:
        from gsfl_tune.search.observers.telemetry.prometheus import PrometheusPage

        page = PrometheusPage(*place)
        notice(f"metrics for Prometheus: {page.url}")
        found.append(page)
    if traces is not None:
        from gsfl_tune.search.observers.telemetry.traces import Traces

        found.append(Traces(traces, run, notice))
    return found


def _place(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = (host if colon else _HOST).strip("[]")
    if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise UserError(f"--metrics {text}: allowed PORT or HOST:PORT, with a port of 0 to 65535")
    return host, int(port)


def _check_url(text: str) -> None:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"--traces {redacted(text)}: allowed http://HOST:4318 or https://HOST")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
