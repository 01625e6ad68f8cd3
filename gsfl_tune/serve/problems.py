"""Why a request or an image is refused, in the words of the answer."""

from __future__ import annotations


class Problem(Exception):
    """What is wrong with a request.

    Args:
        status: HTTP status.
        error: A word that programs can rely on.
        reason: A sentence for people.
        retry_after: Seconds after which it is worth trying again.
    """

    def __init__(
        self, status: int, error: str, reason: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.error = error
        self.reason = reason
        self.retry_after = retry_after

    def to_json(self) -> dict[str, str]:
        """The body of the answer."""
        return {"error": self.error, "reason": self.reason}


def too_large(limit: int) -> Problem:
    """The body has more bytes than are read."""
    return Problem(413, "body_too_large", f"the body is larger than {limit} bytes")


def overloaded() -> Problem:
    """There is too much to do already."""
    return Problem(
        503, "overloaded", "more images are waiting than this server takes on", retry_after=1
    )
