"""What a running search tells monitoring systems: Prometheus metrics and OpenTelemetry traces."""

from gsfl_tune.search.observers.telemetry._base import Telemetry
from gsfl_tune.search.observers.telemetry.choose import open_telemetry

__all__ = ["Telemetry", "open_telemetry"]
