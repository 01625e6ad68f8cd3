"""How much a server takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much a server takes on, and how it batches.

    Attributes:
        max_bytes: Size of a request's body.
        max_pixels: Width times height of an image, known before it is decoded.
        max_images: Images a request.
        queue: Images that were taken on and are not answered yet; one more is refused.
        max_batch: Images a forward pass.
        max_wait: Seconds that an image waits for others while the model is idle.
        body_seconds: Seconds in which a request's body must have come.
        stop_seconds: Seconds that requests under way are given when the server is stopped.
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
        """Bytes of all bodies that are held at a time."""
        return 8 * self.max_bytes
