"""Who is let in: a bounded number of images and of bytes at a time."""

from __future__ import annotations

from types import TracebackType

from gsfl_tune.serve.problems import overloaded


class Admission:
    """Counts what was taken on and is not answered yet. For one event loop.

    Args:
        places: Most images.
        size: Most bytes of bodies.
    """

    def __init__(self, places: int, size: int) -> None:
        self._places, self._size = places, size
        self.taken = 0
        self.held = 0

    def take(self, places: int, size: int) -> None:
        """Counts more.

        Raises:
            Problem: 503, when it is too much; nothing is counted then.
        """
        if self.taken + places > self._places or self.held + size > self._size:
            raise overloaded()
        self.taken += places
        self.held += size

    def leave(self, places: int, size: int) -> None:
        """Counts less."""
        self.taken -= places
        self.held -= size


class Ticket:
    """What one request holds; a context manager that gives it back."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.places = 0
        self._size = 0

    def take(self, places: int = 1) -> None:
        """Takes places for more images.

        Raises:
            Problem: 503, when there are none.
        """
        self._admission.take(places, 0)
        self.places += places

    def hold(self, size: int) -> None:
        """Takes room for bytes that have come.

        Raises:
            Problem: 503, when there is none.
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
