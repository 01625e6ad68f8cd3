"""The ASHA scheduler in the form that Ray Tune expects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from gsfl_tune.experiment.search_config import SchedulerConfig
from gsfl_tune.search.ray_tune.searcher import StudySearcher, others_of
from gsfl_tune.search.ray_tune.worker_losses import failure
from gsfl_tune.search.samplers.history import OUTSIDE
from gsfl_tune.search.schedulers.asha import Asha
from gsfl_tune.search.schedulers.pareto_asha import ParetoAsha
from gsfl_tune.search.study.goals import Goals, knn_by_epoch, others_by_rung
from gsfl_tune.search.study.study import Study


def create_asha(
    study: Study, config: SchedulerConfig, rungs: int, learned: Sequence[int] = ()
) -> Asha | ParetoAsha | None:
    """Makes the scheduler of a study, with the rungs that its trials have recorded before.

    Args:
        study: The study.
        config: Configuration of the scheduler.
        rungs: Rungs of every trial.
        learned: Epochs of the rungs in front of them, within a pretraining.
    """
    if config.name != "asha":
        return None
    goals = study.goals
    options: dict[str, Any] = {
        "reduction": config.reduction,
        "brackets": config.brackets,
        "seed": study.seed,
        "before": len(learned),
    }
    known = []
    for trial in study.trials():
        if OUTSIDE in trial.user_attrs:
            continue  # its rungs and pretraining stay in its attributes, for a later change
        others = others_by_rung(trial)
        values = {
            k: (value, others.get(k, {}))
            for k, value in study.rungs(trial).items()
            if k >= 0 and not goals.hopeless(others.get(k, {}))
        }
        # By their epochs: a changed space may have numbered the rungs anew.
        for epoch, accuracy in knn_by_epoch(trial).items():
            if epoch in learned:
                k = learned.index(epoch) - len(learned)
                values[k] = (goals.of_accuracy(accuracy), {})
        known.append((trial.number, values))
    if goals.at_rungs:
        pareto = ParetoAsha(rungs, **options)
        pareto.rebuild(
            (n, {k: goals.costs_at(k, *each) for k, each in row.items()}) for n, row in known
        )
        return pareto
    asha = Asha(rungs, direction=study.direction, **options)
    asha.rebuild((n, {k: value for k, (value, _) in row.items()}) for n, row in known)
    return asha


class AshaScheduler(FIFOScheduler):
    """Asks `Asha` at every rung, and passes the reason of a failure to the searcher.

    A trial that breaks a constraint which training does not change stops at once, and no other
    trial is compared with it: it cannot win.

    Args:
        asha: Makes the decision; None lets every trial complete.
        searcher: Receives the reason of a crash, which Ray does not pass to searchers.
        goals: Objectives and constraints.
        first_end: Rung at which the first training of a trial ends. Protection ends there: a
            further training is for a trial that deserves it. Default: trials have one training.
    """

    def __init__(
        self,
        asha: Asha | ParetoAsha | None,
        searcher: StudySearcher,
        goals: Goals,
        first_end: float = math.inf,
    ) -> None:
        super().__init__()
        self._asha = asha
        self._searcher = searcher
        self._goals = goals
        self._first_end = first_end

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stops a trial or lets it continue."""
        if self._asha is None or "rung" not in result:
            return str(TrialScheduler.CONTINUE)
        number, k, value = trial.config["number"], result["rung"], result[self._goals.metric]
        protected = trial.config["protected"] and k < self._first_end
        others = others_of(result)
        if self._goals.hopeless(others):
            stop = not protected
        elif isinstance(self._asha, ParetoAsha):
            costs = self._goals.costs_at(k, value, others)
            stop = self._asha.record(number, k, costs, protected=protected)
        else:
            stop = self._asha.record(number, k, value, protected=protected)
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
