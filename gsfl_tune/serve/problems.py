"""Reasons to refuse a request or an image, with status and text of the answer."""

from __future__ import annotations


class Problem(Exception):
    """Signals a problem with a request.

    Args:
        status: HTTP status.
        error: A stable code for programs.
        reason: A sentence for people.
        retry_after: Seconds after which the client should try again.
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
        """Returns the body of the answer."""
        return {"error": self.error, "reason": self.reason}


def too_large(limit: int) -> Problem:
    """Returns the problem of a body with too many bytes."""
    return Problem(413, "body_too_large", f"the body is larger than {limit} bytes")


def overloaded() -> Problem:
    """Returns the problem of a full queue."""
    return Problem(503, "overloaded", "too many images are waiting on this server", retry_after=1)
