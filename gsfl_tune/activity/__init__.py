"""What this process does now and how far it is; `gsfl_tune.activity.display` shows it."""

from gsfl_tune.activity.record import (
    Activity,
    activity,
    begin,
    current,
    duration,
    end,
)

__all__ = ["Activity", "activity", "begin", "current", "duration", "end"]
