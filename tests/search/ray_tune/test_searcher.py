from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Study, Watcher, open_study
from gsfl_tune.search.ray_tune.searcher import StudySearcher
from gsfl_tune.search.ray_tune.worker_losses import Failure
from gsfl_tune.search.study.handed_out import Asked
from gsfl_tune.search.workers.task import Task
from tests.search.experiments import experiment

NODE = Failure("node", "its node was lost")
PROCESS = Failure("process", "the worker process died")


class Notices(Watcher):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


class Setup:
    def __init__(self, run: RunDirectory, budget: int) -> None:
        tried = experiment("search.sampler.name=random")
        self.study: Study = open_study(tried, run)
        self.notices = Notices()
        self.closed = False
        self.count = 0

        def task(asked: Asked) -> Task:
            return Task(
                number=asked.number,
                config=tried.configure(asked.params),
                directory=run.trial("search", asked.number),
                interrupt=run.interrupt_file,
                metric=self.study.metric,
                rungs=[1, 3, 4],
                reported=len(asked.rungs),
            )

        self.searcher = StudySearcher(
            self.study,
            budget,
            task,
            max_failures=2,
            watcher=self.notices,
            closed=lambda: self.closed,
        )

    def suggest(self) -> Any:
        self.count += 1
        return self.searcher.suggest(f"ray-{self.count}")

    def lose(self, failure: Failure) -> None:
        """The trial that was handed out last fails."""
        self.searcher.failures[f"ray-{self.count}"] = failure
        self.searcher.on_trial_complete(f"ray-{self.count}", error=True)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(RunDirectory(tmp_path / "run"), budget=2)


def test_a_trial_may_lose_many_nodes_and_crash_a_few_times(setup: Setup) -> None:
    first = setup.suggest()
    setup.searcher.on_trial_result("ray-1", {"rung": 0, "validation/nll": 1.0})
    for failure in [NODE] * 20 + [PROCESS, NODE, PROCESS]:
        setup.lose(failure)
        again = setup.suggest()
        assert again["number"] == first["number"] == 0
        # It is told what the study knows already.
        assert Task.model_validate_json(again["task"]).reported == 1
    assert setup.study.counts()["FAIL"] == 0
    assert "2 of at most 2 times" in setup.notices.texts[-1]
    setup.lose(PROCESS)
    assert setup.study.trial(0).state.name == "FAIL"
    assert setup.study.trial(0).user_attrs["reason"] == PROCESS.reason
    assert setup.suggest()["number"] == 1


def test_a_process_that_dies_twice_without_a_word_trains_in_halves(setup: Setup) -> None:
    for failure, halved in ((NODE, False), (PROCESS, False), (NODE, False), (PROCESS, True)):
        setup.suggest()
        setup.lose(failure)
        assert ("batch_halved" in setup.study.trial(0).user_attrs) == halved
    assert any("perhaps for lack of memory" in text for text in setup.notices.texts)


def test_the_last_trials_are_handed_out_again_while_others_run(setup: Setup) -> None:
    setup.suggest()
    assert setup.suggest()["number"] == 1
    lost = setup.count
    # The budget is used, but what runs may be lost: Ray is to ask again.
    assert setup.suggest() is None
    setup.searcher.failures[f"ray-{lost}"] = NODE
    setup.searcher.on_trial_complete(f"ray-{lost}", error=True)
    assert setup.suggest()["number"] == 1
    done = {"rung": 2, "validation/nll": 1.0}
    setup.searcher.on_trial_complete("ray-1", done)
    assert setup.suggest() is None
    setup.searcher.on_trial_complete(f"ray-{setup.count - 1}", done)
    assert setup.suggest() == Searcher.FINISHED


def test_what_is_lost_while_a_run_ends_is_left_to_the_resume(setup: Setup) -> None:
    setup.suggest()
    setup.closed = True
    setup.lose(PROCESS)
    assert setup.study.running() == [0]
    assert setup.suggest() == Searcher.FINISHED
    assert not setup.searcher.unfinished


def test_a_trial_that_an_unheard_process_took_over_is_handed_out_again(setup: Setup) -> None:
    setup.suggest()
    setup.searcher.on_trial_complete(
        "ray-1", {"trial_number": 0, "interrupted": True, "done": True}
    )
    assert setup.suggest()["number"] == 0
    # While the run ends, that is how trials answer.
    setup.closed = True
    setup.searcher.on_trial_complete(
        "ray-2", {"trial_number": 0, "interrupted": True, "done": True}
    )
    assert setup.suggest() == Searcher.FINISHED


def test_how_a_latency_was_measured_is_kept_of_stopped_trials_too(setup: Setup) -> None:
    setup.suggest()
    measured = {"latency_ms": 1907.0, "reliable": False}
    first = {"rung": 0, "validation/nll": 1.0, "latency": json.dumps(measured)}
    setup.searcher.on_trial_result("ray-1", first)
    assert setup.study.trial(0).user_attrs["latency"] == measured
    setup.suggest()
    setup.searcher.on_trial_complete("ray-2", first)
    assert setup.study.trial(1).state.name == "PRUNED"
    assert setup.study.trial(1).user_attrs["latency"] == measured
