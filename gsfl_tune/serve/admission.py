"""Admission control: bounds the images and bytes that are in progress at a time."""

from __future__ import annotations

from types import TracebackType

from gsfl_tune.serve.problems import overloaded


class Admission:
    """Counts accepted images and bytes that are not answered yet. For one event loop.

    Args:
        places: Largest number of images.
        size: Largest number of bytes of bodies.
    """

    def __init__(self, places: int, size: int) -> None:
        self._places, self._size = places, size
        self.taken = 0
        self.held = 0

    def take(self, places: int, size: int) -> None:
        """Adds to the count.

        Raises:
            Problem: 503, if it is too much; then nothing is counted.
        """
        if self.taken + places > self._places or self.held + size > self._size:
            raise overloaded()
        self.taken += places
        self.held += size

    def leave(self, places: int, size: int) -> None:
        """Subtracts from the count."""
        self.taken -= places
        self.held -= size


class Ticket:
    """Holds the places and bytes of one request; a context manager that releases them."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.places = 0
        self._size = 0

    def take(self, places: int = 1) -> None:
        """Takes places for more images.

        Raises:
            Problem: 503, if there are none.
        """
        self._admission.take(places, 0)
        self.places += places

    def hold(self, size: int) -> None:
        """Takes room for received bytes.

        Raises:
            Problem: 503, if there is none.
        """
        self._admission.take(0, size)
        self._size += size

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._admission.leave(self.places, self._size)
        self.places = self._size = 0
