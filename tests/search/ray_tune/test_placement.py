"""Trials of a large backbone reserve more than the others (``search.resources.per_backbone``)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.tune import PlacementGroupFactory

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.config import Config
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import Interrupt, Job, Watcher
from gsfl_tune.search.ray_tune import rehearsal
from gsfl_tune.search.ray_tune.placement import RESOURCES, placement_group_of, reserved
from gsfl_tune.search.ray_tune.rehearsal import largest_of_each_kind
from gsfl_tune.search.ray_tune.trainable import GsflTrainable
from tests.search.experiments import experiment, retrained, searched

SMALL, LARGE = "resnet10t", "resnet14t"
BOTH = (f"model.backbone={{choice: [{SMALL}, {LARGE}]}}", "model.head=plain")
SLOTS = Slots(cpu=1, gpu=0, count=2, per_backbone={LARGE: Slots(cpu=2, gpu=0, count=1, workers=2)})


class Watched(GsflTrainable):
    """Notes when each trial ran, and with what."""

    def step(self) -> dict[str, Any]:
        begun = time.time()
        result = super().step()
        task = self.worker.task
        row = {
            "backbone": task.config.model.backbone,
            "reserved": ray.get_runtime_context().get_assigned_resources()["CPU"],
            "threads": torch.get_num_threads(),
            "workers": task.workers,
            "process": os.getpid(),
            "begun": begun,
            "ended": time.time(),
        }
        with Path(task.directory).with_suffix(".watched").open("a") as file:
            file.write(json.dumps(row) + "\n")
        return result


def _rows(run: RunDirectory) -> list[dict[str, Any]]:
    files = sorted(run.trials("search").glob("*.watched"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_large_trials_run_alone_and_small_ones_side_by_side(
    ray_of_tests: None, run: RunDirectory, cache_dir: Path
) -> None:
    tried = experiment(*BOTH, "search.trials=6", "search.sampler.name=random")
    outcome = searched(
        tried, run, resources=SLOTS, cache_dir=cache_dir, trainable=Watched, feature_dim=512
    )
    counts = outcome.study.counts()
    assert counts["COMPLETE"] + counts["PRUNED"] == 6
    rows = _rows(run)
    kinds = {(r["backbone"], r["reserved"], r["threads"], r["workers"]) for r in rows}
    assert kinds == {(SMALL, 1.0, 1, 1), (LARGE, 2.0, 1, 2)}
    # Processes are used again, but never for a trial that reserves something else.
    assert len({(r["process"], r["backbone"]) for r in rows}) == len({r["process"] for r in rows})
    for large in (r for r in rows if r["backbone"] == LARGE):
        for other in (r for r in rows if r is not large):
            assert other["ended"] <= large["begun"] or large["ended"] <= other["begun"]


def _job(run: RunDirectory, name: str, backbone: str) -> Job:
    config: Config = experiment("model.head=plain", f"model.backbone={backbone}").defaults()
    return Job(name=name, config=config, directory=run.finals / name, seed=1)


@pytest.mark.slow
def test_a_retrain_waits_for_the_room_that_its_backbone_asks_for(
    ray_of_tests: None, run: RunDirectory, cache_dir: Path
) -> None:
    interrupt = Interrupt(run)

    class AfterTheSmallOne(Watcher):
        def job_ended(self, name: str, result: Any) -> None:
            interrupt.request()
            interrupt.request()

    too_large = Slots(cpu=1, gpu=0, count=2, per_backbone={LARGE: Slots(cpu=3, gpu=0, count=1)})
    jobs = [_job(run, "large", LARGE), _job(run, "small", SMALL)]
    outcome = retrained(
        jobs,
        run,
        resources=too_large,
        cache_dir=cache_dir,
        interrupt=interrupt,
        watchers=[AfterTheSmallOne()],
    )
    large, small = outcome.results
    assert outcome.interrupted
    assert small is not None
    assert "validation" in small
    assert large is None
    assert not jobs[0].directory.exists()


def test_the_largest_model_of_each_kind_of_slot_is_rehearsed() -> None:
    names = f"model.backbone={{choice: [{SMALL}, {LARGE}, resnet18, mobilenetv2_035]}}"
    tried = experiment(*BOTH, names, "training.finetune.epochs=1")
    # Alone the largest of all, resnet18, would be tried, in the slot of most trials.
    found = [(c.model.backbone, own) for c, own in largest_of_each_kind(tried, SLOTS)]
    assert found == [("resnet18", SLOTS), (LARGE, SLOTS.per_backbone[LARGE])]
    alone = [c.model.backbone for c, _ in largest_of_each_kind(tried, Slots(1, 0, 2))]
    assert alone == ["resnet18"]


@pytest.mark.slow
def test_each_kind_takes_a_step_in_its_own_slot(
    ray_of_tests: None, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, Any]] = []

    def noted(config: Config, own: Any, *rest: Any) -> Any:
        taken.append((config.model.backbone, own))
        return step(config, own, *rest)

    step = rehearsal._rehearse_in_a_slot
    monkeypatch.setattr(rehearsal, "_rehearse_in_a_slot", noted)
    finetunes = ("training.finetune.epochs=1", "training.finetune.batch_size=8")
    rehearsal.rehearse_largest(experiment(*BOTH, *finetunes), resources=SLOTS, cache_dir=cache_dir)
    assert taken == [(SMALL, SLOTS), (LARGE, SLOTS.per_backbone[LARGE])]


def test_what_a_trial_reserves_is_in_its_configuration() -> None:
    assert reserved(SLOTS, LARGE) == {"cpu": 2, "gpu": 0}
    assert reserved(SLOTS, SMALL) == reserved(SLOTS, "another") == {"cpu": 1, "gpu": 0}
    group = placement_group_of({RESOURCES: {"cpu": 4, "gpu": 1}, "task": "{}"})
    assert group == PlacementGroupFactory([{"CPU": 4.0, "GPU": 1.0}])


def test_processes_that_divide_parameters_have_a_place_each() -> None:
    shared = Slots(cpu=8, gpu=4, count=1, workers=4, shard=True)
    own = reserved(shared, SMALL)
    assert own == {"cpu": 8, "gpu": 4, "ranks": 4}
    group = placement_group_of({RESOURCES: own, "task": "{}"})
    assert group == PlacementGroupFactory([{"CPU": 2.0, "GPU": 1.0}] * 4, strategy="PACK")
