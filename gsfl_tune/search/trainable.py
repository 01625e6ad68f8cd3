"""The class that Ray Tune runs: a shell around `TrialWorker`."""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable

from gsfl_tune.search.worker import Task, TrialWorker


class GsflTrainable(Trainable):
    """One actor, many trials after each other: torch is imported once a process.

    The trial's state lives in its own directory (see `TrialWorker`), not in Ray's
    checkpoints; an actor that Ray starts again after a crash finds it there.
    """

    worker: TrialWorker

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the first trial; `config` has its task as JSON."""
        self.worker = TrialWorker(Task.model_validate_json(config["task"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self.worker.close()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains to the next rung."""
        return self.worker.step()

    def cleanup(self) -> None:
        """Closes the files of the last trial."""
        self.worker.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray's checkpoints are switched off.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a trial keeps its checkpoint in its own directory")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Ray's checkpoints are switched off.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a trial keeps its checkpoint in its own directory")
