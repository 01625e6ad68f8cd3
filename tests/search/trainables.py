"""Trainables that misbehave as real ones do not on demand."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from gsfl_tune.search.trainable import GsflTrainable


class Breaking(GsflTrainable):
    """Raises in trial 1, every time; dies in trial 2 after its first rung, once."""

    def step(self) -> dict[str, Any]:
        task = self.worker.task
        if task.number == 1:
            raise RuntimeError("the GPU is on fire")
        result = super().step()
        mark = Path(task.directory, "died")
        if task.number == 2 and result["done"] is False and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result
