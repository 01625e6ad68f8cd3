"""Limits of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Holds the limits of a server, and its batching.

    Attributes:
        max_bytes: Largest size of a request's body.
        max_pixels: Largest width times height of an image, known before it is decoded.
        max_images: Most images per request.
        queue: Most accepted images without an answer; one more is refused.
        max_batch: Most images per forward pass.
        max_wait: Seconds that an image waits for others while the model is idle.
        body_seconds: Seconds in which a request's body must arrive.
        stop_seconds: Seconds for requests in progress when the server is stopped.
    """

    max_bytes: int = 32_000_000
    max_pixels: int = 50_000_000
    max_images: int = 64
    queue: int = 256
    max_batch: int = 32
    max_wait: float = 0.002
    body_seconds: float = 30.0
    stop_seconds: float = 30.0

    @property
    def memory(self) -> int:
        """Returns the bytes that all bodies may take in memory at a time."""
        return 8 * self.max_bytes
