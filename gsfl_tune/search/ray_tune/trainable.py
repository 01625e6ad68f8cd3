"""The class that Ray Tune runs: a thin wrapper of `TrialWorker`."""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable

from gsfl_tune.search.ray_tune.heartbeat import Pulse
from gsfl_tune.search.ray_tune.location import place
from gsfl_tune.search.ray_tune.rank_actors import NodeRanks
from gsfl_tune.search.workers.rank_pool import spread_by
from gsfl_tune.search.workers.task import Task
from gsfl_tune.search.workers.trial_worker import TrialWorker
from gsfl_tune.search.workers.workspaces import shared
from gsfl_tune.training.gpu_memory import GpuMemory, spent


class GsflTrainable(Trainable):
    """Runs many trials after each other in one actor: torch is imported once per process.

    The trial's state lives in its own directory (see `TrialWorker`), not in Ray's
    checkpoints; an actor that Ray starts again after a crash finds it there.
    """

    worker: TrialWorker
    memory: GpuMemory
    pulse: Pulse

    def setup(self, config: dict[str, Any]) -> None:
        """Receives the first trial; `config` has its task as JSON."""
        spread_by(NodeRanks)
        self.memory = GpuMemory()
        self.pulse = Pulse()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Receives the next trial.

        Raises:
            WorkerSpent: When earlier trials left too much on the GPU. The searcher hands the
                trial out again, and Ray starts another process for it. (Returning False would not
                work: Ray would drop the trial silently.)
        """
        self.worker.close()
        left = self.memory.left_behind(shared())
        if left:
            raise spent(left)
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains to the next rung."""
        return self.worker.step() | place()

    def cleanup(self) -> None:
        """Closes the files of the last trial."""
        self.pulse.end()
        self.worker.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Refuses: Ray's checkpoints are switched off.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a trial keeps its checkpoint in its own directory")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Refuses: Ray's checkpoints are switched off.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a trial keeps its checkpoint in its own directory")

    def _take(self, config: dict[str, Any]) -> None:
        task = Task.model_validate_json(config["task"])
        self.worker = TrialWorker(task)
        self.pulse.begin(task.channel, task.name)
