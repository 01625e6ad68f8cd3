"""The current activity of this process and its progress."""

from gsfl_tune.activity.record import (
    Activity,
    activity,
    begin,
    current,
    duration,
    end,
)

__all__ = ["Activity", "activity", "begin", "current", "duration", "end"]
