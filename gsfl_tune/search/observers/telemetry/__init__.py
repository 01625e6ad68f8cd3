"""What a running search tells monitoring systems: Prometheus metrics and OpenTelemetry traces."""

from gsfl_tune.search.observers.telemetry.choose import Telemetry, open_telemetry

__all__ = ["Telemetry", "open_telemetry"]
