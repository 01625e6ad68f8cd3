from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gsfl_tune.cluster import Slots
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.models import create_backbone
from gsfl_tune.run import EpochLog, RunDirectory
from gsfl_tune.search import Interrupt, Job, Watcher, load_result
from gsfl_tune.training import load_predictions
from tests.search.experiments import experiment, retrained


def _job(run: RunDirectory, name: str, **options: Any) -> Job:
    config = experiment("model.head=plain", "training.head.epochs=3").defaults()
    known = {"name": name, "config": config, "directory": run.finals / name, "seed": 1}
    return Job(**{**known, **options})


def _weights(file: Path) -> Config:
    config = experiment("model.head=plain").defaults()
    model = config.model.model_copy(update={"weights": str(file)})
    return config.model_copy(update={"model": model})


def test_jobs_side_by_side(
    ray_of_tests: None, run: RunDirectory, two_slots: Slots, cache_dir: Path
) -> None:
    other = run.path / "other.pt"
    other.parent.mkdir(parents=True)
    torch.save({"stem.weight": torch.zeros(3)}, other)
    jobs = [
        _job(run, "seed-1"),
        _job(run, "seed-2", seed=2),
        _job(run, "whole", fit="train+validation", test=True),
        _job(run, "broken", config=_weights(other)),
    ]
    ended: list[str] = []

    class Listener(Watcher):
        def job_ended(self, name: str, result: Any) -> None:
            ended.append(name)

    options: dict[str, Any] = {"resources": two_slots, "cache_dir": cache_dir}
    outcome = retrained(jobs, run, watchers=[Listener()], **options)
    assert not outcome.interrupted
    first, second, whole, broken = outcome.results
    assert first is not None
    assert second is not None
    assert whole is not None
    assert broken is not None
    assert sorted(ended) == ["broken", "seed-1", "seed-2", "whole"]
    # What a result says is what the epochs say.
    last = EpochLog(jobs[0].directory / "epochs.jsonl").read()[-1]
    assert first["validation"]["accuracy"] == last["validation/accuracy"]
    assert first["epochs"] == 3
    assert first["validation"] != second["validation"]
    assert "validation" not in whole
    predictions = load_predictions(jobs[2].directory / "test.npz")
    assert predictions.logits.dtype == "float32"
    assert len(predictions.logits) == len(predictions.labels) == len(predictions.paths)
    assert predictions.metrics() == pytest.approx(whole["test"])
    assert "other.pt does not fit" in broken["failed"]
    # A mistake of the user's can be mended: nothing is written that would keep it.
    assert load_result(jobs[3]) is None
    # Written once: a second call reads.
    times = {job.name: (job.directory / "result.json").stat().st_mtime_ns for job in jobs[:3]}
    again = retrained(jobs[:3], run, **options)
    assert again.results == outcome.results[:3]
    for job in jobs[:3]:
        assert (job.directory / "result.json").stat().st_mtime_ns == times[job.name]


def test_interrupted_jobs_go_on_where_they_were(
    ray_of_tests: None, run: RunDirectory, two_slots: Slots, cache_dir: Path
) -> None:
    long = experiment("model.head=plain", "training.head.epochs=600").defaults()
    job = _job(run, "long", config=long)

    class Stopper(Watcher):
        def tick(self) -> None:
            # Asked a second time, jobs are ended without being saved.
            begun = len(EpochLog(job.directory / "epochs.jsonl").read()) > 5
            if begun and not interrupt.requested:
                interrupt.request()

    interrupt = Interrupt(run)
    options: dict[str, Any] = {"resources": two_slots, "cache_dir": cache_dir}
    outcome = retrained([job], run, interrupt=interrupt, watchers=[Stopper()], **options)
    assert outcome.interrupted
    assert outcome.results == [None]
    interrupt.clear()
    done = len(EpochLog(job.directory / "epochs.jsonl").read())
    assert 5 < done < 600
    before = EpochLog(job.directory / "epochs.jsonl").read()
    result = retrained([job], run, **options).results[0]
    assert result is not None
    assert result["epochs"] == 600
    assert EpochLog(job.directory / "epochs.jsonl").read()[:done] == before


def test_a_machine_that_fails_stops_the_jobs_which_then_go_on(
    ray_of_tests: None, run: RunDirectory, one_slot: Slots, cache_dir: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "gone.pt"
    jobs = [
        _job(run, "first"),
        # The file was there when the search began.
        _job(run, "second", config=_weights(weights)),
        _job(run, "third"),
    ]
    options: dict[str, Any] = {"resources": one_slot, "cache_dir": cache_dir}
    with pytest.raises(EnvironmentProblem, match=r"gone\.pt"):
        retrained(jobs, run, **options)
    assert [load_result(job) is not None for job in jobs] == [True, False, False]
    model = create_backbone("resnet10t", "none").model
    torch.save(model.state_dict(), weights)
    outcome = retrained(jobs, run, **options)
    assert not outcome.interrupted
    assert all(result and "validation" in result for result in outcome.results)
