"""The link between Ray Tune and the study: hands trials out and records their results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run.epochs import seconds_of_trial
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Watcher
from gsfl_tune.search.ray_tune.placement import RESOURCES, reserved
from gsfl_tune.search.ray_tune.resources import Resources
from gsfl_tune.search.ray_tune.retry_policy import RAN_OUT, RetryPolicy, halved_notice
from gsfl_tune.search.ray_tune.worker_losses import Failure
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.study.study import Study
from gsfl_tune.search.workers.task import Task


class StudySearcher(Searcher):
    """Gives Ray configurations and receives its results; the study stores them.

    Ray's own ``OptunaSearch`` reports trials that a scheduler stopped as COMPLETE with their early
    value, and loses its state when the driver dies.

    Args:
        study: The study.
        budget: Number of trials in all, those of earlier drivers included.
        task: Makes the worker's task from a proposal of the study.
        again: Numbers of the trials to be handed out again, before new ones.
        max_failures: How often a trial is handed out again after its process crashed. The loss
            of a node is not a failure of the trial and does not count.
        watcher: Receives every change.
        closed: Returns whether no more trials may begin.
        on_trouble: Called when the machine failed a trial, which then stays RUNNING.
        costs: Learns the durations of epochs.
        resources: What trials reserve; needed where Ray runs them.
        promotable: Chooses the paused trial that continues, by the rungs of all paused ones, see
            `Asha.promotable`. Without it a trial that the scheduler stops has ended.
    """

    def __init__(
        self,
        study: Study,
        budget: int,
        task: Callable[[Asked], Task],
        *,
        again: Sequence[int] = (),
        max_failures: int = 0,
        watcher: Watcher | None = None,
        closed: Callable[[], bool] = lambda: False,
        on_trouble: Callable[[str], None] = lambda reason: None,
        costs: TrialCosts | None = None,
        resources: Resources | None = None,
        promotable: Callable[[Mapping[int, int]], int | None] | None = None,
    ) -> None:
        super().__init__()
        self._study = study
        self._budget = budget
        self._task = task
        self._again = list(again)
        self._retries = RetryPolicy(max_failures)
        self._watcher = watcher or Watcher()
        self._closed = closed
        self._on_trouble = on_trouble
        self._costs = costs
        self._resources = resources
        self._promotable = promotable
        self._tasks: dict[str, Task] = {}
        self._exhausted = False
        self._condemned: dict[str, str] = {}
        self.failures: dict[str, Failure] = {}

    @property
    def unfinished(self) -> bool:
        """Returns whether there are trials to be handed out again."""
        return bool(self._again) and not self._closed()

    def seconds_before(self, trial_id: str) -> float:
        """Returns the seconds of a trial's epochs in earlier processes."""
        return seconds_of_trial(self._tasks[trial_id].directory)

    def condemn(self, trial_id: str, reason: str) -> None:
        """Stores why a trial's process is about to be ended for good."""
        self._condemned[trial_id] = reason

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Does nothing: the study sets metric and mode."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial, first those that an earlier driver left unfinished."""
        while not self._closed():
            number = self._again.pop(0) if self._again else self._promoted()
            if number is not None:
                asked: Asked | None = self._study.again(number)
            elif self._exhausted or self._study.created() >= self._budget:
                # A running trial may get lost, so Ray must not close the search before.
                return None if self._tasks else Searcher.FINISHED
            else:
                begun = time.perf_counter()
                asked = self._study.ask()
                self._watcher.proposed(time.perf_counter() - begun)
            if asked is None:
                self._watcher.notice(
                    f"{self._study.name}: every configuration of the space has been tried "
                    f"({self._study.configurations}); no more trials begin"
                )
                self._exhausted = True
                continue
            self._watcher.started(asked.number, asked.params, again=number is not None)
            try:
                task = self._task(asked)
            except (UserError, ValueError) as error:
                # A combination that the configuration itself refuses, such as 0 epochs in all.
                self._study.fail(asked.number, _one_line(str(error)))
                self._watcher.ended(asked.number)
                continue
            self._tasks[trial_id] = task
            return {
                "task": task.model_dump_json(),
                "number": asked.number,
                "protected": asked.protected,
                **self._reserved(task),
            }
        return Searcher.FINISHED

    def _promoted(self) -> int | None:
        """Returns the paused trial that continues before a new one begins."""
        if self._promotable is None or not self._study.paused():
            return None
        return self._promotable(self._study.paused())

    def _reserved(self, task: Task) -> dict[str, Any]:
        if self._resources is None:
            return {}
        return {RESOURCES: reserved(self._resources, task.config.model.backbone)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports the rung of a trial that continues."""
        task = self._tasks[trial_id]
        self._tell_news(task.number, result)
        self._occupied(result)
        self._measure(task, result)
        k, value = result["rung"], result[task.metric]
        if "batch_halved" in result:
            self._note_half(task.number)
        self._note_replicate(task, result)
        self._note_pretraining(task, result)
        self._note_latency(task, result)
        self._study.report(task.number, k, value, others_of(result))
        self._watcher.rung(task.number, k, value)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Records how a trial ended; a trial that can be continued stays RUNNING."""
        task = self._tasks.pop(trial_id)
        number = task.number
        self._tell_news(number, result or {})
        if result and "batch_halved" in result:
            self._note_half(number)
        if result and not error:
            self._occupied(result)
            self._measure(task, result)
        if error:
            unknown = Failure("process", "the worker process died")
            failure = self.failures.pop(trial_id, unknown)
            condemned = self._condemned.pop(trial_id, None)
            if condemned is not None:
                self._study.fail(number, condemned)
            elif not self._ends_with(task, failure):
                self._again.append(number)
                return
        elif not result or "interrupted" in result:
            if result and not self._closed():
                # A process of an earlier attempt, on a lost node, has taken over the trial. Its
                # results do not arrive here.
                self._again.append(number)
            return
        elif "environment" in result:
            self._on_trouble(result["environment"])
            return
        elif "failed" in result:
            self._study.fail(number, result["failed"])
        elif result["rung"] == task.last_rung:
            self._note_replicate(task, result)
            self._watcher.rung(number, result["rung"], result[task.metric])
            latency = json.loads(result["latency"]) if "latency" in result else None
            self._study.complete(
                number,
                result[task.metric],
                result["rung"],
                latency=latency,
                others=others_of(result),
            )
        else:
            self._note_replicate(task, result)
            self._note_pretraining(task, result)
            self._note_latency(task, result)
            self._watcher.rung(number, result["rung"], result[task.metric])
            stopped = (number, result[task.metric], result["rung"], others_of(result))
            # A trial that breaks a constraint for good cannot win any more.
            if self._promotable is not None and not self._study.goals.hopeless(stopped[-1]):
                self._study.pause(*stopped)
                self._watcher.paused(number)
                return
            self._study.prune(*stopped)
        self._watcher.ended(number)

    def _ends_with(self, task: Task, failure: Failure) -> bool:
        """Returns whether a failure ends a trial, and writes that down; else it starts again."""
        if self._closed() and failure.kind != "memory":
            return False  # by a resume
        number = task.number
        retry = self._retries.decide(number, failure, pieces=task.pieces)
        if retry.halved is not None:
            # The task that it gets next is told so.
            self._note_half(number, retry.halved)
        if retry.notice is not None:
            self._watcher.notice(f"trial {number}: {retry.notice}")
        if not retry.again:
            self._study.fail(number, retry.failure.reason)
        return not retry.again

    def _tell_news(self, number: int, result: dict[str, Any]) -> None:
        if "storage" in result:
            self._watcher.notice(f"trial {number}: {result['storage']}")

    def _note_half(self, number: int, why: str = RAN_OUT) -> None:
        trial = self._study.trial(number)
        if "batch_halved" not in trial.user_attrs and not trial.state.is_finished():
            self._study.note(number, "batch_halved", True)
            self._watcher.notice(halved_notice(f"trial {number}", why))

    def _note_replicate(self, task: Task, result: dict[str, Any]) -> None:
        """Stores the numbers of one training of a trial that may have several."""
        if "replicate" in result:
            row = json.loads(result["replicate"])
            self._study.note_replicate(task.number, result["rung"], row)

    def _note_pretraining(self, task: Task, result: dict[str, Any]) -> None:
        """Stores what a pretraining was worth at a rung within it."""
        if "pretraining" in result:
            self._study.note_pretraining(task.number, *json.loads(result["pretraining"]))

    def _note_latency(self, task: Task, result: dict[str, Any]) -> None:
        """Stores how the latency was measured, as soon as it was."""
        if "latency" in result:
            self._study.note_latency(task.number, json.loads(result["latency"]))

    def _occupied(self, result: dict[str, Any]) -> None:
        self._watcher.occupied(result, float(result.get("time_this_iter_s", 0.0)))

    def _measure(self, task: Task, result: dict[str, Any]) -> None:
        if self._costs is not None:
            self._costs.observe(task.config, result)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the state is in the journal."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuses: a new searcher resumes a search from the journal.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("a search is resumed from its journal")

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles the searcher with its snapshot, which is never read.
        return {}


def others_of(result: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers that a worker reported besides the objective."""
    found: dict[str, float] = json.loads(result.get("others", "{}"))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())
