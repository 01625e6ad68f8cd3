"""Trainables that misbehave as real ones do not on demand."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from ray.tune import Trainable

from gsfl_tune.activity import activity
from gsfl_tune.search.ray_tune.trainable import GsflTrainable
from gsfl_tune.training.gpu_memory import spent
from tests.search.starvation import starved
from tests.waiting import wait_until


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


class Troubled(GsflTrainable):
    """Hangs inside trial 1; trial 2 has memory for half a batch, and trial 3 for none."""

    def step(self) -> dict[str, Any]:
        number = self.worker.task.number
        if number == 1:
            # Stands for a hang: longer than any limit of a trial.
            time.sleep(3600)
        with starved({2: 40, 3: 0}.get(number)):
            return super().step()


class Hungry(GsflTrainable):
    """Takes memory until its process is ended: trial 1 with whole batches, trial 2 always."""

    def step(self) -> dict[str, Any]:
        task = self.worker.task
        whole = task.number == 1 and task.pieces == 1
        if whole or task.number == 2:
            eaten = []
            for _ in range(120):
                eaten.append(b"x" * (100 * 2**20))
                # Ray looks at the memory every 100 ms; nothing tells that it has looked.
                time.sleep(0.05)
            raise RuntimeError("nobody ended this process")
        return super().step()


class Judged(GsflTrainable):
    """Trains, and reports values that make trial 2 look bad until others have come."""

    def step(self) -> dict[str, Any]:
        task = self.worker.task
        result = super().step()
        if task.metric in result:
            result[task.metric] = {0: 1.0, 1: 1.0, 2: 2.0}.get(task.number, 5.0 + task.number)
        return result


class Instant(Trainable):
    """Trials of one rung that take no time, in a process that takes a second to start."""

    def setup(self, config: dict[str, Any]) -> None:
        # Stands for the start of a real worker process.
        time.sleep(1)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.task = json.loads(new_config["task"])
        return True

    def step(self) -> dict[str, Any]:
        # A hundred trials have to take longer than the start of the second process.
        time.sleep(0.03)
        mark = Path(self.task["directory"]).parent / f"process-{os.getpid()}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        number = self.task["number"]
        result = {"trial_number": number, "rung": 0, "rung_time": 1, "epoch": 1}
        return {**result, self.task["metric"]: float(number), "done": True}


class Slow(GsflTrainable):
    """Is in an epoch until there is a file ``heard`` in the trial's directory, before it trains."""

    def step(self) -> dict[str, Any]:
        with activity("finetune epoch 3/8", 43, "batches") as one:
            one.done = 12
            heard = Path(self.worker.task.directory, "heard")
            wait_until(heard.exists, "the driver has heard of the epoch")
        return super().step()
