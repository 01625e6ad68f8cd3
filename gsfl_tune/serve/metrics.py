"""Prometheus metrics of a server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Holds the counters of one server, in its own registry.

    Args:
        routes: Paths counted separately; all others are counted as ``other``.
        in_hand: Returns the number of accepted images without an answer.
    """

    def __init__(self, routes: frozenset[str], in_hand: Callable[[], float]) -> None:
        self._routes = routes
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "gsfl_tune_requests",
            "Requests that were answered.",
            ["path", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "gsfl_tune_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._images = Counter(
            "gsfl_tune_images",
            "Images by outcome: predicted, or the reason of their refusal.",
            ["outcome"],
            registry=self.registry,
        )
        self._batch = Histogram(
            "gsfl_tune_batch_images",
            "Images per forward pass.",
            buckets=_IMAGES,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "gsfl_tune_batch_seconds",
            "Seconds of a forward pass.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        Gauge(
            "gsfl_tune_images_in_hand",
            "Images that were accepted and are not answered yet.",
            registry=self.registry,
        ).set_function(in_hand)
        ProcessCollector(registry=self.registry)
        self.answered = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self.answered += 1
        path = path if path in self._routes else "other"
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def image(self, outcome: str) -> None:
        """Counts an image."""
        self._images.labels(outcome).inc()

    def batch(self, images: int, seconds: float) -> None:
        """Counts a forward pass."""
        self._batch.observe(images)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
