"""Trainables that misbehave as real ones do not on demand."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from gsfl_tune.search.memory import spent
from gsfl_tune.search.trainable import GsflTrainable


class Spent(GsflTrainable):
    """Refuses its second trial, as a process does whose GPU is full of leftovers."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        mark = Path(self.worker.task.directory).parent / "refused"
        self.worker.close()
        if not mark.exists():
            mark.touch()
            raise spent(300 * 2**20)
        return super().reset_config(new_config)


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
