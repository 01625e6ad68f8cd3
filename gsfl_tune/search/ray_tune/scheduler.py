"""The ASHA scheduler in the form that Ray Tune expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from gsfl_tune.search.ray_tune.searcher import StudySearcher
from gsfl_tune.search.ray_tune.worker_losses import failure
from gsfl_tune.search.schedulers.asha import Asha


class AshaScheduler(FIFOScheduler):
    """Asks `Asha` at every rung, and passes the reason of a failure to the searcher.

    Args:
        asha: Makes the decision; None lets every trial complete.
        searcher: Receives the reason of a crash, which Ray does not pass to searchers.
        metric: The objective.
    """

    def __init__(self, asha: Asha | None, searcher: StudySearcher, metric: str) -> None:
        super().__init__()
        self._asha = asha
        self._searcher = searcher
        self._objective = metric

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stops a trial or lets it continue."""
        if self._asha is None or "rung" not in result:
            return str(TrialScheduler.CONTINUE)
        stop = self._asha.record(
            trial.config["number"],
            result["rung"],
            result[self._objective],
            protected=trial.config["protected"],
        )
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Records the last rung too; an existing record of a rung is not changed."""
        self.on_trial_result(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Passes on the reason; called at every failure, before the searcher's own callback."""
        # Ray's own reader looks in the place where the file is copied only later.
        path = Path(trial.error_file or "")
        text = path.read_text(errors="replace") if path.is_file() else ""
        self._searcher.failures[trial.trial_id] = failure(text)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Returns the oldest pending trial, from live trials only: a search may have thousands."""
        live = tune_controller.get_live_trials()
        pending = [trial for trial in live if trial.status == "PENDING"]
        return min(pending, key=lambda trial: trial.config["number"], default=None)

    def __getstate__(self) -> dict[str, Any]:
        return {}
